"""A calibration curve without bins: observed risk as a smooth function of the estimated one.

A logistic regression of the outcome on a restricted cubic spline of the log odds of the risk (Harrell 2015,
Regression Modeling Strategies, 2.4.5), as Austin and Steyerberg (2019, Statistics in Medicine 38:4051) use it
for E50 and E90: median and 90th percentile over people of how far the curve is from the risk.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from steps.measures import logistic
from steps.measures.evaluation_document import SmoothCalibration
from steps.measures.intervals import Z
from steps.measures.metrics import Floats, logit
from steps.measures.splines import restricted_cubic

_KNOTS = (
    (0.05, 0.275, 0.5, 0.725, 0.95),
    (0.1, 0.5, 0.9),
)  # quantiles of the log odds, for enough and for few
_ENOUGH = 100  # rows of the rarer outcome from which five knots are used
_POINTS = 60
_DRAWS, _PEOPLE = 400, 500  # samples and people for E50 and E90 by chance


def smooth_calibration(y: ArrayLike, risk: ArrayLike) -> SmoothCalibration | None:
    """The curve with its pointwise 95 % band on 60 risks, E50 and E90.

    The curve spans the 1st to the 99th percentile of the risks; its ends are rounded, so that they are no
    person's own risk. None where the risks take too few values or separate the outcomes.
    """
    labels, risks = np.asarray(y, dtype=np.float64), np.asarray(risk, dtype=np.float64)
    odds = logit(risks)
    rarer = min(labels.sum(), len(labels) - labels.sum())
    knots = np.unique(np.quantile(odds, _KNOTS[0] if rarer >= _ENOUGH else _KNOTS[1]))
    if len(knots) < 3 or knots[-1] - knots[0] < 1e-6:
        return None
    fitted = logistic.fit(restricted_cubic(odds, knots), labels)
    if fitted is None:
        return None
    distance = np.abs(logistic.sigmoid(fitted.log_odds(restricted_cubic(odds, knots))) - risks)
    e50, e90 = (float(value) for value in np.quantile(distance, (0.5, 0.9)))
    chance = _by_chance(fitted, risks, knots)
    low, high = np.quantile(risks, (0.01, 0.99))
    grid = np.linspace(np.ceil(max(low, 0.001) * 1000) / 1000, np.floor(high * 100) / 100, _POINTS)
    if not grid[0] < grid[-1]:
        return None
    design = restricted_cubic(logit(grid), knots)
    curve, error = fitted.log_odds(design), fitted.errors(design)
    lower, middle, upper = (logistic.sigmoid(curve + sign * Z * error) for sign in (-1, 0, 1))
    return SmoothCalibration(
        risk=tuple(grid.tolist()),
        observed=tuple(middle.tolist()),
        low=tuple(lower.tolist()),
        high=tuple(upper.tolist()),
        e50=e50,
        e90=e90,
        e50_by_chance=chance[0],
        e90_by_chance=chance[1],
    )


def _by_chance(fitted: logistic.Logistic, risks: Floats, knots: Floats) -> tuple[float, float]:
    """E50 and E90 that right risks exceed in 5 of 100 samples, from the sampling error of the curve.

    A distance is never negative, so noise alone makes both larger than 0, and more with fewer people.
    """
    typical = np.quantile(risks, (np.arange(_PEOPLE) + 0.5) / _PEOPLE)
    generator = np.random.default_rng(0)
    noise = generator.multivariate_normal(np.zeros(len(fitted.covariance)), fitted.covariance, _DRAWS)
    odds = logit(typical)
    curves = logistic.sigmoid(odds + noise @ restricted_cubic(odds, knots).T)
    distances = np.quantile(np.abs(curves - typical), (0.5, 0.9), axis=1)
    e50, e90 = np.quantile(distances, 0.95, axis=1)
    return float(e50), float(e90)
