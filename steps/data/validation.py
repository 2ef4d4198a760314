"""Check rows against the schema: which are valid, which are rejected, and why.

Every row is checked, and all problems are reported at once. A row that breaks a rule is kept as it was
written, with its reasons; messages and counts name columns and rules, never a value.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from steps.data import values as canonical
from steps.data.disclosure import in_words
from steps.data.errors import UserError
from steps.data.files import (
    FILE_COLUMN,
    LEVEL_COLUMN,
    PERSON_COLUMN,
    REASON_COLUMN,
    TARGET_COLUMN,
    WEIGHT_COLUMN,
)
from steps.data.schema import LevelledColumn, NumericColumn, format_code

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from steps.data.schema import Code, Column, Schema

NOT_A_NUMBER = "not a number"
DECIMAL_COMMA = "a number with a decimal comma"
GROUPED_DIGITS = "a number with a sign that groups its digits"
OTHER_CASE = "a level that differs only in upper and lower case"
NO_ANSWER = "no answer, where one is required"
OUT_OF_RANGE = "out of range"
UNKNOWN_LEVEL = "unknown level"
UNKNOWN_TARGET = "unknown target value"
UNLABELLED = "unlabelled"
HEADER_INSIDE = "the header stands here again"
# What to do about a rule that a whole file breaks.
_REMEDIES = {
    DECIMAL_COMMA: 'say so with the schema\'s key format: {decimal: ","}',
    GROUPED_DIGITS: 'say which sign with the schema\'s key format: {thousands: ","}',
    OTHER_CASE: "write the levels as the schema has them, or name the others with the column's key recode",
}
_MOST_LEVELS = 12
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,(\d{1,2}|\d{4,})")
_GROUPED = re.compile(r"[+-]?\d{1,3}([,.' ]\d{3})+([.,]\d+)?")


class ValidationError(UserError):
    """Data that do not fit the schema."""


@dataclass(frozen=True, order=True)
class Problem:
    """How many rows break one rule in one column."""

    column: str
    rule: str
    rows: int


@dataclass(frozen=True)
class Checked:
    """Valid and rejected rows. The index of both frames is a row's position in the frame that was checked.

    `valid`: the features in the schema's order (float64 or str, NaN for missing), `__target__` and
    `__file__`. `rejected`: every column as text, and `__reason__`; `unlabelled` of them lack only the target.
    """

    valid: pd.DataFrame
    rejected: pd.DataFrame
    problems: tuple[Problem, ...]
    unlabelled: int
    extra_columns: tuple[str, ...]


@dataclass(frozen=True)
class Cells:
    """Values of every row, of the broken rows too.

    `values`: the features in the schema's order (float64 or str), NaN where a value is missing or broken.
    `broken`: for each feature a mask (rows,) of the values that break a rule; they are not missing.
    """

    values: pd.DataFrame
    broken: Mapping[str, NDArray[np.bool_]]


def read_cells(raw: pd.DataFrame, schema: Schema) -> Cells:
    """Read each value on its own: a row that is broken in one column still counts in the others.

    `raw` has every feature of the schema (`check` refuses it otherwise).
    """
    values: dict[str, Any] = {}
    masks: dict[str, NDArray[np.bool_]] = {}
    for column in schema.columns:
        parsed, faults = _feature(raw[column.name], column)
        wrong = np.logical_or.reduce([mask for _, mask in faults])
        values[column.name] = pd.Series(parsed).mask(wrong)
        masks[column.name] = wrong
    return Cells(pd.DataFrame(values), masks)


def check(
    raw: pd.DataFrame,
    schema: Schema,
    target_column: str,
    positive: Sequence[Code],
    require_target: bool = True,
    ignore: Sequence[str] = (),
) -> Checked:
    """Separate the valid rows of a raw frame from the rejected ones.

    With `require_target` every valid row has an int8 `__target__` of 0 or 1. Without it no row is rejected
    for its target: `__target__` is float64 with NaN where it is missing or unknown, and absent if the column
    is. Raises ValidationError if a needed column is missing.
    """
    needed = [*schema.feature_names, *([target_column] if require_target else [])]
    present = [str(name) for name in raw.columns if name != FILE_COLUMN]
    check_columns(present, needed, [*needed, target_column, *ignore], _file_of(raw))

    rows = len(raw)
    headers = _headers_inside(raw, needed)
    faults_by_column: list[tuple[str, str, NDArray[np.bool_]]] = []
    if headers.any():
        faults_by_column.append((needed[0], HEADER_INSIDE, headers))
    valid: dict[str, Any] = {}
    for column in schema.columns:
        valid[column.name], faults = _feature(raw[column.name], column)
        faults = [(rule, mask & ~headers) for rule, mask in faults]
        faults_by_column += [(column.name, rule, mask) for rule, mask in faults if mask.any()]
    labelled = np.ones(rows, dtype=np.bool_)
    unknown = np.zeros(rows, dtype=np.bool_)
    if target_column in raw:
        outcome, unknown = _target(raw[target_column], schema, positive)
        labelled = ~np.isnan(outcome)
        valid[TARGET_COLUMN] = outcome
        if len(schema.target.levels) > 2 and set(positive) == set(schema.target.positive):
            valid[LEVEL_COLUMN] = _level(raw[target_column], schema)

    problems = [Problem(name, rule, int(mask.sum())) for name, rule, mask in faults_by_column]
    if unknown.any():
        problems.append(Problem(target_column, UNKNOWN_TARGET, int(unknown.sum())))
    if require_target and unknown.any():
        faults_by_column.append((target_column, UNKNOWN_TARGET, unknown))
    is_broken = np.logical_or.reduce(
        [np.zeros(rows, dtype=np.bool_), *(mask for *_, mask in faults_by_column)]
    )
    is_unlabelled = ~labelled & ~is_broken if require_target else np.zeros(rows, dtype=np.bool_)
    if require_target and not labelled.all():
        faults_by_column.append((target_column, UNLABELLED, ~labelled & ~unknown))

    for name in (PERSON_COLUMN, WEIGHT_COLUMN, FILE_COLUMN):
        if name in raw:
            valid[name] = raw[name].array
    is_valid = ~(is_broken | is_unlabelled)
    frame = pd.DataFrame(valid, copy=False)
    if not is_valid.all():
        frame = frame[is_valid]
    if require_target:
        frame[TARGET_COLUMN] = frame[TARGET_COLUMN].astype(np.int8)
    known_columns = {
        *needed,
        target_column,
        *ignore,
        PERSON_COLUMN,
        WEIGHT_COLUMN,
        schema.person,
        schema.survey_weight,
    }
    return Checked(
        frame,
        _rejected(raw, np.flatnonzero(~is_valid), faults_by_column, schema),
        tuple(sorted(problems)),
        int(is_unlabelled.sum()),
        tuple(name for name in present if name not in known_columns),
    )


def _headers_inside(raw: pd.DataFrame, names: Sequence[str]) -> NDArray[np.bool_]:
    """Rows that hold the names of their columns, as where two files were joined; shape (rows,)."""
    names_in_row = np.zeros(len(raw), dtype=np.intp)
    for name in names:
        values = raw[name]
        if isinstance(values.dtype, pd.CategoricalDtype) and name in values.cat.categories:
            names_in_row += np.asarray(values == name, dtype=np.intp)
    return names_in_row >= max(2, len(names) / 2)


def merged(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    """Problems of several chunks as one for each column and rule, most rows first."""
    counts: dict[tuple[str, str], int] = {}
    for problem in problems:
        key = (problem.column, problem.rule)
        counts[key] = counts.get(key, 0) + problem.rows
    return tuple(
        sorted(
            (Problem(*key, rows) for key, rows in counts.items()), key=lambda p: (-p.rows, p.column, p.rule)
        )
    )


def described(problems: Sequence[Problem], schema: Schema, *, exact: bool = False) -> str:
    """One indented line for each problem, with what the schema allows.

    A log or a summary may be public, so small counts are not given; `exact` gives them, for a terminal.
    """
    lines = [
        f"  {problem.column}: {_rule_text(problem.column, problem.rule, schema)}"
        f"{_allowed(problem, schema)}: "
        + (f"{problem.rows:,} row{'s' if problem.rows != 1 else ''}" if exact else in_words(problem.rows))
        for problem in problems
    ]
    rules = {problem.rule for problem in problems}
    return "\n".join([*lines, *(f"  {rule}: {_REMEDIES[rule]}" for rule in _REMEDIES if rule in rules)])


def _feature(
    values: pd.Series[Any], column: Column
) -> tuple[NDArray[np.float64] | pd.Series[Any], list[tuple[str, NDArray[np.bool_]]]]:
    """Canonical values of a feature and the masks of the rows that break each rule."""
    parsed, faults = _text_feature(values, column) if column.is_text else _number_feature(values, column)
    if column.required:
        unanswered = np.asarray(pd.isna(parsed)) & ~np.logical_or.reduce([mask for _, mask in faults])
        faults.append((NO_ANSWER, unanswered))
    return parsed, faults


def _text_feature(
    values: pd.Series[Any], column: Column
) -> tuple[pd.Series[Any], list[tuple[str, NDArray[np.bool_]]]]:
    codes = column.codes if isinstance(column, LevelledColumn) else ()
    index, words = canonical.texts(values, codes, column.missing)
    is_level = np.isin(np.array([*words, ""], dtype=object), np.array(codes, dtype=object))
    lower = {str(code).lower() for code in codes}
    alike = np.array([*(word.lower() in lower for word in words), False])
    unknown = (index >= 0) & ~is_level[index]
    texts = pd.array([*words, None], dtype="str")
    faults = [(UNKNOWN_LEVEL, unknown & ~alike[index]), (OTHER_CASE, unknown & alike[index])]
    return pd.Series(texts.take(index)), faults


def _number_feature(
    values: pd.Series[Any], column: Column
) -> tuple[NDArray[np.float64], list[tuple[str, NDArray[np.bool_]]]]:
    number, wrong = canonical.numbers(values, column.missing)
    faults = _not_numbers(values, wrong) if wrong.any() else []
    if isinstance(column, NumericColumn):
        return number, [*faults, (OUT_OF_RANGE, (number < column.minimum) | (number > column.maximum))]
    unknown = ~np.isin(number, np.array(column.codes, dtype=np.float64)) & ~np.isnan(number)
    return number, [*faults, (UNKNOWN_LEVEL, unknown)]


def _not_numbers(values: pd.Series[Any], wrong: NDArray[np.bool_]) -> list[tuple[str, NDArray[np.bool_]]]:
    """Split values that are not numbers by cause: a decimal comma, grouped digits, or anything else."""
    index, distinct = canonical.distinct(values)
    words = [*(str(value).strip() for value in distinct), ""]
    comma = np.array([bool(_DECIMAL_COMMA.fullmatch(word)) for word in words])[index] & wrong
    grouped = np.array([bool(_GROUPED.fullmatch(word)) for word in words])[index] & wrong & ~comma
    other = wrong & ~comma & ~grouped
    return [(NOT_A_NUMBER, other), (DECIMAL_COMMA, comma), (GROUPED_DIGITS, grouped)]


def _target(
    values: pd.Series[Any], schema: Schema, positive: Sequence[Code]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Outcome 1.0 or 0.0, NaN where it is missing or unknown; and the mask of the unknown values."""
    # A source may code the outcome differently; the schema's positive codes are then not valid.
    negative = [code for code in schema.target.levels if code not in schema.target.positive]
    is_schema_coding = set(positive) == set(schema.target.positive)
    codes = list(schema.target.levels) if is_schema_coding else [*negative, *positive]
    missing = schema.target.missing
    if any(isinstance(code, str) for code in codes):
        index, words = canonical.texts(values, codes, missing)
        labels = {canonical.text(code): float(code in positive) for code in codes}
        table = np.array([labels.get(word, np.nan) for word in words] + [np.nan])
        outcome = table[index]
        return outcome, np.isnan(outcome) & (index >= 0)
    number, wrong = canonical.numbers(values, missing)
    outcome = np.isin(number, np.array(positive, dtype=np.float64)).astype(np.float64)
    unknown = wrong | (~np.isin(number, np.array(codes, dtype=np.float64)) & ~np.isnan(number))
    outcome[unknown | np.isnan(number)] = np.nan
    return outcome, unknown


def _level(values: pd.Series[Any], schema: Schema) -> NDArray[np.float64]:
    """Index of each answer among the target's levels; NaN where it is none of them."""
    levels, missing = list(schema.target.levels), schema.target.missing
    if any(isinstance(code, str) for code in levels):
        index, words = canonical.texts(values, levels, missing)
        index_by_text = {canonical.text(code): float(position) for position, code in enumerate(levels)}
        return np.array([index_by_text.get(word, np.nan) for word in words] + [np.nan])[index]
    number, _ = canonical.numbers(values, missing)
    level = np.full(len(number), np.nan)
    for position, code in enumerate(levels):
        level[number == float(code)] = position
    return level


def _rejected(
    raw: pd.DataFrame,
    positions: NDArray[np.intp],
    faults_by_column: Sequence[tuple[str, str, NDArray[np.bool_]]],
    schema: Schema,
) -> pd.DataFrame:
    part = raw.iloc[positions]
    content = {name: _as_text(part[name]) for name in part.columns}
    reasons = np.full(len(positions), "", dtype=object)
    for name, rule, mask in faults_by_column:
        hit = mask[positions]
        joint = np.where(reasons[hit] == "", "", "; ")
        reasons[hit] = reasons[hit] + joint + f"{name}: {_rule_text(name, rule, schema)}"
    content[REASON_COLUMN] = pd.Series(reasons, index=positions, dtype="str")
    return pd.DataFrame(content, index=positions)


def _as_text(values: pd.Series[Any]) -> pd.Series[Any]:
    """Values as they were written, null for null."""
    index, distinct = pd.factorize(values)
    words = pd.array([*(str(value) for value in distinct), None], dtype="str")
    return pd.Series(words.take(index), index=values.index)


def _rule_text(name: str, rule: str, schema: Schema) -> str:
    if rule != OUT_OF_RANGE:
        return rule
    column = schema.column(name)
    assert isinstance(column, NumericColumn)
    return f"{rule} {column.minimum:g} to {column.maximum:g}"


def _allowed(problem: Problem, schema: Schema) -> str:
    """The levels of a column in parentheses, for a message about another level."""
    column = next((column for column in schema.columns if column.name == problem.column), None)
    if not isinstance(column, LevelledColumn) or problem.rule not in (
        UNKNOWN_LEVEL,
        NOT_A_NUMBER,
        OTHER_CASE,
    ):
        return ""
    levels = [format_code(code) for code in column.codes]
    remainder = f", ... ({len(levels)} in all)" if len(levels) > _MOST_LEVELS else ""
    return f" (the schema has {', '.join(levels[:_MOST_LEVELS])}{remainder})"


def _file_of(raw: pd.DataFrame) -> str:
    if FILE_COLUMN not in raw or len(raw) == 0:
        return "the data"
    return str(raw[FILE_COLUMN].iloc[0])


def check_columns(
    present: Sequence[str], needed: Sequence[str], known_columns: Sequence[str], file: str
) -> None:
    """Raise ValidationError, with what the file lacks and what it has beyond `known`, if it lacks any."""
    missing = [name for name in needed if name not in present]
    if not missing:
        return
    extra = [name for name in present if name not in known_columns]
    if len(missing) == len(needed) and len(needed) > 1:
        # Without a header these are the answers of the first person: show no name.
        raise ValidationError(
            f"none of the {len(present)} names in the first line of {file} is a column that the schema needs "
            f"({len(needed)} of them, first {', '.join(needed[:3])}). If the file has no header, add one; if "
            "it has other names, give them to the schema's columns as aliases"
        )
    lines = [f"{file} lacks {len(missing)} of the {len(needed)} columns that the schema needs:"]
    for name in missing:
        close = difflib.get_close_matches(
            name.lower(), [candidate.lower() for candidate in extra], n=1, cutoff=0.7
        )
        similar = next((candidate for candidate in extra if close and candidate.lower() == close[0]), None)
        lines.append(f"  - {name}" + (f"    (is it {similar}?)" if similar else ""))
    if extra:
        lines.append("and has what the schema does not know:")
        lines += [f"  + {name}" for name in extra[:30]]
        lines += [f"  ... and {len(extra) - 30} more"] if len(extra) > 30 else []
    lines.append(
        "Rename the columns in the file, give the schema's columns these names as aliases, or describe the "
        "file with a schema of its own (-P schema=)."
    )
    raise ValidationError("\n".join(lines))
