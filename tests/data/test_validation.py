"""Validation finds every problem at once, keeps what it rejects, and names no value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from steps.data import validation
from steps.data.validation import Checked, Problem, ValidationError
from tests.made_up.clinic import clinic_rows, clinic_schema

if TYPE_CHECKING:
    from steps.data.schema import Schema


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return clinic_schema(tmp_path_factory.mktemp("schema"))


def _frame(**columns: list[Any]) -> pd.DataFrame:
    """Rows that are valid in every column but those given."""
    count = len(next(iter(columns.values())))
    good = {"glucose": 5.0, "ward": "A1", "stage": 1, "smoker": 0, "readmitted": "no"}
    return pd.DataFrame(
        {name: columns.get(name, [value] * count) for name, value in good.items()}, dtype=object
    )


def _check(frame: pd.DataFrame, schema: Schema, **options: Any) -> Checked:
    return validation.check(frame, schema, "readmitted", schema.target.positive, **options)


def test_valid_rows_become_canonical(schema: Schema) -> None:
    """Numbers become float64, text str, missing codes NaN, the outcome 0 or 1; columns are in order."""
    checked = _check(
        _frame(
            glucose=["5.50", 0, None],
            ward=[" A1 ", "NA", "?"],
            stage=["1.0", 9, 3],
            smoker=[True, "false", ""],
            readmitted=["yes", "no", "no"],
        )[["readmitted", "smoker", "stage", "ward", "glucose"]],
        schema,
    )
    assert len(checked.rejected) == 0
    assert checked.problems == ()
    expected = pd.DataFrame(
        {
            "glucose": [5.5, np.nan, np.nan],
            "ward": pd.Series(["A1", "NA", None], dtype="str"),
            "stage": [1.0, np.nan, 3.0],
            "smoker": [1.0, 0.0, np.nan],
            "__target__": np.array([1, 0, 0], dtype=np.int8),
        }
    )
    pd.testing.assert_frame_equal(checked.valid, expected)


@pytest.mark.parametrize("spelling", ["1", "1.0", " 1 ", "1e0", "+1", 1, 1.0, np.float32(1), True])
def test_a_number_may_be_written_in_many_ways(schema: Schema, spelling: object) -> None:
    """Each spelling of 1 is the level 1."""
    assert _check(_frame(smoker=[spelling]), schema).valid["smoker"].tolist() == [1.0]


def test_a_text_level_may_be_written_as_a_number(tmp_path: Any) -> None:
    """pandas writes 1 as 1.0 into CSV where a column has gaps; a level that is written so stays itself."""
    schema = clinic_schema(
        tmp_path,
        ("{A1: surgery, B2: medicine, NA: not assigned}", '{"1": surgery, "2": medicine, "3.0": other}'),
        ('missing: ["?"]', 'missing: ["9"]'),
    )
    checked = _check(_frame(ward=["1", "1.0", " 2.00 ", 2.0, "3.0", "9.0"]), schema)
    assert checked.valid["ward"].tolist() == ["1", "1", "2", "2", "3.0", np.nan]
    assert _check(_frame(ward=["1.5", "3", "x.0"]), schema).problems == (Problem("ward", "unknown level", 3),)


@pytest.mark.parametrize("value", ["1_0", "ten", "1,5,0", "inf", "0x5", "5 mmol", pd.Timestamp("2020-01-01")])
def test_what_is_no_number_is_rejected(schema: Schema, value: object) -> None:
    """Text that Python might take for a number, but nobody means as one, is none."""
    assert _check(_frame(glucose=[value, 5]), schema).problems == (Problem("glucose", "not a number", 1),)


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("glucose", 1.99, "out of range"),
        ("glucose", "40.01", "out of range"),
        ("glucose", -1, "out of range"),
        ("ward", "a1", "a level that differs only in upper and lower case"),
        ("ward", "a9", "unknown level"),
        ("ward", 7, "unknown level"),
        ("stage", 4, "unknown level"),
        ("stage", 1.5, "unknown level"),
        ("stage", "mild", "not a number"),
        ("smoker", 2, "unknown level"),
        ("readmitted", "perhaps", "unknown target value"),
    ],
)
def test_each_rule(schema: Schema, column: str, value: object, rule: str) -> None:
    """One broken rule rejects the row and leaves its neighbours."""
    good = {"glucose": 40, "ward": "B2", "stage": 3, "smoker": 1, "readmitted": "yes"}[column]
    checked = _check(_frame(**{column: [good, value, good]}), schema)
    assert checked.problems == (Problem(column, rule, 1),)
    assert checked.valid.index.tolist() == [0, 2]
    assert checked.rejected.index.tolist() == [1]
    assert checked.rejected.loc[1, "__reason__"].startswith(f"{column}: {rule}")
    assert str(value) in checked.rejected.loc[1, column]
    assert checked.unlabelled == 0


def test_infinite_numbers_are_no_numbers(schema: Schema) -> None:
    """An infinity in a float column does not pass as a value."""
    frame = _frame(glucose=[5, 5]).assign(glucose=[np.inf, 5.0])
    assert _check(frame, schema).problems == (Problem("glucose", "not a number", 1),)


def test_every_problem_is_reported_at_once(schema: Schema) -> None:
    """A row with three faults has three reasons; the counts name each column and rule."""
    frame = _frame(
        glucose=[500, "high", 5, 5],
        ward=["C3", "A1", "A1", "A1"],
        stage=[7, 1, 1, 1],
        readmitted=["no", "no", None, "?"],
    ).assign(visit=["v1", "v2", "v3", "v4"], __file__="monday.csv")
    checked = _check(frame, schema)
    assert checked.problems == (
        Problem("glucose", "not a number", 1),
        Problem("glucose", "out of range", 1),
        Problem("readmitted", "unknown target value", 1),
        Problem("stage", "unknown level", 1),
        Problem("ward", "unknown level", 1),
    )
    assert checked.rejected["__reason__"].tolist() == [
        "glucose: out of range 2 to 40; ward: unknown level; stage: unknown level",
        "glucose: not a number",
        "readmitted: unlabelled",
        "readmitted: unknown target value",
    ]
    assert checked.rejected["visit"].tolist() == ["v1", "v2", "v3", "v4"]
    assert checked.rejected["__file__"].tolist() == ["monday.csv"] * 4
    assert checked.unlabelled == 1
    assert checked.extra_columns == ("visit",)
    assert len(checked.valid) == 0


def test_a_row_without_outcome_and_with_a_fault_counts_as_faulty(schema: Schema) -> None:
    """Only rows that lack nothing but the outcome are `unlabelled`."""
    checked = _check(_frame(glucose=[500, 5], readmitted=[None, ""]), schema)
    assert checked.unlabelled == 1
    assert checked.rejected["__reason__"].tolist() == [
        "glucose: out of range 2 to 40; readmitted: unlabelled",
        "readmitted: unlabelled",
    ]


def test_without_a_required_target_the_outcome_rejects_nothing(schema: Schema) -> None:
    """Rows to be scored need no outcome; where there is one it is kept, an unknown one counted."""
    checked = _check(_frame(readmitted=["yes", None, "perhaps"]), schema, require_target=False)
    assert checked.valid["__target__"].tolist() == pytest.approx([1.0, np.nan, np.nan], nan_ok=True)
    assert checked.problems == (Problem("readmitted", "unknown target value", 1),)
    assert len(checked.rejected) == 0
    without = _check(_frame(readmitted=["yes"]).drop(columns="readmitted"), schema, require_target=False)
    assert "__target__" not in without.valid


def test_a_source_may_code_the_outcome_otherwise(tmp_path: Any) -> None:
    """With the source's positive code, the schema's own positive code is no valid answer."""
    schema = clinic_schema(
        tmp_path,
        ('{"no": at home, "yes": back in hospital}', "{0: home, 1: other ward, 2: back}"),
        ('positive: ["yes"]', "positive: [2]"),
    )
    frame = _frame(readmitted=[0, 1, 2]).rename(columns={"readmitted": "back"})
    own = validation.check(frame, schema, "back", schema.target.positive)
    assert own.valid["__target__"].tolist() == [0, 0, 1]
    theirs = validation.check(frame, schema, "back", (1.0,))
    assert theirs.valid["__target__"].tolist() == [0, 1]
    assert theirs.problems == (Problem("back", "unknown target value", 1),)


def test_missing_columns_are_shown_as_a_difference(schema: Schema) -> None:
    """The message lists what is missing and what is there instead, with the likely misspelling."""
    frame = (
        _frame(stage=[1, 1])
        .rename(columns={"glucose": "Glucose", "ward": "station"})
        .assign(__file__="monday.csv")
    )
    with pytest.raises(ValidationError) as caught:
        _check(frame, schema)
    assert str(caught.value).splitlines() == [
        "monday.csv lacks 2 of the 5 columns that the schema needs:",
        "  - glucose    (is it Glucose?)",
        "  - ward",
        "and has what the schema does not know:",
        "  + Glucose",
        "  + station",
        (
            "Rename the columns in the file, give the schema's columns these names as aliases, or describe "
            "the file with a schema of its own (-P schema=)."
        ),
    ]


def test_ignored_columns_are_not_extra(schema: Schema) -> None:
    """A source's identifier column is expected and not warned of."""
    assert _check(_frame(stage=[1]).assign(ID=[1]), schema, ignore=("ID",)).extra_columns == ()


def test_problems_of_chunks_add_up(schema: Schema) -> None:
    """Chunk by chunk or at once, the same rows pass, with the same counts."""
    frame = clinic_rows(300)
    frame.loc[::7, "glucose"] = 99
    frame.loc[::11, "ward"] = "C3"
    whole = _check(frame, schema)
    parts = [_check(frame.iloc[start : start + 50], schema) for start in range(0, 300, 50)]
    assert validation.merged([p for part in parts for p in part.problems]) == validation.merged(
        whole.problems
    )
    assert sum(len(part.valid) for part in parts) == len(whole.valid)
    assert validation.described(validation.merged(whole.problems), schema).splitlines() == [
        "  glucose: out of range 2 to 40: 43 rows",
        "  ward: unknown level (the schema has A1, B2, NA): 28 rows",
    ]


def test_a_row_that_is_broken_in_one_column_still_counts_in_the_others(schema: Schema) -> None:
    """A broken value is no missing one, and takes nothing from the rest of its row."""
    cells = validation.read_cells(
        _frame(glucose=["5.5", "many", None], ward=["A1", "Z9", "?"], stage=[1, 2, 7]), schema
    )
    assert cells.values["glucose"].tolist() == pytest.approx([5.5, np.nan, np.nan], nan_ok=True)
    assert cells.broken["glucose"].tolist() == [False, True, False]
    assert cells.values["ward"].isna().tolist() == [False, True, True]
    assert cells.broken["ward"].tolist() == [False, True, False]
    assert cells.values["stage"].tolist() == pytest.approx([1.0, 2.0, np.nan], nan_ok=True)
    assert not cells.broken["smoker"].any()


def test_a_header_inside_the_file_is_named(schema: Schema) -> None:
    """Two files joined by hand: one row, one reason."""
    frame = _frame(glucose=["5", "glucose", "6"], ward=["A1", "ward", "B2"], stage=["1", "stage", "2"])
    frame = frame.assign(smoker=["0", "smoker", "1"], readmitted=["no", "readmitted", "yes"])
    checked = _check(frame.astype("category"), schema)
    assert {problem.rule for problem in checked.problems if problem.column != "readmitted"} == {
        validation.HEADER_INSIDE
    }
    assert len(checked.rejected) == 1
