"""The CDC's yearly transport files become the columns of the bundled schema; none of theirs is read here."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steps.data import sources, validation
from steps.data.schema import Schema
from steps.data.schema_file import load
from tests.conftest import ROOT
from tests.made_up.transport import transport

# The names that each year's file has, of those that differ between years.
YEARS = {
    2015: (
        "DIABETE3", "_RFHYPE5", "TOLDHI2", "_CHOLCHK", "_FRTLT1", "_VEGLT1", "_RFDRHV5", "HLTHPLN1",
        "MEDCOST", "SEX", "INCOME2",
    ),
    2021: (
        "DIABETE4", "_RFHYPE6", "TOLDHI3", "_CHOLCH3", "_FRTLT1A", "_VEGLT1A", "_RFDRHV7", "_HLTHPLN",
        "MEDCOST1", "SEXVAR", "INCOME3",
    ),
    2023: (
        "DIABETE4", "_RFHYPE6", "TOLDHI3", "_CHOLCH3", "_RFDRHV8", "_HLTHPL1", "MEDCOST1", "SEXVAR",
        "INCOME3",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def schema() -> Schema:
    return load(ROOT / "data" / "brfss-years.yaml")


def as_the_cdc_codes_it(rows: pd.DataFrame, schema: Schema, year: int) -> pd.DataFrame:
    """Canonical rows under a year's names and codes, missing answers as that code which means "not known"."""
    coded = {"_LLCPWT": np.linspace(1.5, 900.25, len(rows))}
    of_other_years = {name for names in YEARS.values() for name in names} - set(YEARS[year])
    for column in (*schema.columns, schema.target):
        named = [one for one in column.spellings[1:] if one.name not in of_other_years]
        if not named:
            continue
        (spelling,) = named
        back = {new: old for old, new in reversed(spelling.recode.items())}
        values = rows[column.name].astype(float)
        meant = [
            back.get(value, value * spelling.divide_by) if value == value else back.get(None, np.nan)
            for value in values
        ]
        coded[spelling.name] = np.array(meant, dtype=float)
    return pd.DataFrame(coded)


def read(path: Path, schema: Schema) -> pd.DataFrame:
    located = sources.locate(str(path), schema, path.parent, path.parent)
    raw = sources.read(located, schema)
    checked = validation.check(raw, schema, located.target_column, located.positive)
    assert checked.problems == ()
    return checked.valid.drop(columns=["__file__", "__weight__"], errors="ignore").reset_index(drop=True)


@pytest.mark.parametrize("year", YEARS)
def test_a_transport_file_gives_the_table_of_its_parquet_twin(
    tmp_path: Path, schema: Schema, year: int
) -> None:
    """The bundled cohort, some answers missing, coded as the CDC does; zipped as it is published."""
    rows = pd.read_parquet(ROOT / "data" / "cohort.parquet").head(400).astype(float)
    rng = np.random.default_rng(year)
    for name in schema.feature_names:
        rows.loc[rng.random(len(rows)) < 0.05, name] = np.nan
    if year == 2023:
        rows[["Fruits", "Veggies"]] = np.nan
    rows.to_parquet(tmp_path / "twin.parquet", index=False)
    content = transport(as_the_cdc_codes_it(rows, schema, year))
    (tmp_path / f"LLCP{year}.XPT").write_bytes(content)
    with zipfile.ZipFile(tmp_path / f"LLCP{year}XPT.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"LLCP{year}.XPT ", content)
    twin = read(tmp_path / "twin.parquet", schema)
    assert len(twin) == 400
    for name in (f"LLCP{year}.XPT", f"LLCP{year}XPT.zip"):
        pd.testing.assert_frame_equal(read(tmp_path / name, schema), twin)
    located = sources.locate(f"LLCP{year}.XPT", schema, tmp_path, tmp_path)
    said = "\n".join(sources.notes(located, schema))
    assert "_BMI5 as BMI" in said or "DIABETE" in said
    assert ("lacks Fruits, Veggies" in said) == (year == 2023)
    (chunk,) = sources.chunks(located, schema)
    assert chunk["__weight__"].iloc[-1] == pytest.approx(900.25)


def test_models_of_both_schemas_can_be_compared(schema: Schema) -> None:
    """The same name, columns, levels and outcome: one champion."""
    bundled = load(ROOT / "data" / "brfss2015.yaml")
    assert schema.name == bundled.name
    assert schema.data_digest == bundled.data_digest
