"""Files on this machine, identified by their content, and how the schema says they are written.

No message holds a value of a row.
"""

from __future__ import annotations

import gzip
import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from steps.data.errors import UserError
from steps.data.schema import Format

# Columns that frames carry beside those of the schema.
FILE_COLUMN = "__file__"
TARGET_COLUMN = "__target__"
REASON_COLUMN = "__reason__"
PERSON_COLUMN = "__person__"
WEIGHT_COLUMN = "__weight__"
LEVEL_COLUMN = "__level__"  # index of the answer among the target's levels, where there are more than two
RESERVED = (FILE_COLUMN, TARGET_COLUMN, REASON_COLUMN, PERSON_COLUMN, WEIGHT_COLUMN, LEVEL_COLUMN)

FileKind = Literal["text", "parquet", "sas", "excel"]
Packing = Literal["none", "gzip", "zip"]

SAS_START = b"HEADER RECORD*******LIBRARY"
_START_BYTES = 4096
_R_OR_STATA = "read it with its own program or with pandas, and save it as CSV or Parquet"
# First bytes of files that cannot be read, and the remedy.
_FOREIGN = (
    (b"BZh", "it is compressed with bzip2: unpack it, or pack it as .gz"),
    (b"\xfd7zXZ", "it is compressed with xz: unpack it, or pack it as .gz"),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd: unpack it, or pack it as .gz"),
    (b"7z\xbc\xaf", "it is compressed with 7-Zip: unpack it"),
    (b"Rar!", "it is compressed with RAR: unpack it"),
    (b"PK\x05\x06", "it is a zip archive without a file in it"),
    (b"\xd0\xcf\x11\xe0", "it is an Excel workbook of the old kind (.xls): save it as .xlsx or CSV"),
    (b"SQLite format 3", "it is an SQLite database: export the table as CSV"),
    (
        b"<stata_dta>",
        f"it is a Stata file: {_R_OR_STATA} (pandas.read_stata, or `export delimited` in Stata)",
    ),
    (b"$FL", f"it is an SPSS file: {_R_OR_STATA} (pandas.read_spss, or “save translate” in SPSS)"),
    (
        b"\0" * 12,
        "it is a SAS data set (.sas7bdat) or damaged: save it as transport file (.xpt), CSV or Parquet",
    ),
    (b"RDX", f"it is an R file: {_R_OR_STATA} (write.csv in R)"),
    (b"ARROW1", "it is an Arrow (Feather) file: save it as Parquet"),
    (b"{", "it is JSON: save it as CSV (pandas.read_json(name, lines=True).to_csv(...) for JSON lines)"),
    (b"[", "it is JSON: save it as CSV (pandas.read_json(name).to_csv(...))"),
    (b"<", "it is a web page or XML, not a table: look for the address of the raw file"),
)


class SourceError(UserError):
    """Data that cannot be found, fetched or read."""


@dataclass(frozen=True)
class LocalFile:
    """A file on this machine, identified by its content; `format` is how the schema says it is written."""

    path: Path
    name: str
    sha256: str
    bytes: int
    format: Format = field(default_factory=Format)


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


def check_sha256(actual: str, expected: str | None, description: str) -> None:
    """Raise SourceError if the schema states another content."""
    if expected is not None and actual != expected:
        raise SourceError(
            f"{description} is not the file that the schema describes: its sha256 is {actual}, the schema "
            f"says {expected}. If the change is intended, correct sha256 in the schema."
        )


def packing(file: LocalFile) -> Packing:
    """How a file is packed, by its first bytes: names and web addresses are not reliable."""
    start = _start(file)
    if start.startswith(b"PK\x03\x04"):
        return "none" if _is_workbook(file) else "zip"
    return "gzip" if start.startswith(b"\x1f\x8b") else "none"


def kind(file: LocalFile) -> FileKind:
    """What a file holds, by its first unpacked bytes. Raises SourceError for anything but a table."""
    start = _start(file)
    if start.startswith(b"PAR1"):
        return "parquet"
    if start.startswith(b"PK\x03\x04") and _is_workbook(file):
        return "excel"
    with unpacked(file) as stream:
        inner = stream.read(_START_BYTES)
    if inner.startswith(SAS_START):
        return "sas"
    if start != inner and inner.startswith((b"PAR1", b"PK\x03\x04", b"\x1f\x8b")):
        raise SourceError(f"{file.name} is packed twice: unpack it once")
    _refuse_foreign(inner, file.name)
    return "text"


@contextmanager
def unpacked(file: LocalFile) -> Iterator[IO[bytes]]:
    """The unpacked bytes of a file; damage found while they are read becomes a SourceError."""
    packed = packing(file)
    try:
        if packed == "gzip":
            with gzip.open(file.path, "rb") as stream:
                yield stream  # type: ignore[misc]
        elif packed == "zip":
            with zipfile.ZipFile(file.path) as archive, archive.open(_only_member(archive, file)) as member:
                yield member
        else:
            with file.path.open("rb") as plain:
                yield plain
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error):
        raise SourceError(f"{file.name} is a damaged {packed} file: copy or download it again") from None
    except (RuntimeError, NotImplementedError) as error:
        if packed != "zip" or isinstance(error, RecursionError):
            raise
        raise SourceError(f"{file.name} is encrypted or packed in a rare way: unpack it first") from None


def _start(file: LocalFile) -> bytes:
    try:
        with file.path.open("rb") as stream:
            return stream.read(_START_BYTES)
    except OSError as error:
        raise SourceError(f"{file.name} cannot be read: {error.strerror}") from None


def _is_workbook(file: LocalFile) -> bool:
    try:
        with zipfile.ZipFile(file.path) as archive:
            return "[Content_Types].xml" in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


def _only_member(archive: zipfile.ZipFile, file: LocalFile) -> str:
    names = [info.filename for info in archive.infolist() if not info.is_dir()]
    names = [name for name in names if not name.startswith("__MACOSX/")]
    if len(names) != 1:
        contents = (
            f"{len(names)} files ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
            if names
            else "no file"
        )
        raise SourceError(
            f"{file.name} holds {contents}, one is expected: unpack it and name the file or its folder"
        )
    return names[0]


def _refuse_foreign(start: bytes, name: str) -> None:
    for sign, remedy in _FOREIGN:
        if start.lstrip(b" \r\n\t").startswith(sign):
            raise SourceError(f"{name} is no CSV or Parquet file: {remedy}")
    if (
        start[:1] in (b"\x71", b"\x72", b"\x73")
        and start[1:2] in (b"\x01", b"\x02")
        and start[2:3] == b"\x01"
    ):
        raise SourceError(f"{name} is no CSV or Parquet file: it is an old Stata file: {_R_OR_STATA}")
    if b"\0" in start and not is_utf16(start):
        raise SourceError(f"{name} is no CSV or Parquet file: it holds binary data")


def is_utf16(start: bytes) -> str | None:
    """The codec of UTF-16 text, by its mark or by the zeros beside Latin letters; None for anything else."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    even, odd = start[0::2][:200], start[1::2][:200]
    if len(odd) >= 4 and odd.count(0) > 0.9 * len(odd) and 0 not in even:
        return "utf-16-le"
    if len(even) >= 4 and even.count(0) > 0.9 * len(even) and 0 not in odd:
        return "utf-16-be"
    return None
