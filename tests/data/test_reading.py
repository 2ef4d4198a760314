"""Files as people have them: what is certain is read, what is in doubt is asked for by the schema's key."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from steps.data import prepared, sources, validation
from steps.data.errors import UserError
from steps.data.files import SourceError
from steps.data.schema import Schema
from steps.data.schema_file import load
from tests.made_up.transport import transport

SCHEMA = """
name: clinic
title: A clinic's table
target: {name: Outcome, meaning: diabetes, levels: {0: "no", 1: "yes"}, positive: [1], missing: [9]}
columns:
  - {name: Age, kind: numeric, meaning: age, unit: years, minimum: 18, maximum: 110, missing: ["?", unknown]}
  - {name: BMI, kind: numeric, meaning: body mass index, minimum: 12, maximum: 80}
  - {name: Smoker, kind: binary, meaning: smokes, levels: {"Yes": smokes, "No": does not}}
"""
ROWS = [(44, 27.1, "Yes", 0), (61, 31.5, "No", 1), (70, 22.25, "No", 0)]


QUOTED_COMMAS = 'Age,BMI,Smoker,Outcome\n44,"27,1",Yes,0\n61,"31,5",No,1\n70,22,No,0\n'
GROUPED_DIGITS = 'Age,BMI,Smoker,Outcome\n44,"1,234",Yes,0\n'


def schema_of(folder: Path, *changes: tuple[str, str], more: str = "") -> Schema:
    text = SCHEMA + more
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "clinic.yaml").write_text(text)
    return load(folder / "clinic.yaml")


def read(path: Path, schema: Schema) -> pd.DataFrame:
    """The valid rows of a file; a row that breaks the schema fails the test."""
    located = sources.locate(str(path), schema, path.parent, path.parent)
    raw = sources.read(located, schema)
    checked = validation.check(raw, schema, located.target_column, located.positive)
    assert checked.rejected.empty, checked.rejected["__reason__"].tolist()
    return checked.valid


def notes(path: Path, schema: Schema) -> list[str]:
    return sources.notes(sources.locate(str(path), schema, path.parent, path.parent), schema)


def text(separator: str = ",", decimal: str = ".", rows: Sequence[tuple[Any, ...]] = ROWS) -> str:
    lines = [separator.join(["Age", "BMI", "Smoker", "Outcome"])]
    lines += [separator.join(str(value).replace(".", decimal) for value in row) for row in rows]
    return "\n".join(lines) + "\n"


def assert_rows(frame: pd.DataFrame) -> None:
    assert frame["Age"].tolist() == [row[0] for row in ROWS]
    assert frame["BMI"].tolist() == [row[1] for row in ROWS]
    assert frame["Smoker"].tolist() == [row[2] for row in ROWS]
    assert frame["__target__"].tolist() == [row[3] for row in ROWS]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (text().encode(), ""),
        (text(";").encode(), "semicolons between values"),
        (text(";", ",").encode(), "semicolons between values, decimal commas"),
        (text("\t").encode(), "tabs between values"),
        (text("|").encode(), "bars between values"),
        (text().encode("utf-8-sig"), ""),
        (text(";", ",").encode("utf-16"), "semicolons between values, decimal commas, UTF-16 text"),
        (text("\t").encode("utf-16-le"), "tabs between values, UTF-16-LE text"),
        (b"sep=;\r\n" + text(";").replace("\n", "\r\n").encode(), "1 line before the header"),
        (b"Export of the clinic, 2024\n\n" + text(";").encode(), "2 lines before the header"),
        (b"Export of the clinic;;;\n" + text(";").encode(), "1 line before the header"),
        (QUOTED_COMMAS.encode(), "decimal commas"),
        (gzip.compress(text(";", ",").encode(), mtime=0), "semicolons between values, decimal commas"),
    ],
)  # fmt: skip
def test_what_the_first_lines_tell_is_read(tmp_path: Path, content: bytes, said: str) -> None:
    """Separators, decimal commas, marks, a `sep=` or title line, UTF-16: read, and said in one line."""
    (tmp_path / "rows.csv").write_bytes(content)
    schema = schema_of(tmp_path)
    frame = read(tmp_path / "rows.csv", schema)
    if content != QUOTED_COMMAS.encode():
        assert_rows(frame)
    assert frame["BMI"].tolist()[:2] == [27.1, 31.5]
    lines = notes(tmp_path / "rows.csv", schema)
    assert (said in lines[0]) if said else (lines == [])


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (GROUPED_DIGITS.encode(), "thousands"),
        (text(";").replace("27.1", "27,1").encode(), "decimal"),
        (text().replace("Yes", "é").encode("latin-1"), "encoding"),
        (b"a,b;c,d\n1,2;3,4\n", "separator"),
    ],
)  # fmt: skip
def test_a_doubt_names_the_key_that_ends_it(tmp_path: Path, content: bytes, key: str) -> None:
    """Where the head could mean two things, nothing is guessed."""
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(SourceError, match=f"format: .*{key}"):
        read(tmp_path / "rows.csv", schema_of(tmp_path))


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        (text().replace("Age", "Âge").encode("cp1252"), "encoding: cp1252"),
        (text(";", ",").replace("44", "44,0").encode(), 'separator: ";", decimal: ","'),
        (text(rows=[(44, 27.1, "Yes", 0)]).replace("27.1", '"1,234.5"').encode(), 'thousands: ","'),
        (text(";", rows=[(44, "1.234,5", "Yes", 0)]).encode(), 'thousands: ".", decimal: ","'),
    ],
)  # fmt: skip
def test_what_a_person_says_of_the_format_holds(tmp_path: Path, content: bytes, keys: str) -> None:
    """The schema's key `format` ends every doubt."""
    (tmp_path / "rows.csv").write_bytes(content)
    changes = [("maximum: 80", "maximum: 8000"), ("name: Age", "name: Age, aliases: [Âge]")]
    frame = read(tmp_path / "rows.csv", schema_of(tmp_path, *changes, more=f"format: {{{keys}}}\n"))
    assert frame["BMI"].iloc[0] in (27.1, 1234.5)


def test_the_cause_is_named_where_a_few_numbers_are_written_otherwise(tmp_path: Path) -> None:
    """A decimal comma, grouped digits and another case each have their own rule and remedy."""
    rows = [(44, 27.5, "Yes", 0)] * 300
    lines = text(rows=rows).splitlines()
    lines[260:263] = ['44,"27,1",Yes,0', '44,"1,234.5",Yes,0', "44,27.1,yes,0"]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    schema = schema_of(tmp_path)
    located = sources.locate("rows.csv", schema, tmp_path, tmp_path)
    checked = validation.check(sources.read(located, schema), schema, "Outcome", (1.0,))
    assert {problem.rule for problem in checked.problems} == {
        validation.DECIMAL_COMMA, validation.GROUPED_DIGITS, validation.OTHER_CASE,
    }  # fmt: skip
    told = validation.described(checked.problems, schema)
    assert "decimal:" in told and "thousands:" in told and "recode" in told and "Yes, No" in told


def test_texts_mean_missing_in_a_column_of_numbers_and_in_the_target(tmp_path: Path) -> None:
    """`?` and `unknown` beside numbers; a code of the outcome that means "not known"."""
    (tmp_path / "rows.csv").write_text(text(rows=[("?", 27.1, "Yes", 0), ("unknown", 30, "No", 1)]))
    schema = schema_of(tmp_path)
    assert read(tmp_path / "rows.csv", schema)["Age"].isna().all()
    (tmp_path / "rows.csv").write_text(text(rows=[(50, 27.1, "Yes", 9), (51, 30, "No", 1)]))
    located = sources.locate("rows.csv", schema, tmp_path, tmp_path)
    checked = validation.check(sources.read(located, schema), schema, "Outcome", (1.0,))
    assert checked.unlabelled == 1 and checked.problems == ()


def test_another_houses_file_is_read_by_aliases_and_recodes(tmp_path: Path) -> None:
    """Other names, other codes, tenths of a unit: what comes out is what the model knows."""
    schema = schema_of(
        tmp_path,
        (
            "name: BMI,",
            "name: BMI, aliases: [{name: bmi10, divide_by: 10, recode: {9999: null}}], round_to: 0.5,",
        ),
        ("name: Smoker,", 'name: Smoker, aliases: [SMOKE], recode: {1: "Yes", 2: "No", "true": "Yes"},'),
        ("name: Outcome,", "name: Outcome, aliases: [{name: DIAB, recode: {3: 0, 7: null}}],"),
    )
    other = pd.DataFrame(
        {"Age": [44, 61, 70], "bmi10": [271, 9999, 318], "SMOKE": [1, 2, 1], "DIAB": [1, 3, 1]}
    )
    other.to_csv(tmp_path / "rows.csv", index=False)
    other.to_parquet(tmp_path / "rows.parquet", index=False)
    for name in ("rows.csv", "rows.parquet"):
        frame = read(tmp_path / name, schema)
        assert frame["BMI"].tolist()[::2] == [27.0, 32.0] and np.isnan(frame["BMI"].iloc[1])
        assert frame["Smoker"].tolist() == ["Yes", "No", "Yes"]
        assert frame["__target__"].tolist() == [1, 0, 1]
    assert "bmi10 as BMI" in "\n".join(notes(tmp_path / "rows.csv", schema))


def test_two_names_of_one_column_are_refused(tmp_path: Path) -> None:
    """Neither can be chosen for a person."""
    schema = schema_of(tmp_path, ("name: BMI,", "name: BMI, aliases: [bmi],"))
    pd.DataFrame({"Age": [44], "BMI": [27], "bmi": [28], "Smoker": ["Yes"], "Outcome": [1]}).to_csv(
        tmp_path / "rows.csv", index=False
    )
    with pytest.raises(SourceError, match="BMI and bmi, which the schema reads as BMI"):
        read(tmp_path / "rows.csv", schema)


def test_a_column_that_may_lack_counts_as_missing_and_that_is_said(tmp_path: Path) -> None:
    """Another year did not ask: no row is refused for it."""
    schema = schema_of(tmp_path, ("name: BMI,", "name: BMI, may_lack: true,"))
    pd.DataFrame({"Age": [44], "Smoker": ["Yes"], "Outcome": [1]}).to_csv(tmp_path / "rows.csv", index=False)
    assert read(tmp_path / "rows.csv", schema)["BMI"].isna().all()
    assert notes(tmp_path / "rows.csv", schema) == ["rows.csv lacks BMI: these answers count as missing"]


def test_a_required_answer_that_lacks_refuses_its_row(tmp_path: Path) -> None:
    """The reason names the column."""
    schema = schema_of(tmp_path, ("name: BMI,", "name: BMI, required: true,"))
    (tmp_path / "rows.csv").write_text(text(rows=[(44, "", "Yes", 0), (50, 30, "No", 1)]))
    located = sources.locate("rows.csv", schema, tmp_path, tmp_path)
    checked = validation.check(sources.read(located, schema), schema, "Outcome", (1.0,))
    assert checked.rejected["__reason__"].tolist() == ["BMI: no answer, where one is required"]


@pytest.mark.parametrize("packed", [False, True])
def test_sas_transport_files_are_read(tmp_path: Path, packed: bool) -> None:
    """As the CDC publishes its surveys, zipped too, in chunks that join to the whole."""
    frame = pd.DataFrame(
        {"Age": [44.0, 61, np.nan], "BMI": [27.5, 31, 22], "SMOKE": [1.0, 2, 1], "Outcome": [0.0, 1, 0]}
    )
    content = transport(frame)
    path = tmp_path / ("rows.xpt.gz" if packed else "rows.xpt")
    path.write_bytes(gzip.compress(content) if packed else content)
    schema = schema_of(
        tmp_path, ("name: Smoker,", 'name: Smoker, aliases: [SMOKE], recode: {1: "Yes", 2: "No"},')
    )
    found = read(path, schema)
    assert found["Age"].tolist()[:2] == [44, 61] and np.isnan(found["Age"].iloc[2])
    assert found["BMI"].tolist() == [27.5, 31, 22]
    located = sources.locate(str(path), schema, tmp_path, tmp_path)
    assert [len(chunk) for chunk in sources.chunks(located, schema, rows=2)] == [2, 1]


def test_the_first_sheet_of_a_workbook_is_read(tmp_path: Path) -> None:
    """Numbers, texts and empty cells of an .xlsx file."""
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [("Age", "BMI", "Smoker", "Outcome"), *ROWS, (None,) * 4]:
        book.active.append(row)
    book.save(tmp_path / "rows.xlsx")
    schema = schema_of(tmp_path)
    assert_rows(read(tmp_path / "rows.xlsx", schema))
    assert notes(tmp_path / "rows.xlsx", schema) == ["rows.xlsx: an Excel workbook, its first sheet"]


def test_newer_arrow_types_become_text(tmp_path: Path) -> None:
    """Views of text and UUIDs beside the columns of the schema."""
    table = pa.table({"Age": [44.0], "BMI": [27.1], "Outcome": [0.0]})
    table = table.append_column("Smoker", pa.array(["Yes"], pa.string_view()))
    table = table.append_column("id", pa.array([b"\7" * 16], pa.uuid()))
    pq.write_table(table, tmp_path / "rows.parquet")
    schema = schema_of(tmp_path)
    assert read(tmp_path / "rows.parquet", schema)["Smoker"].tolist() == ["Yes"]
    located = sources.locate("rows.parquet", schema, tmp_path, tmp_path)
    (chunk,) = sources.chunks(located, schema)
    assert chunk["id"].tolist() == ["07070707-0707-0707-0707-070707070707"]


CANARY = "Zyxwv-Canary"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
@pytest.mark.parametrize(
    "malformed",
    [
        lambda rows: rows[1:],  # no header
        lambda rows: ["A title line", *rows[1:]],  # a title in its place
        lambda rows: [*rows, rows[1] + rows[1][:1] + "more" + "{sep}more"],  # a row too long
        lambda rows: [rows[0], *(row.replace("44", CANARY) for row in rows[1:])],  # text in numbers
        lambda rows: [rows[1], *rows],  # a row before the header
        lambda rows: [rows[1].replace("0", CANARY), rows[1]],  # a person twice in place of a header
    ],
)  # fmt: skip
def test_no_message_holds_a_persons_value(
    tmp_path: Path, separator: str, encoding: str, malformed: Any
) -> None:
    """Seventy-two malformed files: whatever is said of them, nothing of anybody stands in it."""
    rows = [(44, 27.1, CANARY, 0), (44, CANARY, "No", CANARY), (CANARY, 31, f"{CANARY}é", 1)]
    lines = [line.replace("{sep}", separator) for line in malformed(text(separator, rows=rows).splitlines())]
    (tmp_path / "rows.csv").write_bytes("\n".join(lines).encode(encoding))
    schema = schema_of(tmp_path)
    told = []
    try:
        located = sources.locate("rows.csv", schema, tmp_path, tmp_path)
        told += sources.notes(located, schema)
        checked = validation.check(
            sources.read(located, schema), schema, "Outcome", (1.0,), require_target=False
        )
        told += [validation.described(checked.problems, schema), *checked.rejected["__reason__"]]
    except UserError as error:
        told.append(str(error))
    assert told
    assert CANARY not in "\n".join(told)


def test_rows_of_a_person_are_on_one_side_and_the_name_is_not_stored(tmp_path: Path) -> None:
    """Each visit of a person is with the others; two of equal answers may be apart; a name is only a hash."""
    rng = np.random.default_rng(2)
    rows = pd.DataFrame(
        {
            "patient": np.repeat([f"Ann-{number}" for number in range(400)], 3),
            "Age": 50,
            "BMI": rng.choice([20, 30], 1200),
            "Smoker": "Yes",
            "Outcome": rng.integers(0, 2, 1200),
        }
    )
    rows.to_csv(tmp_path / "rows.csv", index=False)
    schema = schema_of(tmp_path, more="person: patient\n")
    located = sources.locate("rows.csv", schema, tmp_path, tmp_path)
    made = prepared.prepare(sources.chunks(located, schema), schema, located, 0)
    sides = [set(table["__person__"]) for table in made.tables.values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 400
    assert all(len(table) > 100 for table in made.tables.values())
    stored = prepared.store(made, tmp_path / "cache")
    assert all(b"Ann-" not in path.read_bytes() for path in stored.iterdir())
    with pytest.raises(UserError, match="lack the column patient"):
        prepared.prepare(
            sources.chunks(located, schema_of(tmp_path)),
            schema_of(tmp_path, more="person: patient\n"),
            located,
            0,
        )


def test_a_survey_weight_travels_beside_the_features(tmp_path: Path) -> None:
    """`__weight__` in each part."""
    rows = pd.DataFrame({"Age": np.arange(20, 100), "BMI": 25.5, "Smoker": "No", "Outcome": [0, 1] * 40})
    rows.assign(weight=rows["Age"] * 1.5).to_csv(tmp_path / "rows.csv", index=False)
    schema = schema_of(tmp_path, more="survey_weight: weight\n")
    located = sources.locate("rows.csv", schema, tmp_path, tmp_path)
    made = prepared.prepare(sources.chunks(located, schema), schema, located, 0)
    for table in made.tables.values():
        assert (table["__weight__"] == table["Age"] * 1.5).all()
