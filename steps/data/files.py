"""Files of rows: how they are packed, what columns they have, and their rows as they were written.

CSV (plain, gz, zip) and Parquet, told apart by their first bytes. Values of a CSV file stay text: what a
value means is for validation to say. No message holds a value of a row.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from steps.data.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import pyarrow as pa

# Columns that frames carry beside those of the schema.
FILE_COLUMN = "__file__"
TARGET_COLUMN = "__target__"
REASON_COLUMN = "__reason__"
_RESERVED = (FILE_COLUMN, TARGET_COLUMN, REASON_COLUMN)

_HEADER_BYTES = 1 << 20
_BLOCK_BYTES = 8 << 20
# What a file starts with, and what a person can do about it.
_FOREIGN = (
    (b"BZh", "it is compressed with bzip2: unpack it, or pack it as .gz"),
    (b"\xfd7zXZ", "it is compressed with xz: unpack it, or pack it as .gz"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd: unpack it, or pack it as .gz"),
    (b"PK\x05\x06", "it is a zip archive without a file in it"),
    (b"\xd0\xcf\x11\xe0", "it is an Excel workbook: save it as CSV"),
    (b"SQLite format 3", "it is an SQLite database: export the table as CSV"),
    (b"\xff\xfe", "it is UTF-16 text, not UTF-8: save it as UTF-8"),
    (b"\xfe\xff", "it is UTF-16 text, not UTF-8: save it as UTF-8"),
    (b"<", "it is a web page or XML, not a table: look for the address of the raw file"),
)


class SourceError(UserError):
    """Data that cannot be found, fetched or read."""


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine, known by its content."""

    path: Path
    name: str
    sha256: str
    bytes: int


def path_of(text: str, base: Path) -> Path:
    """A path as people type it: `~` is a home, a relative one starts in `base`. Raises SourceError."""
    try:
        path = base / Path(text).expanduser()
        path.exists()
    except RuntimeError:
        raise SourceError(f"{text}: there is no home folder of that name; give the full path") from None
    except OSError as error:
        raise SourceError(f"{text} cannot be looked for: {error.strerror}") from None
    return path


def local_file(path: Path, name: str) -> LocalFile:
    """The file at a path, under the name it goes by. Raises SourceError if it is empty or cannot be read."""
    try:
        size = path.stat().st_size
        if size == 0:
            raise SourceError(f"{name} is empty (0 bytes): was it copied completely?")
        with path.open("rb") as stream:
            return LocalFile(path, name, hashlib.file_digest(stream, "sha256").hexdigest(), size)
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}") from None


def check_sha256(actual: str, expected: str | None, what: str) -> None:
    """Raise SourceError if the schema states another content."""
    if expected is not None and actual != expected:
        raise SourceError(
            f"{what} is not the file that the schema describes: its sha256 is {actual}, the schema says "
            f"{expected}. If the change is meant, correct sha256 in the schema."
        )


def file_format(path: Path, name: str) -> Literal["csv", "gzip", "zip", "parquet"]:
    """How a file is packed, by its first bytes: names and web addresses may say anything."""
    try:
        with path.open("rb") as stream:
            start = stream.read(4096)
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}") from None
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"PK\x03\x04"):
        return "zip"
    if start.startswith(b"\x1f\x8b"):
        return "gzip"
    _refuse_foreign(start, name)
    return "csv"


def header(file: LocalFile) -> list[str]:
    """Names of the columns of a file, checked: none twice, none reserved, and no row in their place."""
    if file_format(file.path, file.name) == "parquet":
        names = list(_parquet(file).schema_arrow.names)
        names = [name for name in names if not re.fullmatch(r"__index_level_\d+__", name)]
    else:
        with _csv_stream(file) as stream:
            names = _csv_names(stream, file)
    repeated = sorted({name or "(no name)" for name in names if names.count(name) > 1})
    if repeated:
        raise SourceError(
            f"{file.name} has columns of the same name: {', '.join(repeated)}. Rename or drop one of each."
        )
    reserved = [name for name in names if name in _RESERVED]
    if reserved:
        raise SourceError(
            f"{file.name} has a column {reserved[0]}, a name this project keeps for itself: rename it"
        )
    return names


def column_types(file: LocalFile) -> dict[str, pa.DataType]:
    """Type of each column as a file stores it; CSV holds text."""
    import pyarrow as pa

    if file_format(file.path, file.name) != "parquet":
        return dict.fromkeys(header(file), pa.string())
    stored = _parquet(file).schema_arrow
    return {name: stored.field(name).type for name in header(file)}


def row_count(file: LocalFile) -> int | None:
    """Rows of a file, where it says so without being read through."""
    if file_format(file.path, file.name) != "parquet":
        return None
    return int(_parquet(file).metadata.num_rows)


def tables(file: LocalFile, rows: int, columns: Collection[str] | None) -> Iterator[pa.Table]:
    """The rows of a file, at most `rows` at a time; of `columns` those that it has, or all."""
    names = header(file)
    wanted = [name for name in names if columns is None or name in columns]
    if file_format(file.path, file.name) == "parquet":
        yield from _parquet_tables(file, rows, wanted)
    else:
        yield from _csv_tables(file, rows, names, wanted)


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


def _csv_tables(file: LocalFile, rows: int, names: list[str], wanted: list[str]) -> Iterator[pa.Table]:
    """Tables of at most `rows` rows in which every column is a dictionary of text."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    count = 0
    for batch in _csv_batches(file, names, wanted):
        held.append(batch)
        count += batch.num_rows
        while count >= rows:
            table = pa.Table.from_batches(held).unify_dictionaries()
            yield table.slice(0, rows)
            rest = table.slice(rows)
            held, count = rest.to_batches(), rest.num_rows
    if count:
        yield pa.Table.from_batches(held).unify_dictionaries()


def _csv_batches(
    file: LocalFile, names: list[str], wanted: list[str], *, threads: bool = True
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    text = pa.dictionary(pa.int32(), pa.string())  # a short table of the distinct texts, and places in it
    widths: list[tuple[int | None, int]] = []

    def note(row: Any) -> str:
        widths.append((row.number, row.actual_columns))
        return "error"

    with _csv_stream(file) as stream:
        stream.readline(_HEADER_BYTES)
        try:
            reader = arrow_csv.open_csv(
                stream,
                read_options=arrow_csv.ReadOptions(
                    column_names=names, block_size=_BLOCK_BYTES, use_threads=threads
                ),
                parse_options=arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, text), include_columns=wanted, check_utf8=True
                ),
            )
            yield from reader
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                return
            # Only a reader without threads numbers the rows.
            number = re.search(r"Row #(\d+)", str(error))
            if threads and number is None:
                for _ in _csv_batches(file, names, wanted, threads=False):
                    pass
            where = f" in row {number[1]} after the header" if number else ""
            if widths:
                raise SourceError(
                    f"{file.name} has {widths[0][1]} values{where}, where its header has {len(names)} "
                    "columns: mend the row (a comma inside a value needs quotes around the value)"
                ) from None
            if "UTF8" in str(error):
                raise SourceError(f"{file.name} is not UTF-8 text{where}: save it as UTF-8") from None
            raise SourceError(f"{file.name} cannot be read as CSV{where}") from None


def _csv_names(stream: IO[bytes], file: LocalFile) -> list[str]:
    """The names in the first line."""
    line = stream.readline(_HEADER_BYTES)
    _refuse_foreign(line, file.name)
    try:
        text = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise SourceError(f"{file.name} is not UTF-8 text (in its first line): save it as UTF-8") from None
    if "\r" in text:
        raise SourceError(f"the lines of {file.name} end in a carriage return alone: save it with line feeds")
    try:
        names = [name.strip() for name in next(csv.reader([text]), [])]
    except csv.Error:
        raise SourceError(
            f"the first line of {file.name} cannot be read as names of columns ({len(text):,} characters): "
            "is it a table, with a line for each row?"
        ) from None
    if not any(names):
        raise SourceError(f"the first line of {file.name} is empty: it should hold the names of the columns")
    if sum(_is_number(name) for name in names) > len(names) / 2:
        raise SourceError(f"the first line of {file.name} holds numbers, not names of columns: add a header")
    if len(names) == 1:
        for sign, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if sign in names[0]:
                raise SourceError(f"the columns of {file.name} are separated by {word}: save it with commas")
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextmanager
def _csv_stream(file: LocalFile) -> Iterator[IO[bytes]]:
    """The unpacked bytes of a CSV file; damage found while they are read becomes a SourceError."""
    packing = file_format(file.path, file.name)
    try:
        if packing == "gzip":
            with gzip.open(file.path, "rb") as stream:
                yield stream  # type: ignore[misc]
        elif packing == "zip":
            with zipfile.ZipFile(file.path) as archive, archive.open(_only_member(archive, file)) as member:
                yield member
        else:
            with file.path.open("rb") as stream:
                yield stream
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error):
        raise SourceError(f"{file.name} is a damaged {packing} file: copy or download it again") from None
    except (RuntimeError, NotImplementedError) as error:
        if packing != "zip" or isinstance(error, RecursionError):
            raise
        raise SourceError(f"{file.name} is encrypted or packed in a rare way: unpack it first") from None


def _only_member(archive: zipfile.ZipFile, file: LocalFile) -> str:
    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    if "[Content_Types].xml" in names:
        raise SourceError(f"{file.name} is an Excel workbook: save it as CSV")
    names = [name for name in names if not name.startswith("__MACOSX/")]
    if len(names) != 1:
        held = (
            f"{len(names)} files ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
            if names
            else "no file"
        )
        raise SourceError(
            f"{file.name} holds {held}, one is expected: unpack it and name the file or its folder"
        )
    return names[0]


def _refuse_foreign(start: bytes, name: str) -> None:
    for sign, remedy in _FOREIGN:
        if start.startswith(sign):
            raise SourceError(f"{name} is no CSV or Parquet file: {remedy}")
    if start.startswith((b"PAR1", b"PK\x03\x04", b"\x1f\x8b")):
        raise SourceError(f"{name} is packed twice: unpack it once")
    if b"\0" in start:
        raise SourceError(f"{name} is no CSV or Parquet file: it holds binary data")
