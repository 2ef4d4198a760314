"""Excel workbooks (.xlsx): the first sheet, read by openpyxl, which the dependency group `files` installs."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from steps.data.files import LocalFile, SourceError

if TYPE_CHECKING:
    import pyarrow as pa

_GROUP = "files"


@lru_cache(maxsize=64)
def names(file: LocalFile) -> tuple[str, ...]:
    """Names of the columns: the cells of the first row."""
    with _sheet(file) as sheet:
        first = next(sheet.iter_rows(values_only=True), ())
    cells = tuple("" if cell is None else str(cell).strip() for cell in first)
    while cells and not cells[-1]:
        cells = cells[:-1]
    if not cells:
        raise SourceError(f"the first row of {file.name} is empty: it should hold the names of the columns")
    return cells


def tables(file: LocalFile, rows: int, columns: list[str], selected: list[str]) -> Iterator[pa.Table]:
    """Tables of at most `rows` rows in which every column is a dictionary of text."""
    import pyarrow as pa

    positions = [columns.index(name) for name in selected]
    with _sheet(file) as sheet:
        rows_of_sheet = sheet.iter_rows(min_row=2, values_only=True)
        while chunk := list(islice(rows_of_sheet, rows)):
            peopled = [row for row in chunk if any(cell is not None for cell in row)]
            if any(cell is not None for row in peopled for cell in row[len(columns) :]):
                raise SourceError(
                    f"{file.name} has cells to the right of its {len(columns)} named columns: name or "
                    f"empty them"
                )
            if peopled:
                yield pa.table(
                    {
                        name: pa.array(
                            [_text(row, position) for row in peopled], pa.string()
                        ).dictionary_encode()
                        for name, position in zip(selected, positions, strict=True)
                    }
                )


def _text(row: tuple[Any, ...], position: int) -> str | None:
    cell = row[position] if position < len(row) else None
    if cell is None:
        return None
    return f"{cell:.15g}" if isinstance(cell, float) else str(cell)


@contextmanager
def _sheet(file: LocalFile) -> Iterator[Any]:
    try:
        import openpyxl
    except ImportError:
        raise SourceError(
            f"{file.name} is an Excel workbook: install its reader with `uv pip install --group {_GROUP}` "
            "(or `pip install openpyxl`), or save the sheet as CSV"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and extensions that the table does not need
        with file.path.open("rb") as stream:
            try:
                book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
            except (zipfile.BadZipFile, KeyError, ValueError, OSError, SyntaxError):
                raise SourceError(f"{file.name} is a damaged Excel workbook: save the sheet as CSV") from None
            if not book.worksheets:
                raise SourceError(f"{file.name} is a workbook without a sheet")
            yield book.worksheets[0]
            book.close()
