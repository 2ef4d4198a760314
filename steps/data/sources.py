"""Where the rows come from: files, folders, globs, URLs and the schema's named sources.

`locate` finds the files (and downloads them once); `chunks` and `read` give their rows, with the name of the
file that each row came from.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from steps.data import reading
from steps.data.downloads import Patience, download
from steps.data.files import (
    FILE_COLUMN,
    LocalFile,
    SourceError,
    check_sha256,
    local_file,
    path_of,
)
from steps.data.readers import header, tables
from steps.data.schema import Format

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Sequence

    import pandas as pd
    import pyarrow as pa

    from steps.data.schema import Code, Schema, Source

DataKind = Literal["synthetic", "public", "private"]
CHUNK_ROWS = 250_000
_SUFFIXES = (
    ".csv", ".csv.gz", ".csv.zip", ".zip", ".parquet", ".tsv", ".xpt", ".xlsx",
)  # fmt: skip


@dataclass(frozen=True)
class Located:
    """The files of a data set and how their outcome is coded.

    `digest` changes with the files' contents and names and with how they are read, not with their folder.
    """

    files: tuple[LocalFile, ...]
    kind: DataKind
    target_column: str
    positive: tuple[Code, ...]
    ignore: tuple[str, ...]
    digest: str


def locate(data: str, schema: Schema, cache: Path, base: Path, patience: Patience | None = None) -> Located:
    """The files that `data` names: a source of the schema, a URL, or a path or glob relative to `base`.

    Downloads land in `cache`. Rows count as synthetic or public only if every file is, by sha256, a source of
    that kind. Raises SourceError.
    """
    patience = patience or Patience()
    named_source = next((source for source in schema.sources if source.name == data), None)
    if named_source is not None:
        files = [_from_source(named_source, cache, base, patience)]
    elif "://" in data:
        listed = next((source for source in schema.sources if source.url == data), None)
        files = [download(data, cache, listed.sha256 if listed else None, patience)]
        named_source = listed
    else:
        files = _local_files(data, schema, base)
    return _described(files, named_source, schema)


def read(located: Located, schema: Schema) -> pd.DataFrame:
    """All rows at once: the schema's columns that are there, the target, `__file__`, and, where the schema
    names them, `__person__` and `__weight__`.
    """
    import pandas as pd

    columns = [*schema.feature_names, located.target_column]
    frames = list(chunks(located, schema, columns=columns))
    if len(frames) == 1:
        return frames[0]
    names = list(dict.fromkeys(name for frame in frames for name in frame.columns))
    empty = [pd.Series(float("nan"), index=frame.index) for frame in frames]
    return pd.DataFrame(
        {
            name: _joined([frame.get(name, none) for frame, none in zip(frames, empty, strict=True)])
            for name in names
        }
    )


def chunks(
    located: Located,
    schema: Schema,
    rows: int = CHUNK_ROWS,
    *,
    columns: Collection[str] | None = None,
    progress: bool = False,
) -> Generator[pd.DataFrame, None, None]:
    """Rows, at most `rows` at a time and never of two files, with the column `__file__`.

    The schema's columns are converted to its names and values (`steps.data.reading`), all others stay as
    they are; text comes as categories. `columns` limits which are read, by the schema's names; those absent
    are left out. Raises SourceError, for a damaged file possibly after some of its rows.
    """
    import numpy as np
    import pandas as pd
    from tqdm import tqdm

    names = pd.CategoricalDtype([file.name for file in located.files])
    is_hidden = None if progress else True  # None hides it unless this is a terminal
    with tqdm(unit=" rows", unit_scale=True, desc="reading", disable=is_hidden, leave=False) as bar:
        for file in located.files:
            count = 0
            plan = reading.plan(file, schema, located.target_column)
            for table in tables(file, rows, None if columns is None else plan.names(list(columns))):
                frame = reading.convert(frame_of(table, file), plan)
                file_index = np.full(len(frame), names.categories.get_loc(file.name), dtype=np.int32)
                frame[FILE_COLUMN] = pd.Categorical.from_codes(file_index, dtype=names)
                count += len(frame)
                bar.update(len(frame))
                yield frame
            if count == 0:
                raise SourceError(f"{file.name} has a header but no rows: is the file complete?")


def notes(located: Located, schema: Schema) -> list[str]:
    """Lines for a person about how the files were read."""
    return [
        line
        for file in located.files
        for line in reading.notes(file, reading.plan(file, schema, located.target_column))
    ]


def frame_of(table: pa.Table, file: LocalFile) -> pd.DataFrame:
    """A table of a file as pandas takes it: numbers as they are, all else as categories of text."""
    import pandas as pd

    return pd.DataFrame({name: _series(table, name, file) for name in table.column_names}, copy=False)


def _local_files(data: str, schema: Schema, base: Path) -> list[LocalFile]:
    if not data.strip():
        raise SourceError(
            "no data is named: give -P data= a file, folder, glob, URL or one of the schema's sources"
        )
    pattern = path_of(data, base)
    paths = _matching(pattern)
    if not paths:
        raise SourceError(_not_found(data, pattern, schema, base))
    names = _short_names(paths)
    return [local_file(path, name) for path, name in zip(paths, names, strict=True)]


def _matching(pattern: Path) -> list[Path]:
    """The data files at a path: itself, those of a folder by name, or those of a glob; sorted."""
    if pattern.is_dir():
        paths = [
            path
            for path in pattern.iterdir()
            if path.is_file() and path.name.lower().rstrip().endswith(_SUFFIXES)
        ]
        return sorted(path for path in paths if not path.name.startswith("."))
    if pattern.exists():
        return [pattern]
    matches = {Path(match) for match in glob.glob(str(pattern), recursive=True)}  # noqa: PTH207
    return sorted(path for path in matches if path.is_file())


def _not_found(data: str, path: Path, schema: Schema, base: Path) -> str:
    source_names = ", ".join(source.name for source in schema.sources) or "none"
    if path.is_dir():
        return f"{data} is a folder without a data file in it (one that ends in {', '.join(_SUFFIXES)})"
    relative = not Path(data).expanduser().is_absolute()
    working_folder = Path(os.environ.get("PWD", base))  # the folder that the command was typed in
    if relative and working_folder != base and _matching(working_folder / data):
        return (
            f"{data} does not exist in the project's folder, {base}, where relative paths start. It does "
            f"exist in {working_folder}, where you stand: give its full path, -P data={working_folder / data}"
        )
    started = "; relative paths start in the project's folder" if relative else ""
    return (
        f"there is no file, folder or match at {data} (looked in {path.parent}{started}), and the schema "
        f"has no source of that name; it has: {source_names}"
    )


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Base names, or, where two are alike, the paths below the folder that all share."""
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    shared = os.path.commonpath([path.parent for path in paths])
    return [path.relative_to(shared).as_posix() for path in paths]


def _from_source(source: Source, cache: Path, base: Path, patience: Patience) -> LocalFile:
    if source.path is not None and ((base / source.path).exists() or source.url is None):
        path = base / source.path
        if not path.exists():
            raise SourceError(
                f"the source {source.name} should be at {source.path} in the project; it is not there"
            )
        file = local_file(path, path.name)
        check_sha256(file.sha256, source.sha256, f"{source.path} (source {source.name})")
        return file
    if source.url is None:
        raise SourceError(
            f"the source {source.name} has neither a path nor a URL: name its file with -P data="
        )
    return download(source.url, cache, source.sha256, patience)


def _described(files: list[LocalFile], named_source: Source | None, schema: Schema) -> Located:
    """The files with the kind, outcome coding and format that the schema's sources state."""
    by_content = {source.sha256: source for source in schema.sources if source.sha256 is not None}
    files = [_with_format(file, named_source or by_content.get(file.sha256), schema) for file in files]
    kinds: set[DataKind] = {
        by_content[file.sha256].kind if file.sha256 in by_content else "private" for file in files
    }
    kind: DataKind = next(iter(kinds)) if len(kinds) == 1 else "private"
    codings = {
        _coding(
            named_source or by_content.get(file.sha256) or _source_by_target(file, schema), schema
        ): file.name
        for file in files
    }
    if len(codings) > 1:
        codings_in_words = "; ".join(f"{name} has {coding[0]}" for coding, name in codings.items())
        raise SourceError(
            f"the files code the outcome in different ways ({codings_in_words}): prepare them as one data "
            "set each"
        )
    target_column, positive, ignore = next(iter(codings))
    content = [
        sorted([file.name, file.sha256] for file in files),
        kind,
        target_column,
        list(positive),
        sorted(ignore),
    ]
    formats = sorted(
        [file.name, *map(str, astuple(file.format))] for file in files if file.format != Format()
    )
    if formats:
        content.append(formats)
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return Located(tuple(files), kind, target_column, positive, ignore, digest)


def _with_format(file: LocalFile, source: Source | None, schema: Schema) -> LocalFile:
    """The file with the format that its source, or else the schema, states."""
    stated = {
        field.name: (getattr(source.format, field.name) if source else None)
        or getattr(schema.format, field.name)
        for field in fields(Format)
    }
    return replace(file, format=Format(**stated))


def _coding(source: Source | None, schema: Schema) -> tuple[str, tuple[Code, ...], tuple[str, ...]]:
    if source is None:
        return schema.target.name, schema.target.positive, ()
    return source.target or schema.target.name, source.positive or schema.target.positive, source.ignore


def _source_by_target(file: LocalFile, schema: Schema) -> Source | None:
    """The source whose target column a file has instead of the schema's: the file is a copy of it."""
    candidates = {source.target: source for source in schema.sources if source.target is not None}
    if not candidates:
        return None
    names = header(file)
    schema_names = [schema.target.name, *(spelling.name for spelling in schema.target.spellings)]
    if any(name in names for name in schema_names):
        return None
    matches = [source for target, source in candidates.items() if target in names]
    return matches[0] if len(matches) == 1 else None


def _series(table: pa.Table, name: str, file: LocalFile) -> pd.Series[Any]:
    """One column as pandas takes it: numbers as they are, all else as categories of text."""
    import pyarrow as pa

    values = table.column(name)
    kind = values.type
    try:
        if pa.types.is_null(kind) or pa.types.is_decimal(kind):
            values = values.cast(pa.float64())
        elif pa.types.is_dictionary(kind):
            kind = kind.value_type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                values = values.cast(kind)
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            values = as_text(values).dictionary_encode()
        series: pd.Series[Any] = values.to_pandas()
    except pa.ArrowException:
        raise SourceError(
            f"{file.name}: the column {name} holds {kind}, which is neither number nor text: "
            "leave it out or convert it"
        ) from None
    return series


def as_text(values: Any) -> Any:
    """An Arrow column as text; kinds that Arrow itself cannot write, such as UUIDs, as Python writes them.

    Raises pyarrow.ArrowException for nested values, which are no text.
    """
    import pyarrow as pa

    kind = values.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return values.cast(pa.string())
    if not isinstance(kind, pa.BaseExtensionType):
        with contextlib.suppress(pa.ArrowNotImplementedError):
            return values.cast(pa.string())
    words = [None if value is None else str(value) for value in values.to_pylist()]
    return pa.chunked_array([pa.array(words, pa.string())])


def _joined(parts: list[pd.Series[Any]]) -> pd.Series[Any]:
    """One column of several chunks; categories stay categories."""
    import pandas as pd
    from pandas.api.types import union_categoricals

    if all(isinstance(part.dtype, pd.CategoricalDtype) for part in parts):
        return pd.Series(union_categoricals(parts))
    if any(isinstance(part.dtype, pd.CategoricalDtype) for part in parts):
        parts = [part.astype(object) for part in parts]
    return pd.concat(parts, ignore_index=True)
