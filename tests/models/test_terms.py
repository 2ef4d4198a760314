"""The document of a glass box: it computes what it says, and one at fault is refused by name."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steps.models import terms as writer
from steps.models.served_model import (
    Binning,
    Calibration,
    ModelFileError,
    Term,
    Terms,
    parse_terms,
    read_terms,
)

COLUMNS = (
    Binning("glucose", ("below 5", "5 to 7", "7 and over"), cuts=(5.0, 7.0), missing=(0.0,)),
    Binning("stage", ("early", "late"), levels=(1.0, 2.0, 3.0), bins=(1, 1, 2)),
    Binning("ward", ("first floor", "roof"), levels=("A1", "A2", "R"), bins=(1, 1, 2)),
)

STRETCHED = Calibration(2.0, 0.25)


def table(*effects: float, shape: tuple[int, ...] = (-1,)) -> dict[str, Any]:
    array = np.array(effects).reshape(shape)
    return {"effects": array, "spread": abs(array) / 10, "people": np.full(array.shape, 20.0)}


def glass_box(calibration: Calibration = STRETCHED) -> Terms:
    return Terms(
        COLUMNS,
        [
            Term((0,), **table(0.1, -1.0, 0.2, 0.9)),
            Term((1,), **table(0.3, -0.5, 0.7)),
            Term((2, 1), **table(0, 0, 0, 0, 0.4, -0.4, 0, -0.6, 0.6, shape=(3, 3))),
        ],
        intercept=-1.5,
        intercept_spread=0.05,
        calibration=calibration,
    )


def rows(**values: list[Any]) -> pd.DataFrame:
    base: dict[str, list[Any]] = {"glucose": [6.0], "stage": [1.0], "ward": ["A1"]}
    return pd.DataFrame({**base, **values}).astype({"ward": "str"})


def test_log_odds_are_the_calibrated_sum_of_the_tables() -> None:
    """glucose 6 is the second bin, stage 3 the second, ward R the second: looked up by hand."""
    frame = rows(stage=[3.0], ward=["R"])
    assert glass_box().log_odds(frame)[0] == pytest.approx(2.0 * (-1.5 + 0.2 + 0.7 + 0.6) + 0.25, abs=1e-15)
    assert glass_box().risk(frame)[0] == pytest.approx(1 / (1 + math.exp(-0.25)), abs=1e-15)


@pytest.mark.parametrize(
    ("value", "place"),
    [(-1e9, 1), (4.999, 1), (5.0, 2), (6.99, 2), (7.0, 3), (math.inf, 3), (0.0, 0), (math.nan, 0)],
)
def test_a_cut_is_the_first_value_of_the_bin_above_it(value: float, place: int) -> None:
    """Values beyond the cuts belong to the outer bins; a code that means missing and a null to bin 0."""
    assert glass_box().bins(rows(glucose=[value]))[0, 0] == place


@pytest.mark.parametrize("ward", ["cellar", None, "", "a1"])
def test_a_text_that_is_no_level_counts_as_no_answer(ward: str | None) -> None:
    assert glass_box().bins(rows(ward=[ward]))[0, 2] == 0


@pytest.mark.parametrize("stage", [9.0, 1.5, -1.0, math.nan, math.inf])
def test_a_number_that_is_no_level_counts_as_no_answer(stage: float) -> None:
    assert glass_box().bins(rows(stage=[stage]))[0, 1] == 0


@pytest.mark.parametrize("dtype", ["int64", "int8", "float32", "Int64", "Float64", "object", "category"])
def test_whole_numbers_of_any_type_give_the_risk_of_doubles(dtype: str) -> None:
    frame = rows(glucose=[6, 8], stage=[1, 3], ward=["A1", "R"])
    expected = glass_box().risk(frame.astype({"glucose": "float64", "stage": "float64"}))
    given = frame.astype({"glucose": dtype, "stage": dtype, "ward": "category"})
    np.testing.assert_array_equal(glass_box().risk(given), expected)


def test_nulls_of_any_type_are_missing_answers() -> None:
    for null in (None, pd.NA, math.nan):
        frame = pd.DataFrame({"glucose": pd.Series([null, 6], dtype=object), "stage": [1, 1], "ward": "A1"})
        assert glass_box().bins(frame)[:, 0].tolist() == [0, 2]
    nullable = rows(glucose=[None, 6], stage=[1, 1], ward=["A1", "A1"]).astype({"glucose": "Int64"})
    assert glass_box().bins(nullable)[:, 0].tolist() == [0, 2]


def test_booleans_are_the_numbers_0_and_1() -> None:
    frame = rows(stage=[True])
    assert glass_box().risk(frame)[0] == glass_box().risk(rows(stage=[1.0]))[0]


def test_text_in_a_number_column_is_refused_without_its_value() -> None:
    with pytest.raises(ValueError, match="the column glucose should hold numbers") as raised:
        glass_box().risk(rows(glucose=["Smith"]))
    assert "Smith" not in str(raised.value)


def many(count: int) -> pd.DataFrame:
    """Rows of every kind: in and out of range, missing, with levels never seen."""
    draw = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "glucose": draw.choice([0.0, math.nan, -3.0, 4.2, 5.0, 6.1, 1e6], count),
            "stage": draw.choice([1.0, 2.0, 3.0, 9.0, math.nan], count),
            "ward": pd.Series(draw.choice(["A1", "A2", "R", "cellar"], count), dtype="str"),
        }
    )


def test_a_row_has_the_same_bits_alone_and_among_ten_thousand() -> None:
    frame = many(10_000)
    together = glass_box().risk(frame)
    alone = [glass_box().risk(frame.iloc[[row]])[0] for row in range(0, 10_000, 37)]
    assert alone == together[::37].tolist()


def test_reasons_sum_to_the_log_odds_of_the_answered_risk() -> None:
    """Baseline, the largest effects and the rest, calibrated, are the logit, whatever was asked for."""
    for answer in glass_box().answers(many(500), 2):
        effects = [reason["log_odds"] for reason in answer["reasons"]]
        total = answer["baseline_log_odds"] + sum(effects) + answer["other_log_odds"]
        assert total == pytest.approx(math.log(answer["risk"] / (1 - answer["risk"])), abs=1e-9)
        assert abs(effects[0]) >= abs(effects[1]) and len(effects) == 2


def test_reasons_name_columns_levels_and_missing_answers_in_words() -> None:
    answer = glass_box(Calibration(1.0, 0.0)).answers(rows(glucose=[8.0], stage=[math.nan], ward=["R"]), 9)[0]
    assert answer["missing"] == ["stage"]
    assert answer["reasons"][0] == {"columns": ["glucose"], "levels": ["7 and over"], "log_odds": 0.9}
    assert answer["reasons"][-1]["levels"] in (["roof", "no answer"], ["no answer"])
    assert answer["other_log_odds"] == 0.0


def test_a_document_gives_the_same_glass_box_back(tmp_path: Path) -> None:
    writer.write(glass_box(), tmp_path / "terms.json")
    back = read_terms(tmp_path / "terms.json")
    assert back.columns == COLUMNS
    np.testing.assert_array_equal(back.risk(many(1000)), glass_box().risk(many(1000)))
    assert writer.to_document(back) == writer.to_document(glass_box())


def test_a_recalibration_changes_two_numbers_alone() -> None:
    frame = many(200)
    again = writer.recalibrated(glass_box(), 0.8, -0.3)
    np.testing.assert_allclose(again.log_odds(frame), 0.8 * glass_box().log_odds(frame) - 0.3, atol=1e-14)
    before, after = writer.to_document(glass_box()), writer.to_document(again)
    assert {name for name in before if before[name] != after[name]} == {"calibration"}


def test_a_glass_box_without_terms_answers_with_its_intercept() -> None:
    empty = Terms(COLUMNS, [], intercept=-2.0)
    assert empty.log_odds(many(3)).tolist() == [-2.0, -2.0, -2.0]


def changed(path: list[Any], value: Any) -> Any:
    document = json.loads(json.dumps(writer.to_document(glass_box())))
    entry = document
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (changed(["version"], 2), "version is 2"),
        (changed(["format"], "pickle"), "another format"),
        ([], "another format"),
        (changed(["columns", 0, "cuts"], [7, 5]), "do not ascend"),
        (changed(["columns", 0, "cuts"], [5]), "1 cuts and 3 labels"),
        (changed(["columns", 0, "cuts"], [5, math.nan]), "no number"),
        (changed(["columns", 0, "kind"], "image"), "kind of glucose"),
        (changed(["columns", 1, "name"], "glucose"), "same name"),
        (changed(["columns", 1, "bins"], [1, 1, 7]), "bins of stage"),
        (changed(["columns", 1, "levels"], [1, 1, 2]), "do not fit"),
        (changed(["columns", 1, "levels"], [1, "x", 2]), "mix texts and numbers"),
        (changed(["terms", 0, "effects"], [1.0]), "term of glucose should have 4 entries"),
        (changed(["terms", 0, "effects"], [0, 0, 0, math.inf]), "no number"),
        (changed(["terms", 0, "effects"], "0000"), "no number"),
        (changed(["terms", 0, "columns"], [7]), "one or two columns"),
        (changed(["terms", 0, "columns"], [-1]), "one or two columns"),
        (changed(["terms", 2, "columns"], [1, 1]), "one or two columns"),
        (changed(["intercept"], None), "no number"),
        (changed(["calibration"], {"slope": 1.0}), "'intercept' is missing"),
        (changed(["terms"], 3), "no document of terms"),
    ],
)
def test_a_document_at_fault_is_refused_by_name(document: Any, fault: str) -> None:
    with pytest.raises(ModelFileError, match=fault):
        parse_terms(document)


def test_a_document_lacking_any_of_its_keys_is_refused() -> None:
    whole = writer.to_document(glass_box())
    for key in whole:
        part = copy.deepcopy(whole)
        del part[key]
        with pytest.raises(ModelFileError):
            parse_terms(part)
