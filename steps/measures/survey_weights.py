"""Figures of a model with survey weights.

A survey's weight is the number of people that a row represents. Weighted figures describe these people,
unweighted figures the people who were asked. Only the evaluation uses weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Weighted:
    """Weighted point estimates. `effective_rows` (Kish): rows of equal weight with the same precision."""

    effective_rows: float
    prevalence: float
    roc_auc: float
    average_precision: float
    brier: float
    log_loss: float
    observed_expected: float


def weighted(y: NDArray[np.int8], risk: Floats, weight: Floats) -> Weighted | None:
    """Figures of the rows with a weight above 0, arrays (rows,); None if all have the same outcome."""
    from sklearn import metrics

    used = np.nan_to_num(weight) > 0
    y, risk, weight = y[used], risk[used], weight[used]
    if len(np.unique(y)) < 2:
        return None
    return Weighted(
        effective_rows=float(weight.sum() ** 2 / (weight**2).sum()),
        prevalence=float(np.average(y, weights=weight)),
        roc_auc=float(metrics.roc_auc_score(y, risk, sample_weight=weight)),
        average_precision=float(metrics.average_precision_score(y, risk, sample_weight=weight)),
        brier=float(metrics.brier_score_loss(y, risk, sample_weight=weight)),
        log_loss=float(metrics.log_loss(y, np.clip(risk, 1e-15, 1 - 1e-15), sample_weight=weight)),
        observed_expected=float((weight * y).sum() / (weight * risk).sum()),
    )
