"""The smooth calibration curve finds what is wrong with risks, and where it can say nothing it says so."""

from __future__ import annotations

import numpy as np
import pytest

from steps.measures import logistic
from steps.measures.metrics import logit
from steps.measures.smooth_calibration import smooth_calibration


def _outcomes(risk: np.ndarray, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(risk)) < risk).astype(np.int8)


@pytest.fixture(scope="module")
def risk() -> np.ndarray:
    odds = np.random.default_rng(0).normal(-1.5, 1.2, 20_000)
    return logistic.sigmoid(odds)


def test_right_risks_lie_in_the_band(risk):
    """The diagonal is inside nearly everywhere, and E50 is a fraction of a percentage point."""
    found = smooth_calibration(_outcomes(risk), risk)
    inside = [low <= at <= high for at, low, high in zip(found.risk, found.low, found.high, strict=True)]
    assert np.mean(inside) > 0.85
    assert found.e50 < 0.01
    assert found.e50 < found.e90 < 0.03


def test_a_bent_calibration_is_found(risk):
    """Risks that are too high in the middle alone show in the curve; slope and intercept cannot tell."""
    odds = logit(risk)
    truth = logistic.sigmoid(odds - 0.8 * np.exp(-((odds + 1.5) ** 2)))
    found = smooth_calibration(_outcomes(truth), risk)
    middle = int(np.argmin(np.abs(np.array(found.risk) - 0.18)))
    assert found.high[middle] < found.risk[middle]
    assert found.observed[middle] == pytest.approx(
        float(np.interp(0.18, np.sort(risk), np.sort(truth))), abs=0.03
    )
    assert found.e50 > 0.02


def test_right_risks_exceed_what_chance_allows_in_five_of_a_hundred_samples(risk):
    """E50 and E90 of right risks lie below the stated limits about 95 times in 100; wrong ones do not."""
    few = risk[:4000]
    found = [smooth_calibration(_outcomes(few, seed), few) for seed in range(100)]
    assert 0.85 <= np.mean([one.e50 <= one.e50_by_chance for one in found]) <= 1
    assert 0.85 <= np.mean([one.e90 <= one.e90_by_chance for one in found]) <= 1
    wrong = smooth_calibration(_outcomes(logistic.sigmoid(logit(few) - 0.5)), few)
    assert wrong.e50 > wrong.e50_by_chance


@pytest.mark.parametrize(
    ("y", "risk"),
    [
        ([0, 1] * 50, [0.3] * 100),
        ([0] * 50 + [1] * 50, list(np.linspace(0.1, 0.45, 50)) + list(np.linspace(0.55, 0.9, 50))),
    ],
)
def test_no_curve_is_drawn_where_none_can_be(y, risk):
    """One risk for everybody, and outcomes that the risks separate."""
    assert smooth_calibration(y, risk) is None


def test_the_grid_is_nobody_s_own_risk(risk):
    """Its ends are rounded, so that no extreme risk of a person is published."""
    unusual = risk.copy()
    unusual[0] = 0.98765432
    found = smooth_calibration(_outcomes(risk), unusual)
    assert found.risk[-1] == pytest.approx(round(found.risk[-1], 2))
    assert found.risk[0] == pytest.approx(round(found.risk[0], 3))


def test_logistic_regression_agrees_with_scikit_learn():
    """Coefficients, and equal rows counted once with weights."""
    from sklearn.linear_model import LogisticRegression

    generator = np.random.default_rng(2)
    x = generator.integers(0, 4, (3000, 2)).astype(float)
    y = _outcomes(logistic.sigmoid(x @ [0.5, -0.7]), 3)
    design = np.column_stack([np.ones(len(x)), x])
    fitted = logistic.fit(design, y)
    known = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x, y)
    assert fitted.coefficients == pytest.approx([known.intercept_[0], *known.coef_[0]], abs=1e-4)
    patterns, place = np.unique(design, axis=0, return_inverse=True)
    people = np.bincount(place.ravel())
    share = np.bincount(place.ravel(), weights=y) / people
    assert logistic.fit(patterns, share, people).coefficients == pytest.approx(fitted.coefficients, abs=1e-6)
