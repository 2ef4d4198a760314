"""Request and answer bodies: read rows, join the rows of several requests, split answers.

Each part of a joined request must get the same answer, byte for byte, as if it were sent alone. The server
derives a column's type from all of its values, so parts are joined only if other rows cannot change a type;
`Kinds` decides that. The answer to a part is cut out of the text, not serialised again.
"""

import csv
import io
import json
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from monitoring.sidecar.budget import SMALL_BODY

SPLIT, RECORDS = "dataframe_split", "dataframe_records"
FORMATS = {SPLIT, RECORDS, "instances", "inputs"}
JSON_TYPE, CSV_TYPE = "application/json", "text/csv"
ANSWER_START, ANSWER_END = '{"predictions": [', "]}"
KNOWN_KINDS = 1024
# The missing values of pandas' read_csv, with which the server reads CSV.
NOTHING = {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
NOTHING |= {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
DEEPEST = 100
TOO_DEEP = "The JSON document is nested too deeply."
TOO_WIDE = "A row of the CSV body has more values than the header has names."
# Whole numbers beyond 2**53: the server refuses them in a column of whole numbers and rounds them beside a
# fraction. The first pattern is fast, but matches long fractions too.
_MANY_DIGITS = re.compile(rb"\d{16}")
_LONG_NUMBER = re.compile(rb"(?<![\d.])\d{16}")
_GREAT_EXPONENT = re.compile(rb"[eE]\+?\d{3}")
# Change of the number of open brackets by each byte of a JSON document.
STEPS = np.zeros(256, np.int8)
STEPS[[ord("["), ord("{")]], STEPS[[ord("]"), ord("}")]] = 1, -1
_parsing = threading.Lock()

_decode = json.JSONDecoder().raw_decode


class Table(NamedTuple):
    """Rows of a request: lists in the order of `columns` (split) or objects with those keys (records)."""

    form: str
    columns: tuple[str, ...]
    rows: list[Any]


class Columns(NamedTuple):
    """Values of the requested columns, None where a row lacks one, and the number of other columns."""

    values: dict[str, list[Any]]
    others: int


class Prediction(NamedTuple):
    """One row's prediction: the text of the answer, and its value."""

    text: str
    value: Any


def media_type(content_type: str) -> str:
    """The media type without parameters, like the server parses it."""
    return content_type.partition(";")[0].strip()


def parsed_bytes(content_type: str, body: bytes) -> int:
    """Approximate maximum of the bytes of a parsed body; measured with objects of CPython 3.11."""
    text = len(body) * (1 if body.isascii() else 4)
    commas = body.count(b",")
    if media_type(content_type) == CSV_TYPE:
        return 5 * text + 90 * (commas + body.count(b"\n"))
    brackets = 240 * body.count(b"{") + 120 * body.count(b"[")
    return text + brackets + 56 * commas + 60 * body.count(b":")


def fault(content_type: str, body: bytes) -> str | None:
    """The fault of a body that the server would answer wrongly or with an internal error; None without one.

    A document with very deep nesting; a CSV row longer than the header, which makes the server shift all
    columns by one.
    """
    kind = media_type(content_type)
    if kind == JSON_TYPE:
        return TOO_DEEP if _depth(body) > DEEPEST else None
    if kind == CSV_TYPE:
        with one_at_a_time(body):
            return TOO_WIDE if _is_ragged(body) else None
    return None


def one_at_a_time(body: bytes) -> AbstractContextManager[object]:
    """A lock to hold while a parsed body is in use: a large body takes many times its size."""
    return _parsing if len(body) > SMALL_BODY else nullcontext()


def _depth(body: bytes) -> int:
    """Greatest number of open brackets, counted piece by piece."""
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return 0
    deepest = depth = 0
    for start in range(0, len(body), SMALL_BODY):
        steps = STEPS[np.frombuffer(body[start : start + SMALL_BODY], np.uint8)]
        deepest = max(deepest, depth + int(np.cumsum(steps, dtype=np.int32).max()))
        depth += int(steps.sum(dtype=np.int32))
    return deepest


def _is_ragged(body: bytes) -> bool:
    try:
        rows = csv.reader(io.StringIO(body.decode("utf-8-sig")))
        width = len(next((row for row in rows if row), ()))
        return any(len(row) > width for row in rows)
    except (UnicodeDecodeError, csv.Error):
        return False


def table(body: bytes) -> Table | None:
    """The rows of a body whose only key is a data frame with the same columns in every row; else None."""
    document = (
        None if b"\0" in body else _document(body)
    )  # UTF-16 would hide the patterns that are searched in the bytes
    if document is None or len(document) != 1:
        return None
    ((form, part),) = document.items()
    if form == SPLIT and type(part) is dict and len(part) == 2 and "columns" in part and "data" in part:
        columns, rows = part["columns"], part["data"]
        if type(columns) is not list or type(rows) is not list or not rows or not columns:
            return None
        width = len(columns)
        if set(map(type, columns)) != {str} or len(set(columns)) != width:
            return None
        if set(map(type, rows)) != {list} or set(map(len, rows)) != {width}:
            return None
        return Table(SPLIT, tuple(columns), rows)
    if form == RECORDS and type(part) is list and part and type(part[0]) is dict and part[0]:
        names = tuple(part[0])
        if any(type(row) is not dict or tuple(row) != names for row in part):
            return None
        return Table(RECORDS, names, part)
    return None


class Kinds:
    """Decides which tables may be joined, from the types of their values.

    `text` says for each column of the reference whether it is text. A number column may mix numbers and
    nulls. A text column must hold only strings: a lone null becomes `'None'` there, but NaN beside strings. A
    column that the reference does not know must hold only strings, only whole numbers or only other numbers.
    """

    def __init__(self, text: Mapping[str, bool]) -> None:
        self._text = text
        self._known: dict[tuple[tuple[str, ...], tuple[type, ...]], tuple[str, ...] | None] = {}

    def of(self, rows_table: Table) -> tuple[str, ...] | None:
        """One letter per column, equal for tables that may be joined; None if a table must be sent alone."""
        kinds: tuple[str, ...] | None = None
        is_known = all(map(self._text.__contains__, rows_table.columns))  # unknown names are not remembered
        for row in rows_table.rows:
            types = tuple(map(type, row if rows_table.form == SPLIT else row.values()))
            row_kinds = (
                self._remembered(rows_table.columns, types)
                if is_known
                else self._row(rows_table.columns, types)
            )
            if row_kinds is None or (kinds is not None and row_kinds != kinds):
                return None
            kinds = row_kinds
        return kinds

    def _remembered(self, columns: tuple[str, ...], types: tuple[type, ...]) -> tuple[str, ...] | None:
        key = (columns, types)
        try:
            return self._known[key]
        except KeyError:
            if len(self._known) >= KNOWN_KINDS:
                self._known.clear()
            row_kinds = self._known[key] = self._row(columns, types)
            return row_kinds

    def _row(self, columns: Iterable[str], types: Iterable[type]) -> tuple[str, ...] | None:
        letters = []
        for name, kind in zip(columns, types, strict=True):
            text = self._text.get(name)
            if text is False and kind in (int, float, type(None)):
                letters.append("n")
            elif text is not False and kind is str:
                letters.append("s")
            elif text is None and kind in (int, float):
                letters.append("i" if kind is int else "f")
            else:
                return None
        return tuple(letters)


def may_change_beside_others(body: bytes) -> bool:
    """Whether a number in the body may be parsed differently, or change other values, in a joined request."""
    if b"NaN" in body or b"Infinity" in body or _GREAT_EXPONENT.search(body):
        return True
    return _MANY_DIGITS.search(body) is not None and _LONG_NUMBER.search(body) is not None


def join(tables: Sequence[Table]) -> bytes:
    """One body with the rows of all tables, which have the same form and columns."""
    form, columns, _ = tables[0]
    rows = [row for part in tables for row in part.rows]
    content = {"columns": columns, "data": rows} if form == SPLIT else rows
    return json.dumps({form: content}).encode()


def predictions(body: bytes) -> list[Prediction] | None:
    """The predictions in an answer, each with its exact text; None if the answer has another shape."""
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        return None
    if not (text.startswith(ANSWER_START) and text.endswith(ANSWER_END)):
        return None
    start, end = len(ANSWER_START), len(text) - len(ANSWER_END)
    parts: list[Prediction] = []
    while start < end:
        try:
            value, stop = _decode(text, start)
        except (ValueError, RecursionError):
            return None
        parts.append(Prediction(text[start:stop], value))
        if stop == end:
            return parts
        if text[stop : stop + 2] != ", ":
            return None
        start = stop + 2
    return None


def answer(parts: Sequence[Prediction]) -> bytes:
    """The body of the server's answer for these rows alone."""
    return (ANSWER_START + ", ".join([part.text for part in parts]) + ANSWER_END).encode()


def risk(value: Any) -> float | None:
    """The predicted risk, from [P(0), P(1)], an object with `risk` or a lone probability; None if it is not a
    number from 0 to 1."""
    if type(value) is list and len(value) == 2:
        value = value[1]
    elif type(value) is dict:
        value = value.get("risk")
    if type(value) not in (int, float) or not 0.0 <= value <= 1.0:
        return None
    return float(value)


def columns(content_type: str, body: bytes, names: Sequence[str], limit: int) -> Columns | None:
    """The columns `names` in a body of any format that the server takes, None where a row lacks a value.

    `names` are the reference's columns, in its order; bodies without names have the same order. Other columns
    are only counted, since a body may have any number. Returns None for bodies that cannot be read here:
    Parquet, other types, malformed bodies, and bodies that would take more than `limit` bytes. Hold
    `one_at_a_time`.
    """
    if media_type(content_type) not in (JSON_TYPE, CSV_TYPE) or parsed_bytes(content_type, body) > limit:
        return None
    return _columns(media_type(content_type), body, names)


def predicted_values(answer: bytes, limit: int) -> list[Any] | None:
    """The predictions in an answer of any size; None if it has another shape, or would take more than `limit`
    bytes when parsed. Hold `one_at_a_time`."""
    values = (
        (_document(answer) or {}).get("predictions") if parsed_bytes(JSON_TYPE, answer) <= limit else None
    )
    return values if isinstance(values, list) else None


def _columns(kind: str, body: bytes, names: Sequence[str]) -> Columns | None:
    if kind == CSV_TYPE:
        return _csv_columns(body, names)
    document = _document(body)
    forms = FORMATS & document.keys() if document else set()
    if not document or len(forms) != 1:
        return None
    (form,) = forms
    part = document[form]
    if form == SPLIT:
        if not isinstance(part, dict) or not isinstance(part.get("data"), list):
            return None
        named = part.get("columns", names)
        return _list_columns(named, part["data"], names) if isinstance(named, list | tuple) else None
    if isinstance(part, dict):
        return _dict_columns(part, names) if form == "inputs" else None
    if isinstance(part, list) and part and all(isinstance(row, dict) for row in part):
        return _record_columns(part, names)
    if isinstance(part, list) and part and form != RECORDS:
        return _list_columns(names, part, names)
    return None


def table_columns(rows_table: Table, names: Sequence[str]) -> Columns:
    """The columns `names` of a table."""
    if rows_table.form == SPLIT:
        indices = {name: index for index, name in enumerate(rows_table.columns)}
        return _columns_at(rows_table.rows, indices, names)
    present = [name for name in names if name in rows_table.rows[0]]
    values = {name: [row[name] for row in rows_table.rows] for name in present}
    return Columns(values, len(rows_table.columns) - len(present))


def _record_columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Columns:
    every = {name for row in rows for name in row}
    present = [name for name in names if name in every]
    return Columns({name: [row.get(name) for row in rows] for name in present}, len(every) - len(present))


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _columns_at(rows: Sequence[Sequence[Any]], indices: Mapping[str, int], names: Sequence[str]) -> Columns:
    present = {name: indices[name] for name in names if name in indices}
    values = {name: [row[index] for row in rows] for name, index in present.items()}
    return Columns(values, len(indices) - len(present))


def _list_columns(named: Sequence[Any], rows: Sequence[Any], names: Sequence[str]) -> Columns | None:
    if any(not isinstance(row, list) or len(row) != len(named) for row in rows):
        return None
    return _columns_at(rows, {str(name): index for index, name in enumerate(named)}, names)


def _dict_columns(part: Mapping[str, Any], names: Sequence[str]) -> Columns | None:
    if len({len(value) if isinstance(value, list) else 1 for value in part.values()}) != 1:
        return None
    present = [name for name in names if name in part]
    values = {name: part[name] if isinstance(part[name], list) else [part[name]] for name in present}
    return Columns(values, len(part) - len(present))


def _csv_columns(body: bytes, names: Sequence[str]) -> Columns | None:
    """Parse like pandas: a byte order mark is not part of a name, a short row lacks its last values."""
    try:
        rows = [row for row in csv.reader(io.StringIO(body.decode("utf-8-sig"))) if row]
    except (UnicodeDecodeError, csv.Error):
        return None
    if len(rows) < 2 or any(len(row) > len(rows[0]) for row in rows):
        return None
    width = len(rows[0])
    padded = [
        [None if cell in NOTHING else cell for cell in row] + [None] * (width - len(row)) for row in rows[1:]
    ]
    return _columns_at(padded, {name: index for index, name in enumerate(rows[0])}, names)
