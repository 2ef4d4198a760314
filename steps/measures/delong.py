"""DeLong's variance of ROC AUC, for one score or for two scores of the same rows. numpy only.

DeLong, DeLong and Clarke-Pearson 1988, Biometrics 44:837; the ranks in O(n log n) are those of Sun and Xu
2014, IEEE Signal Processing Letters 21:1389.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Placements:
    """The rank of each row among the rows of the other class, and the ROC AUC that follows.

    `positive` (positives,): share of negatives with a lower score, equal ones counting half. `negative`
    (negatives,): share of positives with a higher score. Both have the mean `roc_auc`.
    """

    roc_auc: float
    positive: Floats
    negative: Floats

    @property
    def standard_error(self) -> float:
        """Standard error of the ROC AUC; NaN with fewer than two rows of a class."""
        return _standard_error(self.positive, self.negative)


def placements(y: ArrayLike, score: ArrayLike) -> Placements:
    """Placements of a score (rows,) for outcomes `y` (rows,) of 0 and 1; NaN with one class only."""
    labels, scores = np.asarray(y) == 1, np.asarray(score, dtype=np.float64)
    above, below = np.sort(scores[labels]), np.sort(scores[~labels])
    if not len(above) or not len(below):
        return Placements(float("nan"), np.full(len(above), np.nan), np.full(len(below), np.nan))
    positive = _share_below(below, scores[labels])
    negative = 1 - _share_below(above, scores[~labels])
    return Placements(float(positive.mean()), positive, negative)


def difference_error(first: Placements, second: Placements) -> float:
    """Standard error of the difference of two ROC AUCs on the same rows; NaN if a class has one row."""
    return _standard_error(first.positive - second.positive, first.negative - second.negative)


def _share_below(reference: Floats, values: Floats) -> Floats:
    """Share of the sorted reference below each value, equal ones counting half."""
    ranks = np.searchsorted(reference, values, "left") + np.searchsorted(reference, values, "right")
    shares: Floats = ranks / (2.0 * len(reference))
    return shares


def _standard_error(positive: Floats, negative: Floats) -> float:
    if len(positive) < 2 or len(negative) < 2:
        return float("nan")
    return float(np.sqrt(positive.var(ddof=1) / len(positive) + negative.var(ddof=1) / len(negative)))
