"""One person's page: a single file that loads nothing, holds what the schema says, and treats it as text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from steps.data.schema import Schema
from steps.data.schema_file import SchemaError, load
from steps.models.terms import to_document
from steps.reports.html import TEMPLATES
from steps.reports.person_page import PageFacts, render_page
from tests.conftest import ROOT
from tests.made_up.clinic import SCHEMA
from tests.made_up.glass_box import evaluated, glass_box

HOSTILE = "</script><script>alert(1)</script> & \"quotes\" 'and' <b>"


@pytest.fixture(scope="module")
def brfss() -> Schema:
    return load(ROOT / "data" / "brfss2015.yaml")


def render(schema: Schema, *, additive: bool = True, synthetic: bool = True) -> str:
    """The page of a made-up model of this schema."""
    terms = glass_box(schema)
    document = to_document(terms) if additive else None
    facts = PageFacts(schema.name, "7", synthetic, document, datetime(2026, 1, 2, tzinfo=UTC))
    return render_page(schema, evaluated(schema, terms), facts)


def content(page: str) -> Any:
    """What the page's script reads."""
    found = re.search(r'<script type="application/json" id="page">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_it_loads_nothing_and_fits_half_a_megabyte(brfss: Schema) -> None:
    """No address, no file, no store: all that it needs stands in it."""
    page = render(brfss)
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"\ssrc(?:set)?=|@import|url\(", markup)
    assert re.findall(r'<link[^>]*href="([^"]*)"', markup) == ["data:,"]
    assert not re.findall(r"localStorage|sessionStorage|indexedDB|cookie|console\.", page)
    assert len(page.encode()) < 500_000


def test_its_policy_allows_its_own_script_and_style_alone(brfss: Schema) -> None:
    """By their digests; a glass box may connect to nothing, another family to where the page came from."""
    for additive, connects in ((True, "'none'"), (False, "'self'")):
        page = render(brfss, additive=additive)
        found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
        assert found is not None
        policy = dict(part.split(" ", 1) for part in found[1].replace("&#39;", "'").split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["connect-src"] == connects
        for tag in ("script", "style"):
            (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
            assert policy[f"{tag}-src"] == f"'sha256-{digest}'"


def test_what_a_schema_says_cannot_become_markup(brfss: Schema) -> None:
    """Names, levels, titles and words that hold tags and quotes stay what they are."""
    columns = (replace(brfss.columns[0], meaning=HOSTILE), *brfss.columns[1:])
    hostile = replace(
        brfss, title=HOSTILE, disclaimer=HOSTILE, columns=columns, page=replace(brfss.page, title=None)
    )
    page = render(hostile)
    assert page.count("<script") == 2
    assert "alert(1)</script>" not in page
    assert content(page)["disclaimer"] == HOSTILE


def test_a_model_of_made_up_people_says_so_before_all_else(brfss: Schema) -> None:
    """In a banner that stays in sight; a model of real people has none."""
    assert render(brfss).index('class="banner"') < render(brfss).index("<h1>")
    assert 'class="banner"' not in render(brfss, synthetic=False)


def test_questions_follow_the_schema(brfss: Schema) -> None:
    """Every column is asked for once: those that the schema lists first, in its order."""
    questions = content(render(brfss))["questions"]
    assert [question["name"] for question in questions][:2] == ["Age", "Sex"]
    assert sorted(question["name"] for question in questions) == sorted(brfss.feature_names)
    (body,) = [question for question in questions if question.get("from")]
    assert (body["name"], body["from"], body["whole"]) == ("BMI", ["height", "weight"], True)


def test_a_schema_of_another_trade_gives_a_page_without_a_word_about_it(tmp_path: Path) -> None:
    """Questions fall back to the meanings of columns, the outcome to that of the target."""
    path = tmp_path / "clinic.yaml"
    path.write_text(SCHEMA, encoding="utf-8")
    told = content(render(load(path)))
    assert [question["ask"] for question in told["questions"]] == ["Glucose", "Ward", "Stage", "Smokes"]
    assert told["outcome"] == "have the outcome (Back within a month)"
    assert told["compare"] is None


def test_every_word_is_used_and_every_used_word_is_there() -> None:
    """A translation is one more file with these keys."""
    words = set(json.loads((TEMPLATES / "page.en.json").read_text(encoding="utf-8")))
    script, markup = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.js", "page.html"))
    source = (ROOT / "steps" / "reports" / "person_page.py").read_text(encoding="utf-8")
    used = {
        *re.findall(r"\bwords\.(\w+)", script + markup),
        *re.findall(r"words\[['\"](\w+)['\"]\]", markup + source),
    }
    assert used == words


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ("{compare: glucose}", "compare 'glucose' should name a column that has subgroups"),
        ("{example: {stage: 4}}", "example: 4 is no level of stage"),
        ("{example: {glucose: 1}}", "example: 1 is outside the range of glucose"),
        ("{questions: {ward: {from: [height, weight]}}}", "from should be [height, weight]"),
        ("{questions: {ward: {whole: true}}}", "whole is for numeric columns"),
        ("{questions: {nothing: {ask: Why}}}", "nothing"),
        ("{questions: {ward: {aks: Why}}}", "aks"),
    ],
)
def test_a_slip_in_the_schema_is_named(page: str, problem: str, tmp_path: Path) -> None:
    """With the place and what would be right."""
    path = tmp_path / "clinic.yaml"
    path.write_text(f"{SCHEMA}\npage: {page}\n", encoding="utf-8")
    with pytest.raises(SchemaError) as error:
        load(path)
    assert problem in str(error.value)
