"""`monitoring.simulation.expected`: what should fire, from counters alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from monitoring.reference import Reference
from monitoring.sidecar.feedback import Counted
from monitoring.sidecar.metrics import Metrics
from monitoring.simulation import expected
from monitoring.simulation.history import History
from monitoring.simulation.world import DAY, TARGETS, VERSION, count_label

TARGET = {"job": "exporter", "instance": TARGETS["exporter"]}


@pytest.fixture
def metrics(reference: Reference) -> Metrics:
    return Metrics(CollectorRegistry(), reference, VERSION)


def day_with(metrics: Metrics, change: Any) -> History:
    """A history of two days, all of whose events come at the start of the second."""
    history = History()
    history.scrape(metrics.registry, 0.0, TARGET, {})
    history.scrape(metrics.registry, DAY - 1, TARGET, {})
    change()
    for minutes in (0, 30, 60):
        history.scrape(metrics.registry, DAY + minutes * 60.0, TARGET, {})
    return history


def now(history: History) -> float:
    return history.times[-1]


def test_nothing_came_and_nothing_fires(metrics: Metrics, reference: Reference) -> None:
    """An idle service has no alert of data or model."""
    history = day_with(metrics, lambda: None)
    assert expected.firing(history, reference, now(history)) == {}


def test_rows_like_the_training_fire_nothing(metrics: Metrics, reference: Reference) -> None:
    """In number, not only in share."""

    def come() -> None:
        for feature in reference.features:
            for counter, count in zip(metrics.features[feature.name].bins, feature.counts, strict=True):
                counter.inc(20 * count)

    history = day_with(metrics, come)
    assert expected.firing(history, reference, now(history)) == {}


def test_a_shifted_feature_is_named(metrics: Metrics, reference: Reference) -> None:
    """And no other."""

    def come() -> None:
        metrics.features["BMI"].bins[2].inc(2000)
        for counter, count in zip(metrics.features["Age"].bins, (20, 50, 30), strict=True):
            counter.inc(20 * count)

    history = day_with(metrics, come)
    assert expected.firing(history, reference, now(history)) == {"Feature drift": {"BMI"}}


def test_bad_values_are_told_apart(metrics: Metrics, reference: Reference) -> None:
    """Missing above the training's own share, out of range, unknown level."""

    def come() -> None:
        for name in ("BMI", "Age", "city"):
            metrics.features[name].bins[1].inc(5)
        metrics.features["Age"].missing.inc(500)
        metrics.features["BMI"].out_of_range.inc(500)
        metrics.features["city"].unknown.inc(500)

    history = day_with(metrics, come)
    fired = expected.firing(history, reference, now(history))
    assert fired["Missing values"] == {"Age"}
    assert fired["Invalid values"] == {"BMI"}
    assert fired["Unknown levels"] == {"city"}


def labelled(metrics: Metrics, people: int) -> None:
    """So many people with a high risk that comes to nothing, and as many with a low one that does not."""
    for place, outcome, risk in ((2, 0, 0.9), (0, 1, 0.1)):
        metrics.scores[place].inc(people)
        metrics.score_sums[place].inc(risk * people)
        for _ in range(people):
            count_label(metrics, Counted(place, outcome, risk, delay=60.0))


def test_labels_that_contradict_the_ranking_ask_for_a_training(
    metrics: Metrics, reference: Reference
) -> None:
    """Below the floor, and not calibrated: one training is asked for, and no recalibration."""
    history = day_with(metrics, lambda: labelled(metrics, 300))
    fired = set(expected.firing(history, reference, now(history)))
    assert fired - {"Score drift"} == {
        "Realised ROC AUC below floor",
        "Calibration",
        "Retraining asked for",
    }


@pytest.mark.parametrize("unflagged", [1.0, 0.1])
def test_one_sided_labels_change_no_alarm(metrics: Metrics, reference: Reference, unflagged: float) -> None:
    """Calibrated risks, and nine of ten flagged people known: whether one of ten others is known or all."""
    rng = np.random.default_rng(4)
    risks = rng.beta(1.2, 4, 20_000)
    places, outcomes = reference.score.bin(risks), rng.random(len(risks)) < risks
    share = np.where(risks >= reference.score.threshold, 0.9, unflagged)
    known = rng.random(len(risks)) < share

    def come() -> None:
        for place in range(len(reference.score.bins)):
            metrics.scores[place].inc(int((places == place).sum()))
            metrics.score_sums[place].inc(float(risks[places == place].sum()))
        for place, outcome, risk in zip(places[known], outcomes[known], risks[known], strict=True):
            count_label(metrics, Counted(int(place), int(outcome), float(risk), delay=60.0))

    # Three score bins rank worse than the floor in any case; risks and outcomes agree.
    history = day_with(metrics, come)
    fired = set(expected.firing(history, reference, now(history)))
    assert "Realised ROC AUC below floor" in fired
    assert "Calibration" not in fired
    assert "Recalibration asked for" not in fired


def test_two_labels_fire_nothing(metrics: Metrics, reference: Reference) -> None:
    """A ROC AUC of 0 from one pair of people paged and started a training once."""
    history = day_with(metrics, lambda: labelled(metrics, 1))
    assert expected.firing(history, reference, now(history)) == {}


def test_failing_and_slow_answers_burn_their_budgets(metrics: Metrics, reference: Reference) -> None:
    """Each its own; a long window alone does not page."""

    def come() -> None:
        metrics.requests["invocations"]["2xx"].inc(80)
        metrics.requests["invocations"]["5xx"].inc(20)

    history = day_with(metrics, come)
    # An hour later the short windows of the pages are quiet again, those of the tickets are not.
    assert set(expected.breaching(history, reference, DAY)) == {
        "Error budget burns fast",
        "Error budget burns slowly",
    }
    assert set(expected.breaching(history, reference, now(history))) == {"Error budget burns slowly"}


@pytest.mark.parametrize(
    ("failures", "rings"), [(4, set()), (5, {"Error budget burns fast", "Error budget burns slowly"})]
)
def test_a_handful_of_failures_burns_no_budget(
    metrics: Metrics, reference: Reference, failures: int, rings: set[str]
) -> None:
    """Four of 33 are more than the rate of a page, and nobody is woken for them."""

    def come() -> None:
        metrics.requests["invocations"]["2xx"].inc(33 - failures)
        metrics.requests["invocations"]["5xx"].inc(failures)

    assert set(expected.breaching(day_with(metrics, come), reference, DAY)) == rings


def test_an_alert_that_has_not_held_for_its_duration_is_not_announced(
    metrics: Metrics, reference: Reference
) -> None:
    """What began a moment ago is pending."""
    history = day_with(metrics, lambda: metrics.features["BMI"].bins[2].inc(2000))
    assert expected.breaching(history, reference, DAY) == {"Feature drift": {"BMI"}}
    assert expected.firing(history, reference, DAY) == {}
