"""A prepared data set is a function of its rows; what leaves the machine is aggregates."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steps.data import prepared as preparation
from steps.data import sources, split
from steps.data.disclosure import SMALLEST_CELL
from steps.data.documents import from_json, to_json
from steps.data.errors import UserError
from steps.data.prepared import Prepared, TooManyRejectedError
from steps.data.profile import ProblemCount, Profile, Repeats, RowCounts
from steps.data.schema import Schema
from steps.data.validation import Problem, ValidationError
from tests.made_up.clinic import clinic_rows, clinic_schema


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return clinic_schema(tmp_path_factory.mktemp("schema"))


def _located(kind: sources.DataKind = "private", **names: str) -> sources.Located:
    files = tuple(sources.LocalFile(Path(name), name, "0" * 64, 1) for name in names.values() or ["rows.csv"])
    return sources.Located(files, kind, "readmitted", ("yes",), (), "digest")


def _prepare(rows: Any, schema: Schema, max_rejected: float = 0.01, **located: Any) -> Prepared:
    if isinstance(rows, pd.DataFrame) and "__file__" not in rows:
        rows = rows.assign(__file__=pd.Categorical(["rows.csv"] * len(rows)))
    return preparation.prepare(rows, schema, _located(**located), max_rejected)


def test_tables_hold_every_valid_row_once(schema: Schema) -> None:
    """Three parts of canonical rows, split as steps/data/split.py says, features in the schema's order."""
    rows = clinic_rows(500)
    prepared = _prepare(rows, schema)
    assert list(prepared.tables) == ["train", "validation", "test"]
    assert sum(len(table) for table in prepared.tables.values()) == 500
    for number, table in enumerate(prepared.tables.values()):
        assert list(table.columns) == ["glucose", "ward", "stage", "smoker", "__target__", "__file__"]
        assert table.dtypes.astype(str).to_dict() == {
            "glucose": "float64",
            "ward": "str",
            "stage": "float64",
            "smoker": "float64",
            "__target__": "int8",
            "__file__": "category",
        }
        assert (split.assign(table, schema) == number).all()
        assert table["ward"].isna().any()
    joined = pd.concat(prepared.tables.values())
    assert joined["__target__"].sum() == (rows["readmitted"] == "yes").sum()
    assert sorted(joined["glucose"].dropna()) == sorted(rows["glucose"].replace(0, np.nan).dropna())


def test_the_same_rows_make_the_same_tables_however_they_arrive(schema: Schema, tmp_path: Path) -> None:
    """Order, number of files, format, spelling and chunks change neither tables nor digest."""
    rows = clinic_rows(400)
    rows.to_parquet(tmp_path / "whole.parquet", index=False)
    shuffled = rows.sample(frac=1, random_state=7)
    (tmp_path / "parts").mkdir()
    shuffled[:150].to_csv(tmp_path / "parts" / "a.csv", index=False)
    shuffled[150:].to_csv(tmp_path / "parts" / "b.csv.gz", index=False)
    whole = sources.locate("whole.parquet", schema, tmp_path / "cache", tmp_path)
    parts = sources.locate("parts", schema, tmp_path / "cache", tmp_path)
    first = preparation.prepare(sources.read(whole, schema), schema, whole, 0)
    second = preparation.prepare(sources.chunks(parts, schema, rows=60), schema, parts, 0)
    third = preparation.prepare(sources.read(parts, schema), schema, parts, 0)
    assert first.digest == second.digest == third.digest
    for part, table in first.tables.items():
        for other in (second, third):
            pd.testing.assert_frame_equal(
                table.drop(columns="__file__"), other.tables[part].drop(columns="__file__")
            )
    assert set(second.tables["train"]["__file__"]) == {"a.csv", "b.csv.gz"}


def test_digest_changes_with_rows_kind_and_schema(schema: Schema, tmp_path: Path) -> None:
    """A changed value, outcome or kind, a row more or a repeat is another data set; a label is not."""
    rows = clinic_rows(200)
    base = _prepare(rows, schema).digest
    changed = rows.assign(glucose=rows["glucose"].where(rows.index != 3, 7.77))
    flipped = rows.copy()
    flipped.loc[3, "readmitted"] = {"no": "yes", "yes": "no"}[rows.loc[3, "readmitted"]]
    more = pd.concat([rows, rows[:1]], ignore_index=True)
    wider = clinic_schema(tmp_path, ("maximum: 40", "maximum: 41"))
    others = {
        _prepare(changed, schema).digest,
        _prepare(flipped, schema).digest,
        _prepare(more, schema).digest,
        _prepare(rows, schema, kind="public").digest,
        _prepare(rows, wider).digest,
    }
    assert base not in others
    assert len(others) == 5
    relabelled = clinic_schema(tmp_path, ("A1: surgery", "A1: operating theatre"))
    assert _prepare(rows, relabelled).digest == base


def test_rejected_rows_are_kept_and_counted(schema: Schema) -> None:
    """Up to the tolerated share, faulty rows are set apart with reasons; unlabelled ones are no fault."""
    rows = clinic_rows(200).astype({"readmitted": object})
    rows.loc[:1, "glucose"] = 99
    rows.loc[10:39, "readmitted"] = None
    prepared = _prepare(rows.assign(visit="v"), schema)
    assert prepared.problems == (Problem("glucose", "out of range", 2),)
    assert prepared.profile.rows == RowCounts(read=None, valid=168, rejected=None, unlabelled=30)
    assert prepared.profile.problems == (ProblemCount("glucose", "out of range", None),)
    assert list(prepared.profile.warnings) == [
        "columns that the schema does not know were ignored: visit",
        "30 rows have no value in readmitted and were set aside",
    ]
    assert len(prepared.rejected) == 32
    assert prepared.rejected["__reason__"].value_counts().to_dict() == {
        "readmitted: unlabelled": 30,
        "glucose: out of range 2 to 40": 2,
    }


def test_past_the_tolerated_share_the_data_are_refused(schema: Schema) -> None:
    """The message has columns, reasons and counts; the rejected rows go with it; no value is in it."""
    rows = clinic_rows(200)
    rows.loc[:2, "glucose"] = 987654
    rows.loc[2:4, "ward"] = "C3"
    with pytest.raises(TooManyRejectedError) as caught:
        _prepare(rows, schema, max_rejected=0.024)
    assert str(caught.value).splitlines() == [
        "fewer than 10 of 200 rows break the schema readmission, more than max_rejected allows (2.40%):",
        "  glucose: out of range 2 to 40: fewer than 10 rows",
        "  ward: unknown level (the schema has A1, B2, NA): fewer than 10 rows",
        "Correct the data or the schema, or allow more with -P max_rejected=.",
    ]
    assert caught.value.rejected["glucose"].tolist()[0] == "987654.0"
    assert len(_prepare(rows, schema, max_rejected=0.025).rejected) == 5


def test_a_share_just_beyond_the_limit_is_written_with_the_digits_that_differ(schema: Schema) -> None:
    """1.00 % is not more than 1.00 %."""
    rows = clinic_rows(6000)
    rows.loc[:60, "glucose"] = 99
    with pytest.raises(TooManyRejectedError, match=r"61 of 6,000 rows \(1\.02%\).*allows \(1\.00%\)"):
        _prepare(rows, schema)
    with pytest.raises(TooManyRejectedError, match=r"\(1\.017%\).*allows \(1\.016%\)"):
        _prepare(rows, schema, max_rejected=0.01016)


def test_where_every_row_breaks_the_schema_that_is_said(schema: Schema) -> None:
    """It is not for lack of an outcome."""
    with pytest.raises(
        ValidationError, match=r"of 50, 50 break .*\n  glucose: out of range 2 to 40: 50 rows"
    ):
        _prepare(clinic_rows(50).assign(glucose=99), schema, max_rejected=1)


def test_another_outcome_column_is_mentioned(schema: Schema) -> None:
    """A source that codes the outcome otherwise is read so, and the profile says so."""
    rows = clinic_rows(200).rename(columns={"readmitted": "back"})
    rows = rows.assign(back=rows["back"].map({"yes": "again", "no": "no"}), ID=1, __file__="r.csv")
    located = sources.Located(_located().files, "private", "back", ("again",), ("ID",), "digest")
    profile = preparation.prepare(rows, schema, located, 0).profile
    assert profile.warnings == ("the outcome is back, positive where it is again",)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"readmitted": "no"}, "all 200 rows of the data are negative (readmitted is never yes)"),
        ({"readmitted": "yes"}, "all 200 rows of the data are positive (readmitted is yes)"),
        ({"readmitted": None}, "no row has a value in the target column readmitted"),
        ({"glucose": 5.0, "ward": "A1", "stage": 1, "smoker": 0}, "part would be empty"),
    ],
)
def test_data_that_nothing_can_be_learnt_from(schema: Schema, change: dict[str, Any], says: str) -> None:
    """One outcome only, no outcome at all, or a part without rows: an error that says which."""
    with pytest.raises(ValidationError) as caught:
        _prepare(clinic_rows(200).assign(**change), schema)
    assert says in str(caught.value)


def test_no_chunk_at_all(schema: Schema) -> None:
    """An empty iterator of chunks is an error, not an empty data set."""
    with pytest.raises(ValidationError, match="hold no row"):
        _prepare(iter([]), schema)


def test_profile_is_json_and_shows_shares_by_level(schema: Schema) -> None:
    """Counts and shares by level or decile band and of missing values, repeats, outcomes by part and file."""
    rows = clinic_rows(2_000).assign(__file__=pd.Categorical(["a.csv"] * 1_500 + ["b.csv"] * 500))
    prepared = _prepare(rows, schema, first="a.csv", second="b.csv")
    assert from_json(Profile, to_json(prepared.profile), "profile") == prepared.profile
    profile = json.loads(json.dumps(to_json(prepared.profile), allow_nan=False))
    glucose, ward, stage, _smoker = profile["columns"]
    assert (ward["kind"], [entry["bin"] for entry in ward["bins"]]) == ("nominal", ["A1", "B2", "NA"])
    assert [entry["rows"] for entry in ward["bins"]] == [
        (rows["ward"] == level).sum() for level in ("A1", "B2", "NA")
    ]
    assert ward["missing"] == {"rows": (rows["ward"] == "?").sum(), "share": (rows["ward"] == "?").mean()}
    assert [entry["bin"] for entry in stage["bins"]] == ["1", "2", "3"]
    assert glucose["missing"]["rows"] == (rows["glucose"] == 0).sum()
    assert sum(entry["rows"] for entry in glucose["bins"]) + glucose["missing"]["rows"] == 2_000
    assert len(glucose["bins"]) == 10
    assert glucose["bins"][0]["bin"].startswith("2 to ")
    assert glucose["bins"][-1]["bin"].endswith(" to 40")
    assert [file["rows"] for file in profile["files"]] == [1_500, 500]
    positive = (rows["readmitted"] == "yes").mean()
    total = sum(part["positives"] for part in profile["parts"].values())
    assert total / 2_000 == pytest.approx(positive)


def test_repeats_are_counted(schema: Schema) -> None:
    """Rows that repeat an earlier one, with its outcome or with the other."""
    rows = clinic_rows(100).assign(glucose=2 + np.arange(100) / 4)
    other = rows[:20].assign(readmitted=lambda part: part["readmitted"].map({"no": "yes", "yes": "no"}))
    repeats = _prepare(pd.concat([rows, rows[:30], other], ignore_index=True), schema).profile.repeats
    assert repeats == Repeats(
        rows_repeating_features=50,
        rows_repeating_features_and_target=30,
        patterns_with_both_outcomes=20,
    )


def test_profile_points_at_nobody(schema: Schema) -> None:
    """Counts below ten are hidden, and a second one with them where the first could be inferred."""
    rows = clinic_rows(1_000).assign(smoker=0.0, stage=1)
    rows.loc[:4, "smoker"] = 1.0
    rows.loc[:2, "stage"] = 2
    rows.loc[3:6, "stage"] = 3
    rows.loc[0, "glucose"] = 39.87654321
    profile = to_json(_prepare(rows, schema).profile)
    _, _, stage, smoker = profile["columns"]
    assert [entry["rows"] for entry in smoker["bins"]] == [None, None]
    assert smoker["missing"]["rows"] == 0
    # Three and four are seven: with the third level shown, each would be known within a few.
    assert [entry["rows"] for entry in stage["bins"]] == [None, None, None]
    assert "39.87" not in json.dumps(profile)
    for entry in _counts(profile):
        assert entry is None or entry == 0 or entry >= SMALLEST_CELL


def _counts(profile: dict[str, Any]) -> list[int | None]:
    bins = [entry["rows"] for column in profile["columns"] for entry in column["bins"]]
    missing = [column["missing"]["rows"] for column in profile["columns"]]
    outcomes = [part[name] for part in profile["parts"].values() for name in ("rows", "positives")]
    return [*bins, *missing, *outcomes, *profile["repeats"].values()]


# ---------------------------------------------------------------- the cache


def test_stored_tables_come_back(schema: Schema, tmp_path: Path) -> None:
    """What is stored is loaded equal, types included, by its digest."""
    rows = clinic_rows(300)
    rows.loc[:1, "glucose"] = 99
    prepared = _prepare(rows, schema)
    folder = preparation.store(prepared, tmp_path)
    assert folder == tmp_path / "datasets" / prepared.digest
    assert len(prepared.digest) == 16
    assert preparation.is_complete(tmp_path, prepared.digest)
    for part, table in preparation.load(tmp_path, prepared.digest).items():
        pd.testing.assert_frame_equal(table, prepared.tables[part])
    rejected = preparation.load(tmp_path, prepared.digest, ["rejected"])["rejected"]
    pd.testing.assert_frame_equal(rejected, prepared.rejected, check_dtype=False)
    assert json.loads((folder / "profile.json").read_text()) == to_json(prepared.profile)


@pytest.mark.parametrize("damage", ["cut", "gone", "manifest", "all"])
def test_damage_in_the_cache_is_noticed_and_mended(schema: Schema, tmp_path: Path, damage: str) -> None:
    """A cut, deleted or half-written data set is not complete, cannot be loaded, and is stored anew."""
    prepared = _prepare(clinic_rows(300), schema)
    folder = preparation.store(prepared, tmp_path)
    if damage == "cut":
        content = (folder / "test.parquet").read_bytes()
        (folder / "test.parquet").write_bytes(content[:-1])
    elif damage == "gone":
        (folder / "validation.parquet").unlink()
    elif damage == "manifest":
        (folder / "dataset.json").write_text("{")
    else:
        folder.rename(tmp_path / "moved")
    assert not preparation.is_complete(tmp_path, prepared.digest)
    with pytest.raises(UserError, match="run preprocess again"):
        preparation.load(tmp_path, prepared.digest)
    preparation.store(prepared, tmp_path)
    assert preparation.is_complete(tmp_path, prepared.digest)
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == [prepared.digest]


def test_the_latest_arrival_of_the_same_rows_is_kept(schema: Schema, tmp_path: Path) -> None:
    """The same rows from another file replace the stored ones: `__file__` and profile are the latest."""
    rows = clinic_rows(300)
    first = _prepare(rows, schema)
    second = _prepare(rows.assign(__file__=pd.Categorical(["b.csv"] * 300)), schema, only="b.csv")
    assert first.digest == second.digest
    preparation.store(first, tmp_path)
    preparation.store(second, tmp_path)
    assert set(preparation.load(tmp_path, first.digest)["train"]["__file__"]) == {"b.csv"}


def test_two_writers_of_one_data_set(schema: Schema, tmp_path: Path) -> None:
    """Processes that store the same rows at once leave one whole data set and nothing else."""
    prepared = _prepare(clinic_rows(300), schema)
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: preparation.store(prepared, tmp_path), range(8)))
    assert preparation.is_complete(tmp_path, prepared.digest)
    assert list((tmp_path / "datasets").iterdir()) == folders[:1]


def test_leftovers_of_killed_processes_go(schema: Schema, tmp_path: Path) -> None:
    """An unfinished folder of more than a day ago is removed, a younger one may be at work."""
    old, young = tmp_path / "datasets" / "part-old", tmp_path / "datasets" / "part-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    preparation.store(_prepare(clinic_rows(300), schema), tmp_path)
    assert not old.exists()
    assert young.exists()


def test_a_failing_write_leaves_nothing(
    schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is said, and neither a half data set nor a leftover stays."""
    prepared = _prepare(clinic_rows(300), schema)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"the disk of .* is full"):
        preparation.store(prepared, tmp_path)
    assert list((tmp_path / "datasets").iterdir()) == []


def test_refused_rows_can_be_looked_at(tmp_path: Path) -> None:
    """The rows of a refused data set are written where a person finds them, the latest only."""
    for reason in ("a", "b"):
        path = preparation.store_rejected(pd.DataFrame({"__reason__": [reason]}), tmp_path)
    assert pd.read_parquet(path)["__reason__"].tolist() == ["b"]
    assert [other.name for other in path.parent.iterdir()] == ["rejected.parquet"]


def test_the_real_survey_is_valid_and_evenly_split(survey_path: Path) -> None:
    """All 253,680 rows are valid, 25,772 repeat the answers of another; prevalence is alike in each part."""
    from steps.data.schema_file import load

    schema = load(Path(__file__).resolve().parents[2] / "data" / "brfss2015.yaml")
    located = sources.locate(str(survey_path), schema, survey_path.parent, survey_path.parent)
    prepared = preparation.prepare(sources.chunks(located, schema), schema, located, 0)
    assert prepared.profile.rows.valid == 253_680
    assert prepared.profile.repeats.rows_repeating_features == 25_772
    for part in prepared.profile.parts.values():
        assert part.prevalence == pytest.approx(0.1393, abs=0.002)
