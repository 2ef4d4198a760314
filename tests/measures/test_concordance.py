"""Realised and expected ROC AUC: what is owed to the people, and what to the model."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from steps.measures import concordance, metrics


def _people(rows: int, seed: int, spread: float = 1.2) -> tuple[np.ndarray, np.ndarray]:
    """Risks of a perfect model and outcomes; with less spread these people are more alike."""
    rng = np.random.default_rng(seed)
    risk = special.expit(rng.normal(-2, spread, rows))
    return (rng.random(rows) < risk).astype(np.int8), risk


def test_expected_roc_auc_is_the_mean_over_outcomes_drawn_with_the_risks() -> None:
    """What calibrated risks promise, by simulation; the standard error is the spread of the draws."""
    rng = np.random.default_rng(0)
    _, risk = _people(3000, 1)
    drawn = [metrics.roc_auc((rng.random(3000) < risk).astype(int), risk) for _ in range(300)]
    found = concordance.measure((rng.random(3000) < risk).astype(int), risk)
    assert found.expected == pytest.approx(np.mean(drawn), abs=0.002)
    assert found.stderr == pytest.approx(np.std(drawn), rel=0.12)
    assert found.expected == concordance.expected_roc_auc(risk)


def test_people_who_are_more_alike_lower_both_figures_and_leave_the_gap() -> None:
    """A perfect model ranks them worse, as its risks say: nothing is owed to the model."""
    wide, narrow = (concordance.measure(*_people(60_000, 2, spread)) for spread in (1.2, 0.6))
    assert narrow.realised < wide.realised - 0.1
    assert abs(narrow.gap) < 3 * narrow.stderr
    assert abs(wide.gap) < 3 * wide.stderr


def test_a_worse_model_shows_in_the_gap() -> None:
    """The same risks, outcomes that depend on them only half as much."""
    rng = np.random.default_rng(3)
    _, risk = _people(20_000, 3)
    y = (rng.random(20_000) < special.expit(-1.5 + 0.4 * (special.logit(risk) + 2))).astype(int)
    found = concordance.measure(y, risk)
    assert found.gap < -10 * found.stderr


def test_a_weight_counts_as_so_many_rows() -> None:
    """Weights of 3 on some rows are those rows three times; ties count half."""
    y, risk = _people(400, 4)
    risk = np.round(risk, 2)
    weights = np.where(np.arange(400) < 100, 3, 1)
    weighted = concordance.measure(y, risk, weights)
    repeated = concordance.measure(np.repeat(y, weights), np.repeat(risk, weights))
    assert weighted.realised == pytest.approx(repeated.realised)
    assert weighted.expected == pytest.approx(repeated.expected)
    assert weighted.realised == pytest.approx(
        metrics.roc_auc(np.repeat(y, weights), np.repeat(risk, weights))
    )


def test_error_on_other_people_is_what_sampling_does_not_explain() -> None:
    """A perfect model errs nowhere; one that misses what tells people apart within two groups errs there."""
    rng = np.random.default_rng(5)
    first = rng.random(80_000) < 0.5
    groups = [first, ~first]
    y, risk = _people(80_000, 5)
    assert concordance.error_on_other_people(y, risk, groups) == pytest.approx(0, abs=0.012)
    slope = np.where(first, 1.5, 0.5)
    y = (rng.random(80_000) < special.expit(-2 + slope * (special.logit(risk) + 2))).astype(int)
    error = concordance.error_on_other_people(y, risk, groups)
    assert error is not None
    assert 0.04 < error < 0.25
    few = concordance.error_on_other_people(y[:4000], risk[:4000], [group[:4000] for group in groups])
    assert few is not None
    assert few > 0.01


def test_without_two_groups_of_fifty_outcomes_the_error_is_unknown() -> None:
    """One group, or groups with few positives, tell nothing."""
    y, risk = _people(2000, 6)
    everybody, nobody = np.ones(2000, dtype=bool), np.zeros(2000, dtype=bool)
    assert concordance.error_on_other_people(y, risk, [everybody]) is None
    assert concordance.error_on_other_people(y, risk, [everybody, nobody]) is None


def test_nobody_has_no_figures() -> None:
    """No rows, one class only: undefined, without a warning."""
    assert np.isnan(concordance.expected_roc_auc([]))
    assert np.isnan(concordance.measure([], []).gap)
    assert np.isnan(concordance.measure([1, 1], [0.2, 0.4]).realised)
