"""From checked rows to a prepared data set: three parts, what was rejected, a profile, and a digest.

A prepared data set is a function of its rows: each part is sorted by the rows' keys, so the order in which
rows arrive, the number of files and their format change neither the digest nor a model made from them. Only
the profile and `__file__` say how they arrived.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from steps.data import split, validation
from steps.data.disclosure import on_grid
from steps.data.errors import UserError
from steps.data.files import FILE_COLUMN, TARGET_COLUMN
from steps.data.schema import NumericColumn, format_code
from steps.data.validation import ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from steps.data.schema import Code, Column, Schema
    from steps.data.sources import Located
    from steps.data.validation import Checked, Problem

# Counts of people below this are not published: neither the tracking store nor a report shows them.
SMALLEST_COUNT = 10
_MANIFEST = "dataset.json"
_DIGEST_LENGTH = 16
_LEFTOVER_SECONDS = 86_400


class TooManyRejectedError(ValidationError):
    """More rows break the schema than are tolerated; `rejected` holds them with their reasons."""

    def __init__(self, message: str, rejected: pd.DataFrame) -> None:
        super().__init__(message)
        self.rejected = rejected


@dataclass(frozen=True)
class Prepared:
    """A data set ready to learn from.

    `tables`: train, validation and test with the features in the schema's order, `__target__` (int8) and
    `__file__`. `profile` holds aggregates only and may leave this machine; the rows may not. `digest`: 16 hex
    digits over the labelled rows, the part of each, what the schema says of the columns, and the kind of
    data.
    """

    tables: Mapping[str, pd.DataFrame]
    rejected: pd.DataFrame
    profile: dict[str, Any]
    digest: str


def prepare(
    raw: pd.DataFrame | Iterable[pd.DataFrame], schema: Schema, located: Located, max_rejected: float
) -> Prepared:
    """Validate, split and profile raw rows, at once or chunk by chunk (memory then holds only valid ones).

    `max_rejected` is the largest tolerated share of rows that break the schema; rows without a target are set
    aside and do not count. Raises ValidationError: a missing column, too many rejected rows, one class only.
    """
    chunks = _checked([raw] if isinstance(raw, pd.DataFrame) else raw, schema, located)
    rejected = pd.concat([chunk.rejected for chunk in chunks], ignore_index=True)
    problems = validation.merged([problem for chunk in chunks for problem in chunk.problems])
    extra = tuple(dict.fromkeys(name for chunk in chunks for name in chunk.extra_columns))
    valid = [chunk.valid for chunk in chunks]
    unlabelled = sum(chunk.unlabelled for chunk in chunks)
    faulty, usable = len(rejected) - unlabelled, sum(map(len, valid))
    read = usable + len(rejected)
    del chunks
    _refuse_too_many(faulty, read, max_rejected, problems, rejected, schema)
    if usable == 0 and faulty:
        raise ValidationError(
            f"no row is left to learn from: of {read:,}, {faulty:,} break the schema {schema.name}:\n"
            f"{validation.described(problems, schema)}"
        )
    if usable == 0:
        raise ValidationError(
            f"no row has a value in the target column {located.target_column}: nothing to learn from"
        )

    keys = np.concatenate([split.row_keys(frame, schema) for frame in valid])
    names = [*schema.feature_names, TARGET_COLUMN, FILE_COLUMN]
    columns = {name: _taken_out(valid, name) for name in names}
    target = columns[TARGET_COLUMN]
    _refuse_one_class(target, "the data", schema, located)

    # A row's place within its part follows from its values, so no file layout can change it.
    places = split.mix(keys + target.astype(np.uint64))
    rows = {part: np.flatnonzero(split.part(keys) == number) for number, part in enumerate(split.PARTS)}
    rows = {part: index[np.argsort(places[index], kind="stable")] for part, index in rows.items()}
    for part, index in rows.items():
        _refuse_one_class(target[index], f"the {part} part", schema, located)
    digest = _digest(places, rows, schema, located)
    profile = {
        "schema": schema.name,
        "data_digest": schema.data_digest,
        "digest": digest,
        "kind": located.kind,
        "rows": {"read": read, "valid": usable, "rejected": faulty, "unlabelled": unlabelled},
        "problems": [{"column": p.column, "rule": p.rule, "rows": p.rows} for p in problems],
        "warnings": _warnings(extra, unlabelled, schema, located),
        "suppressed_below": SMALLEST_COUNT,
        "parts": {part: _outcomes(target[index]) for part, index in rows.items()},
        "files": _files(columns[FILE_COLUMN], target, rejected, located),
        "repeats": _repeats(keys, places),
        "columns": [_column_profile(columns[column.name], column) for column in schema.columns],
    }
    tables: dict[str, dict[str, Any]] = {part: {} for part in rows}
    for name in names:  # column by column, so that no second copy of all rows is ever held
        values = columns.pop(name)
        for part, index in rows.items():
            tables[part][name] = values.take(index)
    return Prepared(
        {part: pd.DataFrame(content, copy=False) for part, content in tables.items()},
        rejected,
        profile,
        digest,
    )


def store(prepared: Prepared, cache: Path) -> Path:
    """Write a prepared data set to `cache`, whole or not at all, and return its folder.

    The rows of one digest are always the same; one that arrived in other files replaces the earlier one, so
    that `__file__`, the rejected rows and the profile are those of the latest.
    """
    folder = _folder(cache, prepared.digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder.parent)
    fresh = Path(tempfile.mkdtemp(prefix="part-", dir=folder.parent))
    try:
        for name, table in {**prepared.tables, "rejected": prepared.rejected}.items():
            table.to_parquet(fresh / f"{name}.parquet", index=False, engine="pyarrow", compression="zstd")
        (fresh / "profile.json").write_text(json.dumps(prepared.profile, indent=1), encoding="utf-8")
        names = sorted(path.name for path in fresh.iterdir())
        manifest = {"digest": prepared.digest, "sha256": {name: _sha256(fresh / name) for name in names}}
        (fresh / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in fresh.iterdir():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        _put_in_place(fresh, folder)
    except OSError as error:
        raise UserError(f"the prepared rows cannot be kept in {folder.parent}: {error.strerror}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def store_rejected(rejected: pd.DataFrame, cache: Path) -> Path:
    """Write the rejected rows of a data set that was refused, for a person to look at; returns the file."""
    path = cache / "datasets" / "refused" / "rejected.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}")
    rejected.to_parquet(part, index=False, engine="pyarrow", compression="zstd")
    return part.replace(path)


def load(cache: Path, digest: str, parts: Iterable[str] = split.PARTS) -> dict[str, pd.DataFrame]:
    """Tables of a prepared data set by name (`rejected` is one too). Raises UserError."""
    if not is_complete(cache, digest):
        raise UserError(
            f"the prepared data set {digest} is not in {cache / 'datasets'} (or was damaged there): run "
            "preprocess again, with the same data"
        )
    return {
        part: pd.read_parquet(_folder(cache, digest) / f"{part}.parquet", engine="pyarrow") for part in parts
    }


def is_complete(cache: Path, digest: str) -> bool:
    """Every file of a prepared data set is in the cache with the content it was written with."""
    folder = _folder(cache, digest)
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        stated: dict[str, str] = manifest["sha256"]
        return manifest["digest"] == digest and all(
            _sha256(folder / name) == sha256 for name, sha256 in stated.items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _folder(cache: Path, digest: str) -> Path:
    return cache / "datasets" / digest


def _put_in_place(fresh: Path, folder: Path) -> None:
    """Rename a finished folder to its name, an older one out of the way; a reader finds all or nothing."""
    while True:
        try:
            fresh.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return
        aside = Path(tempfile.mkdtemp(prefix="part-", dir=folder.parent))
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            folder.rename(aside / folder.name)
        shutil.rmtree(aside)


def _remove_leftovers(folder: Path) -> None:
    """What processes that were killed more than a day ago left unfinished."""
    for leftover in folder.glob("part-*"):
        with contextlib.suppress(FileNotFoundError):  # another process has just put it in place
            if time.time() - leftover.stat().st_mtime > _LEFTOVER_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _checked(chunks: Iterable[pd.DataFrame], schema: Schema, located: Located) -> list[Checked]:
    checked = [
        validation.check(chunk, schema, located.target_column, located.positive, ignore=located.ignore)
        for chunk in chunks
    ]
    if not checked:
        raise ValidationError("the data hold no row")
    return checked


def _taken_out(frames: list[pd.DataFrame], name: str) -> Any:
    """One column of all frames as one array, no longer held by the frames."""
    parts = [frame.pop(name) for frame in frames]
    values = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    return values.array if isinstance(values.dtype, pd.api.extensions.ExtensionDtype) else values.to_numpy()


def _digest(
    places: NDArray[np.uint64], rows: Mapping[str, NDArray[np.intp]], schema: Schema, located: Located
) -> str:
    content = hashlib.sha256(json.dumps([schema.data_digest, located.kind]).encode())
    for part, index in rows.items():
        content.update(f"{part} {len(index)} ".encode())
        content.update(places[index].astype("<u8").tobytes())
    return content.hexdigest()[:_DIGEST_LENGTH]


# What stops a data set


def _refuse_too_many(
    faulty: int,
    read: int,
    max_rejected: float,
    problems: Sequence[Problem],
    rejected: pd.DataFrame,
    schema: Schema,
) -> None:
    if faulty <= max_rejected * read:
        return
    share = faulty / read
    digits = next((n for n in range(2, 9) if f"{share:.{n}%}" != f"{max_rejected:.{n}%}"), 9)
    raise TooManyRejectedError(
        f"{faulty:,} of {read:,} rows ({share:.{digits}%}) break the schema {schema.name}, more than "
        f"max_rejected allows ({max_rejected:.{digits}%}):\n{validation.described(problems, schema)}\n"
        "Mend the data or the schema, or allow more with -P max_rejected=.",
        rejected,
    )


def _refuse_one_class(target: NDArray[np.int8], what: str, schema: Schema, located: Located) -> None:
    positives = int(target.sum())
    if 0 < positives < len(target):
        return
    if len(target) == 0:
        raise ValidationError(f"{what} would be empty: there are too few rows to learn from")
    side = "positive" if positives else "negative"
    raise ValidationError(
        f"all {len(target):,} rows of {what} are {side} ({located.target_column} "
        f"{'is' if positives else 'is never'} {_codes(located.positive)}): a model of "
        f"{schema.target.name} needs both outcomes"
    )


def _codes(codes: Sequence[Code]) -> str:
    return " or ".join(format_code(code) for code in codes)


# The profile: aggregates only, as it leaves this machine


def _warnings(extra: Sequence[str], unlabelled: int, schema: Schema, located: Located) -> list[str]:
    warnings = []
    if located.target_column != schema.target.name:
        warnings.append(
            f"the outcome is {located.target_column}, positive where it is {_codes(located.positive)}"
        )
    if extra:
        shown = ", ".join(extra[:20]) + (f" and {len(extra) - 20} more" if len(extra) > 20 else "")
        warnings.append(f"columns that the schema does not know were ignored: {shown}")
    if unlabelled:
        warnings.append(f"{unlabelled:,} rows have no value in {located.target_column} and were set aside")
    return warnings


def _published(count: int) -> int | None:
    """A count as it may be published: None for one that is small but not zero."""
    return None if 0 < count < SMALLEST_COUNT else int(count)


def _published_together(counts: Sequence[int]) -> list[int | None]:
    """Counts whose sum is known: where one alone is hidden, so is the next smallest, else it would follow."""
    shown = [_published(count) for count in counts]
    if sum(count is None for count in shown) == 1:
        rest = [(count, place) for place, count in enumerate(shown) if count]
        if rest:
            shown[min(rest)[1]] = None
    return shown


def _outcomes(target: NDArray[np.int8]) -> dict[str, Any]:
    """Rows, positives and prevalence; the last two only if no outcome is rare enough to point at people."""
    positives = int(target.sum())
    hidden = None in (_published(positives), _published(len(target) - positives))
    return {
        "rows": _published(len(target)),
        "positives": None if hidden else positives,
        "prevalence": None if hidden or len(target) == 0 else round(positives / len(target), 6),
    }


def _files(
    names: pd.Categorical, target: NDArray[np.int8], rejected: pd.DataFrame, located: Located
) -> list[dict[str, Any]]:
    broken = Counter(rejected[FILE_COLUMN]) if len(rejected) else Counter()
    return [
        {
            "name": file.name,
            "sha256": file.sha256,
            "bytes": file.bytes,
            "set_aside": broken[file.name],
            **_outcomes(target[np.asarray(names == file.name)]),
        }
        for file in located.files
    ]


def _repeats(keys: NDArray[np.uint64], places: NDArray[np.uint64]) -> dict[str, Any]:
    """How many rows repeat an earlier one, and how many feature patterns occur with both outcomes."""
    patterns, outcomes = len(np.unique(keys)), len(np.unique(places))
    return {
        "rows_repeating_features": _published(len(keys) - patterns),
        "rows_repeating_features_and_target": _published(len(keys) - outcomes),
        "patterns_with_both_outcomes": _published(outcomes - patterns),
    }


def _column_profile(values: Any, column: Column) -> dict[str, Any]:
    """Share of rows in each level or decile band, and of missing values, of one feature."""
    missing = np.asarray(pd.isna(values))
    if isinstance(column, NumericColumn):
        present = values[~missing]
        inner = _decile_edges(present, column.minimum, column.maximum)
        counts = np.bincount(np.searchsorted(inner, present, side="right"), minlength=len(inner) + 1)
        edges = [column.minimum, *inner, column.maximum]
        labels = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
    else:
        labels = [format_code(code) for code in column.codes]
        codes = pd.Categorical(values, categories=list(column.codes)).codes
        counts = np.bincount(codes[codes >= 0], minlength=len(labels))
    shown = _published_together([*counts.tolist(), int(missing.sum())])
    shares = [None if count is None else round(count / len(values), 6) for count in shown]
    return {
        "name": column.name,
        "kind": column.kind,
        "missing": {"rows": shown[-1], "share": shares[-1]},
        "bins": [
            {"bin": label, "rows": rows, "share": share}
            for label, rows, share in zip(labels, shown[:-1], shares[:-1], strict=True)
        ],
    }


def _decile_edges(present: NDArray[np.float64], minimum: float, maximum: float) -> list[float]:
    """Inner deciles, rounded: none is a person's value."""
    if len(present) == 0:
        return []
    edges = on_grid(np.quantile(present, np.arange(1, 10) / 10), minimum, maximum)
    return [edge for edge in edges if minimum < edge < maximum]
