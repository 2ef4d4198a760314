"""Each gate passes just inside its limit, fails just outside it, and says by how much."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest

from steps.measures import evaluation, gates
from steps.measures.evaluation_document import Comparison, Difference, Estimate, Evaluation
from steps.measures.scored_rows import scored_rows
from tests.made_up import made_up_study
from tests.made_up.made_up_study import SCHEMA


def _estimate(value: float | None, half: float = 0.01) -> Estimate:
    return Estimate(None) if value is None else Estimate(value, value - half, value + half)


@functools.cache
def _measured() -> Evaluation:
    rows = scored_rows(*made_up_study.rows())
    return evaluation.evaluate(rows, SCHEMA, 0.3, evaluation.Bootstrap(1, 2))


def _evaluation(**changes: float | None) -> Evaluation:
    values = {
        "roc_auc": 0.8,
        "calibration_slope": 1.0,
        "observed_expected": 1.0,
    } | changes
    measured = _measured()
    figures = {name: _estimate(value) for name, value in values.items()}
    return replace(measured, metrics=replace(measured.metrics, **figures))


def _comparison(difference: float, half: float) -> Comparison:
    change = Difference(None, None, difference, difference - half, difference + half)
    return Comparison(1000, 0.95, 100, {"roc_auc": change})


def _failed(judged: list[gates.Gate]) -> list[str]:
    return [gate.name for gate in judged if not gate.passed]


def test_a_good_model_passes_all_and_the_champion_gate_is_skipped_with_a_reason():
    """Without a champion the absolute gates decide, and the table says so."""
    judged = gates.judge(_evaluation(), None, SCHEMA)
    assert gates.passed(judged)
    assert gates.failures(judged) == ""
    skipped = [gate for gate in judged if gate.skipped]
    assert [gate.detail for gate in skipped] == [gates.NO_CHAMPION]
    other = gates.judge(_evaluation(), None, SCHEMA, not_compared="its columns differ")
    assert "its columns differ" in gates.format_table(other)


@pytest.mark.parametrize(
    ("change", "inside", "outside", "name", "by"),
    [
        ("roc_auc", 0.7, 0.69, "ROC AUC", "0.0100 too low"),
        ("calibration_slope", 0.8, 0.75, "calibration slope", "0.0500 too low"),
        ("calibration_slope", 1.2, 1.25, "calibration slope", "0.0500 too high"),
        ("observed_expected", 0.9, 0.8, "observed / expected", "0.1000 too low"),
        ("observed_expected", 1.1, 1.2, "observed / expected", "0.1000 too high"),
    ],
)
def test_each_gate_holds_at_its_limit_and_fails_beyond(change, inside, outside, name, by):
    """On the limit a model passes; beyond it that one gate fails, with the distance."""
    assert gates.passed(gates.judge(_evaluation(**{change: inside}), None, SCHEMA))
    judged = gates.judge(_evaluation(**{change: outside}), None, SCHEMA)
    assert _failed(judged) == [name]
    assert by in gates.failures(judged)


def test_noise_alone_does_not_lose_against_the_champion():
    """A loss counts when the whole paired interval lies below the tolerated loss of 0.01."""
    unsure = gates.judge(_evaluation(), _comparison(-0.02, 0.011), SCHEMA)
    assert gates.passed(unsure)
    sure = gates.judge(_evaluation(), _comparison(-0.02, 0.005), SCHEMA)
    assert _failed(sure) == ["change of ROC AUC against the champion"]
    assert "at least 0.0050" in gates.failures(sure)


def test_what_could_not_be_measured_fails():
    """An undefined metric is never a pass."""
    judged = gates.judge(_evaluation(calibration_slope=None), None, SCHEMA)
    assert _failed(judged) == ["calibration slope"]
    assert "could not be measured" in gates.failures(judged)


def test_the_table_has_name_value_limit_and_verdict_of_each():
    """One line a gate, for a terminal; failures stand out."""
    judged = gates.judge(_evaluation(roc_auc=0.6), _comparison(0.01, 0.002), SCHEMA)
    table = gates.format_table(judged).splitlines()
    assert len(table) == 2 + len(judged)
    assert table[2].split()[:6] == ["ROC", "AUC", "0.6000", "≥", "0.7", "FAIL"]
    assert "+0.0100" in table[5]
    assert all(line == line.rstrip() for line in table)
