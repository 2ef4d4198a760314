"""The schema: what it accepts, what it refuses, and what its nouns compute."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steps.data.errors import UserError
from steps.data.schema import DriftLimits, Schema, format_code, registered_name
from steps.data.schema_file import SchemaError, load
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL = """
name: readmission
title: Readmission
disclaimer: Made up.
target:
  name: back
  meaning: Back within a month
  levels: {"no": at home, "yes": back}
  positive: ["yes"]
columns:
  - {name: dose, kind: numeric, meaning: Dose, unit: mg, minimum: 0.5, maximum: 90, missing: [0]}
  - {name: ward, kind: nominal, meaning: Ward, levels: {A: surgery, B: medicine, C: other}, missing: ["?"]}
  - {name: grade, kind: ordinal, meaning: Grade, levels: {1: mild, 2: moderate, 3: severe}}
  - {name: smoker, kind: binary, meaning: Smokes, levels: {0: "no", 1: "yes"}}
sources:
  - {name: made, kind: synthetic, path: data/made.csv}
  - {name: open, kind: public, url: "https://example.org/a.csv", target: b, positive: [1], ignore: [ID]}
subgroups:
  - {column: ward}
  - {name: High dose, column: dose, minimum: 50, headline: true}
  - {name: Ill, column: grade, values: [2, 3]}
gates:
  roc_auc_min: 0.6
  calibration_slope: [0.8, 1.2]
  observed_expected: [0.9, 1.1]
  roc_auc_margin: 0.01
point_scores:
  - name: Ward score
    made_for: tests
    cut: 3
    items:
      - {column: dose, points: [{to: 10, points: 0}, {from: 10, to: 50, points: 1}, {from: 50, points: 2}]}
      - {column: ward, points: {A: 1, B: 0, C: 0}}
      - {column: grade, points: {1: 1, 2: 2, 3: 3}}
scenarios:
  - {name: calm, title: Calm, description: Nothing changes}
  - name: wave
    title: Wave
    description: Doses rise
    starts: 2
    ramp: 4
    drifts: [dose]
    changes: [{column: dose, shift: 1.0}, {column: ward, missing: 0.5}, {rate: 3}, {outcome_slope: 0.5}]
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Schema]:
    """Loads a schema from its text."""

    def read_text(text: str) -> Schema:
        path = tmp_path / "schema.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path)

    return read_text


@pytest.fixture(scope="module")
def bundled() -> Schema:
    """The schema that the project ships."""
    return load(ROOT / "data" / "brfss2015.yaml")


def _problems(read: Callable[[str], Schema], text: str) -> tuple[str, ...]:
    with pytest.raises(SchemaError) as error:
        read(text)
    return error.value.problems


def test_bundled_schema_describes_21_indicators_and_their_target(bundled: Schema) -> None:
    """The shipped file is read without a problem and marks status 2 as positive."""
    assert len(bundled.feature_names) == 21
    assert bundled.target.positive == (2.0,)
    assert bundled.column(bundled.feature_names[0]).codes == (0.0, 1.0)
    assert [group.name for group in bundled.subgroups if group.headline] == ["Age 60 and over"]
    assert all(source.sha256 for source in bundled.sources)
    assert {s.name for s in bundled.scenarios} == {
        "steady", "ageing-population", "obesity-wave", "broken-sensor", "missing-questions", "concept-shift",
        "garbage", "flash-crowd",
    }  # fmt: skip


def test_a_schema_without_limits_has_defaults_and_retired_keys_are_named(
    read: Callable[[str], Schema],
) -> None:
    """Without a `gates` block the defaults hold; a key of an older schema limits nothing, and a sentence says
    so.
    """
    start, end = SMALL.index("gates:"), SMALL.index("point_scores:")
    plain = read(SMALL[:start] + SMALL[end:]).gates
    assert (plain.roc_auc_min, plain.roc_auc_margin, plain.calibration_slope) == (None, 0.005, (0.5, 2.0))
    older = read(
        SMALL.replace("gates:", "gates:\n  average_precision_min: 0.2\n  subgroup_gap_max: 0.1")
    ).gates
    assert [sentence.split()[0] for sentence in older.ignored] == [
        "average_precision_min",
        "subgroup_gap_max",
    ]


def test_every_problem_is_reported_at_once(read: Callable[[str], Schema]) -> None:
    """Five faults in five places make five problems, each naming its place."""
    text = (
        SMALL.replace("kind: ordinal", "kind: ordnal")
        .replace('positive: ["yes"]', "positive: [maybe]")
        .replace("maximum: 90", "maximum: 0.1")
        .replace("roc_auc_min: 0.6", "roc_auc_min: 6")
        .replace("{column: ward, missing: 0.5}", "{column: wart, missing: 0.5}")
    )
    problems = _problems(read, text)
    assert {problem.split(":")[0] for problem in problems} == {
        "column dose", "column grade", "target", "gates", "wave change 2",
    }  # fmt: skip
    assert len(problems) == 5


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("title: Readmission", "title: Readmission\ncolour: red", "unknown key 'colour'"),
        ("title: Readmission", "title: A\ntitle: B", "line 4: the key 'title' stands twice"),
        ("{1: mild, 2: moderate", "{1: mild, 1: moderate", "the key 1 stands twice"),
        ("title: Readmission\n", "", "title is missing"),
        ("name: readmission", "name: Re Admission", "small letters"),
        ('0: "no", 1: "yes"', "0: no, 1: yes", "quote yes, no, on and off"),
        ('0: "no", 1: "yes"', '0: "no", a: "yes"', "mixes numbers and texts"),
        ('0: "no", 1: "yes"', '0: "no", 1: "yes", 2: "often"', "a binary column has two levels"),
        ("unit: mg, minimum: 0.5, ", "", "minimum is missing"),
        ("unit: mg,", "levels: {1: a, 2: b},", "has minimum and maximum, no levels"),
        ("minimum: 0.5", "minimum: .nan", "minimum should be a number"),
        ("minimum: 0.5", "minimum: 1" + "0" * 400, "minimum should be a number"),
        ("minimum: 0.5", "minimum: true", "minimum should be a number"),
        ("{1: mild, 2: moderate, 3: severe}", "{a: mild, b: severe}", "text has no order"),
        ("{1: mild, 2: moderate, 3: severe}", "{2: mild, 1: severe}", "ascending"),
        ('missing: ["?"]', "missing: [A]", "both a level and a value that means missing"),
        ("name: smoker", "name: grade", "two columns are called 'grade'"),
        ("name: smoker", "name: __smoker", "the project's own"),
        ("name: back", "name: dose", "a model would be given the answer"),
        ('positive: ["yes"]', 'positive: ["yes", "no"]', "at least one should not be"),
        ("kind: public", "kind: private", "one of synthetic, public"),
        ("path: data/made.csv", "path: ../made.csv", "stay inside"),
        ("path: data/made.csv", "path: a, url: 'http://b'", "either a path or a url"),
        ("path: data/made.csv", "note: nowhere", "either a path or a url"),
        ("https://example.org", "ftp://example.org", "should start with https://"),
        ("path: data/made.csv", "path: a, sha256: 12ab", "64 small hexadecimal"),
        ("ignore: [ID]", "ignore: [dose]", "is a column of the schema"),
        ("minimum: 50, ", "", "either values or minimum"),
        ("values: [2, 3]", "minimum: 2", "has levels: give values"),
        ("values: [2, 3]", "values: [4]", "names 4, which is no level; levels are 1, 2, 3"),
        ("{column: ward}", "{column: dose}", "name is missing"),
        ("name: Ill", "name: High dose", "two subgroups"),
        ("title: Readmission", "title: A\nmonitor_by: smoker", "a column that has subgroups"),
        ("slope: [0.8, 1.2]", "slope: [1.2, 0.8]", "two numbers, lower and upper"),
        ("roc_auc_margin: 0.01", "roc_auc_margin: 1.5", "roc_auc_margin should be a number between 0 and 1"),
        ("roc_auc_margin: 0.01", "prevalence_change: 0.9", "an odds ratio above 1"),
        ("{from: 10, to: 50", "{from: 11, to: 50", "join without gap"),
        ("points: {A: 1, B: 0, C: 0}", "points: {A: 1, B: 0}", "say nothing for level C of ward"),
        ("points: {A: 1, B: 0, C: 0}", "points: {A: 1.5, B: 0, C: 0}", "whole points"),
        ("{column: ward, points: {A", "{columns: [], points: {A", "columns is empty"),
        ("cut: 3", "cut: 2.5", "cut should be a whole number"),
        ("shift: 1.0", "shift: 1.0, add: 2", "exactly one of"),
        ("{column: dose, shift: 1.0}", "{shift: 1.0}", "column is missing"),
        ("{column: ward, missing: 0.5}", "{column: ward, missing: 1.5}", "share of the rows"),
        ("{column: ward, missing: 0.5}", "{column: ward, shift: 0.5}", "needs a column of numbers"),
        ("{rate: 3}", "{column: dose, rate: 3}", "concerns all rows"),
        ("drifts: [dose]", "drifts: [dosis]", "there is no column 'dosis'"),
        ("ramp: 4", "ramp: -4", "0 or more"),
    ],
)  # fmt: skip
def test_fault_is_named(read: Callable[[str], Schema], old: str, new: str, expected: str) -> None:
    """Each planted fault is refused with a message that says what and where."""
    assert old in SMALL
    assert expected in "\n".join(_problems(read, SMALL.replace(old, new, 1)))


def test_columns_of_one_item_share_their_levels(read: Callable[[str], Schema]) -> None:
    """Points for levels that one of an item's columns does not have are refused."""
    text = SMALL.replace("{column: grade, points", "{columns: [grade, smoker], points")
    assert any("which is no level" in problem for problem in _problems(read, text))


@pytest.mark.parametrize(
    "text", ["", "- 1", "a: [", "? [1]\n: 2", "&a [*a]", "a: !!python/name:os.system", "\x00"]
)
def test_file_that_is_no_mapping_is_refused(read: Callable[[str], Schema], text: str) -> None:
    """Whatever the file holds, the answer is a SchemaError."""
    assert _problems(read, text)


def test_absent_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    """No such file, a folder, and a file in another encoding are named with a remedy."""
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("title: été".encode("latin-1"))
    for path, expected in (
        (tmp_path / "no.yaml", "no such file"),
        (tmp_path, "IsADirectory"),
        (latin, "Unicode"),
    ):
        with pytest.raises(SchemaError, match=expected):
            load(path)


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(node, dict | list):
        for key in node if isinstance(node, dict) else range(len(node)):
            yield from _places(node[key], (*path, key))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.sampled_from([place for place in _places(yaml.safe_load(SMALL)) if place]),
    value=st.sampled_from([None, "x", 7, -1.5, True, [], {}, ["a", 1], {"a": 1, 2: "b"}, [[]], [{}]]),
)
def test_any_value_anywhere_is_read_or_refused(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    """A value of a wrong kind at any place gives a schema or a SchemaError, never another error."""
    document = yaml.safe_load(SMALL)
    node = document
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump(document))
    try:
        assert load(path).feature_names
    except SchemaError as error:
        assert error.problems


def test_digest_follows_content_not_layout(read: Callable[[str], Schema]) -> None:
    """Comments and layout change nothing; a label changes the whole digest only; a code changes both."""
    plain = read(SMALL)
    laid_out = read("# A comment\n" + SMALL.replace("levels: {0:", "levels:   {0:"))
    relabelled = read(SMALL.replace("1: mild", "1: light"))
    recoded = read(
        SMALL.replace("3: severe", "4: severe").replace("[2, 3]", "[2, 4]").replace("3: 3}", "4: 3}")
    )
    reordered = read(SMALL.replace("A: surgery, B: medicine", "B: medicine, A: surgery"))
    assert plain.digest == laid_out.digest and plain.data_digest == laid_out.data_digest
    assert plain.digest != relabelled.digest and plain.data_digest == relabelled.data_digest
    assert plain.data_digest != recoded.data_digest
    assert plain.data_digest != reordered.data_digest


def test_subgroups_hold_their_levels_and_bounds(read: Callable[[str], Schema]) -> None:
    """A column alone gives a subgroup a level; bounds are inclusive; missing belongs to none."""
    schema = read(SMALL)
    frame = pd.DataFrame(
        {
            "dose": [50.0, 49.9, np.nan, 90.0],
            "ward": pd.Series(["A", None, "C", "A"], dtype="str"),
            "grade": [1.0, 2.0, 3.0, np.nan],
        }
    )
    masks = {group.name: group.mask(frame).tolist() for group in schema.subgroups}
    assert masks == {
        "ward: surgery": [True, False, False, True],
        "ward: medicine": [False] * 4,
        "ward: other": [False, False, True, False],
        "High dose": [True, False, False, True],
        "Ill": [False, True, True, False],
    }


def test_the_groups_that_the_monitor_counts_by_share_nobody(read: Callable[[str], Schema]) -> None:
    """Those of one column; a subgroup that shares people with an earlier one is left out; none by default."""
    more = "  - {name: Worst, column: grade, values: [3]}\n  - {name: Well, column: grade, values: [1]}\n"
    doses = (
        "  - {name: 50 only, column: dose, maximum: 50}\n  - {name: Low dose, column: dose, maximum: 49}\n"
    )
    text = SMALL.replace("subgroups:\n", f"subgroups:\n{doses}")
    text = text.replace("  - {name: Ill,", f"{more}  - {{name: Ill,")

    def names(column: str) -> list[str]:
        schema = read(text.replace("title: Readmission", f"title: Readmission\nmonitor_by: {column}"))
        return [group.name for group in schema.monitored_groups]

    assert names("ward") == ["ward: surgery", "ward: medicine", "ward: other"]
    assert names("grade") == ["Worst", "Well"], "Ill shares grade 3 with Worst"
    assert names("dose") == ["50 only"], "Low dose and High dose (from 50 on) share people with it"
    assert read(SMALL).monitored_groups == ()


def test_points_add_up(read: Callable[[str], Schema]) -> None:
    """Bands start at their lower bound, text counts by its level, and a missing answer gives no points."""
    frame = pd.DataFrame(
        {
            "dose": [9.9, 10.0, 50.0, np.nan],
            "ward": pd.Series(["A", "B", "A", None], dtype="str"),
            "grade": [1.0, 2.0, 3.0, np.nan],
        }
    )
    assert read(SMALL).point_scores[0].points(frame).tolist() == [2, 3, 6, 0]


def test_scenario_builds_up(read: Callable[[str], Schema]) -> None:
    """Nothing before its start, all of it after its ramp, a line between; without a day, all of it."""
    wave = read(SMALL).scenario("wave")
    assert [wave.strength(day) for day in (0, 2, 4, 6, 99, None)] == [0, 0, 0.5, 1, 1, 1]
    assert [wave.rate(day) for day in (0, 4, None)] == [1, 2, 3]
    assert read(SMALL).scenario("calm").rate() == 1


def test_unknown_names_say_what_there_is(bundled: Schema) -> None:
    """Asking for a column, source or scenario that is not there names those that are."""
    with pytest.raises(UserError, match="no source 'nowhere'; it has: cohort, uci"):
        bundled.source("nowhere")


def test_codes_and_registered_names(bundled: Schema) -> None:
    """Whole codes are written without a point; a model of synthetic people has a name of its own."""
    assert [format_code(code) for code in (1.0, 0.5, "a")] == ["1", "0.5", "a"]
    assert registered_name(bundled, "synthetic") == "diabetes-risk-synthetic"
    assert registered_name(bundled, "private") == "diabetes-risk"


def test_limits_of_drift_have_defaults_and_a_schema_changes_one(read: Callable[[str], Schema]) -> None:
    """A schema without the key `drift` has the defaults; one key given leaves the others as they are."""
    assert read(SMALL).drift == DriftLimits()
    changed = read(SMALL + "drift: {psi: 0.05, observed_expected: [0.8, 1.25]}\n").drift
    assert changed == replace(DriftLimits(), psi=0.05, observed_expected=(0.8, 1.25))


def test_limits_that_make_no_sense_are_refused(read: Callable[[str], Schema]) -> None:
    """Every problem at once, with the key's name."""
    with pytest.raises(SchemaError) as caught:
        read(SMALL + "drift: {psi: 0, observed_expected: [1.1, 1.2], separability: 0.4, psi_watch: 0.02}\n")
    told = "\n".join(caught.value.problems)
    for key in ("psi should be above 0", "observed_expected", "separability", "unknown key 'psi_watch'"):
        assert key in told


def test_the_column_that_identifies_people_is_no_feature(read: Callable[[str], Schema]) -> None:
    """`person` names a column beside features and target; without the key there is none."""
    assert read(SMALL).person is None
    assert read(SMALL + "person: patient\n").person == "patient"
    with pytest.raises(SchemaError, match="beside the features"):
        read(SMALL + "person: dose\n")
