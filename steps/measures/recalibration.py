"""Recalibration of risks by two numbers: logit of the new risk = intercept + slope x logit of the old one.

Cox, "Two further applications of a model for binary regression", Biometrika 45, 1958. It is the smallest
change that corrects risks that are too high, too low, too extreme or too timid; it keeps the ranking.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steps.measures import logistic
from steps.measures.metrics import logit

Floats = NDArray[np.float64]

_ONE_RISK = 1e-6  # log odds that differ by less are one risk, which has no slope


@dataclass(frozen=True)
class Recalibration:
    """Intercept and slope on the logit with their standard errors; 0 and 1 change nothing."""

    intercept: float
    slope: float
    intercept_stderr: float = 0.0
    slope_stderr: float = 0.0

    def apply(self, risk: ArrayLike) -> Floats:
        """The recalibrated risks, shape (rows,)."""
        log_odds = self.intercept + self.slope * logit(risk)
        risks: Floats = 1 / (1 + np.exp(-log_odds))
        return risks


UNDEFINED = Recalibration(math.nan, math.nan, math.nan, math.nan)


def fit(y: ArrayLike, risk: ArrayLike, weights: ArrayLike | None = None) -> Recalibration:
    """Maximum likelihood from outcomes y (rows,) of 0 and 1; NaN where undefined (one class, one risk).

    With weights the standard errors are the sandwich's (White, Econometrica 50, 1982), which stay valid for
    rows that represent several others.
    """
    outcomes, log_odds = np.asarray(y, dtype=np.float64), logit(risk)
    w = np.ones(len(log_odds)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(log_odds) < 2 or np.ptp(log_odds) < _ONE_RISK:
        return UNDEFINED
    design = np.column_stack([np.ones(len(log_odds)), log_odds])
    fitted = logistic.fit(design, outcomes, w)
    if fitted is None:
        return UNDEFINED
    scores = design * (w * (outcomes - logistic.sigmoid(fitted.log_odds(design))))[:, None]
    stderr = np.sqrt(np.diag(fitted.covariance @ (scores.T @ scores) @ fitted.covariance))
    intercept, slope = fitted.coefficients
    return Recalibration(float(intercept), float(slope), float(stderr[0]), float(stderr[1]))
