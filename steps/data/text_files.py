"""Read tables of text (CSV and its relatives); values stay text until validation reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from steps.data import text_format
from steps.data.files import LocalFile, SourceError, unpacked
from steps.data.text_format import TextFormat

if TYPE_CHECKING:
    import pyarrow as pa

_HEADER_BYTES = 1 << 20
_BLOCK_BYTES = 8 << 20


@lru_cache(maxsize=256)
def format_of(file: LocalFile) -> TextFormat:
    """How a file is written, including the names of its columns. Raises SourceError."""
    with unpacked(file) as stream:
        return text_format.find(stream, file)


def tables(file: LocalFile, rows: int, names: list[str], selected: list[str]) -> Iterator[pa.Table]:
    """Tables of at most `rows` rows in which every column is a dictionary of text."""
    import pyarrow as pa

    batches: list[pa.RecordBatch] = []
    count = 0
    for batch in _batches(file, names, selected):
        batches.append(batch)
        count += batch.num_rows
        while count >= rows:
            table = pa.Table.from_batches(batches).unify_dictionaries()
            yield table.slice(0, rows)
            remainder = table.slice(rows)
            batches, count = remainder.to_batches(), remainder.num_rows
    if count:
        yield pa.Table.from_batches(batches).unify_dictionaries()


def _batches(
    file: LocalFile, names: list[str], selected: list[str], *, threads: bool = True
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    text = pa.dictionary(pa.int32(), pa.string())  # the distinct texts, and the index of each value in them
    layout = format_of(file)
    widths: list[tuple[int | None, int]] = []

    def note(row: Any) -> str:
        widths.append((row.number, row.actual_columns))
        return "error"

    with unpacked(file) as packed:
        stream = text_format.as_utf8(packed, layout.encoding)
        for _ in range(layout.skipped + 1):
            stream.readline(_HEADER_BYTES)
        try:
            yield from arrow_csv.open_csv(
                stream,
                read_options=arrow_csv.ReadOptions(
                    column_names=names, block_size=_BLOCK_BYTES, use_threads=threads
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=layout.separator, newlines_in_values=True, invalid_row_handler=note
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, text), include_columns=selected, check_utf8=True
                ),
            )
        except UnicodeDecodeError:
            raise SourceError(
                f"{file.name} is not {layout.encoding} text: correct format: encoding in the schema"
            ) from None
        except pa.ArrowInvalid as error:
            if "Empty CSV" in str(error):
                return
            # Only a reader without threads numbers the rows.
            number = re.search(r"Row #(\d+)", str(error))
            if threads and number is None:
                for _ in _batches(file, names, selected, threads=False):
                    pass
            where = f" in row {number[1]} after the header" if number else ""
            raise SourceError(_fault(file, layout, names, where, widths, str(error))) from None


def _fault(
    file: LocalFile,
    layout: TextFormat,
    names: list[str],
    where: str,
    widths: list[tuple[int | None, int]],
    error: str,
) -> str:
    """The message about a table of text that cannot be read; it quotes no text."""
    if widths:
        sign = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}[layout.separator]
        return (
            f"{file.name} has {widths[0][1]} values{where}, where its header has {len(names)} columns: mend "
            f"the row (a {sign} inside a value needs quotes around the value)"
        )
    if "UTF8" in error:
        return (
            f"{file.name} is not UTF-8 text{where}: save it as UTF-8, or say how its letters are stored "
            'with the schema\'s key format: {encoding: "cp1252"} (or latin-1)'
        )
    return f"{file.name} cannot be read as CSV{where}"
