"""SAS transport files (.xpt), as the CDC publishes its surveys, in chunks by pandas."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, TYPE_CHECKING, Any, cast

from steps.data.files import LocalFile, SourceError, packing, unpacked

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


_SMALLEST = 1e-75


@lru_cache(maxsize=64)
def names(file: LocalFile) -> tuple[str, ...]:
    """Names of the columns."""
    with _reader(file) as reader:
        return tuple(str(name) for name in reader.columns)


@lru_cache(maxsize=64)
def row_count(file: LocalFile) -> int:
    """Rows of the file."""
    with _reader(file) as reader:
        return int(reader.nobs)


def tables(file: LocalFile, rows: int, selected: list[str]) -> Iterator[pa.Table]:
    """Tables of at most `rows` rows: numbers as float64, texts as dictionaries; memory does not grow."""
    import pyarrow as pa

    with _reader(file) as reader:
        rows_left = int(reader.nobs)
        while rows_left > 0:
            try:
                frame: pd.DataFrame = reader.read(min(rows, rows_left))
            except (ValueError, StopIteration):
                raise SourceError(f"{file.name} is a damaged SAS file: copy or download it again") from None
            rows_left -= len(frame)
            if not len(frame):
                return
            columns = {name: frame[name] for name in selected}
            yield pa.table({name: _column(values) for name, values in columns.items()})


def _column(values: pd.Series) -> Any:
    import pyarrow as pa

    if values.dtype.kind == "f":
        # pandas reads the zero of mainframes as their smallest number, 5.4e-79.
        return pa.array(values.mask(values.abs() < _SMALLEST, 0.0), from_pandas=True)
    return pa.Array.from_pandas(values).cast(pa.string()).dictionary_encode()


@contextmanager
def _reader(file: LocalFile) -> Iterator[Any]:
    import pandas as pd

    with _seekable(file) as stream:
        try:
            reader = pd.read_sas(cast(Any, stream), format="xport", iterator=True, encoding="latin-1")
        except (ValueError, OverflowError, IndexError):
            raise SourceError(
                f"{file.name} is a SAS transport file of a kind that cannot be read: save it as version 5 "
                "transport file, CSV or Parquet"
            ) from None
        yield reader


@contextmanager
def _seekable(file: LocalFile) -> Iterator[IO[bytes]]:
    """The unpacked file; a packed one is unpacked into a temporary file that goes with it."""
    if packing(file) == "none":
        with file.path.open("rb") as stream:
            yield stream
        return
    with tempfile.TemporaryFile() as unpacked_copy, unpacked(file) as packed:
        shutil.copyfileobj(packed, unpacked_copy)
        unpacked_copy.seek(0)
        yield unpacked_copy
