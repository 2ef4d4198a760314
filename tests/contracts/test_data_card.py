"""The data card says what the schema says."""

from __future__ import annotations

from benchmarks.data_card import column_table, section
from steps.data.schema_file import load
from tests.conftest import ROOT

SCHEMA = load(ROOT / "data" / "brfss2015.yaml")
CARD = (ROOT / "data" / "README.md").read_text(encoding="utf-8")


def test_column_table_is_the_schemas() -> None:
    """Every column with its kind, values and meaning; renew it with `python -m benchmarks.data_card`."""
    assert section(CARD, "columns") == column_table(SCHEMA)


def test_card_names_every_file_of_the_folder() -> None:
    """Each file in data/ has its line in the card's first table."""
    files = {path.name for path in (ROOT / "data").iterdir() if path.name != "README.md"}
    assert files == {
        line.split("`")[1] for line in CARD.split("## ")[0].splitlines() if line.startswith("| `")
    }
