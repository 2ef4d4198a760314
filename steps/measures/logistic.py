"""Logistic regression of a few columns by Newton's method, with its covariance. numpy only.

For the curves and comparisons of a report. Unpenalised; weights allow equal rows to be counted once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_STEPS = 50
_CLOSE = 1e-7  # largest change of any log odds
_RIDGE = 1e-8  # relative to the information: keeps collinear columns from dividing by zero
_HALVINGS = 30


@dataclass(frozen=True)
class Logistic:
    """Coefficients (columns,) and their covariance (columns, columns)."""

    coefficients: Floats
    covariance: Floats

    def log_odds(self, design: Floats) -> Floats:
        """Log odds of each row of a design, (rows,)."""
        odds: Floats = design @ self.coefficients
        return odds

    def errors(self, design: Floats) -> Floats:
        """Standard errors of those log odds, (rows,)."""
        variance = np.einsum("ij,jk,ik->i", design, self.covariance, design)
        errors: Floats = np.sqrt(np.maximum(variance, 0.0))
        return errors


def fit(design: Floats, y: ArrayLike, weights: ArrayLike | None = None) -> Logistic | None:
    """Maximum likelihood fit of `y` in [0, 1] on a design (rows, columns) that includes a constant.

    `y` may be a share, with `weights` the number of people behind each row. None where it does not converge:
    the outcomes are separated, or all alike.
    """
    outcome = np.asarray(y, dtype=np.float64)
    counts = np.ones(len(outcome)) if weights is None else np.asarray(weights, dtype=np.float64)
    beta = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        risk = sigmoid(design @ beta)
        weight = counts * risk * (1 - risk)
        information = design.T @ (weight[:, None] * design)
        information[np.diag_indices_from(information)] *= 1 + _RIDGE
        score = design.T @ (counts * (outcome - risk))
        try:
            step = np.asarray(np.linalg.solve(information, score), dtype=np.float64)
        except np.linalg.LinAlgError:
            return None
        if not np.isfinite(step).all():
            return None
        beta = _uphill(design, outcome, counts, beta, step)
        if np.abs(design @ step).max() < _CLOSE:
            return Logistic(beta, np.asarray(np.linalg.inv(information), dtype=np.float64))
    return None


def _uphill(design: Floats, outcome: Floats, counts: Floats, beta: Floats, step: Floats) -> Floats:
    """The coefficients after Newton's step, halved until it does not lower the likelihood."""

    def log_likelihood(at: Floats) -> float:
        odds = design @ at
        return float(counts @ (outcome * odds - np.logaddexp(0.0, odds)))

    before, size = log_likelihood(beta), 1.0
    for _ in range(_HALVINGS):
        if log_likelihood(beta + size * step) >= before - 1e-9 * abs(before):
            break
        size /= 2
    return beta + size * step


def sigmoid(log_odds: ArrayLike) -> Floats:
    """Probability of log odds, (rows,)."""
    risk: Floats = 1 / (1 + np.exp(-np.clip(np.asarray(log_odds, dtype=np.float64), -35, 35)))
    return risk
