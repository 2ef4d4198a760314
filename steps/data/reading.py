"""Convert a file's columns to the schema's: aliases, recoded values, decimal commas, absent columns.

The result has the schema's names and values; `steps.data.validation` checks whether the values are allowed.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from steps.data import readers
from steps.data import values as canonical
from steps.data.files import PERSON_COLUMN, WEIGHT_COLUMN, SourceError, kind
from steps.data.schema import Code, Column, NumericColumn, Schema, Spelling, format_code
from steps.data.text_files import format_of

if TYPE_CHECKING:
    from steps.data.files import LocalFile
    from steps.data.schema import Target

_PLAIN = Spelling("")


@dataclass(frozen=True)
class Stored:
    """One column of the schema as a file stores it, under the name that the file gives it."""

    name: str
    spelling: Spelling
    is_number: bool
    decimal: str = "."
    thousands: str | None = None

    @property
    def is_plain(self) -> bool:
        """Values need no conversion."""
        return self.spelling.is_plain and not (self.is_number and (self.decimal != "." or self.thousands))


@dataclass(frozen=True)
class Plan:
    """How one file becomes the schema's columns.

    `stored`: the schema's columns that the file has, by the schema's name. `lacking`: optional columns that
    the file does not have. `person`, `weight`: the file's columns of the person and of the survey weight.
    """

    stored: Mapping[str, Stored]
    lacking: tuple[str, ...] = ()
    person: str | None = None
    weight: str | None = None

    def names(self, columns: Sequence[str]) -> set[str]:
        """The file's names of some of the schema's columns, and of its person and weight columns."""
        names = {self.stored[name].name if name in self.stored else name for name in columns}
        return names | {name for name in (self.person, self.weight) if name is not None}

    def renamed(self, names: Sequence[str]) -> list[str]:
        """The schema's names of a file's columns; absent optional columns are appended."""
        schema_names = {stored.name: name for name, stored in self.stored.items()}
        return [*(schema_names.get(name, name) for name in names), *self.lacking]


def plan(file: LocalFile, schema: Schema, target_column: str) -> Plan:
    """How a file becomes the schema's columns.

    Raises SourceError where two of its columns are one of the schema's.
    """
    names = readers.header(file)
    text = format_of(file) if kind(file) == "text" else None
    decimal, thousands = (text.decimal, text.thousands) if text else (".", None)
    stored: dict[str, Stored] = {}
    for column in (*schema.columns, schema.target):
        name = target_column if column is schema.target else column.name
        spelling = _spelling(name, column, names, file)
        if spelling is not None:
            stored[name] = Stored(
                spelling.name, spelling, isinstance(column, NumericColumn), decimal, thousands
            )
    absent = tuple(column.name for column in schema.columns if column.may_lack and column.name not in stored)
    person = schema.person if schema.person in names else None
    weight = schema.survey_weight if schema.survey_weight in names else None
    return Plan(stored, absent, person, weight)


def convert(frame: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """Convert a frame of a file to the schema's names and values; other columns stay as they are.

    The person column becomes `__person__`, a hash of it; a survey weight becomes `__weight__`.
    """
    conversions = {stored.name: (name, stored) for name, stored in plan.stored.items()}
    columns: dict[str, Any] = {}
    for name in frame.columns:
        if name == plan.person:
            columns[PERSON_COLUMN] = _hashed(frame[name])
        elif name == plan.weight:
            columns[WEIGHT_COLUMN] = canonical.numbers(frame[name])[0]
        elif name in conversions:
            new, stored = conversions[name]
            columns[new] = frame[name] if stored.is_plain else _recoded(frame[name], stored)
        else:
            columns[name] = frame[name]
    for name in plan.lacking:
        columns[name] = np.full(len(frame), np.nan)
    return pd.DataFrame(columns, index=frame.index, copy=False)


def notes(file: LocalFile, plan: Plan) -> list[str]:
    """Lines for a person about how a file was read: its format, aliases and absent columns."""
    lines = []
    file_note = readers.note(file)
    if file_note:
        lines.append(f"{file.name}: {file_note}")
    aliases = [f"{stored.name} as {name}" for name, stored in plan.stored.items() if stored.name != name]
    if aliases:
        lines.append(f"{file.name}: {', '.join(aliases[:8])}{', ...' if len(aliases) > 8 else ''}")
    if plan.lacking:
        lines.append(f"{file.name} lacks {', '.join(plan.lacking)}: these answers count as missing")
    return lines


def _spelling(name: str, column: Column | Target, names: Sequence[str], file: LocalFile) -> Spelling | None:
    """The spelling of a column that a file uses; None where the file lacks the column."""
    spellings = column.spellings or (Spelling(name),)
    if name != column.name:  # a source with another outcome column has its own codes
        spellings = (Spelling(name),)
    matches = [spelling for spelling in spellings if spelling.name in names]
    if len(matches) > 1:
        raise SourceError(
            f"{file.name} has {' and '.join(spelling.name for spelling in matches)}, which the schema reads "
            f"as {name}: drop all but one"
        )
    return matches[0] if matches else None


def _hashed(values: pd.Series) -> Any:
    """A 64-bit hash of each person, 0 where the person is missing."""
    index, distinct = canonical.distinct(values)
    table = [
        int.from_bytes(hashlib.blake2b(canonical.text(value).encode(), digest_size=8).digest(), "little") or 1
        for value in distinct
    ]
    return np.array([*table, 0], dtype=np.uint64)[index]


def _recoded(values: pd.Series, stored: Stored) -> pd.Series:
    """Converted values; each distinct value is converted once."""
    index, distinct = canonical.distinct(values)
    by_text = {format_code(code): new for code, new in stored.spelling.recode.items()}
    new = [_convert_value(value, stored, by_text) for value in distinct]
    position, converted = pd.factorize(np.array(new, dtype=object))
    position = np.append(position, -1)[index]
    if all(not isinstance(value, str) for value in converted):
        return pd.Series(
            np.append(np.asarray(converted, dtype=np.float64), np.nan)[position], index=values.index
        )
    words = [value if isinstance(value, str) else format_code(float(value)) for value in converted]
    return pd.Series(
        pd.Categorical.from_codes(position, categories=pd.Index(words).unique()), index=values.index
    )


def _convert_value(value: object, stored: Stored, recode: Mapping[str, Code | None]) -> Code | None:
    word = canonical.text(value)
    if stored.is_number and isinstance(value, str):
        word = plain_number(word, stored.decimal, stored.thousands)
    without_zeros = re.sub(r"\.0+$", "", word)
    for text in (word, without_zeros):
        if text in recode:
            return recode[text]
    number = _number(word) if stored.is_number else None
    spelling = stored.spelling
    if number is None:
        return word
    number /= spelling.divide_by
    if spelling.round_to is not None:
        number = round(number / spelling.round_to) * spelling.round_to
    return float(f"{number:.12g}")


def plain_number(word: str, decimal: str, thousands: str | None) -> str:
    """A number with a decimal point and no groups; anything else as it is."""
    if thousands is not None:
        grouped = rf"[+-]?\d{{1,3}}({re.escape(thousands)}\d{{3}})+({re.escape(decimal)}\d*)?"
        if re.fullmatch(grouped, word):
            word = word.replace(thousands, "")
    if decimal == "," and re.fullmatch(r"[+-]?\d*,\d+(e[+-]?\d+)?", word, re.IGNORECASE):
        word = word.replace(",", ".")
    return word


def _number(word: str) -> float | None:
    try:
        number = float(word)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in word else None
