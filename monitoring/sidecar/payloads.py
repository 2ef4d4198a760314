"""Request and answer bodies: reading rows, joining the rows of several requests, taking answers apart.

A joined request must be answered as each of its parts alone would have been, byte for byte. The server reads
a column's type from all of its values at once, so parts are joined only if no column could be read otherwise
for having other rows beside it; `kinds` decides that. An answer is cut out of the text, never written anew.
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
# What pandas' read_csv, by which the server reads CSV, takes for a missing value.
NOTHING = {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
NOTHING |= {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
DEEPEST = 100
TOO_DEEP = "The JSON document is nested too deeply."
TOO_WIDE = "A row of the CSV body has more values than the header has names."
# Whole numbers beyond 2**53, which the server refuses alone and rounds beside a number with a point. The
# first pattern is quick, and finds long fractions too.
_MANY_DIGITS = re.compile(rb"\d{16}")
_LONG_NUMBER = re.compile(rb"(?<![\d.])\d{16}")
_GREAT_EXPONENT = re.compile(rb"[eE]\+?\d{3}")
# What a byte of a JSON document adds to the number of open brackets.
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
    """Values of the columns that were asked for, None where a row lacks one; how many others there are."""

    values: dict[str, list[Any]]
    others: int


class Prediction(NamedTuple):
    """One row's prediction: the text of the answer, and its value."""

    text: str
    value: Any


def media_type(content_type: str) -> str:
    """The media type without parameters, as the server reads it."""
    return content_type.partition(";")[0].strip()


def parsed_bytes(content_type: str, body: bytes) -> int:
    """About the most bytes that a body takes when it is parsed; objects of CPython 3.11, measured."""
    text = len(body) * (1 if body.isascii() else 4)
    commas = body.count(b",")
    if media_type(content_type) == CSV_TYPE:
        return 5 * text + 90 * (commas + body.count(b"\n"))
    brackets = 240 * body.count(b"{") + 120 * body.count(b"[")
    return text + brackets + 56 * commas + 60 * body.count(b":")


def fault(content_type: str, body: bytes) -> str | None:
    """What nobody means and the server would answer with an error of its own, or wrongly: None if nothing.

    A document nested a thousand deep; a CSV row longer than its header, by which the server reads all columns
    one to the left.
    """
    kind = media_type(content_type)
    if kind == JSON_TYPE:
        return TOO_DEEP if _depth(body) > DEEPEST else None
    if kind == CSV_TYPE:
        with one_at_a_time(body):
            return TOO_WIDE if _is_ragged(body) else None
    return None


def one_at_a_time(body: bytes) -> AbstractContextManager[object]:
    """Hold this until what was parsed of a body is gone: of a large body that is many times its size."""
    return _parsing if len(body) > SMALL_BODY else nullcontext()


def _depth(body: bytes) -> int:
    """Greatest number of brackets that are open at once, counted piece by piece."""
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
    document = None if b"\0" in body else _document(body)  # UTF-16 hides what is looked for in the bytes
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

    `text` says for each column of the reference whether it is text. In a number column numbers and nulls mix
    freely; a text column must hold nothing but strings, for a null there reads `'None'` alone and NaN beside
    strings. A column that the reference does not know must be all strings, all whole or all other numbers.
    """

    def __init__(self, text: Mapping[str, bool]) -> None:
        self._text = text
        self._known: dict[tuple[tuple[str, ...], tuple[type, ...]], tuple[str, ...] | None] = {}

    def of(self, found: Table) -> tuple[str, ...] | None:
        """One letter a column, equal for tables that may be joined; None if this one must travel alone."""
        kinds: tuple[str, ...] | None = None
        is_known = all(map(self._text.__contains__, found.columns))  # strangers' names are not kept
        for row in found.rows:
            types = tuple(map(type, row if found.form == SPLIT else row.values()))
            own = self._remembered(found.columns, types) if is_known else self._row(found.columns, types)
            if own is None or (kinds is not None and own != kinds):
                return None
            kinds = own
        return kinds

    def _remembered(self, columns: tuple[str, ...], types: tuple[type, ...]) -> tuple[str, ...] | None:
        key = (columns, types)
        try:
            return self._known[key]
        except KeyError:
            if len(self._known) >= KNOWN_KINDS:
                self._known.clear()
            own = self._known[key] = self._row(columns, types)
            return own

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
    """Whether a number in the body may be read otherwise, or spoil the others, when rows stand beside it."""
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
    place, end = len(ANSWER_START), len(text) - len(ANSWER_END)
    found: list[Prediction] = []
    while place < end:
        try:
            value, stop = _decode(text, place)
        except (ValueError, RecursionError):
            return None
        found.append(Prediction(text[place:stop], value))
        if stop == end:
            return found
        if text[stop : stop + 2] != ", ":
            return None
        place = stop + 2
    return None


def answer(parts: Sequence[Prediction]) -> bytes:
    """The body that the server would have answered for these rows alone."""
    return (ANSWER_START + ", ".join([part.text for part in parts]) + ANSWER_END).encode()


def risk(value: Any) -> float | None:
    """The predicted risk, from [P(0), P(1)], an object with `risk` or a lone probability; None if it is no
    number from 0 to 1."""
    if type(value) is list and len(value) == 2:
        value = value[1]
    elif type(value) is dict:
        value = value.get("risk")
    if type(value) not in (int, float) or not 0.0 <= value <= 1.0:
        return None
    return float(value)


def columns(content_type: str, body: bytes, names: Sequence[str], most: int) -> Columns | None:
    """The columns `names` in a body of any format that the server takes, None where a row lacks a value.

    `names` are the reference's columns, in its order, which is also that of bodies that name none. Nothing is
    built for other columns, of which a body may hold any number. Returns None for what cannot be read here:
    Parquet, other types, malformed bodies, and those that would take more than `most` bytes. Hold
    `one_at_a_time`.
    """
    if media_type(content_type) not in (JSON_TYPE, CSV_TYPE) or parsed_bytes(content_type, body) > most:
        return None
    return _columns(media_type(content_type), body, names)


def predicted_values(answer: bytes, most: int) -> list[Any] | None:
    """The predictions in an answer of any size; None if it has another shape, or takes more than `most` bytes
    when it is parsed. Hold `one_at_a_time`."""
    found = (_document(answer) or {}).get("predictions") if parsed_bytes(JSON_TYPE, answer) <= most else None
    return found if isinstance(found, list) else None


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


def table_columns(found: Table, names: Sequence[str]) -> Columns:
    """The columns `names` of a table."""
    if found.form == SPLIT:
        places = {name: place for place, name in enumerate(found.columns)}
        return _placed(found.rows, places, names)
    known = [name for name in names if name in found.rows[0]]
    values = {name: [row[name] for row in found.rows] for name in known}
    return Columns(values, len(found.columns) - len(known))


def _record_columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Columns:
    every = {name for row in rows for name in row}
    known = [name for name in names if name in every]
    return Columns({name: [row.get(name) for row in rows] for name in known}, len(every) - len(known))


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _placed(rows: Sequence[Sequence[Any]], places: Mapping[str, int], names: Sequence[str]) -> Columns:
    known = {name: places[name] for name in names if name in places}
    values = {name: [row[place] for row in rows] for name, place in known.items()}
    return Columns(values, len(places) - len(known))


def _list_columns(named: Sequence[Any], rows: Sequence[Any], names: Sequence[str]) -> Columns | None:
    if any(not isinstance(row, list) or len(row) != len(named) for row in rows):
        return None
    return _placed(rows, {str(name): place for place, name in enumerate(named)}, names)


def _dict_columns(part: Mapping[str, Any], names: Sequence[str]) -> Columns | None:
    if len({len(value) if isinstance(value, list) else 1 for value in part.values()}) != 1:
        return None
    known = [name for name in names if name in part]
    values = {name: part[name] if isinstance(part[name], list) else [part[name]] for name in known}
    return Columns(values, len(part) - len(known))


def _csv_columns(body: bytes, names: Sequence[str]) -> Columns | None:
    """As pandas reads them: a byte order mark is no part of a name, a short row lacks its last values."""
    try:
        rows = [row for row in csv.reader(io.StringIO(body.decode("utf-8-sig"))) if row]
    except (UnicodeDecodeError, csv.Error):
        return None
    if len(rows) < 2 or any(len(row) > len(rows[0]) for row in rows):
        return None
    width = len(rows[0])
    whole = [
        [None if cell in NOTHING else cell for cell in row] + [None] * (width - len(row)) for row in rows[1:]
    ]
    return _placed(whole, {name: place for place, name in enumerate(rows[0])}, names)
