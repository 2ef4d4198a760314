"""The ROC AUC that a model's own risks promise, and the ROC AUC that it achieves on the same people.

The ROC AUC of new people can differ for two reasons: these people are more alike or less alike than before,
or the model ranks them worse. The model-based concordance (van Klaveren, Gönen, Steyerberg and
Vergouwe, "A new concordance measure for risk prediction models in external validation settings", Statistics
in Medicine 35, 2016) is the ROC AUC that is expected if every row is positive with its predicted risk. It
depends on the people alone, so realised minus expected, on the same rows, shows the model's own part.

It holds for a model whose risks are right within any group. No model's are, so on other people the expected
ROC AUC errs by more than sampling. `error_on_other_people` measures by how much, from subgroups with known
outcomes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steps.measures import evidence

Floats = NDArray[np.float64]

# Fewest positives, and fewest negatives, of a subgroup whose realised ROC AUC is used.
FEWEST_OUTCOMES = 50
# Error of the expected ROC AUC on other people where subgroups are too small to measure it: the error of an
# additive model on the subgroups of BRFSS 2015.
TYPICAL_ERROR = 0.02


@dataclass(frozen=True)
class Concordance:
    """ROC AUC of some rows: realised, expected from the risks, and the standard error of their difference."""

    realised: float
    expected: float
    stderr: float

    @property
    def gap(self) -> float:
        """Realised less expected: below 0, the model ranks these people worse than its risks promise."""
        return self.realised - self.expected


def expected_roc_auc(risk: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Model-based concordance of risks (rows,), each row counting `weights` times; NaN without rows.

    Rows of equal risk are ties and count half. It is `evidence.expected_performance` with a bin for each
    distinct risk.
    """
    risks = np.asarray(risk, dtype=np.float64)
    if not len(risks):
        return math.nan
    distinct, index = np.unique(risks, return_inverse=True)
    rows = np.bincount(index, weights=None if weights is None else np.asarray(weights, dtype=np.float64))
    positives = distinct * rows
    return float(evidence.roc_auc(positives, rows - positives))


def realised_roc_auc(y: ArrayLike, risk: ArrayLike, weights: ArrayLike) -> float:
    """ROC AUC of outcomes y (rows,) of 0 and 1, each row counting `weights` times; NaN with one class."""
    outcomes, count = np.asarray(y, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    _, index = np.unique(np.asarray(risk, dtype=np.float64), return_inverse=True)
    size = int(index.max(initial=-1)) + 1
    return float(
        evidence.roc_auc(
            np.bincount(index, count * outcomes, size), np.bincount(index, count * (1 - outcomes), size)
        )
    )


def measure(y: ArrayLike, risk: ArrayLike, weights: ArrayLike | None = None) -> Concordance:
    """Realised and expected ROC AUC of the same rows.

    The standard error is that of realised minus expected if the risks are right: with F_i the expected share
    of negatives below row i (ties half), G_i that of positives above, and P and N the expected positives and
    negatives, a row's outcome moves the ROC AUC A by w_i ((F_i - A) / P - (G_i - A) / N), and its variance is
    r_i (1 - r_i).
    """
    risks = np.asarray(risk, dtype=np.float64)
    w = np.ones(len(risks)) if weights is None else np.asarray(weights, dtype=np.float64)
    expected = expected_roc_auc(risks, w)
    distinct, index = np.unique(risks, return_inverse=True)
    rows = np.bincount(index, w, len(distinct))
    positives, negatives = distinct * rows, (1 - distinct) * rows
    total_positives, total_negatives = positives.sum(), negatives.sum()
    if not (total_positives > 0 and total_negatives > 0):
        return Concordance(math.nan, math.nan, math.nan)
    below = (np.cumsum(negatives) - negatives / 2) / total_negatives
    above = (total_positives - np.cumsum(positives) + positives / 2) / total_positives
    influence = ((below - expected) / total_positives - (above - expected) / total_negatives)[index]
    variance = float((w**2 * risks * (1 - risks) * influence**2).sum())
    return Concordance(realised_roc_auc(y, risks, w), expected, math.sqrt(variance))


def error_on_other_people(y: ArrayLike, risk: ArrayLike, groups: Sequence[NDArray[np.bool_]]) -> float | None:
    """Typical error of the expected ROC AUC within groups (masks of the rows), beyond sampling.

    The spread of the groups' gaps around the gap of all rows, less what sampling explains (method of moments,
    as DerSimonian and Laird, Controlled Clinical Trials 7, 1986), plus one standard error of that: groups
    too small to show an error of 0.01 do not prove its absence. Groups with fewer than 50 positives or
    negatives are left out; None if fewer than two groups remain.
    """
    outcomes, risks = np.asarray(y), np.asarray(risk, dtype=np.float64)
    overall = measure(outcomes, risks)
    within = [
        measure(outcomes[mask], risks[mask])
        for mask in groups
        if min(np.sum(outcomes[mask] == 1), np.sum(outcomes[mask] == 0)) >= FEWEST_OUTCOMES
    ]
    if len(within) < 2:
        return None
    gaps, sampling = (
        np.array([group.gap - overall.gap for group in within]),
        np.array([group.stderr for group in within]),
    )
    between = max(0.0, float(np.mean(gaps**2 - sampling**2)))
    stderr = math.sqrt(2 * float(np.mean((sampling**2 + between) ** 2)) / len(within))
    return math.sqrt(between + stderr)
