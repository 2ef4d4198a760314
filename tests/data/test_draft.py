"""A drafted schema says what the values show, and asks for what they cannot show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steps.data import prepared, sources
from steps.data.schema import LevelledColumn, NumericColumn, Schema
from steps.data.schema_file import load
from steps.ops import draft_schema


def drafted(frame: pd.DataFrame, folder: Path, *arguments: str) -> tuple[Schema, str]:
    """The schema that is written for a table of this content, and its text."""
    frame.to_csv(folder / "table.csv", index=False)
    assert draft_schema.main([str(folder / "table.csv"), "--folder", str(folder), *arguments]) == 0
    return load(folder / "table.yaml"), (folder / "table.yaml").read_text()


def answered(text: str, folder: Path) -> Schema:
    """The schema after one edit: the question about the outcome is deleted."""
    head, _, rest = text.partition("- about: target\n")
    (folder / "table.yaml").write_text(head + rest[rest.index("- about:") :])
    return load(folder / "table.yaml")


def trade_of_150_columns(rng: np.random.Generator, rows: int = 900) -> pd.DataFrame:
    """Sensors of made-up machines, and whether each failed."""
    sensors = {f"sensor {number}": rng.normal(50, 9, rows).round(2) for number in range(149)}
    failed = rng.random(rows) < 1 / (1 + np.exp(-(sensors["sensor 3"] - 55) / 4))
    return pd.DataFrame({**sensors, "failed": np.where(failed, "yes", "no")})


def trade_of_texts(rng: np.random.Generator, rows: int = 900) -> pd.DataFrame:
    """Made-up orders: identifiers, dates, notes, nominal text."""
    return pd.DataFrame(
        {
            "order_id": [f"A-{number:05d}" for number in range(rows)],
            "ordered": pd.date_range("2024-01-01", periods=rows, freq="7h").strftime("%Y-%m-%d"),
            "note": [f"please call {number}" for number in range(rows)],
            "shop": rng.choice(["north", "south", "web"], rows),
            "payment": rng.choice(["card", "Card", "cash"], rows),
            "amount": rng.gamma(2, 30, rows).round(2),
            "returned": rng.choice(["kept", "returned"], rows, p=[0.7, 0.3]),
        }
    )


def trade_of_codes(rng: np.random.Generator, rows: int = 900) -> pd.DataFrame:
    """A made-up survey with codes for "no answer" everywhere."""
    age = rng.integers(18, 90, rows).astype(object)
    age[::17] = 999
    weight = rng.normal(75, 12, rows).round(1).astype(object)
    weight[::13] = "?"
    pressure = rng.normal(125, 14, rows).round()
    pressure[::9] = 0
    return pd.DataFrame(
        {
            "row": np.arange(rows),
            "age": age,
            "weight": weight,
            "pressure": pressure,
            "health": rng.choice([1, 2, 3, 4, 5, 9], rows),
            "same": "x",
            "ill": rng.choice([0, 1], rows),
        }
    )


def test_a_wide_table_of_numbers(tmp_path: Path) -> None:
    """149 features and an outcome in words; the ranges are wider than the data."""
    schema, _ = drafted(trade_of_150_columns(np.random.default_rng(1)), tmp_path)
    assert len(schema.columns) == 149
    assert schema.target.name == "failed" and schema.target.positive == ("yes",)
    column = schema.column("sensor 7")
    assert isinstance(column, NumericColumn) and column.minimum < 20 and column.maximum > 80


def test_texts_dates_and_identifiers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a model cannot learn from is left out, and that is said."""
    schema, text = drafted(trade_of_texts(np.random.default_rng(2)), tmp_path)
    assert schema.feature_names == ("shop", "payment", "amount")
    said = capsys.readouterr().out
    assert all(f"left out: {name}" in said for name in ("order_id", "ordered", "note"))
    assert "differ only in upper and lower case" in text
    shop = schema.column("shop")
    assert isinstance(shop, LevelledColumn) and shop.kind == "nominal"


def test_codes_for_no_answer_are_asked_for(tmp_path: Path) -> None:
    """999, `?`, an impossible 0 and a 9 among five; a constant and the row's number are left out."""
    schema, _ = drafted(trade_of_codes(np.random.default_rng(3)), tmp_path)
    assert schema.feature_names == ("age", "weight", "pressure", "health")
    questions = {one.about: one.question for one in schema.open_questions}
    assert "999" in questions["age"]
    assert schema.column("weight").missing == ("?",)
    assert "May 0 mean" in questions["pressure"]
    assert schema.target.name == "ill" and "counts as" in questions["target"]


@pytest.mark.parametrize("table", [trade_of_150_columns, trade_of_texts, trade_of_codes])
def test_one_edit_makes_a_draft_a_schema(tmp_path: Path, table: object) -> None:
    """Until the question about the outcome is deleted nothing is learned; then the rows are prepared."""
    frame = table(np.random.default_rng(4))  # type: ignore[operator]
    schema, text = drafted(frame, tmp_path)
    assert schema.open_questions[0].about == "target"
    schema = answered(text, tmp_path)
    located = sources.locate("table.csv", schema, tmp_path, tmp_path)
    made = prepared.prepare(sources.chunks(located, schema), schema, located, 0)
    assert made.profile.rows.valid == len(frame)
    assert any("open question about columns" in warning for warning in made.profile.warnings)


def test_a_column_that_gives_the_outcome_away_is_asked_about(tmp_path: Path) -> None:
    """A treatment that only those with the outcome get."""
    rng = np.random.default_rng(5)
    ill = rng.choice([0, 1], 600)
    frame = pd.DataFrame(
        {"age": rng.integers(18, 90, 600), "insulin": np.where(ill, "yes", "no"), "ill": ill}
    )
    schema, _ = drafted(frame, tmp_path, "--outcome", "ill")
    assert any(
        one.about == "insulin" and "nearly determines the outcome" in one.question
        for one in schema.open_questions
    )


def test_what_cannot_be_drafted_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No outcome possible, a wrong name, a schema that is there already: one message, exit code 1."""
    frame = pd.DataFrame({"a": np.arange(100) * 1.5})
    frame.to_csv(tmp_path / "table.csv", index=False)
    arguments = [str(tmp_path / "table.csv"), "--folder", str(tmp_path)]
    assert draft_schema.main(arguments) == 1
    assert "no column can be the outcome" in capsys.readouterr().err
    drafted(trade_of_codes(np.random.default_rng(6)), tmp_path)
    assert draft_schema.main(arguments) == 1
    assert "is there already" in capsys.readouterr().err
    (tmp_path / "table.yaml").unlink()
    assert draft_schema.main([*arguments, "--outcome", "sick"]) == 1
    assert "there is no such column" in capsys.readouterr().err
