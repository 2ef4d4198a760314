"""The statistics against independent formulas, exact enumeration and simulation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import special, stats
from sklearn.metrics import brier_score_loss, roc_auc_score

from steps.measures import evidence

AGES = np.array([0.02, 0.03, 0.04, 0.06, 0.06, 0.08, 0.10, 0.12, 0.13, 0.13, 0.09, 0.07, 0.07])


def _scored(rows: int, seed: int, slope: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Risks, outcomes of a model whose logits are off by `slope`, and each row's score bin of 20."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-2, 1.2, rows)
    risk = special.expit(logit)
    outcome = rng.random(rows) < special.expit(slope * logit)
    edges = np.quantile(risk, np.arange(1, 20) / 20)
    return risk, outcome.astype(float), np.searchsorted(edges, risk, side="right")


def _by_bin(index: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    return np.bincount(index, weights, minlength=20).astype(float)


def test_psi_is_zero_for_the_references_own_shares_and_positive_otherwise():
    reference = np.array([99.5, 199.5, 699.5])
    assert evidence.psi(10 * (reference + 0.5) - 0.5, reference) == pytest.approx(0, abs=1e-12)
    assert evidence.psi([700, 200, 100], reference) > 1


def test_psi_equals_the_textbook_sum_on_smoothed_shares():
    counts, reference = np.array([0.0, 5, 10]), np.array([50.0, 30, 20])
    total = 0.0
    for c, r in zip(counts, reference, strict=True):
        q, p = (c + 0.5) / (15 + 1.5), (r + 0.5) / (100 + 1.5)
        total += (q - p) * np.log(q / p)
    assert evidence.psi(counts, reference) == pytest.approx(total, rel=1e-14)


def test_every_statistic_works_over_leading_axes():
    rng = np.random.default_rng(0)
    reference = rng.multinomial(5000, AGES)
    counts = rng.multinomial(200, AGES, size=(4, 3))
    for statistic in (evidence.psi, evidence.drift_evidence, evidence.drift_alarm):
        whole = statistic(counts, reference)
        assert whole.shape == (4, 3)
        assert_allclose(whole[2, 1], statistic(counts[2, 1], reference))


def test_classical_critical_psi_is_the_chi_square_quantile_within_two_percent():
    for bins in (5, 10, 13):
        exact = stats.chi2.ppf(0.999, bins - 1) * (1 / 500 + 1 / 700)
        assert evidence.psi_critical(500, 700, bins) == pytest.approx(exact, rel=0.02)
    assert evidence.psi_critical(0, 700, 10) == np.inf


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.8])
def test_psi_interval_holds_the_populations_psi_about_as_often_as_stated(shift):
    rng = np.random.default_rng(5)
    tilted = AGES * np.exp(shift * np.linspace(-1, 1, 13))
    tilted /= tilted.sum()
    truth = float(((tilted - AGES) * np.log(tilted / AGES)).sum())
    low, high = evidence.psi_interval(rng.multinomial(3000, tilted, 2000), rng.multinomial(9000, AGES, 2000))
    held = ((low <= truth) & (truth <= high)).mean()
    assert 0.92 <= held <= 0.985
    assert (low <= high).all()


def test_drift_evidence_is_zero_without_rows_and_after_the_first_row_of_a_large_reference():
    reference = 1_000_000 * AGES
    assert evidence.drift_evidence(np.zeros(13), reference) == pytest.approx(0, abs=1e-9)
    assert_allclose(evidence.drift_evidence(np.eye(13), reference), 0, atol=1e-6)


@pytest.mark.parametrize("reference", [[3, 1, 0], [200, 40, 9], [5000, 3000, 1]])
def test_expected_evidence_factor_is_exactly_one_without_a_shift(reference):
    """Enumerates every outcome of 12 rows; "same" leaves the shares as open as the reference does."""
    rows = 12
    counts = np.array([c for c in product(range(rows + 1), repeat=3) if sum(c) == rows])
    posterior = np.array(reference) + 0.5
    probability = np.exp(
        special.gammaln(rows + 1) - special.gammaln(counts + 1).sum(1)
        + special.gammaln(posterior.sum()) - special.gammaln(posterior.sum() + rows)
        + (special.gammaln(posterior + counts) - special.gammaln(posterior)).sum(1)
    )  # fmt: skip
    assert probability.sum() == pytest.approx(1, rel=1e-9)
    assert (probability * 10 ** evidence.drift_evidence(counts, reference)).sum() == pytest.approx(
        1, rel=1e-9
    )


def test_evidence_grows_row_by_row_like_a_fair_game():
    """Given any history, the mean factor of one more row is 1, so a window can be watched as it grows."""
    reference = np.array([40.0, 25, 10, 3])
    rng = np.random.default_rng(2)
    for history in rng.integers(0, 30, size=(20, 4)):
        chance = (reference + 0.5 + history) / (reference + 0.5 + history).sum()
        later = evidence.drift_evidence(history + np.eye(4), reference)
        now = evidence.drift_evidence(history, reference)
        assert (chance * 10 ** (later - now)).sum() == pytest.approx(1, rel=1e-9)


def test_a_small_reference_lowers_the_evidence():
    counts = 1000 * np.roll(AGES, 1)
    at = [float(evidence.drift_evidence(counts, rows * AGES)) for rows in (100, 768, 10_000, 1_000_000)]
    assert at == sorted(at)
    assert at[0] < 10 < at[-1]


def test_alarm_needs_evidence_and_effect_in_the_same_window():
    reference = 10_000_000 * np.array([0.5, 0.5])
    tiny_but_certain = np.array([504_000, 496_000])
    assert evidence.drift_evidence(tiny_but_certain, reference) > 8
    assert evidence.drift_alarm(tiny_but_certain, reference) == 0
    large = np.array([700, 300])
    assert evidence.drift_alarm(large, reference) == evidence.drift_evidence(large, reference) > 10


def test_limit_is_one_false_alarm_a_year_for_all_signals_looked_at_once_a_minute():
    assert evidence.evidence_limit(23) == pytest.approx(np.log10(365 * 24 * 60 * 23))


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=9))
def test_calibration_evidence_has_expectation_of_at_most_one_whatever_the_risks(risks):
    """Enumerates the number of positives of a perfectly calibrated model with any risks in one bin."""
    chance = np.array([1.0])
    for risk in risks:
        chance = np.convolve(chance, [1 - risk, risk])
    positives = np.arange(len(risks) + 1)
    labels, sums = np.full((len(positives), 1), len(risks)), np.full((len(positives), 1), sum(risks))
    for log10_factor in evidence.calibration_evidence(positives[:, None], labels, sums):
        assert (chance * 10**log10_factor).sum() <= 1 + 1e-9


def test_calibration_evidence_sees_a_wrong_shape_by_bin_and_a_common_bias_pooled():
    risk, outcome, index = _scored(20_000, 3)
    right = evidence.calibration_evidence(_by_bin(index, outcome), _by_bin(index), _by_bin(index, risk))
    assert right.larger < 0
    risk, outcome, index = _scored(20_000, 3, slope=0.6)
    shape = evidence.calibration_evidence(_by_bin(index, outcome), _by_bin(index), _by_bin(index, risk))
    assert shape.by_bin > 20
    half = np.array([60.0] * 20), np.array([300.0] * 20), np.array([45.0] * 20)
    bias = evidence.calibration_evidence(*half)
    assert bias.pooled > bias.by_bin > 0
    assert bias.larger == pytest.approx(bias.pooled - np.log10(2))


def test_without_labels_calibration_evidence_is_zero():
    nothing = evidence.calibration_evidence(np.zeros(20), np.zeros(20), np.zeros(20))
    assert (nothing.by_bin, nothing.pooled, nothing.larger) == (0, 0, 0)


def test_binned_roc_auc_is_scikit_learns_on_the_bins_and_close_to_it_on_the_risks():
    risk, outcome, index = _scored(5000, 7)
    auc = evidence.roc_auc(_by_bin(index, outcome), _by_bin(index, 1 - outcome))
    assert auc == pytest.approx(roc_auc_score(outcome, index), rel=1e-12)
    assert auc == pytest.approx(roc_auc_score(outcome, risk), abs=0.004)


def test_roc_auc_standard_error_matches_the_spread_of_repeated_samples():
    found, stated = [], []
    for seed in range(300):
        _, outcome, index = _scored(800, seed)
        positives, negatives = _by_bin(index, outcome), _by_bin(index, 1 - outcome)
        found.append(evidence.roc_auc(positives, negatives))
        stated.append(evidence.roc_auc_stderr(found[-1], positives.sum(), negatives.sum()))
    assert np.mean(stated) == pytest.approx(np.std(found), rel=0.15)


def _by_bin_and_outcome(risk: np.ndarray, outcome: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, ...]:
    cell = 2 * index + outcome.astype(int)
    return tuple(
        np.bincount(cell, weights, minlength=40).astype(float).reshape(20, 2)
        for weights in (None, risk, risk**2)
    )


def test_statistics_from_labels_match_the_rows_and_their_errors_match_repeated_samples():
    repeats: dict[str, list[evidence.Estimate]] = {
        "brier": [],
        "calibration_bias": [],
        "calibration_error": [],
    }
    if_calibrated = []
    for seed in range(300):
        risk, outcome, index = _scored(1500, seed)
        sums = _by_bin_and_outcome(risk, outcome, index)
        for name, estimates in repeats.items():
            estimates.append(getattr(evidence, name)(*sums))
        if_calibrated.append(evidence.calibration_error_if_calibrated(*sums))
        assert repeats["brier"][-1].value == pytest.approx(brier_score_loss(outcome, risk), abs=1e-12)
        assert repeats["calibration_bias"][-1].value == pytest.approx((risk - outcome).mean(), abs=1e-12)
    for name, estimates in repeats.items():
        values = np.array([float(e.value) for e in estimates])
        stated = np.mean([float(e.stderr) for e in estimates])
        assert stated == pytest.approx(values.std(), rel=0.2), name
    errors = [float(e.value) for e in repeats["calibration_error"]]
    assert np.mean(if_calibrated) == pytest.approx(np.mean(errors), rel=0.05)


def test_without_labels_the_statistics_are_no_number():
    nothing = np.zeros((20, 2))
    for statistic in (evidence.brier, evidence.calibration_bias, evidence.calibration_error):
        value, stderr = statistic(nothing, nothing, nothing)
        assert np.isnan(value)
        assert np.isnan(stderr)
    assert np.isnan(evidence.roc_auc(np.zeros(20), np.ones(20)))


def test_calibration_evidence_is_finite_where_no_positive_was_expected():
    found = evidence.calibration_evidence([2, 30], [50, 100], [0, 30])
    assert np.isfinite(found.larger)
    assert found.by_bin > 8


def test_expected_performance_is_the_realised_one_of_a_calibrated_model():
    risk, outcome, index = _scored(200_000, 11)
    expected = evidence.expected_performance(_by_bin(index), _by_bin(index, risk), threshold_bin=14)
    flagged = index >= 14
    assert expected.roc_auc == pytest.approx(roc_auc_score(outcome, risk), abs=0.006)
    assert expected.accuracy == pytest.approx(
        (flagged == outcome).mean(), abs=4 * float(expected.accuracy_stderr)
    )
    assert expected.recall == pytest.approx(outcome[flagged].sum() / outcome.sum(), abs=0.01)
    assert expected.precision == pytest.approx(outcome[flagged].mean(), abs=0.01)
    assert 0 < expected.roc_auc_stderr < 0.005
