"""Metrics of a risk of a binary outcome, for one sample or for many bootstrap replicates of it at once.

Weights (replicates, rows) count how often each row was drawn. A plain value is the case of one replicate in
which every weight is 1, so a metric and its interval come from the same line of code. numpy only.

`y` is an array (rows,) of 0 and 1, `risk` an array (rows,) of probabilities of 1; ranking metrics take any
score, ties included. An undefined metric, for example ROC AUC with one class only, is NaN.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steps.measures.logistic import sigmoid

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

LEVEL = 0.95
REPLICATES = 1000
CLIP = 1e-6  # risks are moved this far from 0 and 1 before a logarithm
_BLOCK = 8  # replicates at once: a block of 50,000 rows stays near the processor's cache


@dataclass(frozen=True)
class Ranking:
    """Rows in ascending order of a score, with equal scores in one group.

    `order` (rows,) and `starts` (groups,) give the groups; `scores` (groups,) their scores. Only some
    groups hold positives, and most sums need only those: `positive_order` and `positive_starts` list the
    positives alone in the same way, `holders` (positive groups,) are the indices of their groups.
    """

    order: Indices
    starts: Indices
    scores: Floats
    positive_order: Indices
    positive_starts: Indices
    holders: Indices


@dataclass(frozen=True)
class Counts:
    """Weighted rows of each replicate along a ranking.

    `below` (replicates, groups + 1): rows in the groups before each, the last being all rows. `positives`
    (replicates, positive groups): positives in each group that holds any.
    """

    ranking: Ranking
    below: Floats
    positives: Floats


def rank(y: ArrayLike, score: ArrayLike, members: Indices | None = None) -> Ranking:
    """Rank the rows by score; with `members` (indices of rows) only these rows."""
    labels, scores = np.asarray(y), np.asarray(score, dtype=np.float64)
    rows = np.arange(len(scores)) if members is None else members
    order = rows[np.argsort(scores[rows], kind="stable")]
    first = np.diff(scores[order], prepend=-np.inf) > 0
    positive = labels[order] == 1
    group = np.cumsum(first) - 1
    holders, positive_starts = np.unique(group[positive], return_index=True)
    starts = np.flatnonzero(first)
    return Ranking(order, starts, scores[order][starts], order[positive], positive_starts, holders)


def count(ranking: Ranking, weights: Floats) -> Counts:
    """Weighted counts along the ranking; `weights` (replicates, rows)."""
    drawn = _group_sums(weights, ranking.order, ranking.starts)
    below = np.zeros((len(weights), drawn.shape[1] + 1))
    np.cumsum(drawn, axis=1, out=below[:, 1:])
    return Counts(ranking, below, _group_sums(weights, ranking.positive_order, ranking.positive_starts))


def _group_sums(weights: Floats, order: Indices, starts: Indices) -> Floats:
    sums: Floats = np.take(weights, order, axis=1)
    if len(starts) < len(order):
        sums = np.add.reduceat(sums, starts, axis=1)
    return sums


def bootstrap_weights(rows: int, replicates: int, seed: int) -> Iterator[Floats]:
    """Multinomial bootstrap: blocks (up to 8, rows) of weights; each replicate draws `rows` rows."""
    generator = np.random.default_rng(seed)
    for start in range(0, replicates, _BLOCK):
        size = min(_BLOCK, replicates - start)
        draws = generator.integers(rows, size=(size, rows))
        draws += np.arange(size)[:, None] * rows
        yield np.bincount(draws.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)


def interval(samples: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of bootstrap replicates; undefined replicates are left out."""
    values = np.asarray(samples, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson_interval(successes: float, trials: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion (Wilson 1927, JASA 22:209)."""
    if trials <= 0:
        return float("nan"), float("nan")
    z, share = 1.959963984540054, successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half_width = (
        z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    )
    return float(max(0.0, min(share, centre - half_width))), float(min(1.0, max(share, centre + half_width)))


def ratio(numerator: Any, denominator: Any) -> Floats:
    """Quotient, NaN where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    quotient: Floats = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)
    return quotient


def roc_auc_of_counts(counts: Counts) -> Floats:
    """ROC AUC (replicates,): share of positive-negative pairs in the right order, ties counting half."""
    positives, holders = counts.positives, counts.ranking.holders
    up_to = np.cumsum(positives, axis=1)
    before, after = counts.below[:, holders], counts.below[:, holders + 1]
    negatives_below = (before + after + positives) / 2 - up_to
    right = np.einsum("ij,ij->i", positives, negatives_below)
    total = positives.sum(axis=1)
    return ratio(right, total * (counts.below[:, -1] - total))


def average_precision_of_counts(counts: Counts) -> Floats:
    """Average precision (replicates,): precision at each distinct score, weighted by recall gained there."""
    hits, flagged = _hits_and_flagged(counts)
    precision = np.divide(hits, flagged, out=np.zeros_like(hits), where=flagged > 0)
    return ratio(np.einsum("ij,ij->i", counts.positives, precision), counts.positives.sum(axis=1))


def _hits_and_flagged(counts: Counts) -> tuple[Floats, Floats]:
    """Positives and rows at or above each group that holds a positive, (replicates, positive groups)."""
    hits = np.cumsum(counts.positives[:, ::-1], axis=1)[:, ::-1]
    return hits, counts.below[:, -1:] - counts.below[:, counts.ranking.holders]


def _ones(rows: int) -> Floats:
    return np.ones((1, rows))


def roc_auc(y: ArrayLike, score: ArrayLike) -> float:
    """Area under the ROC curve; NaN with one class only."""
    ranking = rank(y, score)
    return float(roc_auc_of_counts(count(ranking, _ones(len(ranking.order))))[0])


def average_precision(y: ArrayLike, score: ArrayLike) -> float:
    """Average precision, the step-wise area under the precision-recall curve; NaN without positives."""
    ranking = rank(y, score)
    return float(average_precision_of_counts(count(ranking, _ones(len(ranking.order))))[0])


def squared_errors(y: ArrayLike, risk: ArrayLike) -> Floats:
    """Each row's squared error; their mean is the Brier score."""
    errors: Floats = (np.asarray(risk, dtype=np.float64) - np.asarray(y, dtype=np.float64)) ** 2
    return errors


def log_losses(y: ArrayLike, risk: ArrayLike) -> Floats:
    """Each row's negative log likelihood in nats, risks clipped to [1e-6, 1 - 1e-6]."""
    labels, probability = np.asarray(y), np.clip(np.asarray(risk, dtype=np.float64), CLIP, 1 - CLIP)
    losses: Floats = -np.log(np.where(labels == 1, probability, 1 - probability))
    return losses


def brier(y: ArrayLike, risk: ArrayLike) -> float:
    """Brier score: mean squared error of the risk."""
    return float(squared_errors(y, risk).mean())


def log_loss(y: ArrayLike, risk: ArrayLike) -> float:
    """Mean negative log likelihood in nats."""
    return float(log_losses(y, risk).mean())


def observed_expected(y: ArrayLike, risk: ArrayLike) -> float:
    """Number of positives over the sum of the risks: below 1 the risks are too high on the whole."""
    return float(ratio(np.sum(np.asarray(y, float)), np.sum(np.asarray(risk, float))))


def logit(risk: ArrayLike) -> Floats:
    """Log odds of the clipped risk."""
    probability = np.clip(np.asarray(risk, dtype=np.float64), CLIP, 1 - CLIP)
    odds: Floats = np.log(probability / (1 - probability))
    return odds


@dataclass(frozen=True)
class Calibration:
    """Logistic recalibration of a risk (Cox 1958; Van Calster et al. 2019, BMC Medicine 17:230).

    `slope` is b of logit P(y = 1) = a + b logit(risk): below 1 the risks are too extreme. `intercept` is the
    calibration-in-the-large: a of the same model with b fixed at 1, above 0 when the risks are too low.
    `terms` (rows, 7) are each row's share of the score and the information at the estimate.
    """

    slope: float
    intercept: float
    terms: Floats

    @property
    def slope_error(self) -> float:
        """Standard error of the slope, valid for wrong risks too (sandwich estimator)."""
        u0, u1 = self.terms[:, 0], self.terms[:, 1]
        h00, h01, h11 = self.terms[:, 2].sum(), self.terms[:, 3].sum(), self.terms[:, 4].sum()
        influence = ratio(h00 * u1 - h01 * u0, h00 * h11 - h01 * h01)
        return float(np.sqrt(np.sum(influence**2)))

    @property
    def intercept_error(self) -> float:
        """Standard error of the calibration-in-the-large, also by the sandwich estimator."""
        return float(np.sqrt(np.sum(self.terms[:, 5] ** 2)) / self.terms[:, 6].sum())


def calibration(y: ArrayLike, risk: ArrayLike) -> Calibration:
    """Calibration slope and intercept by maximum likelihood; NaN where undefined (one class, one risk)."""
    labels, odds = np.asarray(y, dtype=np.float64), logit(risk)
    offset, intercept, slope = 0.0, 0.0, 1.0
    for _ in range(50):
        p = sigmoid(intercept + slope * odds)
        q = sigmoid(offset + odds)
        w, error = p * (1 - p), labels - p
        h00, h01, h11 = w.sum(), (w * odds).sum(), (w * odds * odds).sum()
        u0, u1 = error.sum(), (error * odds).sum()
        determinant, information = h00 * h11 - h01 * h01, (q * (1 - q)).sum()
        if determinant <= 1e-9 * h00 * h11 or information <= 0:
            return Calibration(float("nan"), float("nan"), np.full((len(labels), 7), np.nan))
        steps = np.array(
            [
                (h11 * u0 - h01 * u1) / determinant,
                (h00 * u1 - h01 * u0) / determinant,
                (labels - q).sum() / information,
            ]
        )
        steps = np.clip(steps, -2.0, 2.0)
        intercept, slope, offset = intercept + steps[0], slope + steps[1], offset + steps[2]
        if np.abs(steps).max() < 1e-10:
            p, q = sigmoid(intercept + slope * odds), sigmoid(offset + odds)
            w, error = p * (1 - p), labels - p
            terms = np.column_stack(
                [error, error * odds, w, w * odds, w * odds * odds, labels - q, q * (1 - q)]
            )
            return Calibration(float(slope), float(offset), terms)
    return Calibration(float("nan"), float("nan"), np.full((len(labels), 7), np.nan))


@dataclass(frozen=True)
class Confusion:
    """Weighted counts of a decision, numbers or arrays (replicates,)."""

    true_positives: Any
    false_positives: Any
    positives: Any
    rows: Any

    @property
    def recall(self) -> Floats:
        """Share of the positives that are flagged (sensitivity)."""
        return ratio(self.true_positives, self.positives)

    @property
    def specificity(self) -> Floats:
        """Share of the negatives that are not flagged."""
        return 1 - ratio(self.false_positives, self.rows - self.positives)

    @property
    def precision(self) -> Floats:
        """Share of the flagged that are positive (positive predictive value)."""
        return ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def negative_predictive_value(self) -> Floats:
        """Share of negatives among the rows that are not flagged."""
        cleared = self.rows - self.true_positives - self.false_positives
        return 1 - ratio(self.positives - self.true_positives, cleared)

    @property
    def flagged(self) -> Floats:
        """Share of all rows that are flagged."""
        return ratio(self.true_positives + self.false_positives, self.rows)

    @property
    def accuracy(self) -> Floats:
        """Share of all rows whose decision is right."""
        right = self.true_positives + self.rows - self.positives - self.false_positives
        return ratio(right, self.rows)

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall."""
        return ratio(2 * self.true_positives, self.true_positives + self.false_positives + self.positives)


def confusion(y: ArrayLike, score: ArrayLike, threshold: float) -> Confusion:
    """Counts of the decision `score >= threshold`."""
    labels, flagged = np.asarray(y) == 1, np.asarray(score, dtype=np.float64) >= threshold
    hits = int(np.sum(labels & flagged))
    return Confusion(hits, int(flagged.sum()) - hits, int(labels.sum()), len(labels))


def net_benefit(counts: Confusion, threshold: ArrayLike) -> Floats:
    """True positives per row less false positives times the odds of the threshold (Vickers & Elkin 2006)."""
    odds = np.asarray(threshold, dtype=np.float64) / (1 - np.asarray(threshold, dtype=np.float64))
    return ratio(counts.true_positives, counts.rows) - odds * ratio(counts.false_positives, counts.rows)


def confusion_of_counts(counts: Counts, thresholds: ArrayLike) -> Confusion:
    """Counts of the decision `score >= threshold` at each threshold, arrays (replicates, thresholds)."""
    cuts, ranking = np.asarray(thresholds, dtype=np.float64), counts.ranking
    below = counts.below[:, np.searchsorted(ranking.scores, cuts)]
    missed = np.zeros((len(below), counts.positives.shape[1] + 1))
    np.cumsum(counts.positives, axis=1, out=missed[:, 1:])
    rows, positives = counts.below[:, -1:], missed[:, -1:]
    hits = positives - missed[:, np.searchsorted(ranking.scores[ranking.holders], cuts)]
    return Confusion(hits, rows - below - hits, positives, rows)


def flagged_at_recall(counts: Counts, recall: ArrayLike) -> Floats:
    """Smallest share of rows (replicates,) to flag, highest scores first, that reaches a recall."""
    hits, flagged = _hits_and_flagged(counts)
    targets = np.broadcast_to(np.asarray(recall, dtype=np.float64), len(hits))
    shares = np.full(len(hits), np.nan)
    for i in range(len(hits)):
        if hits.shape[1] and hits[i, 0] > 0:
            enough = int(np.count_nonzero(hits[i] >= targets[i] * hits[i, 0] - 1e-9))
            shares[i] = flagged[i, max(enough, 1) - 1] / counts.below[i, -1]
    return shares
