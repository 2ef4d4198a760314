"""The benchmark of the alarms in small: few half-years, few seeds, the same claims."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import alarm_quality
from benchmarks.alarm_quality import HALF_YEAR, Signal
from steps.measures import evidence

SHARES = {
    "even": [0.57, 0.43],
    "rare": [0.96, 0.04],
    "income": [0.04, 0.05, 0.06, 0.08, 0.10, 0.14, 0.17, 0.36],
    "age": [0.02, 0.03, 0.04, 0.06, 0.06, 0.08, 0.10, 0.12, 0.13, 0.13, 0.09, 0.07, 0.07],
}
SIGNALS = 23


@pytest.fixture(scope="module")
def signals() -> list[Signal]:
    """A population of 5,000 people with four features."""
    rng = np.random.default_rng(0)
    return [
        Signal(name, rng.choice(len(shares), 5000, p=shares), len(shares)) for name, shares in SHARES.items()
    ]


@pytest.fixture(scope="module")
def risk() -> np.ndarray:
    """Risks of 5,000 people, 14 % on average."""
    return 1 / (1 + np.exp(-np.random.default_rng(1).normal(-2.4, 1.3, 5000)))


@pytest.mark.parametrize("reference_rows", [150_000, 768])
def test_quiet_traffic_rings_no_evidence_alarm_where_a_critical_value_rings(signals, reference_rows):
    found = alarm_quality.false_alarms(signals, reference_rows, half_years=2, hours=HALF_YEAR)
    assert found["evidence"] == 0
    assert found["PSI > critical (0.999), 1 day"] > 0


def test_rows_that_are_not_independent_ring_although_nothing_has_shifted(signals):
    """The table that stands beside the bound: people five times a day, a fixed list, weekends, nights."""
    found = {
        name: alarm_quality.false_alarms(signals, 150_000, 1, hours=HALF_YEAR // 2, mix=mix)["evidence"]
        for name, mix in alarm_quality.MIXES.items()
    }
    assert found.pop("independent rows") == found.pop("independent rows, counted in lots") == 0
    assert min(found.values()) > 0
    table = alarm_quality.dependence_table(
        {"half_years": 1, "alarms": {name: {"evidence": alarms} for name, alarms in found.items()}},
        ["evidence"],
    )
    assert len(table) == 5 + len(found)


@pytest.mark.parametrize(
    ("psi", "name"), [(0.25, "age"), (0.10, "age"), (0.05, "age"), (0.25, "rare"), (0.05, "even")]
)
def test_shifts_are_found_within_the_targets(psi, name):
    found = alarm_quality.rows_until_alarm(np.array(SHARES[name]), psi, 150_000, 24, SIGNALS, days=5)
    median, p95 = alarm_quality.TARGETS[psi]
    assert np.median(found["evidence"]) <= median
    assert np.quantile(found["evidence"], 0.95) <= p95


def test_fixed_psi_rule_never_sees_what_evidence_sees():
    found = alarm_quality.rows_until_alarm(np.array(SHARES["age"]), 0.10, 150_000, 12, SIGNALS, days=5)
    assert np.isinf(found["PSI > 0.2, 1 day"]).all()
    assert np.isfinite(found["evidence"]).all()


def test_seeds_in_several_chunks_are_the_same_seeds(monkeypatch):
    shares = np.array(SHARES["income"])
    whole = alarm_quality.rows_until_alarm(shares, 0.25, 5000, 6, SIGNALS, days=2)
    monkeypatch.setattr(alarm_quality, "CHUNK", 4)
    parts = alarm_quality.rows_until_alarm(shares, 0.25, 5000, 6, SIGNALS, days=2)
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name])


def test_shift_has_the_psi_asked_for():
    shares = np.array(SHARES["income"])
    moved = alarm_quality.shifted(shares, 0.1, np.random.default_rng(4))
    assert ((moved - shares) * np.log(moved / shares)).sum() == pytest.approx(0.1, abs=1e-6)
    assert moved.sum() == pytest.approx(1)


def test_calibrated_labels_ring_no_alarm_and_miscalibrated_ones_do(risk):
    assert alarm_quality.calibration_false_alarms(risk, 1, SIGNALS, hours=1000) == 0
    found = alarm_quality.labels_until_alarm(risk, 1.42, 4, SIGNALS, days=30)
    assert np.isfinite(found).all()


def test_outcomes_are_off_by_the_ratio_asked_for(risk):
    chance = alarm_quality.outcome_chance(risk, 1.24)
    assert chance.sum() / risk.sum() == pytest.approx(1.24, abs=1e-6)


def test_windows_sum_the_last_hours_of_each_look():
    hourly = np.arange(10.0)[:, None]
    found = alarm_quality.in_windows(hourly, (1, 3), warm_up=3)
    np.testing.assert_array_equal(found[0, :, 0], np.arange(3.0, 10))
    np.testing.assert_array_equal(found[1, :, 0], [sum(range(at - 2, at + 1)) for at in range(3, 10)])


def test_summary_says_never_where_a_seed_never_rang():
    assert alarm_quality.summary(np.array([10.0, 20.0, np.inf])) == {
        "median": 20.0,
        "p95": None,
        "worst": None,
    }


def test_lots_cost_a_tenth_of_the_rows_and_ten_more_at_most():
    one_by_one, in_lots = alarm_quality.rows_counted_in_lots(
        np.array(SHARES["income"]), 0.25, 150_000, 8, SIGNALS
    )
    assert np.isfinite(one_by_one).all()
    assert (in_lots >= one_by_one - 10).all()
    assert np.median(in_lots) <= 1.1 * np.median(one_by_one) + 10


def test_the_alarm_of_a_fault_of_one_day_ends_within_26_hours():
    rang, hours = alarm_quality.hours_until_the_end(np.array(SHARES["age"]), 0.25, 150_000, 8, SIGNALS)
    assert rang == 8
    assert hours.max() <= alarm_quality.END_HOURS


def test_the_alarm_of_labels_comes_about_once_and_ends_although_the_long_windows_hold_the_fault(risk):
    ends, starts = alarm_quality.labels_until_the_end(risk, 1.42, 6, SIGNALS)
    assert len(ends) == 6
    assert np.median(starts) <= 2
    assert np.median(ends) < 3000


def test_missed_targets_are_named():
    result = {
        "lots": [
            {
                "signal": "sex",
                "psi": 0.1,
                "rows": {"one by one": {"median": 100, "p95": 200}, "in lots": {"median": 121, "p95": 230}},
            }
        ],
        "ends": [{"signal": "bmi", "psi": 0.25, "rang": 5, "hours": {"p95": 27.0}}],
        "false_alarms": {"150000": {"evidence": 2}, "768": {"evidence": 0}},
        "calibration": {"false_alarms": 0},
        "detection": [
            {
                "signal": "age",
                "bins": 13,
                "psi": 0.25,
                "reference_rows": 150_000,
                "rows": {"evidence": {"median": 800.0, "p95": None, "worst": None}},
            }
        ],
    }
    found = alarm_quality.missed(result)
    assert len(found) == 4
    assert [problem.partition(",")[0] for problem in found[1:]] == ["age", "sex", "bmi"]
    assert evidence.evidence_limit(SIGNALS) > 7
