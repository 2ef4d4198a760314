"""Make a prepared data set from raw rows: three parts, rejected rows, a profile, and a digest.

A prepared data set is a function of its rows: each part is sorted by the rows' keys, so the order in which
rows arrive, the number of files and their format change neither the digest nor a model made from them. Only
the profile and `__file__` say how they arrived.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from steps.data import atomic, split, validation
from steps.data.disclosure import FEW, is_small
from steps.data.documents import to_json
from steps.data.errors import UserError
from steps.data.files import FILE_COLUMN, LEVEL_COLUMN, PERSON_COLUMN, TARGET_COLUMN, WEIGHT_COLUMN
from steps.data.profile import Described, Profile, codes_in_words, describe
from steps.data.validation import ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from steps.data.schema import Schema
    from steps.data.sources import Located
    from steps.data.validation import Checked, Problem

_MANIFEST = "dataset.json"
_DIGEST_LENGTH = 16


class TooManyRejectedError(ValidationError):
    """More rows break the schema than are tolerated; `rejected` holds them with their reasons."""

    def __init__(self, message: str, rejected: pd.DataFrame) -> None:
        super().__init__(message)
        self.rejected = rejected


@dataclass(frozen=True)
class Prepared:
    """A data set ready to learn from.

    `tables`: train, validation and test with the features in the schema's order, `__target__` (int8),
    `__file__`, and where the schema names them `__person__` (a hash) and `__weight__`. `profile` holds
    aggregates only and may leave this machine; the rows and `problems`, which counts the rows that break each
    rule exactly, may not. `digest`: 16 hex digits over the labelled rows, the part of each, what the schema
    says of the columns, and the kind of data.
    """

    tables: Mapping[str, pd.DataFrame]
    rejected: pd.DataFrame
    problems: tuple[Problem, ...]
    profile: Profile
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
    broken_rows, usable = len(rejected) - unlabelled, sum(map(len, valid))
    read_rows = usable + len(rejected)
    del chunks
    _refuse_too_many(broken_rows, read_rows, max_rejected, problems, rejected, schema)
    if usable == 0 and broken_rows:
        raise ValidationError(
            f"no row is left to learn from: of {read_rows:,}, {broken_rows:,} break the schema "
            f"{schema.name}:\n{validation.described(problems, schema)}"
        )
    if usable == 0:
        raise ValidationError(
            f"no row has a value in the target column {located.target_column}: nothing to learn from"
        )

    _require_person(valid, schema)
    parts_of_keys = [split.row_keys(frame, schema) for frame in valid]
    keys = np.concatenate(parts_of_keys)
    pairs = zip(valid, parts_of_keys, strict=True)
    side = split.part(np.concatenate([split.by_person(frame, row_keys) for frame, row_keys in pairs]))
    optional_names = [
        name for name in (LEVEL_COLUMN, PERSON_COLUMN, WEIGHT_COLUMN) if all(name in frame for frame in valid)
    ]
    names = [*schema.feature_names, TARGET_COLUMN, *optional_names, FILE_COLUMN]
    columns = {name: _pop_column(valid, name) for name in names}
    target = columns[TARGET_COLUMN]
    _refuse_one_class(target, "the data", schema, located)

    # A row's position within its part follows from its values, so no file layout can change it.
    order_keys = split.mix(keys + target.astype(np.uint64))
    rows = {part: np.flatnonzero(side == number) for number, part in enumerate(split.PARTS)}
    rows = {part: index[np.argsort(order_keys[index], kind="stable")] for part, index in rows.items()}
    for part, index in rows.items():
        _refuse_one_class(target[index], f"the {part} part", schema, located)
    digest = _digest(order_keys, columns.get(LEVEL_COLUMN), rows, schema, located)
    described = Described(digest, columns, rows, keys, order_keys, rejected, unlabelled, problems, extra)
    profile = describe(described, schema, located)
    tables: dict[str, dict[str, Any]] = {part: {} for part in rows}
    for name in names:  # column by column, so that no second copy of all rows is ever held
        values = columns.pop(name)
        for part, index in rows.items():
            tables[part][name] = values.take(index)
    return Prepared(
        {part: pd.DataFrame(content, copy=False) for part, content in tables.items()},
        rejected,
        problems,
        profile,
        digest,
    )


def store(prepared: Prepared, cache: Path) -> Path:
    """Write a prepared data set to `cache`, whole or not at all, and return its folder.

    The rows of one digest are always the same. A data set that arrives in other files replaces the earlier
    one, so that `__file__`, the rejected rows and the profile are those of the latest.
    """
    folder = _folder(cache, prepared.digest)
    with atomic.filling(folder) as fresh:
        for name, table in {**prepared.tables, "rejected": prepared.rejected}.items():
            table.to_parquet(fresh / f"{name}.parquet", index=False, engine="pyarrow", compression="zstd")
        (fresh / "profile.json").write_text(json.dumps(to_json(prepared.profile), indent=1), encoding="utf-8")
        names = sorted(path.name for path in fresh.iterdir())
        manifest = {"digest": prepared.digest, "sha256": {name: _sha256(fresh / name) for name in names}}
        (fresh / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return folder


def store_rejected(rejected: pd.DataFrame, cache: Path) -> Path:
    """Write the rejected rows of a data set that was refused, for a person to look at; returns the file."""
    path = cache / "datasets" / "refused" / "rejected.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.writing(path) as name:
        rejected.to_parquet(name, index=False, engine="pyarrow", compression="zstd")
    return path


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
    """Whether every file of a prepared data set is in the cache, unchanged."""
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


def _pop_column(frames: list[pd.DataFrame], name: str) -> Any:
    """One column of all frames as one array, no longer held by the frames."""
    parts = [frame.pop(name) for frame in frames]
    values = parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    return values.array if isinstance(values.dtype, pd.api.extensions.ExtensionDtype) else values.to_numpy()


def _require_person(valid: Sequence[pd.DataFrame], schema: Schema) -> None:
    if schema.person is not None and not all(PERSON_COLUMN in frame for frame in valid):
        raise ValidationError(
            f"the data lack the column {schema.person}, by which the schema recognises a person (its key "
            "person): rows of one person would stand on both sides of the split"
        )


def _digest(
    order_keys: NDArray[np.uint64],
    levels: NDArray[np.float64] | None,
    rows: Mapping[str, NDArray[np.intp]],
    schema: Schema,
    located: Located,
) -> str:
    content = hashlib.sha256(json.dumps([schema.data_digest, located.kind]).encode())
    for part, index in rows.items():
        content.update(f"{part} {len(index)} ".encode())
        content.update(order_keys[index].astype("<u8").tobytes())
        if levels is not None:
            content.update(np.sort(levels[index]).astype("<f8").tobytes())
    return content.hexdigest()[:_DIGEST_LENGTH]


# Refusals


def _refuse_too_many(
    broken_rows: int,
    read_rows: int,
    max_rejected: float,
    problems: Sequence[Problem],
    rejected: pd.DataFrame,
    schema: Schema,
) -> None:
    if broken_rows <= max_rejected * read_rows:
        return
    share = broken_rows / read_rows
    digits = next((n for n in range(2, 9) if f"{share:.{n}%}" != f"{max_rejected:.{n}%}"), 9)
    how_many = FEW if is_small(broken_rows) else f"{broken_rows:,}"
    in_per_cent = "" if is_small(broken_rows) else f" ({share:.{digits}%})"
    raise TooManyRejectedError(
        f"{how_many} of {read_rows:,} rows{in_per_cent} break the schema {schema.name}, more than "
        f"max_rejected allows ({max_rejected:.{digits}%}):\n{validation.described(problems, schema)}\n"
        "Correct the data or the schema, or allow more with -P max_rejected=.",
        rejected,
    )


def _refuse_one_class(target: NDArray[np.int8], rows_in_words: str, schema: Schema, located: Located) -> None:
    positives = int(target.sum())
    if 0 < positives < len(target):
        return
    if len(target) == 0:
        raise ValidationError(f"{rows_in_words} would be empty: there are too few rows to learn from")
    side = "positive" if positives else "negative"
    raise ValidationError(
        f"all {len(target):,} rows of {rows_in_words} are {side} ({located.target_column} "
        f"{'is' if positives else 'is never'} {codes_in_words(located.positive)}): a model of "
        f"{schema.target.name} needs both outcomes"
    )
