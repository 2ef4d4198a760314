"""Detect how a table of text is written, from its first lines.

Where these are ambiguous, the error names the key of the schema that settles it (`format`). No message holds
a value.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, cast

from steps.data.files import LocalFile, SourceError, is_utf16

_HEAD_BYTES = 1 << 20
_SAMPLE_ROWS = 200
_MOST_TITLE_LINES = 5
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,(\d{1,2}|\d{4,})(e[+-]?\d+)?", re.IGNORECASE)
_DECIMAL_POINT = re.compile(r"[+-]?\d*\.\d+(e[+-]?\d+)?", re.IGNORECASE)
_COMMA_AND_THREE = re.compile(r"[+-]?\d{1,3},\d{3}")


@dataclass(frozen=True)
class TextFormat:
    """How one file is written; `skipped` lines stand before its header."""

    separator: str = ","
    decimal: str = "."
    thousands: str | None = None
    encoding: str = "utf-8"
    skipped: int = 0
    names: tuple[str, ...] = ()

    @property
    def in_words(self) -> str:
        """Differences from plain CSV; empty where there are none."""
        differences = [
            f"{_SEPARATORS.get(self.separator, self.separator)} between values"
            if self.separator != ","
            else "",
            "decimal commas" if self.decimal == "," else "",
            f"thousands grouped by {self.thousands!r}" if self.thousands else "",
            f"{self.encoding.upper()} text" if self.encoding != "utf-8" else "",
            f"{self.skipped} line{'s' if self.skipped != 1 else ''} before the header"
            if self.skipped
            else "",
        ]
        return ", ".join(part for part in differences if part)


def find(stream: IO[bytes], file: LocalFile) -> TextFormat:
    """How a file is written, from its head and from the format that the schema states. Raises SourceError."""
    stated = file.format
    head = stream.read(_HEAD_BYTES)
    encoding = stated.encoding or is_utf16(head) or "utf-8"
    text = _decoded(head, encoding, file)
    lines = _lines(text, complete=len(head) < _HEAD_BYTES, file=file)
    separator, skipped = stated.separator, 0
    if lines and (separator_line := re.fullmatch(r'"?sep=(.)"?', lines[0].strip(), re.IGNORECASE)):
        separator, skipped, lines = separator or separator_line[1], 1, lines[1:]
    if separator is not None and separator not in _SEPARATORS:
        raise SourceError(
            f"{file.name} says that {separator!r} stands between its values: use , ; a tab or |"
        )
    separator, titles = _layout(lines, separator, file)
    records = list(_records(lines[titles:], separator, file))
    detected = TextFormat(separator, encoding=encoding, skipped=skipped + titles, thousands=stated.thousands)
    detected = replace(detected, names=tuple(_names(records, file)))
    return replace(detected, decimal=stated.decimal or _decimal(records[1:], detected, file))


def _decoded(head: bytes, encoding: str, file: LocalFile) -> str:
    try:
        return codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)().decode(head)
    except UnicodeDecodeError:
        if encoding == "utf-8" and file.format.encoding is None:
            raise SourceError(
                f"{file.name} is not UTF-8 text. If it comes from Excel or an older program, say how its "
                'letters are stored with the schema\'s key format: {encoding: "cp1252"} (or latin-1; the two '
                "cannot be told apart), or save it as UTF-8"
            ) from None
        raise SourceError(
            f"{file.name} is not {encoding} text: correct format: encoding in the schema"
        ) from None


def _lines(text: str, *, complete: bool, file: LocalFile) -> list[str]:
    """Lines of the head, with their line ends; without the last line where it may be cut off."""
    first = text.split("\n", 1)[0]
    if "\r" in first.rstrip("\r"):
        raise SourceError(f"the lines of {file.name} end in a carriage return alone: save it with line feeds")
    lines = io.StringIO(text).readlines()
    return lines if complete or len(lines) < 2 else lines[:-1]


def _layout(lines: Sequence[str], separator: str | None, file: LocalFile) -> tuple[str, int]:
    """The separator, and the number of lines before the header.

    The header is the first line that is followed by rows of as many values.
    """
    candidates = [separator] if separator else list(_SEPARATORS)
    for titles in range(min(_MOST_TITLE_LINES, max(1, len(lines)))):
        fitting = [
            sign
            for sign in candidates
            if all(_values(line, sign, file) <= 1 for line in lines[:titles])
            and _is_table(lines[titles:], sign, file)
        ]
        if len(fitting) > 1:
            signs = " and ".join(_SEPARATORS[sign] for sign in fitting)
            raise SourceError(
                f"{file.name} reads as a table with {signs} between its values: say which with the "
                'schema\'s key format: {separator: ";"}'
            )
        if fitting:
            return fitting[0], titles
    # No line is followed by rows of its width: one column, or broken rows, which the reader reports.
    widths = {sign: len(next(_records(lines, sign, file), [])) for sign in candidates}
    return max(candidates, key=lambda sign: widths[sign]), 0


def _is_table(lines: Sequence[str], separator: str, file: LocalFile) -> bool:
    """A header of two or more names, and rows of as many values."""
    widths = {len(record) for record in _records(lines, separator, file) if record}
    # A title with empty cells behind it is no header.
    return len(widths) == 1 and bool(lines) and _values(lines[0], separator, file) > 1


def _values(line: str, separator: str, file: LocalFile) -> int:
    """How many values that are not empty a line has."""
    return sum(bool(value.strip()) for record in _records([line], separator, file) for value in record)


def _records(lines: Sequence[str], separator: str, file: LocalFile) -> Iterator[list[str]]:
    """The first records; a value in quotes may hold line ends."""
    reader = csv.reader(lines[: 4 * _SAMPLE_ROWS], delimiter=separator)
    try:
        for number, record in enumerate(reader):
            if number >= _SAMPLE_ROWS:
                return
            yield record
    except csv.Error:
        raise SourceError(
            f"the first lines of {file.name} cannot be read as a table: is it one, with a line for each row?"
        ) from None


def _names(records: Sequence[Sequence[str]], file: LocalFile) -> list[str]:
    names = [name.strip() for name in records[0]] if records else []
    if not any(names):
        raise SourceError(f"the first line of {file.name} is empty: it should hold the names of the columns")
    if sum(_is_number(name) for name in names) > len(names) / 2:
        raise SourceError(f"the first line of {file.name} holds numbers, not names of columns: add a header")
    return names


def _decimal(rows: Sequence[Sequence[str]], detected: TextFormat, file: LocalFile) -> str:
    """The decimal sign of the numbers in some rows; a point where no number has one."""
    values = [value.strip() for row in rows for value in row]
    points = any(_DECIMAL_POINT.fullmatch(value) for value in values)
    commas = any(_DECIMAL_COMMA.fullmatch(value) for value in values)
    in_doubt = any(_COMMA_AND_THREE.fullmatch(value) for value in values)
    if commas and points and detected.thousands is None:
        raise SourceError(
            f"{file.name} has numbers with a decimal comma and numbers with a decimal point: say which is "
            'meant with the schema\'s key format: {decimal: ","}, or format: {thousands: "."} where points '
            "group digits"
        )
    if commas:
        return ","
    if in_doubt and not points and detected.thousands is None:
        raise SourceError(
            f"{file.name} has numbers such as 1,234: say what the comma is with the schema's key format: "
            '{thousands: ","} where it groups digits, {decimal: ","} where it is the decimal sign'
        )
    return "." if detected.thousands != "." else ","


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ".", 1))
    except ValueError:
        return False
    return True


def as_utf8(stream: IO[bytes], encoding: str) -> IO[bytes]:
    """The same text in UTF-8."""
    return stream if encoding == "utf-8" else cast("IO[bytes]", codecs.EncodedFile(stream, "utf-8", encoding))
