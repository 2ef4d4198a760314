"""From a YAML file to a schema: what the file may hold, and every problem of it at once.

`load` is the entry. Nothing that it does not know is let through, so a slip in a key is found here.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

from steps.data.errors import UserError
from steps.data.schema import (
    Card,
    Change,
    Code,
    Column,
    DriftLimits,
    Gates,
    LevelledColumn,
    LevelledKind,
    NumericColumn,
    Operation,
    PersonPage,
    PointBand,
    PointItem,
    PointScore,
    Question,
    Scenario,
    Schema,
    Source,
    SourceKind,
    Subgroup,
    Take,
    Target,
    format_code,
)

# Keys of older schemas, and what is said about each.
_RETIRED_GATES: Mapping[str, str] = {
    "average_precision_min": "average precision moves with the share of outcomes; it limits nothing",
    "subgroup_gap_max": "gaps of ROC AUC move with the mix of cases; they limit nothing",
    "champion_loss_max": "the largest loss of ROC AUC against the champion is called roc_auc_margin",
}
_TEXT_KINDS = ("binary", "nominal")
_KINDS = ("numeric", *get_args(LevelledKind))
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def parse(text: str, problems: list[str]) -> object:
    """The document, with repeated keys as problems (YAML itself lets the last one win silently)."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def construct_mapping(loader: Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is a list or mapping", key_node.start_mark
                )
            if key in seen:
                problems.append(f"line {line}: the key {key!r} stands twice in one mapping")
            seen.add(key)
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, construct_mapping)
    return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader with one more check


class Entry:
    """One mapping of the file while it is read: takes its keys one by one and notes what is wrong with them.

    A value that is absent or wrong comes back as None after its problem is noted, so reading goes on and the
    person sees everything at once.
    """

    def __init__(self, content: object, where: str, problems: list[str]) -> None:
        self.where = where
        self.problems = problems
        self.taken: set[object] = set()
        self.content: Mapping[Any, Any] = content if isinstance(content, Mapping) else {}
        self.is_mapping = isinstance(content, Mapping)
        if not self.is_mapping:
            self.problem(f"expected keys and values, found {_kind_of(content)}")

    def problem(self, text: str) -> None:
        """Note something to mend in this mapping."""
        self.problems.append(f"{self.where}: {text}")

    def has(self, key: str) -> bool:
        """The key is there and is not null."""
        return self.content.get(key) is not None

    def take(self, key: str, expected: str, reads: Callable[[Any], bool], required: bool = True) -> Any:
        """The value of a key, or None with a problem if it is absent though required, or not as expected."""
        self.taken.add(key)
        value = self.content.get(key)
        if value is None:
            if required and self.is_mapping:
                self.problem(f"{key} is missing; it should be {expected}")
            return None
        if not reads(value):
            self.problem(f"{key} should be {expected}, found {_kind_of(value)}")
            return None
        return value

    def text(self, key: str, required: bool = True) -> str | None:
        """Text, its white space reduced to single spaces."""
        value = self.take(key, "text", lambda v: isinstance(v, str) and bool(v.strip()), required)
        return None if value is None else " ".join(value.split())

    def number(self, key: str, required: bool = True) -> float | None:
        """A finite number."""
        value = self.take(key, "a number", _is_number, required)
        return None if value is None else float(value)

    def whole(self, key: str) -> int | None:
        """A whole number."""
        return cast("int | None", self.take(key, "a whole number", is_whole))

    def flag(self, key: str) -> bool:
        """True or false; false where absent."""
        return bool(self.take(key, "true or false", lambda v: isinstance(v, bool), required=False))

    def choice(self, key: str, choices: Sequence[str]) -> str | None:
        """One of the given words."""
        return cast(
            "str | None",
            self.take(key, f"one of {', '.join(choices)}", lambda v: v in choices and isinstance(v, str)),
        )

    def codes(self, key: str, required: bool = False) -> tuple[Code, ...] | None:
        """A list of values of levels."""
        value = self.take(
            key,
            "a list of numbers or texts",
            lambda v: isinstance(v, list) and bool(v) and all(is_code(item) for item in v),
            required,
        )
        return None if value is None else tuple(as_code(item) for item in value)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty where absent."""
        value = self.take(
            key,
            "a list of texts",
            lambda v: isinstance(v, list) and all(isinstance(item, str) for item in v),
            required=False,
        )
        return tuple(value or ())

    def pair(self, key: str, required: bool = True) -> tuple[float, float] | None:
        """Two numbers, the lower one first."""
        value = self.take(
            key,
            "two numbers, lower and upper",
            lambda v: isinstance(v, list) and len(v) == 2 and all(map(_is_number, v)) and v[0] < v[1],
            required,
        )
        return None if value is None else (float(value[0]), float(value[1]))

    def labels(self, key: str, required: bool) -> Mapping[Code, str] | None:
        """Levels with their labels, in order."""
        value = self.take(
            key,
            "levels with a label each",
            lambda v: isinstance(v, Mapping) and len(v) >= 2 and all(map(is_code, v)),
            required,
        )
        if value is None:
            return None
        for code, label in value.items():
            if not isinstance(label, str) or not label.strip():
                self.problem(f"the label of level {code!r} should be text, found {_kind_of(label)}")
        if len({isinstance(code, str) for code in value}) == 2:
            self.problem(f"{key} mixes numbers and texts")
        return MappingProxyType({as_code(code): str(label) for code, label in value.items()})

    def entries(self, key: str, noun: str, required: bool = False) -> list[Entry]:
        """A list of mappings, each to be read in its turn."""
        value = self.take(key, f"a list of {noun}s", lambda v: isinstance(v, list), required)
        if value is not None and required and not value:
            self.problem(f"{key} is empty")
        found = []
        for number, content in enumerate(value or [], start=1):
            name = content.get("name") if isinstance(content, Mapping) else None
            found.append(Entry(content, f"{noun} {name if isinstance(name, str) else number}", self.problems))
        return found

    def entry(self, key: str, required: bool = True) -> Entry | None:
        """A mapping within this one."""
        value = self.take(key, "keys and values", lambda v: isinstance(v, Mapping), required)
        return None if value is None else Entry(value, key, self.problems)

    def finish(self) -> None:
        """Note every key that nobody took."""
        for key in self.content:
            if key not in self.taken:
                known = ", ".join(sorted(str(name) for name in self.taken))
                self.problem(f"unknown key {key!r}; known are {known}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_whole(value: object) -> bool:
    """A whole number, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_code(value: object) -> bool:
    """A number or text: what the value of a level may be."""
    return _is_number(value) or isinstance(value, str)


def as_code(value: float | str) -> Code:
    """The value of a level: text, or a number as a float."""
    return value if isinstance(value, str) else float(value)


def _kind_of(value: object) -> str:
    """What a value is, for a person who reads YAML rather than Python."""
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()} (quote yes, no, on and off where text is meant)"
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return f"a mapping of {len(value)} keys"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return repr(value)


class SchemaError(UserError):
    """A schema file that cannot be used; `problems` holds one sentence for each thing to mend."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n  ".join([f"{path}: {count} in the schema:", *problems]))


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


def _read_schema(entry: Entry) -> Schema | None:
    name = entry.text("name")
    if name is not None and not _NAME.fullmatch(name):
        entry.problem(
            f"name {name!r} should be small letters, digits and single hyphens, such as diabetes-risk"
        )
    title, disclaimer = entry.text("title"), entry.text("disclaimer")
    found = [(item, _read_column(item)) for item in entry.entries("columns", "column", required=True)]
    known = {str(item.content.get("name", "")): column for item, column in found}
    columns = [column for _, column in found if column is not None]
    _check_unique(entry, "column", [str(item.content.get("name", "")) for item, _ in found])
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
    card_entry = entry.entry("card", required=False)
    card = _read_card(card_entry) if card_entry else Card()
    lacks = entry.texts("lacks")
    person = entry.text("person", required=False)
    if person is not None and (person in known or (target is not None and person == target.name)):
        entry.problem(f"person {person!r} should name a column beside the features and the target")
    page_entry = entry.entry("page", required=False)
    page = _read_page(page_entry, known, subgroups) if page_entry else PersonPage()
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
        lacks=lacks,
        card=card,
        page=page,
    )


def _check_unique(entry: Entry, noun: str, names: Sequence[str]) -> None:
    for name in sorted({name for name in names if name and names.count(name) > 1}):
        entry.problem(f"two {noun}s are called {name!r}")


def _read_column(entry: Entry) -> Column | None:
    name = entry.text("name") or ""
    if name.startswith("__"):
        entry.problem("names that start with __ are the project's own")
    kind = entry.choice("kind", _KINDS)
    meaning, unit = entry.text("meaning") or "", entry.text("unit", required=False)
    numeric = kind == "numeric"
    minimum = entry.number("minimum", required=numeric)
    maximum = entry.number("maximum", required=numeric)
    levels = entry.labels("levels", required=kind is not None and not numeric)
    missing = entry.codes("missing") or ()
    entry.finish()
    column: Column
    if numeric:
        if levels is not None:
            entry.problem("a numeric column has minimum and maximum, no levels")
        if minimum is None or maximum is None:
            return None
        if minimum >= maximum:
            entry.problem("minimum should be below maximum")
        column = NumericColumn(name, meaning, minimum, maximum, unit, missing)
    else:
        if kind is not None and (minimum is not None or maximum is not None):
            entry.problem(f"a column of kind {kind} has levels, no minimum or maximum")
        if kind is None or levels is None:
            return None
        column = LevelledColumn(name, cast(LevelledKind, kind), meaning, levels, unit, missing)
        _check_levels(entry, column)
    if any(isinstance(code, str) != column.is_text for code in missing):
        entry.problem(
            f"missing should hold {'texts' if column.is_text else 'numbers'} like the column itself"
        )
    return column


def _check_levels(entry: Entry, column: LevelledColumn) -> None:
    if column.kind == "binary" and len(column.levels) != 2:
        entry.problem(f"a binary column has two levels, found {len(column.levels)}")
    if column.is_text and column.kind not in _TEXT_KINDS:
        entry.problem(f"levels of kind {column.kind} should be numbers: text has no order")
    if column.kind == "ordinal" and not column.is_text:
        codes = [code for code in column.codes if not isinstance(code, str)]
        if codes != sorted(codes):
            entry.problem("levels of an ordinal column should stand in ascending order")
    for code in column.missing:
        if code in column.codes:
            entry.problem(f"{format_code(code)} is both a level and a value that means missing")


def _read_target(entry: Entry, columns: Mapping[str, Column | None]) -> Target:
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


def _read_source(entry: Entry, columns: Mapping[str, Column | None]) -> Source:
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


def _read_subgroup(entry: Entry, columns: Mapping[str, Column | None]) -> list[Subgroup]:
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
        if values is not None or bounded or isinstance(column, NumericColumn):
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
    if bounded and isinstance(column, LevelledColumn):
        entry.problem(f"{column.name} has levels: give values, no minimum or maximum")
    if minimum is not None and maximum is not None and minimum > maximum:
        entry.problem("minimum should not be above maximum")
    if values is not None:
        if isinstance(column, NumericColumn):
            entry.problem(f"{column.name} is numeric: give minimum or maximum, no values")
        else:
            _check_codes(entry, "values", values, column.levels)
    return [Subgroup(name, column.name, values, minimum, maximum, headline)]


def _find_column(entry: Entry, name: str | None, columns: Mapping[str, Column | None]) -> Column | None:
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


def _read_page(
    entry: Entry, columns: Mapping[str, Column | None], subgroups: Sequence[Subgroup]
) -> PersonPage:
    compare = entry.text("compare", required=False)
    if compare is not None and compare not in {group.column for group in subgroups}:
        entry.problem(f"compare {compare!r} should name a column that has subgroups")
    example = entry.take("example", "answers by column", lambda v: isinstance(v, Mapping), required=False)
    answers: dict[str, Code] = {}
    for name, value in (example or {}).items():
        column = _find_column(entry, str(name), columns)
        if column is not None and is_code(value):
            answers[column.name] = as_code(value)
            _check_answer(entry, column, answers[column.name])
    questions: dict[str, Question] = {}
    asked = entry.entry("questions", required=False)
    for name in asked.content if asked else ():
        question = asked.entry(name) if asked else None
        column = _find_column(entry, str(name), columns)
        if question is not None and column is not None:
            questions[column.name] = _read_question(question, column)
    page = PersonPage(
        title=entry.text("title", required=False),
        outcome=entry.text("outcome", required=False),
        compare=compare,
        example=MappingProxyType(answers),
        questions=MappingProxyType(questions),
    )
    entry.finish()
    return page


def _check_answer(entry: Entry, column: Column, answer: Code) -> None:
    if isinstance(column, LevelledColumn):
        if answer not in column.levels:
            entry.problem(f"example: {format_code(answer)} is no level of {column.name}")
    elif isinstance(answer, str) or not column.minimum <= answer <= column.maximum:
        entry.problem(f"example: {format_code(answer)} is outside the range of {column.name}")


def _read_question(entry: Entry, column: Column) -> Question:
    parts = entry.texts("from")
    if parts and (isinstance(column, LevelledColumn) or sorted(parts) != ["height", "weight"]):
        entry.problem("from should be [height, weight], of a numeric column that is a body mass index")
        parts = ()
    question = Question(
        ask=entry.text("ask", required=False),
        short=entry.text("short", required=False),
        group=entry.text("group", required=False),
        help=entry.text("help", required=False),
        built_from=cast("tuple[Literal['height', 'weight'], ...]", parts),
        whole=entry.flag("whole"),
    )
    if question.whole and isinstance(column, LevelledColumn):
        entry.problem("whole is for numeric columns; this one has levels")
    entry.finish()
    return question


def _read_point_score(entry: Entry, columns: Mapping[str, Column | None]) -> PointScore:
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
    differs, because = entry.texts("differs"), entry.text("cut_because", required=False) or ""
    entry.finish()
    return PointScore(name, tuple(items), cut, made_for, lacks, differs, because)


def _read_card(entry: Entry) -> Card:
    texts = {
        field.name: entry.text(field.name, required=False) or ""
        for field in fields(Card)
        if field.name != "cross_sectional"
    }
    card = Card(**texts, cross_sectional=entry.flag("cross_sectional"))
    entry.finish()
    return card


def _read_point_item(entry: Entry, columns: Mapping[str, Column | None]) -> PointItem | None:
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
    numeric = bool(found) and isinstance(found[0], NumericColumn)
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
    take: Take = "largest"
    if entry.has("take"):
        take = cast(Take, entry.choice("take", get_args(Take)) or "largest")
        if len(names) < 2:
            entry.problem("take chooses between the points of several columns: name them with columns")
    entry.finish()
    for column in found:
        if isinstance(column, NumericColumn) != numeric:
            entry.problem("columns of one item should all be numeric, or all have levels")
        elif isinstance(column, LevelledColumn) and points is not None:
            _check_codes(entry, "points", tuple(cast(Mapping[Code, int], points)), column.levels)
            absent = [
                format_code(code) for code in column.codes if code not in cast(Mapping[Code, int], points)
            ]
            if absent:
                entry.problem(f"points say nothing for level {', '.join(absent)} of {column.name}")
    return PointItem(names, points, take) if points is not None and found else None


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


def _read_scenario(entry: Entry, columns: Mapping[str, Column | None]) -> Scenario:
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


def _read_change(entry: Entry, columns: Mapping[str, Column | None]) -> Change | None:
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
