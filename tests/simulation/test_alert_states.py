"""`monitoring.simulation.alert_states`: what Grafana makes of a series of evaluations."""

from __future__ import annotations

import math

import pytest

from monitoring.simulation.alert_states import Observation, State, breaches, final_state, seconds


@pytest.mark.parametrize(
    ("text", "expected"), [("0s", 0), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("3d", 259_200)]
)
def test_durations_are_read(text: str, expected: int) -> None:
    """As Grafana's files write them."""
    assert seconds(text) == expected


def test_a_value_on_the_limit_breaches_only_where_the_relation_includes_it() -> None:
    """And NaN never does."""
    assert [breaches(1.0, relation, 1.0) for relation in ("gt", "gte", "lt", "lte")] == [
        False,
        True,
        False,
        True,
    ]
    assert not any(breaches(math.nan, relation, 1.0) for relation in ("gt", "gte", "lt", "lte"))


@pytest.mark.parametrize(
    ("observations", "state"),
    [
        ([0, 0, 0], "Normal"),
        ([2], "Pending"),
        ([0, 2, 2], "Pending"),
        ([0, 2, 2, 2], "Alerting"),
        ([2, 2, 0, 2, 2], "Pending"),
        ([2, 2, 2, 0], "Normal"),
    ],
)
def test_an_alert_waits_for_its_duration_and_starts_anew_after_a_gap(
    observations: list[Observation], state: State
) -> None:
    """`for: 2m` with one evaluation a minute."""
    assert final_state(observations, "gt", 1, lasts=120) == state


def test_without_a_duration_the_first_breach_fires() -> None:
    """`for: 0s`."""
    assert final_state([2], "gt", 1) == "Alerting"


@pytest.mark.parametrize(
    ("after", "state"),
    [([0], "Recovering"), ([0, 0], "Recovering"), ([0, 0, 0], "Normal"), ([0, 2], "Alerting")],
)
def test_an_alert_keeps_firing_for_a_while(after: list[Observation], state: State) -> None:
    """`keepFiringFor: 2m`: it recovers only if nothing happens for so long."""
    assert final_state([2, *after], "gt", 1, keep=120) == state


@pytest.mark.parametrize(
    ("rule", "state"),
    [("OK", "Normal"), ("Alerting", "Alerting"), ("KeepLast", "Alerting"), ("NoData", "NoData")],
)
def test_no_data_after_an_alert_does_what_the_rule_says(rule: str, state: State) -> None:
    """The alert was firing when the data went away."""
    assert final_state([2, 2, "no data"], "gt", 1, lasts=60, no_data=rule) == state


@pytest.mark.parametrize(
    ("rule", "state"), [("KeepLast", "Normal"), ("Alerting", "Pending"), ("Error", "Error")]
)
def test_a_failure_of_the_data_source_does_what_the_rule_says(rule: str, state: State) -> None:
    """All was well when Prometheus went away."""
    assert final_state([0, 0, "failure"], "gt", 1, lasts=60, failure=rule) == state


def test_a_kept_state_goes_on_counting_its_duration() -> None:
    """A pending alert that keeps its state through a gap fires when its time is over."""
    assert final_state([2, "failure", 2], "gt", 1, lasts=120, failure="KeepLast") == "Alerting"
