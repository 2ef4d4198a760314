"""Rules between the keys of a schema file: each function yields a sentence for each violation.

They get only values that are valid on their own (`steps.data.schema_keys`), so each mistake is reported once.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from steps.data.schema import MOST_MONITORED_GROUPS, Code, Operation, Subgroup, format_code
from steps.data.schema_keys import (
    AliasKeys,
    BandKeys,
    ChangeKeys,
    ColumnKeys,
    DriftKeys,
    GateKeys,
    ItemKeys,
    PageKeys,
    PageQuestionKeys,
    ScenarioKeys,
    SourceKeys,
    SubgroupKeys,
    TargetKeys,
)

Columns = Mapping[str, ColumnKeys | None]  # None: a column with errors of its own

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TEXT_KINDS = ("binary", "nominal")


def of_name(name: str) -> Iterator[str]:
    """The schema's own name, or a scenario's."""
    if not NAME.fullmatch(name):
        yield f"name {name!r} should be small letters, digits and single hyphens, such as diabetes-risk"


def unique(noun: str, names: Sequence[str]) -> Iterator[str]:
    """Names of one kind, each of which must be unique."""
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"two {noun}s are called {name!r}"


def of_column(column: ColumnKeys) -> Iterator[str]:
    """One feature."""
    if column.name.startswith("__"):
        yield "names that start with __ are the project's own"
    yield from _of_range(column) if column.kind == "numeric" else _of_levels(column)
    yield from _of_spelling(column.missing, column.recode, column.levels, column.aliases)
    if column.divide_by == 0 or (column.round_to is not None and column.round_to <= 0):
        yield "divide_by should not be 0, round_to should be above 0"
    if column.required and column.may_lack:
        yield "a column that is required cannot be lacking: take one of required and may_lack away"
    if column.expect is not None and column.kind == "nominal":
        yield "expect is for columns whose values have an order, not for a nominal one"


def _of_range(column: ColumnKeys) -> Iterator[str]:
    for key in ("minimum", "maximum"):
        if getattr(column, key) is None:
            yield f"{key} is missing; it should be a number"
    if column.minimum is not None and column.maximum is not None and column.minimum >= column.maximum:
        yield "minimum should be below maximum"
    if column.levels is not None:
        yield "a numeric column has minimum and maximum, no levels"


def _of_levels(column: ColumnKeys) -> Iterator[str]:
    if column.minimum is not None or column.maximum is not None:
        yield f"a column of kind {column.kind} has levels, no minimum or maximum"
    if column.divide_by is not None or column.round_to is not None:
        yield "divide_by and round_to are for numeric columns"
    if column.levels is None:
        yield "levels is missing; it should be two or more levels with a label each"
        return
    codes = list(column.levels)
    is_text = any(isinstance(code, str) for code in codes)
    if column.kind == "binary" and len(codes) != 2:
        yield f"a binary column has two levels, found {len(codes)}"
    if is_text and column.kind not in _TEXT_KINDS:
        yield f"levels of kind {column.kind} should be numbers: text has no order"
    if column.kind == "ordinal" and not is_text and codes != sorted(codes, key=float):
        yield "levels of an ordinal column should stand in ascending order"


def _of_spelling(
    missing: Sequence[Code] | None,
    recode: Mapping[Code, Code | None] | None,
    levels: Mapping[Code, str] | None,
    aliases: Sequence[AliasKeys],
) -> Iterator[str]:
    for code in missing or ():
        if levels and code in levels:
            yield f"{format_code(code)} is both a level and a value that means missing"
    for mapping in [recode, *(alias.recode for alias in aliases)]:
        results = [code for code in (mapping or {}).values() if code is not None]
        yield from _are_levels("recode", results, levels)


def of_target(target: TargetKeys, columns: Columns) -> Iterator[str]:
    """The outcome."""
    if target.name in columns:
        yield f"{target.name!r} is a column too: a model would be given the answer"
    yield from _are_levels("positive", target.positive, target.levels)
    if set(target.positive) >= set(target.levels):
        yield "every level is positive: at least one should not be"
    yield from _of_spelling(target.missing, target.recode, target.levels, target.aliases)


def _are_levels(key: str, codes: Sequence[Code], levels: Mapping[Code, Any] | None) -> Iterator[str]:
    for code in codes:
        if levels and code not in levels:
            allowed = ", ".join(format_code(level) for level in levels)
            yield f"{key} names {format_code(code)}, which is no level; levels are {allowed}"


def of_names_in_files(columns: Sequence[ColumnKeys], target: TargetKeys | None) -> Iterator[str]:
    """Names in files: each belongs to one column."""
    described: list[ColumnKeys | TargetKeys] = [*columns, *([target] if target else [])]
    owners: dict[str, set[str]] = {}
    for column in described:
        for name in [column.name, *(alias.name for alias in column.aliases)]:
            owners.setdefault(name, set()).add(column.name)
    for name, names in sorted(owners.items()):
        if len(names) > 1:
            yield f"the name {name!r} belongs to {' and '.join(sorted(names))}: an alias is of one column"


def of_extra_column(key: str, name: str, columns: Columns, target: TargetKeys | None) -> Iterator[str]:
    """A column beside features and outcome: the person or the survey weight."""
    if name in columns or (target is not None and name == target.name):
        yield f"{key} {name!r} should name a column beside the features and the target"


def of_monitor_by(name: str, groups: Sequence[Subgroup]) -> Iterator[str]:
    """The column by whose subgroups the sidecar counts; each subgroup adds time series."""
    count = sum(group.column == name for group in groups)
    if not count:
        yield f"monitor_by {name!r} should name a column that has subgroups"
    elif count > MOST_MONITORED_GROUPS:
        yield f"monitor_by {name!r} has {count} subgroups; at most {MOST_MONITORED_GROUPS} are counted by"


def of_gates(gates: GateKeys) -> Iterator[str]:
    """Limits of a promotion."""
    if gates.prevalence_change is not None and gates.prevalence_change <= 1:
        yield "prevalence_change is an odds ratio above 1"


def of_drift(drift: DriftKeys) -> Iterator[str]:
    """Limits of drift."""
    for key in ("observed_expected", "calibration_slope"):
        pair = getattr(drift, key)
        if pair is not None and not pair[0] < 1 < pair[1]:
            yield f"{key} should be a range around 1, which is a model whose risks are right"
    for key in ("evidence", "psi", "share", "roc_auc_loss", "calibration_error"):
        value = getattr(drift, key)
        if value is not None and value <= 0:
            yield f"{key} should be above 0"
    if drift.separability is not None and not 0.5 < drift.separability < 1:
        yield "separability should lie between 0.5, which is chance, and 1"


def of_source(source: SourceKeys, columns: Columns) -> Iterator[str]:
    """One data set with a name."""
    if (source.path is None) == (source.url is None):
        yield "a source has either a path or a url"
    if source.url is not None and not source.url.startswith(("https://", "http://")):
        yield "url should start with https:// or http://"
    if source.path is not None and (Path(source.path).is_absolute() or ".." in Path(source.path).parts):
        yield "path should be relative to the project's folder and stay inside it"
    if source.sha256 is not None and not _SHA256.fullmatch(source.sha256):
        yield "sha256 should be 64 small hexadecimal digits, in quotes"
    for name in source.ignore:
        if name in columns:
            yield f"ignore names {name!r}, which is a column of the schema"


def of_subgroup(group: SubgroupKeys, columns: Columns) -> Iterator[str]:
    """People whose figures are shown on their own."""
    yield from _are_columns([group.column], columns)
    column = columns.get(group.column)
    if column is None:
        return
    bounded = group.minimum is not None or group.maximum is not None
    numeric = column.kind == "numeric"
    if group.name is None:
        if group.values is not None or bounded or numeric:
            yield "name is missing; only a column with levels and nothing else gives a subgroup a level"
        return
    if (group.values is not None) == bounded:
        yield "a named subgroup has either values or minimum and maximum"
    if bounded and not numeric:
        yield f"{column.name} has levels: give values, no minimum or maximum"
    if group.minimum is not None and group.maximum is not None and group.minimum > group.maximum:
        yield "minimum should not be above maximum"
    if group.values is not None:
        if numeric:
            yield f"{column.name} is numeric: give minimum or maximum, no values"
        else:
            yield from _are_levels("values", group.values, column.levels)


def _are_columns(names: Sequence[str], columns: Columns) -> Iterator[str]:
    for name in names:
        if name not in columns:
            yield f"there is no column {name!r}"


def of_item(item: ItemKeys, columns: Columns) -> Iterator[str]:
    """One question of a point score."""
    if item.columns is not None and not item.columns:
        yield "columns is empty: name one or more"
    elif item.column is None and item.columns is None:
        yield "column is missing; it should be the name of a column"
    names = item_columns(item)
    if item.take is not None and len(names) < 2:
        yield "take chooses between the points of several columns: name them with columns"
    yield from _are_columns(names, columns)
    valid_columns = [column for name in names if (column := columns.get(name)) is not None]
    numeric = {column.kind == "numeric" for column in valid_columns}
    if len(numeric) > 1:
        yield "columns of one item should all be numeric, or all have levels"
    elif numeric and isinstance(item.points, dict):
        if True in numeric:
            yield "points of a numeric column should be a list of bands with from, to and points"
        else:
            yield from itertools.chain.from_iterable(
                _of_level_points(item.points, levelled) for levelled in valid_columns
            )
    elif numeric and isinstance(item.points, tuple):
        if False in numeric:
            yield "points should be levels with whole points each"
        yield from _of_bands(item.points)


def item_columns(item: ItemKeys) -> tuple[str, ...]:
    """The names of the columns that an item asks."""
    if item.columns is not None:
        return item.columns
    return () if item.column is None else (item.column,)


def _of_level_points(points: Mapping[Code, int], column: ColumnKeys) -> Iterator[str]:
    levels = column.levels or {}
    yield from _are_levels("points", list(points), levels)
    absent = [format_code(code) for code in levels if code not in points]
    if absent:
        yield f"points say nothing for level {', '.join(absent)} of {column.name}"


def _of_bands(bands: Sequence[BandKeys]) -> Iterator[str]:
    ends = [(band.from_, band.to) for band in bands]
    joined = all(lower[1] is not None and lower[1] == upper[0] for lower, upper in itertools.pairwise(ends))
    ascending = all(low is None or high is None or low < high for low, high in ends)
    if not bands or ends[0][0] is not None or ends[-1][1] is not None or not joined or not ascending:
        yield (
            "points of a numeric column should join without gap: the first band without from, the last "
            "without to, each from equal to the to before it"
        )


def of_page(page: PageKeys, columns: Columns, with_subgroups: Collection[str]) -> Iterator[str]:
    """One person's page, without its questions."""
    if page.compare is not None and page.compare not in with_subgroups:
        yield f"compare {page.compare!r} should name a column that has subgroups"
    yield from _are_columns([*(page.example or {}), *page.questions], columns)
    for name, answer in (page.example or {}).items():
        column = columns.get(name)
        if column is None:
            continue
        if column.kind != "numeric":
            if answer not in (column.levels or {}):
                yield f"example: {format_code(answer)} is no level of {name}"
        elif isinstance(answer, str) or not (column.minimum or 0) <= answer <= (column.maximum or 0):
            yield f"example: {format_code(answer)} is outside the range of {name}"


def of_page_question(question: PageQuestionKeys, column: ColumnKeys) -> Iterator[str]:
    """How one column is asked for."""
    parts, numeric = question.from_, column.kind == "numeric"
    if parts and (not numeric or sorted(parts) != ["height", "weight"]):
        yield "from should be [height, weight], of a numeric column that is a body mass index"
    if question.whole and not numeric:
        yield "whole is for numeric columns; this one has levels"


def of_scenario(scenario: ScenarioKeys, columns: Columns) -> Iterator[str]:
    """A scenario of the simulator, without its changes."""
    yield from of_name(scenario.name)
    if scenario.starts < 0 or scenario.ramp < 0:
        yield "starts and ramp are days, 0 or more"
    yield from _are_columns(scenario.drifts, columns)


def of_change(change: ChangeKeys, columns: Columns) -> Iterator[str]:
    """One change of a scenario."""
    operations = change.operations
    if len(operations) != 1:
        yield f"a change has exactly one of {', '.join(get_args(Operation))}"
        return
    ((operation, value),) = operations.items()
    of_rows = operation in ("outcome_shift", "outcome_slope", "rate")
    if change.column is None and not of_rows:
        yield "column is missing; it should be the name of a column"
    if change.column is not None:
        yield from _are_columns([change.column], columns)
    if change.share is not None and not 0 < change.share <= 1:
        yield "share should lie above 0 and not above 1"
    if of_rows and (change.column is not None or change.share is not None):
        yield f"{operation} concerns all rows: it has no column and no share"
    if operation in ("missing", "garbage") and (not 0 < value <= 1 or change.share is not None):
        yield f"{operation} is itself the share of the rows, above 0 and not above 1"
    if operation in ("rate", "scale") and value <= 0:
        yield f"{operation} should be above 0"
    if operation == "shift" and change.share is not None:
        yield "shift moves everybody: it has no share"
    column = columns.get(change.column) if change.column is not None else None
    if column is not None:
        yield from _fits(operation, column)


def _fits(operation: Operation, column: ColumnKeys) -> Iterator[str]:
    is_text = any(isinstance(code, str) for code in column.levels or ())
    if operation in ("add", "scale") and column.kind != "numeric":
        yield f"{operation} needs a numeric column; {column.name} is {column.kind}"
    if operation in ("shift", "replace") and is_text:
        yield f"{operation} needs a column of numbers; {column.name} is text"
