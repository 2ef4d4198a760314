"""Read a schema from a YAML file, and report every problem of the file at once, in plain words.

`steps.data.schema_keys` defines the keys of the file, `steps.data.schema_rules` the rules between them. An
unknown key is an error, so a slip in a key is found here.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, cast

from pydantic import ValidationError

from steps.data import schema_keys as keys
from steps.data import schema_rules as rules
from steps.data.errors import UserError
from steps.data.schema import (
    Card,
    Change,
    Code,
    Column,
    DriftLimits,
    Format,
    Gates,
    LevelledColumn,
    NumericColumn,
    OpenQuestion,
    PersonPage,
    PointBand,
    PointItem,
    PointScore,
    Question,
    Scenario,
    Schema,
    Source,
    Spelling,
    Subgroup,
    Target,
)

# Keys of older schemas, and the reason why each is ignored.
_RETIRED_GATES: Mapping[str, str] = {
    "average_precision_min": "average precision moves with the share of outcomes; it limits nothing",
    "subgroup_gap_max": "gaps of ROC AUC move with the mix of cases; they limit nothing",
    "champion_loss_max": "the largest loss of ROC AUC against the champion is called roc_auc_margin",
}
# The noun for an entry of each list.
_NOUNS: Mapping[str, str] = {
    "columns": "column",
    "sources": "source",
    "subgroups": "subgroup",
    "point_scores": "point score",
    "scenarios": "scenario",
    "open_questions": "open question",
    "items": "item",
    "changes": "change",
    "points": "band",
    "aliases": "alias",
}

Model = TypeVar("Model", bound=keys.Keys)


class SchemaError(UserError):
    """A schema file that cannot be used; `problems` holds one sentence for each problem."""

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
        document = _parse(text, problems)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise SchemaError(path, [f"this is no YAML: {getattr(error, 'problem', error)}{where}"]) from None
    content, reported = None, set()
    try:
        content = keys.SchemaKeys.model_validate(document)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            sentence = _sentence(problem, document)
            if sentence is not None:
                problems.append(sentence)
                reported.add("{}: {} ".format(*_place(problem["loc"], document)))
    # A key that is reported already is not reported again as missing.
    problems += [
        sentence
        for sentence in _broken_rules(_valid_parts(document))
        if not any(sentence.startswith(prefix) for prefix in reported)
    ]
    if problems or content is None:
        raise SchemaError(path, list(dict.fromkeys(problems)))
    return _schema(content)


def _parse(text: str, problems: list[str]) -> object:
    """The document; repeated keys are added to `problems` (YAML itself keeps the last one silently)."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    def construct_mapping(loader: Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
        keys: set[object] = set()
        for key_node, _ in node.value:
            key = loader.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is a list or mapping", key_node.start_mark
                )
            if key in keys:
                problems.append(f"line {line}: the key {key!r} stands twice in one mapping")
            keys.add(key)
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, construct_mapping)
    return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader with one more check


# ---------------------------------------------------------------- what is wrong, in words


def _sentence(error: Mapping[str, Any], document: object) -> str | None:
    """A pydantic error as a sentence; None for a list whose entries have errors of their own."""
    where, key = _place(error["loc"], document)
    kind, value, context = str(error["type"]), error.get("input"), error.get("ctx", {})
    if kind == "missing":
        return f"{where}: {key} is missing; it should be {_expected(error)}"
    if kind == "extra_forbidden":
        return f"{where}: {_unknown_key(key, error['loc'], document)}"
    if kind in ("model_type", "model_attributes_type"):
        subject = f"{key} should be" if key else "expected"
        return f"{where}: {subject} keys and values, found {_kind_of(value)}"
    if kind == "wrong":
        return f"{where}: {key} {context['text']}"
    if kind == "too_short":
        return None if value else f"{where}: {key} is empty"
    expected = context.get("expected", "a list" if kind.endswith("tuple_type") else "something else")
    if kind == "literal_error":
        expected = "one of " + str(expected).replace("'", "").replace(" or ", ", ")
    if kind == "tuple_type":
        expected = f"a list of {_NOUNS.get(key, 'entrie')}s"
    return f"{where}: {key} should be {expected}, found {_kind_of(value)}"


def _place(location: Sequence[int | str], document: object) -> tuple[str, str]:
    """The name of an entry, such as "column Age" or "wave change 2", and the key in it."""
    where, key, content = "the file", "", document
    parent = ""
    for step in location:
        if isinstance(step, int) and isinstance(content, list):
            content = content[step] if step < len(content) else None
            name = content.get("name") if isinstance(content, Mapping) else None
            noun = _NOUNS.get(key, key)
            where = (
                f"{noun} {name}" if isinstance(name, str) and not parent else f"{parent} {noun} {step + 1}"
            )
            where, key = where.strip(), ""
            parent = name if isinstance(name, str) else where
        elif isinstance(content, Mapping) and (step in content or step == location[-1]):
            if key:
                where, parent = key, ""
            key, content = str(step), content.get(step)
    return where, key


def _expected(error: Mapping[str, Any]) -> str:
    """The kind of value that an absent key should have, in words."""
    model: type[keys.Keys] = keys.SchemaKeys
    for step in error["loc"][:-1]:
        field = model.model_fields.get(str(step))
        inner = keys.model_of(field.annotation) if field is not None else None
        model = inner or model
    field = model.model_fields.get(str(error["loc"][-1]))
    return keys.in_words(field) if field is not None else "there"


def _unknown_key(key: str, location: Sequence[int | str], document: object) -> str:
    model: type[keys.Keys] = keys.SchemaKeys
    for step in location[:-1]:
        field = model.model_fields.get(str(step))
        inner = keys.model_of(field.annotation) if field is not None else None
        model = inner or model
    known_keys = sorted(field.alias or name for name, field in model.model_fields.items())
    close = difflib.get_close_matches(key, known_keys, n=1, cutoff=0.7)
    hint = f" (is it {close[0]}?)" if close else ""
    return f"unknown key {key!r}{hint}; known are {', '.join(known_keys)}"


def _kind_of(value: object) -> str:
    """The kind of a value in the words of YAML, not of Python."""
    if isinstance(value, bool):
        return f"the truth value {str(value).lower()} (quote yes, no, on and off where text is meant)"
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return f"a mapping of {len(value)} keys"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return repr(value)


# ---------------------------------------------------------------- what does not fit together


@dataclass(frozen=True)
class _Parts:
    """The parts of a file that are valid on their own; columns and subgroups with their names in messages."""

    document: Mapping[str, Any]
    columns: list[tuple[str, str, keys.ColumnKeys | None]]
    target: keys.TargetKeys | None
    sources: list[keys.SourceKeys]
    subgroups: list[tuple[str, keys.SubgroupKeys]]
    scores: list[keys.PointScoreKeys]
    scenarios: list[keys.ScenarioKeys]
    gates: keys.GateKeys | None
    drift: keys.DriftKeys | None
    page: keys.PageKeys | None


def _valid_parts(document: object) -> _Parts:
    mapping = document if isinstance(document, Mapping) else {}

    def listed(key: str, model: type[Model]) -> list[tuple[str, str, Model | None]]:
        content = mapping.get(key)
        entries = content if isinstance(content, list) else []
        return [
            (_place((key, index), document)[0], _name_of(entry), _valid(model, entry))
            for index, entry in enumerate(entries)
        ]

    return _Parts(
        document=mapping,
        columns=listed("columns", keys.ColumnKeys),
        target=_valid(keys.TargetKeys, mapping.get("target")),
        sources=[source for *_, source in listed("sources", keys.SourceKeys) if source],
        subgroups=[(where, group) for where, _, group in listed("subgroups", keys.SubgroupKeys) if group],
        scores=[score for *_, score in listed("point_scores", keys.PointScoreKeys) if score],
        scenarios=[scenario for *_, scenario in listed("scenarios", keys.ScenarioKeys) if scenario],
        gates=_valid(keys.GateKeys, mapping.get("gates")),
        drift=_valid(keys.DriftKeys, mapping.get("drift")),
        page=_valid(keys.PageKeys, mapping.get("page")),
    )


def _name_of(content: object) -> str:
    return str(content.get("name", "")) if isinstance(content, Mapping) else ""


def _valid(model: type[Model], content: object) -> Model | None:
    """The mapping without its invalid keys; None where one of them is required."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        wrong = {problem["loc"][0] for problem in error.errors() if problem["loc"]}
    if not isinstance(content, Mapping) or not wrong & set(content):
        return None
    return _valid(model, {key: value for key, value in content.items() if key not in wrong})


def _broken_rules(parts: _Parts) -> Iterator[str]:
    """One sentence for each rule that the valid parts break together."""
    columns: rules.Columns = {name: column for _, name, column in parts.columns}
    name = parts.document.get("name")
    if isinstance(name, str):
        yield from _at("the file", rules.of_name(name))
    yield from _at("the file", rules.unique("column", [name for _, name, _ in parts.columns if name]))
    for where, _, column in parts.columns:
        if column is not None:
            yield from _at(where, rules.of_column(column))
    valid = [column for column in columns.values() if column is not None]
    if parts.target is not None:
        yield from _at("target", rules.of_target(parts.target, columns))
    yield from _at("the file", rules.of_names_in_files(valid, parts.target))
    for key in ("person", "survey_weight"):
        if isinstance(parts.document.get(key), str):
            yield from _at("the file", rules.of_extra_column(key, parts.document[key], columns, parts.target))
    if parts.gates is not None:
        yield from _at("gates", rules.of_gates(parts.gates))
    if parts.drift is not None:
        yield from _at("drift", rules.of_drift(parts.drift))
    with_subgroups = {group.column for _, group in parts.subgroups}
    monitor_by = parts.document.get("monitor_by")
    if isinstance(monitor_by, str):
        groups = [group for _, entry in parts.subgroups for group in _subgroups(entry, columns)]
        yield from _at("the file", rules.of_monitor_by(monitor_by, groups))
    if parts.page is not None:
        yield from _at("page", rules.of_page(parts.page, columns, with_subgroups))
        for name, question in parts.page.questions.items():
            if (column_asked := columns.get(name)) is not None:
                yield from _at(f"page question {name}", rules.of_page_question(question, column_asked))
    yield from _broken_lists(parts, columns)


def _broken_lists(parts: _Parts, columns: rules.Columns) -> Iterator[str]:
    yield from _at("the file", rules.unique("source", [source.name for source in parts.sources]))
    for source in parts.sources:
        yield from _at(f"source {source.name}", rules.of_source(source, columns))
    groups = [group.name for _, entry in parts.subgroups for group in _subgroups(entry, columns)]
    yield from _at("the file", rules.unique("subgroup", groups))
    for where, entry in parts.subgroups:
        yield from _at(where, rules.of_subgroup(entry, columns))
    yield from _at("the file", rules.unique("point score", [score.name for score in parts.scores]))
    for score in parts.scores:
        for number, item in enumerate(score.items, start=1):
            yield from _at(f"{score.name} item {number}", rules.of_item(item, columns))
    yield from _at("the file", rules.unique("scenario", [scenario.name for scenario in parts.scenarios]))
    for scenario in parts.scenarios:
        yield from _at(f"scenario {scenario.name}", rules.of_scenario(scenario, columns))
        for number, change in enumerate(scenario.changes, start=1):
            yield from _at(f"{scenario.name} change {number}", rules.of_change(change, columns))


def _at(where: str, sentences: Iterable[str]) -> Iterator[str]:
    return (f"{where}: {sentence}" for sentence in sentences)


# ---------------------------------------------------------------- the schema itself


def _schema(content: keys.SchemaKeys) -> Schema:
    by_name = {column.name: column for column in content.columns}
    return Schema(
        name=content.name,
        title=content.title,
        disclaimer=content.disclaimer
        or f"Estimated probability ({content.target.meaning}); not a diagnosis.",
        columns=tuple(_column(column) for column in content.columns),
        target=_target(content.target),
        gates=_gates(content.gates or keys.GateKeys()),
        sources=tuple(_source(source) for source in content.sources),
        subgroups=tuple(group for entry in content.subgroups for group in _subgroups(entry, by_name)),
        monitor_by=content.monitor_by,
        point_scores=tuple(_point_score(score) for score in content.point_scores),
        scenarios=tuple(_scenario(scenario) for scenario in content.scenarios),
        facts=content.facts,
        drift=DriftLimits(**_given(content.drift)),
        person=content.person,
        lacks=content.lacks,
        card=Card(**_given(content.card)),
        page=_page(content.page or keys.PageKeys.model_validate({})),
        format=_format(content.format),
        survey_weight=content.survey_weight,
        open_questions=tuple(
            OpenQuestion(question.about, question.question) for question in content.open_questions
        ),
    )


def _given(content: keys.Keys | None) -> dict[str, Any]:
    """The keys that a mapping has, with their values."""
    if content is None:
        return {}
    return {
        name: value for name in type(content).model_fields if (value := getattr(content, name)) is not None
    }


def _column(column: keys.ColumnKeys) -> Column:
    spellings = _spellings(column, column.divide_by, column.round_to)
    shared: dict[str, Any] = {
        "unit": column.unit,
        "missing": column.missing or (),
        "spellings": spellings,
        "required": column.required,
        "may_lack": column.may_lack,
        "expect": column.expect,
    }
    if column.kind == "numeric":
        assert column.minimum is not None and column.maximum is not None
        return NumericColumn(column.name, column.meaning, column.minimum, column.maximum, **shared)
    levels: Mapping[Code, str] = MappingProxyType(column.levels or {})
    return LevelledColumn(column.name, column.kind, column.meaning, levels, **shared)


def _spellings(
    column: keys.ColumnKeys | keys.TargetKeys, divide_by: float | None = None, round_to: float | None = None
) -> tuple[Spelling, ...]:
    """How files write a column, by each of its names; empty where it has one name and no conversion."""
    plain = Spelling(column.name, MappingProxyType(column.recode or {}), divide_by or 1.0, round_to)
    aliases = [
        Spelling(
            alias.name,
            plain.recode if alias.recode is None else MappingProxyType(alias.recode),
            alias.divide_by or plain.divide_by,
            round_to,
        )
        for alias in column.aliases
    ]
    return () if plain.is_plain and not aliases else (plain, *aliases)


def _target(target: keys.TargetKeys) -> Target:
    return Target(
        target.name,
        target.meaning,
        MappingProxyType(target.levels),
        target.positive,
        target.missing or (),
        _spellings(target),
    )


def _gates(gates: keys.GateKeys) -> Gates:
    limits = _given(gates)
    ignored = [
        f"{key} of the schema is ignored: {reason}"
        for key, reason in _RETIRED_GATES.items()
        if limits.pop(key, None) is not None
    ]
    return Gates(**limits, ignored=tuple(ignored))


def _format(content: keys.FormatKeys | None) -> Format:
    return Format(**_given(content))


def _source(source: keys.SourceKeys) -> Source:
    return Source(**{**_given(source), "format": _format(source.format)})


def _subgroups(group: keys.SubgroupKeys, columns: rules.Columns) -> list[Subgroup]:
    """The subgroups of one entry: one for each level where only a column is named."""
    if group.name is not None:
        return [
            Subgroup(group.name, group.column, group.values, group.minimum, group.maximum, group.headline)
        ]
    column = columns.get(group.column)
    levels = (column.levels or {}) if column is not None else {}
    return [
        Subgroup(f"{group.column}: {label}", group.column, (code,), headline=group.headline)
        for code, label in levels.items()
    ]


def _point_score(score: keys.PointScoreKeys) -> PointScore:
    items = tuple(_item(item) for item in score.items)
    return PointScore(
        score.name, items, score.cut, score.made_for, score.lacks, score.differs, score.cut_because or ""
    )


def _item(item: keys.ItemKeys) -> PointItem:
    points: Mapping[Code, int] | tuple[PointBand, ...]
    if isinstance(item.points, tuple):
        points = tuple(PointBand(band.from_, band.to, band.points) for band in item.points)
    else:
        points = MappingProxyType(item.points)
    return PointItem(rules.item_columns(item), points, item.take or "largest")


def _page(page: keys.PageKeys) -> PersonPage:
    questions = {
        name: Question(
            entry.ask,
            entry.short,
            entry.group,
            entry.help,
            cast(tuple[Literal["height", "weight"], ...], entry.from_),
            entry.whole,
        )
        for name, entry in page.questions.items()
    }
    return PersonPage(
        page.title,
        page.outcome,
        page.compare,
        MappingProxyType(page.example or {}),
        MappingProxyType(questions),
    )


def _scenario(scenario: keys.ScenarioKeys) -> Scenario:
    changes = []
    for change in scenario.changes:
        ((operation, value),) = change.operations.items()
        changes.append(Change(operation, value, change.column, 1.0 if change.share is None else change.share))
    return Scenario(
        scenario.name,
        scenario.title,
        scenario.description,
        tuple(changes),
        scenario.starts,
        scenario.ramp,
        scenario.drifts,
    )
