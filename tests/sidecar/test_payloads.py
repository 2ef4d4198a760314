"""Reading, joining and splitting bodies."""

import io
import json
import tracemalloc
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.sidecar import payloads
from monitoring.sidecar.payloads import Kinds, Table

NAMES = ("BMI", "Age", "city")
JSON_TYPE = "application/json"
CELLS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text())


def split(*rows: list[Any], columns: tuple[str, ...] = NAMES, **more: Any) -> bytes:
    return json.dumps({"dataframe_split": {"columns": columns, "data": rows, **more}}).encode()


def records(*rows: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"dataframe_records": rows, **more}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 500,
        split(),
        split([1, 2]),
        split([1, 2, "a"], index=[0]),
        split([1, 2], columns=("a", "a")),
        b'{"dataframe_split": {"data": [[1]]}}',
        b'{"dataframe_split": {"columns": [1], "data": [[1]]}}',
        b'{"dataframe_split": {"columns": ["a"], "data": [1]}}',
        b'{"dataframe_split": {"columns": ["a"], "data": [[1]]}, "params": {}}',
        records(),
        records({}),
        records({"a": 1}, {"b": 1}),
        records({"a": 1, "b": 2}, {"b": 1, "a": 2}),
        records({"a": 1}, params={}),
        b'{"dataframe_records": [1]}',
        b'{"instances": [[1]]}',
        b'{"inputs": {"a": [1]}}',
        b"1" * 5000,
        split([1, 2, "a"])
        .decode()
        .encode("utf-16"),  # the server reads it, but what spoils others cannot be seen
    ],
)
def test_what_is_not_plainly_a_data_frame_travels_alone(body: bytes) -> None:
    """No table: other formats, other keys, rows of different shapes, bodies that cannot be read."""
    assert payloads.table(body) is None


def test_both_forms_of_data_frame_are_read() -> None:
    """Rows stay as they are."""
    assert payloads.table(split([1, 2, "a"])) == Table("dataframe_split", NAMES, [[1, 2, "a"]])
    assert payloads.table(records({"a": 1})) == Table("dataframe_records", ("a",), [{"a": 1}])


@given(rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=1, max_size=5))
def test_joined_rows_are_the_rows_of_the_parts(rows: list[list[Any]]) -> None:
    """Values come out of JSON as the server would have read them: compared as text, NaN included."""
    for tables in (
        [Table("dataframe_split", ("a", "b"), [row]) for row in rows],
        [Table("dataframe_records", ("a", "b"), [dict(zip("ab", row, strict=True))]) for row in rows],
    ):
        joined = payloads.table(payloads.join(tables))
        assert joined is not None
        assert repr(joined.rows) == repr([row for table in tables for row in table.rows])


def test_a_text_column_must_hold_nothing_but_strings() -> None:
    """A null there reads as the text None alone and as missing beside others."""
    kinds = Kinds({"BMI": False, "Age": False, "city": True})
    assert kinds.of(Table("dataframe_split", NAMES, [[1, 2, "a"]])) == ("n", "n", "s")
    for value in (None, 1, 1.5, True, [1]):
        assert kinds.of(Table("dataframe_split", NAMES, [[1, 2, value]])) is None


def test_numbers_and_nulls_mix_in_a_number_column_and_nothing_else_does() -> None:
    """Text that looks like a number, booleans and nested values change how a whole column is read."""
    kinds = Kinds({"BMI": False, "Age": False, "city": True})
    assert kinds.of(Table("dataframe_split", NAMES, [[1, None, "a"], [2.5, 1, "b"]])) == ("n", "n", "s")
    for value in ("1", True, [1], {"a": 1}):
        assert kinds.of(Table("dataframe_split", NAMES, [[1, 2, "a"], [value, 2, "a"]])) is None


def test_unknown_columns_are_joined_only_if_they_are_of_one_type() -> None:
    """Without a reference nothing says how the server will read a column."""
    kinds = Kinds({})

    def of(*column: Any) -> tuple[str, ...] | None:
        return kinds.of(Table("dataframe_records", ("a",), [{"a": value} for value in column]))

    assert (of(1, 2), of(1.5), of("x")) == (("i",), ("f",), ("s",))
    assert of(1, 2.5) is None
    assert of(None) is None
    assert of(True) is None


def test_what_is_remembered_about_types_is_bounded() -> None:
    """A million different column names cost no memory."""
    kinds = Kinds({"BMI": False})
    for number in range(5000):
        columns = ("BMI", str(number))
        kinds.of(Table("dataframe_records", columns, [dict.fromkeys(columns, 1)]))
    assert not kinds._known
    for kind in (1, 1.5, None):
        kinds.of(Table("dataframe_records", ("BMI",), [{"BMI": kind}]))
    assert len(kinds._known) == 3 <= payloads.KNOWN_KINDS


def test_an_answer_is_cut_at_its_rows_byte_for_byte() -> None:
    """Text of numbers is kept, not written anew: 1e-05 stays 1e-05."""
    body = b'{"predictions": [[0.99999, 1e-05], [0.10, NaN], "a, b]", {"x": [1, 2]}, 7]}'
    found = payloads.predictions(body)
    assert found is not None
    texts = [item.text for item in found]
    assert texts == ["[0.99999, 1e-05]", "[0.10, NaN]", '"a, b]"', '{"x": [1, 2]}', "7"]
    assert payloads.answer(found[:1]) == b'{"predictions": [[0.99999, 1e-05]]}'
    assert payloads.answer(found) == body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"predictions": []}',
        b'{"predictions": [1,2]}',
        b'{"predictions": [1], "more": 2}',
        b'{"predictions": [1]} ',
        b'{"predictions": [1, ]}',
        b'{"predictions": {"a": [1]}}',
        b"[1]",
        b'{"predictions": ["\xc3\xb8"]}',
    ],
)
def test_an_answer_of_another_shape_is_not_cut(body: bytes) -> None:
    """Then every request is sent by itself."""
    assert payloads.predictions(body) is None


@pytest.mark.parametrize(
    ("value", "risk"),
    [
        ([0.7, 0.3], 0.3),
        (0.3, 0.3),
        (1, 1.0),
        (True, None),
        ([0.1, 0.2, 0.7], None),
        ("x", None),
        (1.5, None),
        (float("nan"), None),
        ([0.5, None], None),
    ],
)
def test_the_risk_is_the_second_of_two_probabilities(value: Any, risk: float | None) -> None:
    """Or a lone probability; anything else is none."""
    assert payloads.risk(value) == risk


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON_TYPE, split([1, 2.5, "a"], [None, 3, "b"])),
        (JSON_TYPE + "; charset=utf-8", split([1, 2.5, "a"], [None, 3, "b"], index=[5, 6])),
        (JSON_TYPE, b'{"dataframe_split": {"data": [[1, 2.5, "a"], [null, 3, "b"]]}}'),
        (JSON_TYPE, records({"BMI": 1, "Age": 2.5, "city": "a"}, {"Age": 3, "city": "b"})),
        (JSON_TYPE, b'{"instances": [{"BMI": 1, "Age": 2.5, "city": "a"}, {"Age": 3, "city": "b"}]}'),
        (JSON_TYPE, b'{"instances": [[1, 2.5, "a"], [null, 3, "b"]], "params": {}}'),
        (JSON_TYPE, b'{"inputs": {"BMI": [1, null], "Age": [2.5, 3], "city": ["a", "b"]}}'),
    ],
)
def test_every_json_format_of_the_server_is_counted_alike(content_type: str, body: bytes) -> None:
    """Columns by name, null for what a row lacks."""
    expected = {"BMI": [1, None], "Age": [2.5, 3], "city": ["a", "b"]}
    assert payloads.columns(content_type, body, NAMES, 10**9) == (expected, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"BMI,city\n1.5,Oslo\n,Bergen\n",
        b"\xef\xbb\xbfBMI,city\r\n1.5,Oslo\r\n\r\nNA,Bergen\r\n",
        b"city,BMI\nOslo,1.5\nBergen\n",
    ],
)
def test_csv_is_read_as_the_server_reads_it(body: bytes) -> None:
    """An empty field, pandas' words for nothing and the end of a short row are missing; a byte order mark is
    no part of a name.
    """
    expected = {"BMI": ["1.5", None], "city": ["Oslo", "Bergen"]}
    assert payloads.columns("text/csv", body, NAMES, 10**9) == (expected, 0)
    frame = pd.read_csv(io.BytesIO(body))
    assert frame["BMI"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON_TYPE, records(*({"BMI": 1, f"x{row}": row} for row in range(30)))),
        (JSON_TYPE, b'{"inputs": {"BMI": [1], ' + b", ".join(b'"x%d": [1]' % n for n in range(30)) + b"}}"),
        ("text/csv", b"BMI," + b",".join(b"x%d" % n for n in range(30)) + b"\n1" + b",1" * 30),
    ],
)
def test_other_columns_are_counted_and_nothing_is_built_of_them(content_type: str, body: bytes) -> None:
    """A body can name any number of them, in every row others."""
    found = payloads.columns(content_type, body, NAMES, 10**9)
    assert found is not None
    assert list(found.values) == ["BMI"]
    assert found.others == 30


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (b"9007199254740993", True),
        (b"-9007199254740993", True),
        (b"900719925474099", False),
        (b"0.1234567890123456789", False),
        (b"1234567890123456.5", True),
        (b"1e999", True),
        (b"-1E+308", True),
        (b"1e-9", False),
        (b"NaN", True),
        (b"-Infinity", True),
    ],
)
def test_a_number_that_rows_beside_it_would_round_or_that_may_spoil_them_is_found(
    number: bytes, expected: bool
) -> None:
    """Alone the server refuses a long whole number; beside a number with a point it would be rounded."""
    body = b'{"dataframe_split": {"columns": ["BMI"], "data": [[' + number + b"]]}}"
    assert payloads.may_change_beside_others(body) == expected


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/vnd.apache.parquet", b"PAR1"),
        ("text/csv", b"a,b\n1,2,3\n"),
        ("text/csv", b"\xff"),
        ("text/csv", b""),
        ("", split([1, 2, "a"])),
        (JSON_TYPE, b'{"inputs": {"a": [1], "b": [1, 2]}}'),
        (JSON_TYPE, b'{"instances": [], "inputs": []}'),
        (JSON_TYPE, b'{"dataframe_split": 3}'),
        (JSON_TYPE, b'{"dataframe_split": {"columns": 3, "data": [[1]]}}'),
        (JSON_TYPE, b'{"dataframe_records": {"a": 1}}'),
    ],
)
def test_what_cannot_be_read_is_not_guessed(content_type: str, body: bytes) -> None:
    """Nothing is counted then but the failure itself."""
    assert payloads.columns(content_type, body, NAMES, 10**9) is None


def test_how_deep_a_document_is_nested_is_found_in_little_memory() -> None:
    """Whatever its size, piece by piece, and across the pieces."""
    body = b"[" * 60 + b"{}," * 3_000_000 + b"[" * 60
    tracemalloc.start()
    try:
        found = payloads.fault(JSON_TYPE, body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == payloads.TOO_DEEP
    assert peak < 2_000_000
    assert payloads.fault(JSON_TYPE, b"[" * 60 + b"{}," * 100_000 + b"[" * 40) is None
