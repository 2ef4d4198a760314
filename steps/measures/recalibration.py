"""Recalibration of risks by two numbers: logit of the new risk = intercept + slope x logit of the old one.

Cox, "Two further applications of a model for binary regression", Biometrika 45, 1958. It is the smallest
change that corrects risks that are too high, too low, too extreme or too timid; it keeps the ranking.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steps.measures.logistic import sigmoid
from steps.measures.metrics import logit

Floats = NDArray[np.float64]

_MOST_STEPS = 50
_SMALLEST_STEP = 1e-10


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
    design = np.column_stack([np.ones(len(log_odds)), log_odds])
    terms = np.array([0.0, 1.0])
    for _ in range(_MOST_STEPS):
        risks = sigmoid(design @ terms)
        information = (design * (w * risks * (1 - risks))[:, None]).T @ design
        if not np.linalg.cond(information) < 1e12:
            return UNDEFINED
        step = np.clip(np.linalg.solve(information, design.T @ (w * (outcomes - risks))), -2.0, 2.0)
        terms = terms + step
        if np.abs(step).max() < _SMALLEST_STEP:
            scores = design * (w * (outcomes - risks))[:, None]
            inverse = np.linalg.inv(information)
            covariance = inverse @ (scores.T @ scores) @ inverse
            stderr = np.sqrt(np.diag(covariance))
            return Recalibration(float(terms[0]), float(terms[1]), float(stderr[0]), float(stderr[1]))
    return UNDEFINED
