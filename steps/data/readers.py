"""Rows of files as they were written: tables of text, Parquet, SAS transport files and Excel workbooks.

Files are told apart by their first bytes. Values of text stay text: what a value means is for validation to
say.
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
    """Names of the columns of a file, checked: none twice, none reserved, and no row in their place."""
    found = kind(file)
    if found == "parquet":
        names = list(_parquet(file).schema_arrow.names)
        names = [name for name in names if not re.fullmatch(r"__index_level_\d+__", name)]
    elif found == "sas":
        names = list(sas_files.names(file))
    elif found == "excel":
        names = list(excel_files.names(file))
    else:
        names = list(text_files.format_of(file).names)
    # A header that lacks may be somebody's answers: places are named, not what stands there.
    repeated = [str(place) for place, name in enumerate(names, start=1) if names.count(name) > 1]
    if repeated:
        raise SourceError(
            f"the columns {', '.join(repeated[:10])}{', ...' if len(repeated) > 10 else ''} of "
            f"{file.name} share "
            "a name: rename or drop all but one of each (or, where its first line is a row, add a header)"
        )
    reserved = [name for name in names if name in RESERVED]
    if reserved:
        raise SourceError(
            f"{file.name} has a column {reserved[0]}, a name this project keeps for itself: rename it"
        )
    return names


def note(file: LocalFile) -> str:
    """What was found out about how a file is written, in words; empty where it is plain."""
    found = kind(file)
    if found == "text":
        return text_files.format_of(file).in_words
    return {"sas": "a SAS transport file", "excel": "an Excel workbook, its first sheet"}.get(found, "")


def column_types(file: LocalFile) -> dict[str, pa.DataType]:
    """Type of each column as a file stores it; text where the file has no types."""
    import pyarrow as pa

    if kind(file) != "parquet":
        return dict.fromkeys(header(file), pa.string())
    stored = _parquet(file).schema_arrow
    return {name: stored.field(name).type for name in header(file)}


def row_count(file: LocalFile) -> int | None:
    """Rows of a file, where it says so without being read through."""
    found = kind(file)
    if found == "sas":
        return sas_files.row_count(file)
    return int(_parquet(file).metadata.num_rows) if found == "parquet" else None


def tables(file: LocalFile, rows: int, columns: Collection[str] | None) -> Iterator[pa.Table]:
    """The rows of a file, at most `rows` at a time; of `columns` those that it has, or all."""
    names = header(file)
    wanted = [name for name in names if columns is None or name in columns]
    found = kind(file)
    if found == "parquet":
        yield from _parquet_tables(file, rows, wanted)
    elif found == "sas":
        yield from sas_files.tables(file, rows, wanted)
    elif found == "excel":
        yield from excel_files.tables(file, rows, names, wanted)
    else:
        yield from text_files.tables(file, rows, names, wanted)


def _parquet(file: LocalFile) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file.path)
    except (pa.ArrowException, OSError):
        raise SourceError(f"{file.name} is a damaged Parquet file: copy or download it again") from None


def _parquet_tables(file: LocalFile, rows: int, wanted: list[str]) -> Iterator[pa.Table]:
    import pyarrow as pa

    try:
        for batch in _parquet(file).iter_batches(batch_size=rows, columns=wanted):
            yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError):
        raise SourceError(f"{file.name} is a damaged Parquet file: copy or download it again") from None
