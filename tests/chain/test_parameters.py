"""Parameters: MLProject is the only home of defaults, and what a person types is checked first."""

from __future__ import annotations

import re

import pytest

from steps.chain import parameters
from steps.chain.pipeline import STEPS
from steps.chain.values import Main, Tune
from steps.data.errors import UserError
from tests.conftest import ROOT


def test_every_declared_parameter_has_a_parser_that_takes_its_default() -> None:
    """No entry point declares what no step understands, and no parser is left without an entry point."""
    declared = parameters.declared(ROOT)
    assert set(declared) == set(STEPS)
    for step, defaults in declared.items():
        kind = STEPS[step].values
        assert parameters.texts(parameters.check(defaults, kind)).keys() == defaults.keys(), step


def test_every_command_passes_exactly_the_parameters_that_are_declared() -> None:
    """A parameter that a command forgets would silently keep its default."""
    import yaml

    entries = yaml.safe_load((ROOT / "MLProject").read_text())["entry_points"]
    for name, entry in entries.items():
        passed = re.findall(r"--(\w+) \{(\w+)\}", entry["command"])
        assert [flag for flag, _ in passed] == [value for _, value in passed], name
        assert sorted(flag for flag, _ in passed) == sorted(entry["parameters"]), name
        assert entry["command"].startswith(f"python -m steps.{name} "), name


def test_values_survive_being_written_and_read_again() -> None:
    """What a chain passes on to a step arrives as the same values."""
    values = parameters.parse(
        Main, ROOT, ["--hyperparameters", "C=0.5,knots=4", "--fresh", "true", "--parallelism", "3"]
    )
    assert values.hyperparameters == {"C": 0.5, "knots": 4}
    assert parameters.check(parameters.texts(values), Main) == values


def test_all_bad_values_are_named_at_once_with_what_would_do() -> None:
    """One run of the command tells everything that is wrong with it."""
    with pytest.raises(UserError) as caught:
        parameters.parse(
            Main, ROOT, ["--max_evals", "many", "--recall", "1.5", "--fresh", "yes", "--family", "svm"]
        )
    message = str(caught.value)
    for part in (
        "max_evals: 'many'",
        "recall: 1.5 is outside 0.01 to 0.999",
        "fresh: 'yes'",
        "family: 'svm'",
    ):
        assert part in message


def test_an_unknown_parameter_is_refused_with_the_known_ones() -> None:
    """MLflow hands unknown parameters on; a typing mistake must not pass silently."""
    with pytest.raises(UserError, match=r"tune has no parameter max_eval; it has .*max_evals"):
        parameters.parse(Tune, ROOT, ["--max_eval", "5"])
