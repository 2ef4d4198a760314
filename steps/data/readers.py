"""Read the rows of files: tables of text, Parquet, SAS transport files and Excel workbooks.

The kind of a file is recognised by its first bytes. Values of text stay text until validation reads them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from steps.data import excel_files, sas_files, text_files
from steps.data.files import RESERVED, LocalFile, SourceError, kind

if TYPE_CHECKING:
    import pyarrow as pa


def header(file: LocalFile) -> list[str]:
    """Names of a file's columns. Raises SourceError for a repeated or reserved name, or a row as header."""
    file_kind = kind(file)
    if file_kind == "parquet":
        names = list(_parquet(file).schema_arrow.names)
        names = [name for name in names if not re.fullmatch(r"__index_level_\d+__", name)]
    elif file_kind == "sas":
        names = list(sas_files.names(file))
    elif file_kind == "excel":
        names = list(excel_files.names(file))
    else:
        names = list(text_files.format_of(file).names)
    # Without a header the first line holds a person's answers: name positions, never the texts.
    repeated = [str(position) for position, name in enumerate(names, start=1) if names.count(name) > 1]
    if repeated:
        raise SourceError(
            f"the columns {', '.join(repeated[:10])}{', ...' if len(repeated) > 10 else ''} of {file.name} "
            "share a name: rename or drop all but one of each (or, where its first line is a row, add a "
            "header)"
        )
    reserved = [name for name in names if name in RESERVED]
    if reserved:
        raise SourceError(
            f"{file.name} has a column {reserved[0]}, a name this project keeps for itself: rename it"
        )
    return names


def note(file: LocalFile) -> str:
    """How a file is written, in words; empty for plain CSV and for Parquet."""
    file_kind = kind(file)
    if file_kind == "text":
        return text_files.format_of(file).in_words
    return {"sas": "a SAS transport file", "excel": "an Excel workbook, its first sheet"}.get(file_kind, "")


def column_types(file: LocalFile) -> dict[str, pa.DataType]:
    """Type of each column as a file stores it; text where the file has no types."""
    import pyarrow as pa

    if kind(file) != "parquet":
        return dict.fromkeys(header(file), pa.string())
    stored = _parquet(file).schema_arrow
    return {name: stored.field(name).type for name in header(file)}


def row_count(file: LocalFile) -> int | None:
    """Rows of a file, where its header states them; None otherwise."""
    file_kind = kind(file)
    if file_kind == "sas":
        return sas_files.row_count(file)
    return int(_parquet(file).metadata.num_rows) if file_kind == "parquet" else None


def tables(file: LocalFile, rows: int, columns: Collection[str] | None) -> Iterator[pa.Table]:
    """The rows of a file, at most `rows` at a time; only those of `columns` that it has, unless None."""
    names = header(file)
    selected = [name for name in names if columns is None or name in columns]
    file_kind = kind(file)
    if file_kind == "parquet":
        yield from _parquet_tables(file, rows, selected)
    elif file_kind == "sas":
        yield from sas_files.tables(file, rows, selected)
    elif file_kind == "excel":
        yield from excel_files.tables(file, rows, names, selected)
    else:
        yield from text_files.tables(file, rows, names, selected)


def _parquet(file: LocalFile) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file.path)
    except (pa.ArrowException, OSError):
        raise SourceError(f"{file.name} is a damaged Parquet file: copy or download it again") from None


def _parquet_tables(file: LocalFile, rows: int, selected: list[str]) -> Iterator[pa.Table]:
    import pyarrow as pa

    try:
        for batch in _parquet(file).iter_batches(batch_size=rows, columns=selected):
            yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError):
        raise SourceError(f"{file.name} is a damaged Parquet file: copy or download it again") from None
