"""The page of the whole model shows what the document says, and nothing that it does not."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from steps.data.schema import Expectation, Schema
from steps.models.served_model import Binning, Term, Terms
from steps.models.terms import size
from steps.reports import model_terms
from tests.made_up.clinic import clinic_schema
from tests.models.test_terms import glass_box


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return clinic_schema(tmp_path_factory.mktemp("schema"))


def test_every_term_is_drawn_the_most_important_first(schema: Schema) -> None:
    page = model_terms.render(glass_box(), schema, name="readmission", synthetic=False)
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert sorted(titles) == ["glucose", "stage", "ward and stage"]
    weights = [size(term, glass_box().calibration) for term in glass_box().terms]
    assert titles[0] == ["glucose", "stage", "ward and stage"][int(np.argmax(weights))]
    assert page.count("<svg") == 4  # three terms and the importances
    assert "Synthetic" not in page
    assert "no causes" in page


def test_the_page_of_made_up_people_says_so_and_loads_nothing(schema: Schema) -> None:
    page = model_terms.render(glass_box(), schema, name="readmission", synthetic=True)
    assert page.count("Synthetic data.") == 2
    assert not re.search(r'(src|href)="|url\(|<script', page)


def test_names_of_a_schema_are_text(tmp_path: Path) -> None:
    schema = clinic_schema(tmp_path, ("meaning: Ward", 'meaning: "<script>alert(1)</script>"'))
    page = model_terms.render(glass_box(), schema, name="<b>", synthetic=False)
    assert "<script" not in page
    assert "<b>" not in page


def test_the_table_holds_every_entry_as_the_risk_uses_it() -> None:
    """Calibrated log odds, its factor on the odds, the spread, and the people behind it."""
    rows = list(csv.DictReader(io.StringIO(model_terms.table(glass_box()))))
    assert len(rows) == sum(term.effects.size for term in glass_box().terms)
    (late,) = (row for row in rows if (row["column"], row["level"]) == ("stage", "late"))
    assert float(late["log_odds"]) == 1.4
    assert float(late["odds_factor"]) == pytest.approx(math.exp(1.4), abs=1e-4)
    assert (late["people"], late["second_column"]) == ("20", "")
    (pair,) = (row for row in rows if (row["level"], row["second_level"]) == ("roof", "late"))
    assert float(pair["log_odds"]) == 1.2


def test_a_count_that_may_not_be_shown_is_empty(schema: Schema) -> None:
    hidden = Term((1,), np.array([0.0, 0.1, 0.2]), np.zeros(3), np.array([0.0, np.nan, 40.0]))
    terms = Terms(glass_box().columns, [hidden], -1.0)
    people = [row["people"] for row in csv.DictReader(io.StringIO(model_terms.table(terms)))]
    assert people == ["0", "", "40"]
    assert "<svg" in model_terms.render(terms, schema, name="x", synthetic=False)


def rising_but_once(schema: Schema, expect: Expectation | None, spread: float) -> str:
    """The page of a box whose risk rises with the stage, but from moderate to severe."""
    stage = Binning("stage", ("mild", "moderate", "severe"), levels=(1.0, 2.0, 3.0), bins=(1, 2, 3))
    term = Term((0,), np.array([0.0, 0.0, 0.6, 0.1]), np.full(4, spread), np.full(4, 500.0))
    columns = tuple(replace(one, expect=expect if one.name == "stage" else None) for one in schema.columns)
    box = Terms([stage], [term], -1.0)
    return model_terms.render(box, replace(schema, columns=columns), name="readmission", synthetic=False)


def test_a_risk_that_falls_where_it_should_rise_is_named(schema: Schema) -> None:
    """With the stretch and its height; within the band, or without an expectation, nothing is said."""
    page = rising_but_once(schema, "up", 0.01)
    assert page.count("Against what the schema expects") == 1
    assert "from moderate to severe, by 0.50" in page
    assert "Against what the schema expects" not in rising_but_once(schema, "up", 0.5)
    assert "Against what the schema expects" not in rising_but_once(schema, None, 0.01)
    assert "from mild to moderate, by 0.60" in rising_but_once(schema, "down", 0.01)
