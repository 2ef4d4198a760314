"""An attacker reads everything that is published of a small private table, and solves for its small cells.

What a run publishes: the profile of preprocess, the document and the metrics of explore, the evaluation of a
model on the test rows, its reference.json, and drift.json of later rows. Each number becomes an equation or
an inequality over the unknown counts, by level and outcome; linear programming then says how far each count
is known. Figures of one whole column, such as a PSI, are not used: see docs/data.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import linprog

from monitoring import reference as references
from steps.data import prepared as preparation
from steps.data import sources, validation
from steps.data.disclosure import SMALLEST_CELL
from steps.data.documents import to_json
from steps.data.files import FILE_COLUMN, TARGET_COLUMN
from steps.data.schema import LevelledColumn, Schema
from steps.data.schema_file import load
from steps.measures import drift, evaluation, exploration
from steps.measures.exploration import Table
from steps.measures.scored_rows import scored_rows
from steps.models import families, fitting
from steps.models.monitor_reference import build_reference

SCHEMA = """
name: ward-round
title: A made-up ward
disclaimer: Made up for tests.
target:
  name: ill
  meaning: Fell ill
  levels: {0: "no", 1: "yes"}
  positive: [1]
columns:
  - {name: ward, kind: nominal, meaning: Ward, levels: {A: a, B: b, C: c, D: d, E: e}}
  - {name: grade, kind: ordinal, meaning: Grade, levels: {1: one, 2: two, 3: three, 4: four, 5: five, 6: six}}
  - {name: smoker, kind: binary, meaning: Smokes, levels: {0: "no", 1: "yes"}}
  - {name: weight, kind: numeric, meaning: Weight, unit: kg, minimum: 0, maximum: 100}
subgroups:
  - {column: ward}
  - {name: Grave, column: grade, values: [5, 6]}
  - {name: Mild, column: grade, values: [1, 2]}
  - {name: At least two, column: grade, values: [2, 3, 4, 5, 6]}
  - {column: smoker}
"""
ROWS = 1500
# Wards of one person each; a grade of one; a grade of many of whom two fall ill; few smokers.
SMALL_WARDS, FEW_SMOKERS = ("D", "E"), 12


def people() -> pd.DataFrame:
    """A table whose small cells are known."""
    rng = np.random.default_rng(20)
    frame = pd.DataFrame(
        {
            "ward": rng.choice(["A", "B", "C"], ROWS, p=[0.5, 0.45, 0.05]),
            "grade": rng.choice([1.0, 2.0, 3.0, 4.0, 5.0], ROWS, p=[0.3, 0.3, 0.2, 0.15, 0.05]),
            "smoker": np.zeros(ROWS),
            "weight": rng.integers(1, 100, ROWS).astype(float),
            "ill": (rng.random(ROWS) < 0.25).astype(int),
        }
    )
    frame.loc[:1, "ward"] = list(SMALL_WARDS)
    frame.loc[2, "grade"] = 6.0
    frame.loc[np.flatnonzero(frame["grade"] == 4.0)[2:], "ill"] = 0
    frame.loc[: FEW_SMOKERS - 1, "smoker"] = 1.0
    frame.loc[5:8, "smoker"] = np.nan
    frame["__file__"] = pd.Categorical(np.where(np.arange(ROWS) < 1496, "a.csv", "b.csv"))
    return frame


@dataclass
class Knowledge:
    """Equations over the unknown counts (level, outcome) of one column, each a mask and its value."""

    codes: list[Any]
    equations: list[tuple[np.ndarray, float]] = field(default_factory=list)
    limits: list[tuple[np.ndarray, float, float]] = field(default_factory=list)

    def learn(self, codes: set[Any], rows: float | None, rate: float | None = None) -> None:
        """Rows of some levels together, and their share of positives."""
        if rows is None:
            return
        here = np.array([code in codes for code in self.codes])
        self.equations.append((np.concatenate([here, here]), float(rows)))
        if rate is not None:
            self.equations.append((np.concatenate([here, here & False]), round(rate * rows)))

    def learn_between(self, code: Any, low: float, high: float) -> None:
        """Rows of one level, known within limits."""
        here = np.array([code == one for one in self.codes])
        self.limits.append((np.concatenate([here, here]), low, high))

    def ranges(self) -> dict[tuple[Any, str], float]:
        """How far apart the smallest and the largest possible count of each cell are."""
        masks = np.array([mask for mask, _ in self.equations], dtype=float)
        sums = np.array([value for _, value in self.equations])
        size = 2 * len(self.codes)
        below = [part for mask, low, high in self.limits for part in ((mask, high), (-1.0 * mask, -low))]
        between: dict[str, Any] = {}
        if below:
            between = {"A_ub": np.array([mask for mask, _ in below]), "b_ub": [value for _, value in below]}
        found = {}
        for cell in range(size):
            goal = np.eye(size)[cell]
            ends = [linprog(sign * goal, A_eq=masks, b_eq=sums, **between) for sign in (1, -1)]
            assert all(end.status == 0 for end in ends), "the published numbers contradict each other"
            name = (self.codes[cell % len(self.codes)], "positive" if cell < len(self.codes) else "negative")
            found[name] = -ends[1].fun - ends[0].fun
        return found


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    path = tmp_path_factory.mktemp("schema") / "ward.yaml"
    path.write_text(SCHEMA)
    return load(path)


@pytest.fixture(scope="module")
def published(schema: Schema) -> Mapping[str, Any]:
    """The documents as they leave the machine: text of JSON, read again."""
    frame = people()
    files = tuple(sources.LocalFile(Path(name), name, "0" * 64, 1) for name in ("a.csv", "b.csv"))
    located = sources.Located(files, "private", "ill", (1.0,), (), "digest")
    prepared = preparation.prepare(frame, schema, located, 0.0)
    checked = validation.check(frame, schema, "ill", (1.0,), require_target=False)
    table = Table("a table", "private", checked.valid, len(frame), 0)
    explored = exploration.explore(table, schema, 0)
    test = prepared.tables["test"]
    risk = np.clip(test["grade"].to_numpy() / 10 + np.linspace(0, 0.05, len(test)), 0.01, 0.99)
    rows = scored_rows(test[TARGET_COLUMN], risk, test)
    measured = evaluation.evaluate(rows, schema, 0.3, evaluation.Bootstrap(0, 50))
    return {
        "profile": to_json(prepared.profile),
        "exploration": json.loads(json.dumps(to_json(explored))),
        "evaluation": json.loads(json.dumps(to_json(measured))),
        "metrics": exploration.scalars(explored),
        "frame": prepared,
    }


def _everybody(schema: Schema, published: Mapping[str, Any], name: str) -> Knowledge:
    """What profile and exploration say of one column of all rows."""
    column = schema.column(name)
    assert isinstance(column, LevelledColumn)
    known = Knowledge([*column.codes, None])
    everybody = set(known.codes)
    known.learn(everybody, ROWS, published["exploration"]["data"]["prevalence"]["value"])
    known.learn(everybody, ROWS, published["metrics"]["prevalence"])
    profiled = next(part for part in published["profile"]["columns"] if part["name"] == name)
    for code, line in zip(known.codes, [*profiled["bins"], profiled["missing"]], strict=True):
        known.learn({code}, line["rows"])
    explored = next(part for part in published["exploration"]["columns"] if part["name"] == name)
    for code, line in zip(known.codes, [*explored["levels"], explored["missing"]], strict=True):
        known.learn({code}, line["rows"], line["rate"])
    for group, line in zip(schema.subgroups, published["exploration"]["subgroups"], strict=True):
        if group.column == name:
            shown = line["people"]
            known.learn(set(group.values or ()), shown["rows"], shown["rate"])
    return known


def _tested(schema: Schema, published: Mapping[str, Any], name: str) -> Knowledge:
    """What the evaluation says of one column of the test rows."""
    column = schema.column(name)
    assert isinstance(column, LevelledColumn)
    known = Knowledge([*column.codes, None])
    data = published["evaluation"]["data"]
    known.learn(set(known.codes), data["rows"], data["prevalence"])
    groups = {group.name: group for group in schema.subgroups}
    for line in published["evaluation"]["subgroups"]:
        if line["column"] == name:
            known.learn(set(groups[line["name"]].values or ()), line["rows"], line["prevalence"])
    return known


def _small(frame: pd.DataFrame, name: str, outcome: str) -> Iterator[tuple[Any, str]]:
    """The cells of a column that hold a few people, of levels that somebody has."""
    for code, part in frame.groupby(
        frame[name].astype(object).where(frame[name].notna(), None), dropna=False
    ):
        level = None if pd.isna(code) else code
        positives = int(part[outcome].sum())
        for side, count in (("positive", positives), ("negative", len(part) - positives)):
            if count < SMALLEST_CELL:
                yield level, side


@pytest.mark.parametrize("name", ["ward", "grade", "smoker"])
def test_small_cells_of_all_rows_stay_unknown(
    schema: Schema, published: Mapping[str, Any], name: str
) -> None:
    """From profile, exploration and metrics together, each small cell keeps a range of ten or more."""
    ranges = _everybody(schema, published, name).ranges()
    small = list(_small(people(), name, "ill"))
    assert small
    for cell in small:
        assert ranges[cell] >= SMALLEST_CELL, cell


@pytest.mark.parametrize("name", ["ward", "grade", "smoker"])
def test_small_cells_of_the_test_rows_stay_unknown(
    schema: Schema, published: Mapping[str, Any], name: str
) -> None:
    """From the evaluation's overlapping subgroups, each small cell keeps a range of ten or more."""
    ranges = _tested(schema, published, name).ranges()
    small = list(_small(published["frame"].tables["test"], name, TARGET_COLUMN))
    assert small
    for cell in small:
        assert ranges[cell] >= SMALLEST_CELL, cell


@pytest.fixture(scope="module")
def many() -> pd.DataFrame:
    """Ten thousand people, most of them from common cells, so that some cells between groups can be shown."""
    few = people()
    common = few[few["ward"].isin(["A", "B"]) & (few["grade"] <= 3)]
    return pd.concat([few, common.sample(8500, replace=True, random_state=1)], ignore_index=True)


@pytest.fixture(scope="module")
def judged(schema: Schema, many: pd.DataFrame) -> Mapping[str, Any]:
    """The evaluation of some risks on those people, as it leaves the machine."""
    risk = np.clip(many["grade"].to_numpy() / 10 + np.linspace(0, 0.05, len(many)), 0.01, 0.99)
    rows = scored_rows(many["ill"], risk, many)
    found = evaluation.evaluate(rows, schema, 0.3, evaluation.Bootstrap(0, 5))
    return dict(json.loads(json.dumps(to_json(found))))


@pytest.mark.parametrize("names", [("ward", "grade"), ("ward", "smoker"), ("grade", "smoker")])
def test_small_cells_where_two_groups_meet_stay_unknown(
    schema: Schema, many: pd.DataFrame, judged: Mapping[str, Any], names: tuple[str, str]
) -> None:
    """From the groups of two columns and the cells between them, each small cell keeps a range of ten."""
    first, second = (schema.column(name) for name in names)
    assert isinstance(first, LevelledColumn)
    assert isinstance(second, LevelledColumn)
    known = Knowledge([(a, b) for a in (*first.codes, None) for b in (*second.codes, None)])
    known.learn(set(known.codes), judged["data"]["rows"], judged["data"]["prevalence"])
    groups = {group.name: group for group in schema.subgroups}

    def inside(*members: str) -> set[tuple[Any, Any]]:
        limits = {groups[name].column: set(groups[name].values or ()) for name in members}
        return {
            code
            for code in known.codes
            if all(code[names.index(column)] in values for column, values in limits.items())
        }

    for line in judged["subgroups"]:
        if line["column"] in names:
            known.learn(inside(line["name"]), line["rows"], line["prevalence"])
    for line in judged["cells"]:
        if {groups[line[side]].column for side in ("first", "second")} == set(names):
            known.learn(inside(line["first"], line["second"]), line["rows"], line["positives"] / line["rows"])
    answers = [many[name].astype(object).where(many[name].notna(), None) for name in names]
    counts = pd.DataFrame({"code": list(zip(*answers, strict=True)), "ill": many["ill"]})
    small = [
        (code, side)
        for code, part in counts.groupby("code")["ill"]
        for side, size in (("positive", part.sum()), ("negative", len(part) - part.sum()))
        if size < SMALLEST_CELL
    ]
    assert small
    ranges = known.ranges()
    for cell in small:
        assert ranges[cell] >= SMALLEST_CELL, cell


def test_some_cells_where_two_groups_meet_are_shown(judged: Mapping[str, Any]) -> None:
    """Hiding everything would keep the secret too."""
    assert judged["cells"]
    assert judged["hidden_cells"]


def test_a_small_file_is_no_line_of_its_own(published: Mapping[str, Any]) -> None:
    """Four rows of a second file: neither its count nor the other's is shown, for the total is known."""
    for file in published["profile"]["files"]:
        assert file["rows"] is file["positives"] is file["prevalence"] is None
    assert sum(part["rows"] for part in published["profile"]["parts"].values()) == ROWS


def test_a_few_rejected_rows_are_counted_nowhere(schema: Schema) -> None:
    """Neither as such, nor by rule, nor as the difference of two totals, nor by file."""
    frame = people()
    frame.loc[100:101, "weight"] = 1e6
    frame.loc[200, "ward"] = "Z"
    files = tuple(sources.LocalFile(Path(name), name, "0" * 64, 1) for name in ("a.csv", "b.csv"))
    located = sources.Located(files, "private", "ill", (1.0,), (), "digest")
    made = to_json(preparation.prepare(frame, schema, located, 0.1).profile)
    assert made["rows"] == {"read": None, "valid": ROWS - 3, "rejected": None, "unlabelled": 0}
    assert [problem["rows"] for problem in made["problems"]] == [None, None]
    assert [file["set_aside"] for file in made["files"]] == [None, 0]
    checked = validation.check(frame, schema, "ill", (1.0,), require_target=False)
    table = Table("t", "private", checked.valid, ROWS, len(checked.rejected), checked.problems)
    data = exploration.explore(table, schema, 0).data
    assert data.read is data.rejected is None


def test_rare_outcomes_are_not_given_back_by_a_prevalence(schema: Schema) -> None:
    """With seven ill people in all, no document says how many, nor which share."""
    frame = people().assign(ill=0)
    frame.loc[::230, "ill"] = 1
    checked = validation.check(frame, schema, "ill", (1.0,), require_target=False)
    assert FILE_COLUMN in checked.valid
    explored = exploration.explore(Table("t", "private", checked.valid, ROWS, 0), schema, 0)
    assert explored.data.positives is explored.data.prevalence.value is None
    assert "prevalence" not in exploration.scalars(explored)
    assert all(level.rate is None for column in explored.columns for level in column.levels)


@pytest.fixture(scope="module")
def monitor(schema: Schema, published: Mapping[str, Any]) -> Callable[[pd.DataFrame], Mapping[str, Any]]:
    """From new people, outcomes included, to reference.json and drift.json of a model of others."""
    tables = published["frame"].tables
    train, valid = tables["train"], tables["validation"]
    parts = fitting.Parts(train, valid)
    fitted = fitting.fit_model("logistic_regression", {}, parts, schema, recall=0.8, seed=0, threads=1)
    info = {
        "name": schema.name, "version": None, "run_id": "none", "family": fitted.family, "trained_at": 0,
        "synthetic": False, "kind": "private", "data_digest": "none",
    }  # fmt: skip
    reference = build_reference(fitted.model, train, valid, schema, threshold=fitted.threshold, info=info)

    def documents(frame: pd.DataFrame) -> Mapping[str, Any]:
        checked = validation.check(frame, schema, "ill", (1.0,), require_target=False)
        incoming = drift.Incoming(
            cells=validation.read_cells(frame, schema),
            valid=checked.valid,
            risk=families.predict_risk(fitted.model, checked.valid[list(schema.feature_names)]),
            outcome=drift.outcome_of(checked.valid, TARGET_COLUMN),
        )
        report = to_json(drift.compare(drift.Baseline(reference, trained_on=train), incoming, schema))
        return {
            "reference": json.loads(json.dumps(references.document(reference))),
            "drift": json.loads(json.dumps(report)),
        }

    return documents


@pytest.fixture(scope="module")
def monitored(monitor: Callable[[pd.DataFrame], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The reference of a model of those people, and the drift of all of them against it."""
    return monitor(people())


def _trained(schema: Schema, monitored: Mapping[str, Any], name: str) -> Knowledge:
    """What reference.json, and drift.json of the same model, say of one column of the training rows.

    The attacker knows how counts are made (`disclosure.coarse_parts`). A share in drift.json that does not
    follow from the reference is taken for exact.
    """
    column = schema.column(name)
    assert isinstance(column, LevelledColumn)
    known = Knowledge([*column.codes, None])
    rows = monitored["reference"]["data"]["rows"]["train"]
    known.learn(set(known.codes), rows, 1.0)  # outcomes are not asked here: all rows stand on one side
    feature = next(part for part in monitored["reference"]["features"] if part["name"] == name)
    counts = dict(zip(known.codes, [*feature["counts"], feature["missing"]], strict=True))
    for code, count in counts.items():
        if count <= SMALLEST_CELL:
            known.learn_between(code, min(count, 1), 14 if count else 0)
        elif SMALLEST_CELL not in counts.values() or count < max(counts.values()):
            known.learn_between(code, count - 5, count + 4)
    groups = {group.name: group for group in schema.subgroups}
    for line in monitored["drift"]["subgroups"]:
        members = set(groups[line["name"]].values or ())
        if groups[line["name"]].column == name and line["then"] is not None:
            follows = sum(counts[code] for code in members) / rows
            if abs(line["then"] - follows) > 1e-9:
                known.learn(members, round(line["then"] * rows))
    return known


def _arrived(schema: Schema, monitored: Mapping[str, Any], name: str) -> Knowledge:
    """What drift.json says of one column of the new rows: each bin and each subgroup, with its outcomes."""
    column = schema.column(name)
    assert isinstance(column, LevelledColumn)
    known = Knowledge([*column.codes, None])
    report = monitored["drift"]
    read = report["rows"]["read"]
    known.learn(set(known.codes), read, report["realised"]["decision"]["prevalence"])
    feature = next(part for part in report["features"] if part["name"] == name)
    missing = feature["missing"]["now"]
    if missing is not None:
        known.learn({None}, round(missing * read))
    answered = read - round((missing or 0.0) * read)
    for code, share in zip(column.codes, feature["now"], strict=True):
        if share is not None:
            known.learn({code}, round(share * answered))
    groups = {group.name: group for group in schema.subgroups}
    for line in report["subgroups"]:
        if groups[line["name"]].column == name and line["now"]["value"] is not None:
            rows = round(line["now"]["value"] * report["rows"]["valid"])
            known.learn(set(groups[line["name"]].values or ()), rows, line["observed"])
    return known


@pytest.mark.parametrize("name", ["ward", "grade", "smoker"])
def test_small_cells_of_the_training_rows_stay_unknown(
    schema: Schema, published: Mapping[str, Any], monitored: Mapping[str, Any], name: str
) -> None:
    """From a reference and a drift report, each level that few people of the training rows have."""
    known = _trained(schema, monitored, name)
    train = published["frame"].tables["train"][name]
    counts = train.astype(object).where(train.notna(), None).value_counts(dropna=False)
    small = [code if code in known.codes else None for code in counts[counts < SMALLEST_CELL].index]
    assert small
    ranges = known.ranges()
    for code in small:
        assert ranges[(code, "positive")] >= SMALLEST_CELL, code


@pytest.mark.parametrize("name", ["ward", "grade", "smoker"])
def test_small_cells_of_new_rows_stay_unknown(
    schema: Schema, monitored: Mapping[str, Any], name: str
) -> None:
    """From the bins and subgroups of a drift report, each small cell keeps a range of ten or more."""
    ranges = _arrived(schema, monitored, name).ranges()
    small = list(_small(people(), name, "ill"))
    assert small
    for cell in small:
        assert ranges[cell] >= SMALLEST_CELL, cell


def test_figures_of_a_column_do_not_tell_how_its_hidden_rows_are_spread(
    monitor: Callable[[pd.DataFrame], Mapping[str, Any]], monitored: Mapping[str, Any]
) -> None:
    """PSI, its interval and evidence have all their digits, and would give a single hidden count away."""
    others = people()
    hidden = [code for code, share in _grades(monitored) if share is None]
    assert 6.0 in hidden
    companion = next(code for code in hidden if (others["grade"] == code).sum() >= SMALLEST_CELL)
    others.loc[np.flatnonzero(others["grade"] == companion)[:3], "grade"] = 6.0
    assert _feature(monitor(others), "grade") == _feature(monitored, "grade")


def test_figures_of_a_column_do_not_tell_how_few_gave_no_answer(
    monitor: Callable[[pd.DataFrame], Mapping[str, Any]], monitored: Mapping[str, Any]
) -> None:
    """Four people's answers are missing; were it two smokers' more, the report would be the same."""
    others = people()
    assert others["smoker"].isna().sum() == 4
    others.loc[np.flatnonzero(others["smoker"] == 1.0)[:2], "smoker"] = np.nan
    assert _feature(monitor(others), "smoker") == _feature(monitored, "smoker")


def _feature(documents: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return next(part for part in documents["drift"]["features"] if part["name"] == name)


def _grades(documents: Mapping[str, Any]) -> list[tuple[float, float | None]]:
    levels = next(part for part in documents["reference"]["features"] if part["name"] == "grade")["levels"]
    return list(zip(levels, _feature(documents, "grade")["now"], strict=True))
