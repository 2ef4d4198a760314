"""Recalibration by intercept and slope: it finds what was changed, and says how well."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from steps.measures import metrics, recalibration
from steps.measures.recalibration import Recalibration


def _changed(rows: int, seed: int, intercept: float = 0.4, slope: float = 0.7) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-2, 1.2, rows)
    y = rng.random(rows) < special.expit(intercept + slope * log_odds)
    return y.astype(np.int8), special.expit(log_odds)


def test_it_finds_intercept_and_slope_and_mends_the_risks() -> None:
    """Within three standard errors; the new risks are right on the whole and in their spread."""
    y, risk = _changed(40_000, 0)
    found = recalibration.fit(y, risk)
    assert found.intercept == pytest.approx(0.4, abs=3 * found.intercept_stderr)
    assert found.slope == pytest.approx(0.7, abs=3 * found.slope_stderr)
    again = recalibration.fit(y, found.apply(risk))
    assert (again.intercept, again.slope) == pytest.approx((0, 1), abs=1e-6)
    assert metrics.observed_expected(y, found.apply(risk)) == pytest.approx(1)


def test_it_changes_no_ranking() -> None:
    """Risks keep their order; intercept 0 and slope 1 change nothing."""
    _, risk = _changed(500, 1)
    changed = Recalibration(0.4, 0.7).apply(risk)
    assert (np.argsort(changed) == np.argsort(risk)).all()
    assert Recalibration(0, 1).apply(risk) == pytest.approx(risk, abs=1e-12)


def test_standard_errors_are_the_spread_of_repeated_fits_with_and_without_weights() -> None:
    """200 samples of 3,000 people; weights of selected rows widen the spread, and the sandwich says so."""
    for weigh in (False, True):
        fits = []
        for seed in range(200):
            y, risk = _changed(3000, seed)
            chance = np.where(risk > 0.2, 0.9, 0.3) if weigh else np.ones(3000)
            seen = np.random.default_rng(seed).random(3000) < chance
            fits.append(recalibration.fit(y[seen], risk[seen], 1 / chance[seen]))
        slopes = np.array([one.slope for one in fits])
        assert slopes.mean() == pytest.approx(0.7, abs=0.02)
        assert slopes.std() == pytest.approx(np.mean([one.slope_stderr for one in fits]), rel=0.15)


def test_one_class_or_one_risk_has_no_recalibration() -> None:
    """Undefined, not an error."""
    assert np.isnan(recalibration.fit(np.ones(20), np.linspace(0.1, 0.9, 20)).slope)
    assert np.isnan(recalibration.fit(np.arange(20) % 2, np.full(20, 0.3)).slope)
