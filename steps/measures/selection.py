"""Figures of late labels, weighted by how completely each score bin is labelled.

Labels arrive for a selection of people, more often for people whom the model flagged. Figures of the labelled
rows alone then describe the selection. With each label weighted by the inverse of the labelled share of its
score bin (Horvitz and Thompson, JASA 47, 1952; for partly verified tests: Begg and Greenes, Biometrics 39,
1983) they describe all people. **This is right only if, within a score bin, labelling depends on the risk
alone.** The counts cannot show whether that holds.

Every function takes counts by score bin, ascending, of shape (..., B) and is vectorised over leading axes:
`rows` n that were scored, `labels` L of them that have an outcome, `positives` k of these. In bin b

    P_b = n_b k_b / L_b    and    N_b = n_b - P_b    (both 0 where L_b = 0)

are the weighted positives and negatives. Figures are those of P and N; rows in one bin are ties.

**Standard errors.** A figure f of P and N has the influence a_b of one positive and c_b of one negative in
bin b (the derivatives of f). Labels are drawn among the bin's rows and the rows from the population, so

    variance = sum_b n_b^2 q_b (1 - q_b) (a_b - c_b)^2 / L_b   +   sum_b n_b (q_b a_b + (1 - q_b) c_b)^2

with q_b = P_b / n_b; the first term's q (1 - q) is that of (k + 1/2) / (L + 1), so that bins with few labels
never look certain. With every row labelled this is the usual variance of f.

* ROC AUC A: a_b = (F_b - A) / P and c_b = (G_b - A) / N, with F_b the share of negatives in lower bins and
  half of those in bin b, and G_b the share of positives in higher bins and half of those in bin b.
* Recall R: a_b = ([b >= t] - R) / P and c_b = 0.
* Precision V of F flagged rows: a_b = [b >= t] (1 - V) / F and c_b = - [b >= t] V / F.
* Observed positives over the sum of risks E, with r_b the mean risk of bin b: a_b = (1 - O/E r_b) / E and
  c_b = - O/E r_b / E.

Figures leave out a populated bin without labels: see `blind_bins`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steps.measures import evidence
from steps.measures.evidence import Array, Estimate

# A bin with fewer rows than this may have no labels: its part in any figure is small.
POPULATED_ROWS = 10
# Fewest effective positives, and negatives, for a figure that an alarm or a verdict may rest on.
FEWEST_EFFECTIVE = 50


class Weighted(NamedTuple):
    """Positives and negatives by bin, each (..., B), as if every row were labelled."""

    positives: Array
    negatives: Array


class Effective(NamedTuple):
    """Positives and negatives of a plain sample with the same precision, (...) each."""

    positives: Array
    negatives: Array


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> Array:
    """Quotient, 0 where the denominator is 0."""
    top, bottom = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    quotient: Array = np.divide(top, bottom, out=np.zeros(top.shape), where=bottom != 0)
    return quotient


def weights(rows: ArrayLike, labels: ArrayLike) -> Array:
    """Weight of a label by bin, n / L: the inverse of the bin's labelled share; 0 without labels."""
    return _ratio(rows, labels)


def weighted(rows: ArrayLike, labels: ArrayLike, positives: ArrayLike) -> Weighted:
    """Positives and negatives by bin, as if every row of a labelled bin were labelled."""
    weight, k = weights(rows, labels), np.asarray(positives, dtype=np.float64)
    return Weighted(weight * k, weight * (np.asarray(labels, dtype=np.float64) - k))


def blind_bins(rows: ArrayLike, labels: ArrayLike) -> NDArray[np.bool_]:
    """Populated bins without a label, (..., B): with any of them, figures of all people are unknown."""
    blind: NDArray[np.bool_] = (np.asarray(rows) >= POPULATED_ROWS) & (np.asarray(labels) == 0)
    return blind


def effective(rows: ArrayLike, labels: ArrayLike, positives: ArrayLike) -> Effective:
    """Effective positives and negatives, (sum w)^2 / sum w^2 over the labels of each (Kish 1965)."""
    weight, k = weights(rows, labels), np.asarray(positives, dtype=np.float64)

    def size(counts: Array) -> Array:
        return _ratio((weight * counts).sum(-1) ** 2, (weight**2 * counts).sum(-1))

    return Effective(size(k), size(np.asarray(labels, dtype=np.float64) - k))


def _stderr(rows: ArrayLike, labels: ArrayLike, positives: ArrayLike, a: Array, c: Array) -> Array:
    """Standard error of a figure from the influences of a positive and of a negative, (..., B) -> (...)."""
    n, label_counts, k = (np.asarray(counts, dtype=np.float64) for counts in (rows, labels, positives))
    smooth = (k + 0.5) / (label_counts + 1)
    rate = _ratio(k, label_counts)
    by_labels = _ratio(n**2 * smooth * (1 - smooth) * (a - c) ** 2, label_counts)
    by_rows = np.where(label_counts > 0, n * (rate * a + (1 - rate) * c) ** 2, 0.0)
    return np.asarray(np.sqrt((by_labels + by_rows).sum(-1)), dtype=np.float64)


def roc_auc(rows: ArrayLike, labels: ArrayLike, positives: ArrayLike) -> Estimate:
    """ROC AUC of all people by bins; NaN without positives or without negatives."""
    pos, neg = weighted(rows, labels, positives)
    auc = evidence.roc_auc(pos, neg)
    all_positives, all_negatives = pos.sum(-1, keepdims=True), neg.sum(-1, keepdims=True)
    below = _ratio(np.cumsum(neg, axis=-1) - neg / 2, all_negatives)
    above = _ratio(all_positives - np.cumsum(pos, axis=-1) + pos / 2, all_positives)
    a = _ratio(below - auc[..., None], all_positives)
    c = _ratio(above - auc[..., None], all_negatives)
    return Estimate(auc, _stderr(rows, labels, positives, a, c))


def recall(rows: ArrayLike, labels: ArrayLike, positives: ArrayLike, threshold_bin: int) -> Estimate:
    """Share of all positives in bins from `threshold_bin` on; NaN without positives."""
    pos, _ = weighted(rows, labels, positives)
    flagged = np.arange(pos.shape[-1]) >= threshold_bin
    total = pos.sum(-1)
    value = _nan_ratio((pos * flagged).sum(-1), total)
    a = _ratio(flagged - value[..., None], total[..., None])
    return Estimate(value, _stderr(rows, labels, positives, a, np.zeros_like(a)))


def precision(rows: ArrayLike, labels: ArrayLike, positives: ArrayLike, threshold_bin: int) -> Estimate:
    """Share of positives among rows in bins from `threshold_bin` on; NaN without such rows."""
    pos, neg = weighted(rows, labels, positives)
    flagged = (np.arange(pos.shape[-1]) >= threshold_bin).astype(np.float64)
    total = ((pos + neg) * flagged).sum(-1)
    value = _nan_ratio((pos * flagged).sum(-1), total)
    a = _ratio(flagged * (1 - value[..., None]), total[..., None])
    c = _ratio(-flagged * value[..., None], total[..., None])
    return Estimate(value, _stderr(rows, labels, positives, a, c))


def observed_expected(
    rows: ArrayLike, labels: ArrayLike, positives: ArrayLike, risk_sums: ArrayLike
) -> Estimate:
    """Weighted positives over the sum of the risks of all rows in labelled bins; NaN without labels."""
    is_labelled = np.asarray(labels, dtype=np.float64) > 0
    sums = np.where(is_labelled, np.asarray(risk_sums, dtype=np.float64), 0.0)
    pos, _ = weighted(rows, labels, positives)
    expected = sums.sum(-1)
    value = _nan_ratio(pos.sum(-1), expected)
    mean_risk = _ratio(sums, rows)
    c = _ratio(-value[..., None] * mean_risk, expected[..., None])
    a = c + _ratio(1.0, expected[..., None])
    return Estimate(value, _stderr(rows, labels, positives, a, c))


def _nan_ratio(numerator: Array, denominator: Array) -> Array:
    """Quotient, NaN where the denominator is 0."""
    return np.asarray(np.where(denominator != 0, _ratio(numerator, denominator), np.nan), dtype=np.float64)
