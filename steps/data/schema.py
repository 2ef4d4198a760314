"""The schema: one YAML file that says everything about the columns of a data set; all else derives from it.

`load` reads it, refuses what it does not know, and reports every problem at once. What it returns is frozen:
validation happens here, so the rest of the project trusts it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args

import numpy as np
from numpy.typing import NDArray

from steps.data.errors import UserError
from steps.data.schema_file import Code as Code
from steps.data.schema_file import Entry, as_code, is_code, is_whole, parse

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["numeric", "binary", "ordinal", "nominal"]
SourceKind = Literal["synthetic", "public"]
Operation = Literal[
    "shift", "add", "scale", "replace", "missing", "garbage", "outcome_shift", "outcome_slope", "rate"
]

Named = TypeVar("Named", "Column", "Source", "Scenario")

_TEXT_KINDS = ("binary", "nominal")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class SchemaError(UserError):
    """A schema file that cannot be used; `problems` holds one sentence for each thing to mend."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n  ".join([f"{path}: {count} in the schema:", *problems]))


@dataclass(frozen=True, slots=True)
class Column:
    """One feature: what it means and which values it may take."""

    name: str
    kind: Kind
    meaning: str
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    levels: Mapping[Code, str] | None = None
    missing: tuple[Code, ...] = ()

    @property
    def codes(self) -> tuple[Code, ...]:
        """The values of the levels in their order; empty for a numeric column."""
        return tuple(self.levels or ())

    @property
    def is_text(self) -> bool:
        """The column holds text; all other columns hold numbers."""
        return any(isinstance(code, str) for code in self.codes)


@dataclass(frozen=True, slots=True)
class Target:
    """The outcome: its values and which of them count as positive."""

    name: str
    meaning: str
    levels: Mapping[Code, str]
    positive: tuple[Code, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a data set comes from. Only a file with this `sha256` counts as `kind`; all else is private."""

    name: str
    kind: SourceKind
    path: str | None = None
    url: str | None = None
    sha256: str | None = None
    target: str | None = None
    positive: tuple[Code, ...] | None = None
    ignore: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Subgroup:
    """People whose figures are shown on their own: some levels of a column, or a range of a numeric one."""

    name: str
    column: str
    values: tuple[Code, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    headline: bool = False

    def mask(self, frame: pd.DataFrame) -> NDArray[np.bool_]:
        """Which rows belong to it, shape (rows,); a missing value belongs to none. Bounds are inclusive."""
        series = frame[self.column]
        if self.values is not None:
            return np.asarray(series.isin(list(self.values)), dtype=np.bool_)
        numbers = np.asarray(series, dtype=np.float64)
        lower = -np.inf if self.minimum is None else self.minimum
        upper = np.inf if self.maximum is None else self.maximum
        return np.asarray((numbers >= lower) & (numbers <= upper), dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Gates:
    """Limits of a promotion; `steps/measures/promotion.py` judges by them. A schema may leave out all of
    them.

    `roc_auc_min`: floor of ROC AUC, none by default. `calibration_slope` and `observed_expected`: ranges that
    a whole interval must lie in; the defaults are wide enough for a well calibrated model with 100 events in
    the test part. Against champion and anchor, `roc_auc_margin` is the largest loss of ROC AUC,
    `log_loss_margin` the largest rise of log loss as a share of theirs. In each subgroup,
    `subgroup_observed_expected` is the range and `subgroup_recall_margin` the largest loss of recall.
    `prevalence_change`: from this odds ratio on (or below its inverse), another share of outcomes than in the
    champion's data needs a person's word. `ignored`: one sentence for each key of an older schema that is
    read no longer.
    """

    roc_auc_min: float | None = None
    calibration_slope: tuple[float, float] = (0.5, 2.0)
    observed_expected: tuple[float, float] = (0.67, 1.5)
    roc_auc_margin: float = 0.005
    log_loss_margin: float = 0.01
    subgroup_observed_expected: tuple[float, float] = (0.8, 1.25)
    subgroup_recall_margin: float = 0.05
    prevalence_change: float = 1.25
    ignored: tuple[str, ...] = ()


# Keys of older schemas, and what is said about each.
_RETIRED_GATES: Mapping[str, str] = {
    "average_precision_min": "average precision moves with the share of outcomes; it limits nothing",
    "subgroup_gap_max": "gaps of ROC AUC move with the mix of cases; they limit nothing",
    "champion_loss_max": "the largest loss of ROC AUC against the champion is called roc_auc_margin",
}


@dataclass(frozen=True, slots=True)
class DriftLimits:
    """From where on `drift` counts a difference: the key `drift` of a schema, each with its default here.

    `evidence`: log10, for all tests of one comparison together; 3 is one false alarm in a thousand
    comparisons. `psi`: size of a shift. `share`: change of the share of missing, invalid or never seen
    values. `roc_auc_loss`: fall of the ROC AUC, expected or realised. `observed_expected` and
    `calibration_slope`: ranges in which the risks are right. `calibration_error`: expected calibration error
    beyond that of chance. `separability`: ROC AUC of telling new rows from training rows.
    """

    evidence: float = 3.0
    psi: float = 0.02
    share: float = 0.01
    roc_auc_loss: float = 0.01
    observed_expected: tuple[float, float] = (0.9, 1.1)
    calibration_slope: tuple[float, float] = (0.85, 1.15)
    calibration_error: float = 0.015
    separability: float = 0.55


@dataclass(frozen=True, slots=True)
class PointBand:
    """Points for numbers in [lower, upper); None is unbounded."""

    lower: float | None
    upper: float | None
    points: int


@dataclass(frozen=True, slots=True)
class PointItem:
    """One question of a point score. With several columns, the largest of their points counts once."""

    columns: tuple[str, ...]
    points: Mapping[Code, int] | tuple[PointBand, ...]

    def score(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        """Points of each row, shape (rows,); a missing value gives none."""
        return np.asarray(np.maximum.reduce([self._score_column(frame[name]) for name in self.columns]))

    def _score_column(self, series: pd.Series[Any]) -> NDArray[np.int64]:
        total = np.zeros(len(series), dtype=np.int64)
        if isinstance(self.points, tuple):
            numbers = np.asarray(series, dtype=np.float64)
            for band in self.points:
                lower = -np.inf if band.lower is None else band.lower
                upper = np.inf if band.upper is None else band.upper
                total[(numbers >= lower) & (numbers < upper)] = band.points
        else:
            for code, points in self.points.items():
                total[np.asarray(series == code, dtype=np.bool_)] = points
        return total


@dataclass(frozen=True, slots=True)
class PointScore:
    """A score that is added up by hand, to compare a model with."""

    name: str
    items: tuple[PointItem, ...]
    cut: int
    made_for: str
    lacks: tuple[str, ...] = ()

    def points(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        """Sum of the items' points for each row, shape (rows,); from `cut` on a person is flagged."""
        return np.asarray(np.add.reduce([item.score(frame) for item in self.items], dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that a scenario does to the traffic; `monitoring.simulation.people` says what each does."""

    operation: Operation
    value: float
    column: str | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A way in which the world, or the data, changes: what the simulator plays.

    Steady until day `starts`, then `ramp` days to the full change; `drifts` names the columns whose values
    then have a population stability index of 0.1 or more.
    """

    name: str
    title: str
    description: str
    changes: tuple[Change, ...] = ()
    starts: float = 0.0
    ramp: float = 0.0
    drifts: tuple[str, ...] = ()

    def strength(self, day: float | None) -> float:
        """Share of the full change on a day (0 is the first); without a day, the full change."""
        if day is None or day >= self.starts + self.ramp:
            return 1.0
        return 0.0 if day < self.starts else (day - self.starts) / self.ramp

    def rate(self, day: float | None = None) -> float:
        """By what the usual number of requests is multiplied on a day."""
        factors = [change.value for change in self.changes if change.operation == "rate"]
        return 1.0 + self.strength(day) * (float(np.prod(factors)) - 1.0)


@dataclass(frozen=True, slots=True)
class Schema:
    """Everything that is known about a data set before a row of it is read."""

    name: str
    title: str
    disclaimer: str
    columns: tuple[Column, ...]
    target: Target
    gates: Gates
    sources: tuple[Source, ...] = ()
    subgroups: tuple[Subgroup, ...] = ()
    point_scores: tuple[PointScore, ...] = ()
    scenarios: tuple[Scenario, ...] = ()
    facts: str | None = None
    drift: DriftLimits = DriftLimits()
    person: str | None = None

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features in the schema's order."""
        return tuple(column.name for column in self.columns)

    @property
    def digest(self) -> str:
        """64 hex digits of the whole content; the file's comments and layout do not count."""
        return _digest(self)

    @property
    def data_digest(self) -> str:
        """64 hex digits of what decides whether two models can be compared: columns, values and target.

        Meanings, labels and units do not count.
        """
        return _digest(
            [
                [[c.name, c.kind, c.minimum, c.maximum, c.codes, c.missing] for c in self.columns],
                [self.target.name, tuple(self.target.levels), self.target.positive],
            ]
        )

    def digest_of(self, *parts: str) -> str:
        """64 hex digits of some of the schema's fields, for what depends on those alone."""
        return _digest([getattr(self, part) for part in parts])

    def column(self, name: str) -> Column:
        """The feature of this name."""
        return _named(self.columns, name, "column")

    def source(self, name: str) -> Source:
        """The source of this name."""
        return _named(self.sources, name, "source")

    def scenario(self, name: str) -> Scenario:
        """The scenario of this name."""
        return _named(self.scenarios, name, "scenario")


def registered_name(schema: Schema, kind: str) -> str:
    """Name of the registered model: one trained on synthetic people never meets a champion of real data."""
    return f"{schema.name}-synthetic" if kind == "synthetic" else schema.name


def registered_names(schema: Schema) -> tuple[str, str]:
    """Names of the models that there may be of a schema: of real data, of synthetic people."""
    return registered_name(schema, "private"), registered_name(schema, "synthetic")


def format_code(code: Code) -> str:
    """A level's value as people write it: 1 for 1.0, 0.5 for 0.5, text as it is."""
    return code if isinstance(code, str) else f"{code:.15g}"


def load(path: Path) -> Schema:
    """Read and check a schema file.

    Raises SchemaError with every problem of the file at once (one only, where the file is no YAML at all).
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SchemaError(path, ["there is no such file: name one with -P schema=data/<name>.yaml"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SchemaError(path, [f"the file cannot be read: {type(error).__name__}"]) from None
    problems: list[str] = []
    try:
        document = parse(text, problems)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise SchemaError(path, [f"this is no YAML: {getattr(error, 'problem', error)}{where}"]) from None
    schema = _read_schema(Entry(document, "the file", problems))
    if problems or schema is None:
        raise SchemaError(path, problems)
    return schema


def _named(things: Sequence[Named], name: str, noun: str) -> Named:
    for thing in things:
        if thing.name == name:
            return thing
    known = ", ".join(thing.name for thing in things) or "none"
    raise UserError(f"the schema has no {noun} {name!r}; it has: {known}")


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(_plain(content), ensure_ascii=False).encode()).hexdigest()


def _plain(content: Any) -> Any:
    """Content as JSON takes it, with the order of mappings kept: the order of levels matters."""
    if is_dataclass(content):
        return {field.name: _plain(getattr(content, field.name)) for field in fields(content)}
    if isinstance(content, Mapping):
        return [[_plain(key), _plain(value)] for key, value in content.items()]
    if isinstance(content, list | tuple):
        return [_plain(item) for item in content]
    return content


def _read_schema(entry: Entry) -> Schema | None:
    name = entry.text("name")
    if name is not None and not _NAME.fullmatch(name):
        entry.problem(
            f"name {name!r} should be small letters, digits and single hyphens, such as diabetes-risk"
        )
    title, disclaimer = entry.text("title"), entry.text("disclaimer")
    columns = [_read_column(item) for item in entry.entries("columns", "column", required=True)]
    known = {column.name: column for column in columns}
    _check_unique(entry, "column", [column.name for column in columns])
    target_entry = entry.entry("target")
    target = _read_target(target_entry, known) if target_entry else None
    gates_entry = entry.entry("gates", required=False)
    gates = _read_gates(gates_entry) if gates_entry else Gates()
    sources = [_read_source(item, known) for item in entry.entries("sources", "source")]
    _check_unique(entry, "source", [source.name for source in sources])
    subgroups = [
        group for item in entry.entries("subgroups", "subgroup") for group in _read_subgroup(item, known)
    ]
    _check_unique(entry, "subgroup", [group.name for group in subgroups])
    scores = [_read_point_score(item, known) for item in entry.entries("point_scores", "point score")]
    _check_unique(entry, "point score", [score.name for score in scores])
    scenarios = [_read_scenario(item, known) for item in entry.entries("scenarios", "scenario")]
    _check_unique(entry, "scenario", [scenario.name for scenario in scenarios])
    facts = entry.text("facts", required=False)
    drift_entry = entry.entry("drift", required=False)
    drift = _read_drift(drift_entry) if drift_entry else DriftLimits()
    person = entry.text("person", required=False)
    if person is not None and (person in known or (target is not None and person == target.name)):
        entry.problem(f"person {person!r} should name a column beside the features and the target")
    entry.finish()
    if entry.problems or target is None:
        return None
    return Schema(
        name=name or "",
        title=title or "",
        disclaimer=disclaimer or "",
        columns=tuple(columns),
        target=target,
        gates=gates,
        sources=tuple(sources),
        subgroups=tuple(subgroups),
        point_scores=tuple(scores),
        scenarios=tuple(scenarios),
        facts=facts,
        drift=drift,
        person=person,
    )


def _check_unique(entry: Entry, noun: str, names: Sequence[str]) -> None:
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        entry.problem(f"two {noun}s are called {name!r}")


def _read_column(entry: Entry) -> Column:
    name = entry.text("name") or ""
    if name.startswith("__"):
        entry.problem("names that start with __ are the project's own")
    kind = cast(Kind, entry.choice("kind", get_args(Kind)))
    meaning, unit = entry.text("meaning") or "", entry.text("unit", required=False)
    numeric = kind == "numeric"
    minimum = entry.number("minimum", required=numeric)
    maximum = entry.number("maximum", required=numeric)
    levels = entry.labels("levels", required=kind is not None and not numeric)
    missing = entry.codes("missing") or ()
    entry.finish()
    column = Column(name, kind, meaning, unit, minimum, maximum, levels, missing)
    if minimum is not None and maximum is not None and minimum >= maximum:
        entry.problem("minimum should be below maximum")
    if numeric and levels is not None:
        entry.problem("a numeric column has minimum and maximum, no levels")
    if kind is not None and not numeric and (minimum is not None or maximum is not None):
        entry.problem(f"a column of kind {kind} has levels, no minimum or maximum")
    if kind == "binary" and levels is not None and len(levels) != 2:
        entry.problem(f"a binary column has two levels, found {len(levels)}")
    if column.is_text and kind not in _TEXT_KINDS:
        entry.problem(f"levels of kind {kind} should be numbers: text has no order")
    if kind == "ordinal" and not column.is_text and list(column.codes) != sorted(column.codes):
        entry.problem("levels of an ordinal column should stand in ascending order")
    if any(isinstance(code, str) != column.is_text for code in missing):
        entry.problem(
            f"missing should hold {'texts' if column.is_text else 'numbers'} like the column itself"
        )
    for code in missing:
        if code in column.codes:
            entry.problem(f"{format_code(code)} is both a level and a value that means missing")
    return column


def _read_target(entry: Entry, columns: Mapping[str, Column]) -> Target:
    name, meaning = entry.text("name") or "", entry.text("meaning") or ""
    levels = entry.labels("levels", required=True) or {}
    positive = entry.codes("positive", required=True) or ()
    entry.finish()
    if name in columns:
        entry.problem(f"{name!r} is a column too: a model would be given the answer")
    _check_codes(entry, "positive", positive, levels)
    if levels and set(positive) >= set(levels):
        entry.problem("every level is positive: at least one should not be")
    return Target(name, meaning, levels, positive)


def _check_codes(entry: Entry, key: str, codes: Sequence[Code], levels: Mapping[Code, Any]) -> None:
    for code in codes:
        if levels and code not in levels:
            entry.problem(
                f"{key} names {format_code(code)}, which is no level; levels are "
                + ", ".join(format_code(level) for level in levels)
            )


def _read_gates(entry: Entry) -> Gates:
    given: dict[str, Any] = {}
    for key in ("roc_auc_min", "roc_auc_margin", "log_loss_margin", "subgroup_recall_margin"):
        given[key] = entry.number(key, required=False)
        if given[key] is not None and not 0 <= given[key] <= 1:
            entry.problem(f"{key} should lie between 0 and 1")
    for key in ("calibration_slope", "observed_expected", "subgroup_observed_expected"):
        given[key] = entry.pair(key, required=False)
    given["prevalence_change"] = entry.number("prevalence_change", required=False)
    if given["prevalence_change"] is not None and given["prevalence_change"] <= 1:
        entry.problem("prevalence_change is an odds ratio above 1")
    ignored = []
    for key, why in _RETIRED_GATES.items():
        if entry.number(key, required=False) is not None:
            ignored.append(f"{key} of the schema is ignored: {why}")
    entry.finish()
    return Gates(**{key: value for key, value in given.items() if value is not None}, ignored=tuple(ignored))


def _read_source(entry: Entry, columns: Mapping[str, Column]) -> Source:
    name = entry.text("name") or ""
    kind = cast(SourceKind, entry.choice("kind", get_args(SourceKind)))
    path, url = entry.text("path", required=False), entry.text("url", required=False)
    if (path is None) == (url is None):
        entry.problem("a source has either a path or a url")
    if url is not None and not url.startswith(("https://", "http://")):
        entry.problem("url should start with https:// or http://")
    if path is not None and (Path(path).is_absolute() or ".." in Path(path).parts):
        entry.problem("path should be relative to the project's folder and stay inside it")
    sha256 = entry.text("sha256", required=False)
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        entry.problem("sha256 should be 64 small hexadecimal digits, in quotes")
    target, positive = entry.text("target", required=False), entry.codes("positive")
    ignore = entry.texts("ignore")
    for column in ignore:
        if column in columns:
            entry.problem(f"ignore names {column!r}, which is a column of the schema")
    note = entry.text("note", required=False) or ""
    entry.finish()
    return Source(name, kind, path, url, sha256, target, positive, ignore, note)


def _read_subgroup(entry: Entry, columns: Mapping[str, Column]) -> list[Subgroup]:
    """The subgroups of one entry: one for each level where only a column is named."""
    name, column_name = entry.text("name", required=False), entry.text("column")
    values = entry.codes("values")
    minimum, maximum = entry.number("minimum", required=False), entry.number("maximum", required=False)
    headline = entry.flag("headline")
    entry.finish()
    column = _find_column(entry, column_name, columns)
    if column is None:
        return []
    bounded = minimum is not None or maximum is not None
    if name is None:
        if values is not None or bounded or column.levels is None:
            entry.problem(
                "name is missing; only a column with levels and nothing else gives a subgroup a level"
            )
            return []
        return [
            Subgroup(f"{column.name}: {label}", column.name, (code,), headline=headline)
            for code, label in column.levels.items()
        ]
    if (values is not None) == bounded:
        entry.problem("a named subgroup has either values or minimum and maximum")
    if bounded and column.kind != "numeric":
        entry.problem(f"{column.name} has levels: give values, no minimum or maximum")
    if minimum is not None and maximum is not None and minimum > maximum:
        entry.problem("minimum should not be above maximum")
    if values is not None:
        if column.levels is None:
            entry.problem(f"{column.name} is numeric: give minimum or maximum, no values")
        else:
            _check_codes(entry, "values", values, column.levels)
    return [Subgroup(name, column.name, values, minimum, maximum, headline)]


def _find_column(entry: Entry, name: str | None, columns: Mapping[str, Column]) -> Column | None:
    if name is not None and name not in columns:
        entry.problem(f"there is no column {name!r}")
    return columns.get(name) if name is not None else None


def _read_drift(entry: Entry) -> DriftLimits:
    """The limits that are given, and the defaults of the others."""
    given: dict[str, Any] = {}
    for field in fields(DriftLimits):
        is_range = isinstance(field.default, tuple)
        read = entry.pair if is_range else entry.number
        value = read(field.name, required=False)
        if value is not None:
            given[field.name] = value
    entry.finish()
    limits = DriftLimits(**given)
    for name, (low, high) in (
        ("observed_expected", limits.observed_expected),
        ("calibration_slope", limits.calibration_slope),
    ):
        if not low < 1 < high:
            entry.problem(f"{name} should be a range around 1, which is a model whose risks are right")
    for name in ("evidence", "psi", "share", "roc_auc_loss", "calibration_error"):
        if getattr(limits, name) <= 0:
            entry.problem(f"{name} should be above 0")
    if not 0.5 < limits.separability < 1:
        entry.problem("separability should lie between 0.5, which is chance, and 1")
    return limits


def _read_point_score(entry: Entry, columns: Mapping[str, Column]) -> PointScore:
    name = entry.text("name") or ""
    items = [
        item
        for item in (
            _read_point_item(sub, columns) for sub in entry.entries("items", f"{name} item", required=True)
        )
        if item is not None
    ]
    cut = entry.whole("cut") or 0
    made_for, lacks = entry.text("made_for") or "", entry.texts("lacks")
    entry.finish()
    return PointScore(name, tuple(items), cut, made_for, lacks)


def _read_point_item(entry: Entry, columns: Mapping[str, Column]) -> PointItem | None:
    if entry.has("columns"):
        names = entry.texts("columns")
        if entry.content["columns"] == []:
            entry.problem("columns is empty: name one or more")
    else:
        single = entry.text("column")
        names = (single,) if single is not None else ()
    found = [
        column for column in (_find_column(entry, name, columns) for name in names) if column is not None
    ]
    numeric = bool(found) and found[0].levels is None
    points: Mapping[Code, int] | tuple[PointBand, ...] | None
    if numeric:
        points = _read_bands(entry)
    else:
        value = entry.take(
            "points",
            "levels with whole points each",
            lambda v: (
                isinstance(v, Mapping) and bool(v) and all(map(is_code, v)) and all(map(is_whole, v.values()))
            ),
        )
        points = None if value is None else MappingProxyType({as_code(code): n for code, n in value.items()})
    entry.finish()
    for column in found:
        if (column.levels is None) != numeric:
            entry.problem("columns of one item should all be numeric, or all have levels")
        elif column.levels is not None and points is not None:
            _check_codes(entry, "points", tuple(cast(Mapping[Code, int], points)), column.levels)
            absent = [
                format_code(code) for code in column.codes if code not in cast(Mapping[Code, int], points)
            ]
            if absent:
                entry.problem(f"points say nothing for level {', '.join(absent)} of {column.name}")
    return PointItem(names, points) if points is not None and found else None


def _read_bands(entry: Entry) -> tuple[PointBand, ...] | None:
    bands = []
    for band in entry.entries("points", f"{entry.where} band", required=True):
        lower, upper = band.number("from", required=False), band.number("to", required=False)
        bands.append(PointBand(lower, upper, band.whole("points") or 0))
        band.finish()
    if not bands:
        return None
    inner = [(left.upper, right.lower) for left, right in itertools.pairwise(bands)]
    ascending = [band for band in bands if band.lower is not None and band.upper is not None]
    if (
        bands[0].lower is not None
        or bands[-1].upper is not None
        or any(left is None or left != right for left, right in inner)
        or any(cast(float, band.lower) >= cast(float, band.upper) for band in ascending)
    ):
        entry.problem(
            "points of a numeric column should join without gap: the first band without from, the last "
            "without to, each from equal to the to before it"
        )
    return tuple(bands)


def _read_scenario(entry: Entry, columns: Mapping[str, Column]) -> Scenario:
    name = entry.text("name") or ""
    if name and not _NAME.fullmatch(name):
        entry.problem("name should be small letters, digits and single hyphens")
    title, description = entry.text("title") or "", entry.text("description") or ""
    changes = [_read_change(item, columns) for item in entry.entries("changes", f"{name} change")]
    starts = entry.number("starts", required=False) or 0.0
    ramp = entry.number("ramp", required=False) or 0.0
    if starts < 0 or ramp < 0:
        entry.problem("starts and ramp are days, 0 or more")
    drifts = entry.texts("drifts")
    for column in drifts:
        _find_column(entry, column, columns)
    entry.finish()
    return Scenario(
        name, title, description, tuple(c for c in changes if c is not None), starts, ramp, drifts
    )


def _read_change(entry: Entry, columns: Mapping[str, Column]) -> Change | None:
    operations = [key for key in get_args(Operation) if entry.has(key)]
    if len(operations) != 1:
        entry.taken.update(get_args(Operation))
        entry.problem(f"a change has exactly one of {', '.join(get_args(Operation))}")
    values = {key: entry.number(key) for key in operations}
    of_rows = bool(operations) and operations[0] in ("outcome_shift", "outcome_slope", "rate")
    column_name = entry.text("column", required=bool(operations) and not of_rows)
    share = entry.number("share", required=False)
    entry.finish()
    column = _find_column(entry, column_name, columns)
    if share is not None and not 0 < share <= 1:
        entry.problem("share should lie above 0 and not above 1")
    if len(operations) != 1 or values[operations[0]] is None:
        return None
    operation, value = cast(Operation, operations[0]), cast(float, values[operations[0]])
    if of_rows and (column_name is not None or share is not None):
        entry.problem(f"{operation} concerns all rows: it has no column and no share")
    if operation in ("missing", "garbage") and (not 0 < value <= 1 or share is not None):
        entry.problem(f"{operation} is itself the share of the rows, above 0 and not above 1")
    if operation in ("rate", "scale") and value <= 0:
        entry.problem(f"{operation} should be above 0")
    if operation in ("add", "scale") and column is not None and column.kind != "numeric":
        entry.problem(f"{operation} needs a numeric column; {column.name} is {column.kind}")
    if operation in ("shift", "replace") and column is not None and column.is_text:
        entry.problem(f"{operation} needs a column of numbers; {column.name} is text")
    if operation == "shift" and share is not None:
        entry.problem("shift moves everybody: it has no share")
    return Change(operation, value, column_name, 1.0 if share is None else share)
