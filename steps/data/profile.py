"""What preprocess publishes of a data set: counts and shares, none of which identifies a few people.

`describe` makes a profile; `steps.data.documents` writes and reads it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from steps.data import disclosure
from steps.data.disclosure import SMALLEST_CELL
from steps.data.files import FILE_COLUMN, TARGET_COLUMN
from steps.data.schema import NumericColumn, format_code

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from steps.data.schema import Code, Column, Schema
    from steps.data.sources import Located
    from steps.data.validation import Problem


# Share of exact repeats from which a file may have been joined to itself.
_MANY_REPEATS = 0.3


@dataclass(frozen=True)
class RowCounts:
    """Rows of the files: valid ones, those that break the schema, those without an outcome.

    None is a count too small to be shown; `read` is then hidden as well, since it is the sum.
    """

    read: int | None
    valid: int
    rejected: int | None
    unlabelled: int | None


@dataclass(frozen=True)
class ProblemCount:
    """Rows that break one rule in one column; None for a few."""

    column: str
    rule: str
    rows: int | None


@dataclass(frozen=True)
class Outcomes:
    """Rows of a part, and how many are positive; None where that would identify people."""

    rows: int | None
    positives: int | None
    prevalence: float | None


@dataclass(frozen=True)
class FileProfile:
    """One file and what became of its rows; `set_aside` counts those that were rejected or unlabelled."""

    name: str
    sha256: str
    bytes: int
    set_aside: int | None
    rows: int | None
    positives: int | None
    prevalence: float | None


@dataclass(frozen=True)
class Repeats:
    """Rows that repeat an earlier one, and patterns of features that occur with both outcomes."""

    rows_repeating_features: int | None
    rows_repeating_features_and_target: int | None
    patterns_with_both_outcomes: int | None


@dataclass(frozen=True)
class Share:
    """Rows of one level or band and their share of all; None where hidden."""

    rows: int | None
    share: float | None


@dataclass(frozen=True)
class Bin(Share):
    """Rows and share of one level or band, with the level's code or the band's limits."""

    bin: str


@dataclass(frozen=True)
class ColumnProfile:
    """The distribution of one feature's values."""

    name: str
    kind: str
    missing: Share
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Profile:
    """Everything that is published of a prepared data set."""

    schema: str
    data_digest: str
    digest: str
    kind: str
    rows: RowCounts
    problems: tuple[ProblemCount, ...]
    warnings: tuple[str, ...]
    suppressed_below: int
    parts: Mapping[str, Outcomes]
    files: tuple[FileProfile, ...]
    repeats: Repeats
    columns: tuple[ColumnProfile, ...]


@dataclass(frozen=True)
class Described:
    """The input of a profile: canonical columns, rows by part, keys of the rows, and the rows set aside.

    `columns`: arrays (rows,) by name, the features, target and file among them. `keys` and `places` (rows,)
    are equal for rows of equal features, and of equal features and outcome.
    """

    digest: str
    columns: Mapping[str, Any]
    parts: Mapping[str, NDArray[np.intp]]
    keys: NDArray[np.uint64]
    places: NDArray[np.uint64]
    rejected: pd.DataFrame
    unlabelled: int
    problems: Sequence[Problem]
    extra_columns: Sequence[str]


def describe(described: Described, schema: Schema, located: Located) -> Profile:
    """The profile of a prepared data set."""
    target: NDArray[np.int8] = described.columns[TARGET_COLUMN]
    names = list(described.parts)
    outcomes_seen = len(np.unique(described.places))
    outcomes = _outcomes([target[index] for index in described.parts.values()], show_rows=True)
    return Profile(
        schema=schema.name,
        data_digest=schema.data_digest,
        digest=described.digest,
        kind=located.kind,
        rows=_row_counts(len(target), len(described.rejected) - described.unlabelled, described.unlabelled),
        problems=_problems(described.problems),
        warnings=_warnings(described, len(described.keys) - outcomes_seen, schema, located),
        suppressed_below=SMALLEST_CELL,
        parts=dict(zip(names, outcomes, strict=True)),
        files=_files(described.columns[FILE_COLUMN], target, described.rejected, located),
        repeats=_repeats(described.keys, outcomes_seen),
        columns=tuple(_column(described.columns[column.name], column) for column in schema.columns),
    )


def codes_in_words(codes: Sequence[Code]) -> str:
    """Codes as a sentence names them: "1 or 2"."""
    return " or ".join(format_code(code) for code in codes)


def _row_counts(valid: int, rejected: int, unlabelled: int) -> RowCounts:
    parts = disclosure.shown(rejected), disclosure.shown(unlabelled)
    return RowCounts(None if None in parts else valid + rejected + unlabelled, valid, *parts)


def _problems(problems: Sequence[Problem]) -> tuple[ProblemCount, ...]:
    """Most rows break one rule alone, so the problems are hidden as the parts of a known sum."""
    hidden = disclosure.hidden_counts(np.array([problem.rows for problem in problems], dtype=np.float64))
    return tuple(
        ProblemCount(problem.column, problem.rule, None if hide else problem.rows)
        for problem, hide in zip(problems, hidden, strict=True)
    )


def _warnings(described: Described, repeats: int, schema: Schema, located: Located) -> tuple[str, ...]:
    warnings = []
    if located.target_column != schema.target.name:
        positive = codes_in_words(located.positive)
        warnings.append(f"the outcome is {located.target_column}, positive where it is {positive}")
    if described.extra_columns:
        extra = described.extra_columns
        names = ", ".join(extra[:20]) + (f" and {len(extra) - 20} more" if len(extra) > 20 else "")
        warnings.append(f"columns that the schema does not know were ignored: {names}")
    numbered = [name for name in described.extra_columns if not name or name.lower().startswith("unnamed:")]
    if numbered:
        warnings.append("a column without a name was ignored: it looks like the number of the row")
    if repeats >= _MANY_REPEATS * len(described.keys):
        warnings.append(
            f"{disclosure.in_words(repeats)} ({repeats / len(described.keys):.0%}) repeat another row "
            "exactly: was a file joined to itself?"
        )
    if described.unlabelled:
        count = disclosure.in_words(described.unlabelled)
        warnings.append(f"{count} have no value in {located.target_column} and were set aside")
    warnings += [
        f"open question about {question.about}: {question.question}" for question in schema.open_questions
    ]
    return tuple(warnings)


def _outcomes(targets: Sequence[NDArray[np.int8]], *, show_rows: bool) -> list[Outcomes]:
    """Rows, positives and prevalence of parts that make up the whole.

    `show_rows`: the sizes of the parts are public anyway, so only the outcomes can be hidden.
    """
    rows = np.array([len(target) for target in targets], dtype=np.float64)
    positives = np.array([target.sum(dtype=np.int64) for target in targets], dtype=np.float64)
    hidden = disclosure.hidden_cells(rows, rows, positives)
    return [
        Outcomes(
            rows=disclosure.shown(int(size)) if show_rows or not hide else None,
            positives=None if hide else int(count),
            prevalence=None if hide or size == 0 else round(count / size, 6),
        )
        for size, count, hide in zip(rows, positives, hidden, strict=True)
    ]


def _files(
    names: pd.Categorical, target: NDArray[np.int8], rejected: pd.DataFrame, located: Located
) -> tuple[FileProfile, ...]:
    rejected_by_file = Counter(rejected[FILE_COLUMN]) if len(rejected) else Counter()
    set_aside = np.array([rejected_by_file[file.name] for file in located.files], dtype=np.float64)
    hidden = disclosure.hidden_counts(set_aside)
    outcomes = _outcomes([target[np.asarray(names == file.name)] for file in located.files], show_rows=False)
    return tuple(
        FileProfile(
            file.name, file.sha256, file.bytes, None if hide else int(count), **asdict(outcome)
        )
        for file, count, hide, outcome in zip(located.files, set_aside, hidden, outcomes, strict=True)
    )  # fmt: skip


def _repeats(keys: NDArray[np.uint64], outcomes: int) -> Repeats:
    patterns = len(np.unique(keys))
    # Rows that repeat the features repeat the outcome too, or are of a pattern that has both.
    parts = np.array([len(keys) - outcomes, outcomes - patterns])
    hidden = disclosure.hidden_counts(parts.astype(np.float64))
    same_outcome, both_outcomes = (
        None if hide else int(count) for count, hide in zip(parts, hidden, strict=True)
    )
    return Repeats(disclosure.shown(int(parts.sum())), same_outcome, both_outcomes)


def _column(values: Any, column: Column) -> ColumnProfile:
    missing = np.asarray(pd.isna(values))
    if isinstance(column, NumericColumn):
        present = values[~missing]
        inner = disclosure.quantile_edges(present, column.minimum, column.maximum)
        counts = np.bincount(np.searchsorted(inner, present, side="right"), minlength=len(inner) + 1)
        labels = [
            f"{low:g} to {high:g}"
            for low, high in itertools.pairwise([column.minimum, *inner, column.maximum])
        ]
    else:
        labels = [format_code(code) for code in column.codes]
        codes = pd.Categorical(values, categories=list(column.codes)).codes
        counts = np.bincount(codes[codes >= 0], minlength=len(labels))
    rows = np.array([*counts, missing.sum()])
    hidden = disclosure.hidden_counts(rows.astype(np.float64))
    shares = [
        Share(None, None) if hide else Share(int(count), round(count / len(values), 6))
        for count, hide in zip(rows, hidden, strict=True)
    ]
    bins = (Bin(share.rows, share.share, label) for share, label in zip(shares[:-1], labels, strict=True))
    return ColumnProfile(column.name, column.kind, shares[-1], tuple(bins))
