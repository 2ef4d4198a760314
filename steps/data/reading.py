"""From a file's columns to the schema's: other names, recoded values, decimal commas, columns that lack.

What comes out has the schema's names and the values that it means; whether they are allowed is for validation
to say.
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
        """Values stand as they are meant."""
        return self.spelling.is_plain and not (self.is_number and (self.decimal != "." or self.thousands))


@dataclass(frozen=True)
class Plan:
    """How one file becomes the schema's columns.

    `stored`: the schema's columns that the file has, by the schema's name. `lacking`: those that it may lack
    and does. `person`, `weight`: the file's columns of those meanings.
    """

    stored: Mapping[str, Stored]
    lacking: tuple[str, ...] = ()
    person: str | None = None
    weight: str | None = None

    def names(self, wanted: Sequence[str]) -> set[str]:
        """The file's names of the schema's columns that are wanted, and those of person and weight."""
        found = {self.stored[name].name if name in self.stored else name for name in wanted}
        return found | {name for name in (self.person, self.weight) if name is not None}

    def renamed(self, names: Sequence[str]) -> list[str]:
        """Names of a file as the schema has them; columns that may lack stand at the end."""
        ours = {stored.name: name for name, stored in self.stored.items()}
        return [*(ours.get(name, name) for name in names), *self.lacking]


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
    lacking = tuple(column.name for column in schema.columns if column.may_lack and column.name not in stored)
    person = schema.person if schema.person in names else None
    weight = schema.survey_weight if schema.survey_weight in names else None
    return Plan(stored, lacking, person, weight)


def meant(frame: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """The schema's columns under its names with the values that they mean; other columns as they came.

    A person becomes `__person__`, a number that tells people apart and says nothing of them; a survey weight
    becomes `__weight__`.
    """
    ours = {stored.name: (name, stored) for name, stored in plan.stored.items()}
    columns: dict[str, Any] = {}
    for name in frame.columns:
        if name == plan.person:
            columns[PERSON_COLUMN] = _hashed(frame[name])
        elif name == plan.weight:
            columns[WEIGHT_COLUMN] = canonical.numbers(frame[name])[0]
        elif name in ours:
            new, stored = ours[name]
            columns[new] = frame[name] if stored.is_plain else _recoded(frame[name], stored)
        else:
            columns[name] = frame[name]
    for name in plan.lacking:
        columns[name] = np.full(len(frame), np.nan)
    return pd.DataFrame(columns, index=frame.index, copy=False)


def notes(file: LocalFile, plan: Plan) -> list[str]:
    """What a person should know of how a file was read: one line for each thing that was found out."""
    lines = []
    found = readers.note(file)
    if found:
        lines.append(f"{file.name}: {found}")
    others = [f"{stored.name} as {name}" for name, stored in plan.stored.items() if stored.name != name]
    if others:
        lines.append(f"{file.name}: {', '.join(others[:8])}{', ...' if len(others) > 8 else ''}")
    if plan.lacking:
        lines.append(f"{file.name} lacks {', '.join(plan.lacking)}: these answers count as missing")
    return lines


def _spelling(name: str, column: Column | Target, names: Sequence[str], file: LocalFile) -> Spelling | None:
    """The one way of writing a column that a file has; None if it has none."""
    known = column.spellings or (Spelling(name),)
    if name != column.name:  # a source that calls the outcome otherwise codes it otherwise
        known = (Spelling(name),)
    found = [spelling for spelling in known if spelling.name in names]
    if len(found) > 1:
        raise SourceError(
            f"{file.name} has {' and '.join(spelling.name for spelling in found)}, which are all {name} "
            f"to the "
            "schema: drop all but one"
        )
    return found[0] if found else None


def _hashed(values: pd.Series) -> Any:
    """64 bits for each person, 0 where none is named."""
    index, distinct = canonical.distinct(values)
    table = [
        int.from_bytes(hashlib.blake2b(canonical.text(value).encode(), digest_size=8).digest(), "little") or 1
        for value in distinct
    ]
    return np.array([*table, 0], dtype=np.uint64)[index]


def _recoded(values: pd.Series, stored: Stored) -> pd.Series:
    """Values as they are meant: the work is done once for each distinct value."""
    index, distinct = canonical.distinct(values)
    by_text = {format_code(code): new for code, new in stored.spelling.recode.items()}
    new = [_meant(value, stored, by_text) for value in distinct]
    place, found = pd.factorize(np.array(new, dtype=object))
    place = np.append(place, -1)[index]
    if all(not isinstance(value, str) for value in found):
        return pd.Series(np.append(np.asarray(found, dtype=np.float64), np.nan)[place], index=values.index)
    words = [value if isinstance(value, str) else format_code(float(value)) for value in found]
    return pd.Series(
        pd.Categorical.from_codes(place, categories=pd.Index(words).unique()), index=values.index
    )


def _meant(value: object, stored: Stored, recode: Mapping[str, Code | None]) -> Code | None:
    word = canonical.text(value)
    if stored.is_number and isinstance(value, str):
        word = plain_number(word, stored.decimal, stored.thousands)
    whole = re.sub(r"\.0+$", "", word)
    for text in (word, whole):
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
