"""Estimates and standard errors of a promotion: hand-counted, and right about repeated samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from steps.measures import metrics
from steps.measures.comparison import Estimate, compare, measure

Floats = NDArray[np.float64]


def people(rows: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """Outcomes, true risks, and the risks of a model that knows a little less."""
    generator = np.random.default_rng(seed)
    known, hidden = generator.normal(0, 1.2, rows), generator.normal(0, 0.5, rows)
    risk = 1 / (1 + np.exp(2 - known - hidden))
    return (generator.random(rows) < risk).astype(float), risk, 1 / (1 + np.exp(1.9 - known))


def test_intervals_of_a_ratio_are_those_of_its_logarithm() -> None:
    """1.2 with an error of 0.1 in the logarithm: factors, not sums."""
    assert Estimate(1.2, 0.1, log=True).interval(2) == pytest.approx(
        (1.2 / math.exp(0.2), 1.2 * math.exp(0.2))
    )
    assert Estimate(1.2, 0.1).interval(2) == pytest.approx((1.0, 1.4))


def test_figures_are_those_of_the_metrics() -> None:
    """Values come from the same definitions as an evaluation's."""
    y, risk, _ = people(3000, 1)
    mask = risk > np.median(risk)
    found = measure(y, risk, {"upper half": mask})
    assert (found.events, found.non_events) == (int(y.sum()), int((1 - y).sum()))
    assert found.roc_auc.value == pytest.approx(metrics.roc_auc(y, risk))
    assert found.log_loss.value == pytest.approx(metrics.log_loss(y, risk))
    assert found.calibration_slope.value == pytest.approx(metrics.calibration(y, risk).slope)
    assert found.observed_expected.value == pytest.approx(y.sum() / risk.sum())
    assert found.groups["upper half"].value == pytest.approx(y[mask].sum() / risk[mask].sum())


def test_a_change_by_hand() -> None:
    """Six people: log loss, net benefit and recall with as many flagged, counted on paper."""
    y = np.array([1, 1, 1, 0, 0, 0], dtype=float)
    new = np.array([0.9, 0.2, 0.7, 0.6, 0.1, 0.1])
    old = np.array([0.9, 0.6, 0.3, 0.7, 0.1, 0.1])
    everybody = np.ones(6, dtype=bool)
    found = compare(y, new, old, 0.5, {"all": everybody})
    assert found.log_loss == pytest.approx(metrics.log_loss(y, old))
    assert found.log_loss_change.value == pytest.approx(metrics.log_loss(y, new) - metrics.log_loss(y, old))
    # Both flag two of the three with the outcome and one without.
    assert found.net_benefit_change.value == pytest.approx(0)
    assert found.groups["all"].recall.value == pytest.approx(0)
    worse = compare(y, new, old, 0.65, {"all": everybody})  # old: 0.9, 0.7; new: 0.9, 0.7, which is a case
    assert worse.groups["all"].recall.value == pytest.approx(1 / 3)


def test_recall_counts_with_as_many_flagged_as_the_other_flags() -> None:
    """A candidate with the same ranking and half the risks loses no recall: thresholds are chosen later."""
    y, risk, _ = people(2000, 2)
    found = compare(y, risk / 2, risk, 0.3, {"all": np.ones(2000, dtype=bool)})
    assert found.groups["all"].recall.value == pytest.approx(0)
    assert found.groups["all"].distance.value > 0.5


def test_the_same_model_differs_by_nothing_for_certain() -> None:
    """Differences and errors of a model against itself are 0."""
    y, risk, _ = people(500, 3)
    found = compare(y, risk, risk, 0.2, {"all": np.ones(500, dtype=bool)})
    changes = [
        found.roc_auc_change,
        found.log_loss_change,
        found.net_benefit_change,
        found.groups["all"].recall,
    ]
    assert [(change.value, change.error) for change in changes] == [(0, 0)] * 4


def test_standard_errors_are_those_of_repeated_samples() -> None:
    """800 samples of 1,500 people: the spread of every figure is its mean standard error, within 8 %.

    That of the recall may be up to 15 % too wide, never too narrow: as many people flagged leaves less room.
    """
    spread: dict[str, list[tuple[float, float]]] = {}
    for seed in range(800):
        y, risk, other = people(1500, 1000 + seed)
        half = {"half": risk > 0.12}
        alone, change = measure(y, risk, half), compare(y, risk, other, 0.2, half)
        for name, estimate in {
            "slope": alone.calibration_slope,
            "ratio": alone.observed_expected,
            "group ratio": alone.groups["half"],
            "log loss": change.log_loss_change,
            "benefit": change.net_benefit_change,
            "area": change.roc_auc_change,
            "recall": change.groups["half"].recall,
        }.items():
            value = math.log(estimate.value) if estimate.log else estimate.value
            spread.setdefault(name, []).append((value, estimate.error))
    for name, pairs in spread.items():
        values, errors = np.array(pairs).T
        ratio = np.mean(errors) / np.std(values)
        assert (0.92 if name != "recall" else 1.0) < ratio < (1.08 if name != "recall" else 1.15), name
