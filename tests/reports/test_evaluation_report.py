"""The report and the card say what matters, to everybody, and load nothing."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from steps.data.schema import Card, OpenQuestion
from steps.measures import comparison, evaluation, promotion
from steps.measures.comparison import compare
from steps.measures.evaluation_document import DataFacts, Evaluation, ModelFacts, Part, TermSize
from steps.measures.point_scores import TrainingRows
from steps.measures.scored_rows import scored_rows
from steps.reports import checklists
from steps.reports import evaluation as report
from tests.conftest import require
from tests.made_up import made_up_study as study


def _evaluate(rows: Any = None, **about: Any) -> Evaluation:
    y, risk, frame = rows or study.rows()
    frame.loc[7, "noise"] = frame.loc[8, "dose"] = 123.456789
    train_y, _, train = study.rows(900, seed=5)
    return evaluation.evaluate(
        scored_rows(y, risk, frame),
        study.SCHEMA,
        0.3,
        evaluation.Bootstrap(1, 30),
        about=evaluation.About(**about),
        predict=study.predict,
        training=TrainingRows(train_y, train),
    )


@pytest.fixture(scope="module")
def measured() -> Evaluation:
    about = ModelFacts(
        family="logistic_regression",
        trained_at=0,
        role="tuned",
        recall_target=0.8,
        hyperparameters={"C": 0.1},
    )
    parts = tuple(Part(name, 1500, 500) for name in ("train", "validation", "test"))
    return _evaluate(
        model=about, data=DataFacts(1500, 500, 1 / 3, "public", parts=parts), threshold_chosen_on=90
    )


def _requirements() -> tuple[promotion.Finding, ...]:
    y, risk, _ = study.rows()
    change = promotion.Against("the champion", comparison.compare(y, risk, risk[::-1], 0.3, {}))
    return promotion.judge(comparison.measure(y, risk, {}), change, None, study.SCHEMA.gates, 1).findings


@pytest.fixture(scope="module")
def page(measured) -> str:
    return report.render_report([measured, measured], requirements=_requirements())


@pytest.fixture(scope="module")
def card(measured) -> str:
    return report.render_card(measured, requirements=_requirements())


class _Elements(HTMLParser):
    """Every start tag with its attributes, and tags that are never closed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img", "link", "input", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _elements(page: str) -> _Elements:
    parser = _Elements()
    parser.feed(page)
    parser.close()
    return parser


def test_the_page_asks_for_nothing_from_anywhere(page):
    """No script, no link to load, no address but those of the SVG namespaces."""
    elements = _elements(page).found
    assert not {tag for tag, _ in elements} & {"script", "link", "img", "iframe", "object", "embed"}
    for _, attributes in elements:
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    assert not re.findall(r"@import|url\((?!#)", page)
    assert set(re.findall(r"https?://[^\s\"<]+", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_the_page_is_well_formed_and_its_anchors_and_ids_are_single(page):
    """Tags close in order, no id stands twice, every inner link and label has its target."""
    elements = _elements(page)
    assert elements.open == []
    ids = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements.found:
        for wanted in (
            attributes.get("href"),
            attributes.get("xlink:href"),
            attributes.get("aria-labelledby"),
        ):
            assert wanted is None or wanted.lstrip("#") in ids
    for wanted in re.findall(r"url\(#([^)]+)\)", page):
        assert wanted in ids


def test_every_picture_is_valid_and_has_words_for_those_who_cannot_see_it(page):
    """Each SVG parses alone and carries a label, or is hidden where the number stands beside it."""
    pictures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(pictures) >= 8
    for picture in pictures:
        root = ElementTree.fromstring(picture)
        assert root.get("aria-label") or root.get("aria-hidden") == "true"


def test_the_report_leads_with_what_matters(page):
    """ROC AUC, calibration and net benefit come before accuracy, which says why it does not lead."""
    order = [
        page.index(text)
        for text in (
            "In plain words",
            ">ROC AUC<",
            "Net benefit",
            ">Brier score<",
            ">Average precision<",
            ">Accuracy<",
        )
    ]
    assert order == sorted(order)
    assert "Why average precision, accuracy and F1 stand last" in page
    assert "High dose" in page[: page.index(">Calibration<")]


def test_the_plain_words_are_the_figures(page, measured):
    """Of 1,000 people: flagged, found and missed as evaluated."""
    counts = measured.per_1000
    assert f"the model flags <b>{counts.flagged}</b>" in page
    assert f"{counts.false_negatives} are missed" in page


def test_report_and_card_carry_the_disclaimer_and_that_rows_are_unweighted(page, card):
    """What the number is, and what it is not, stands in both."""
    for text in (page, card):
        assert "Estimated probability of a recorded readmission; made up." in text
        assert "unweighted" in text


def test_suppressed_groups_are_named_without_figures(page, card):
    """Who is not shown, and why."""
    for text in (page, card):
        assert "Not shown: " in text
        assert "fewer than 10 people" in text


def test_what_the_schema_says_is_escaped(page, card):
    """Signs of markup in a schema are text in the page and do not break the card's tables."""
    assert "<the>" not in page
    assert "&lt;one&gt;" in page
    assert "Ward \\| of" in card


def test_a_planted_value_is_in_neither(page, card):
    """No row's value reaches a reader."""
    assert "123.45" not in page
    assert "123.45" not in card


def test_synthetic_data_are_announced_everywhere_and_real_ones_nowhere(page, card):
    """Banner, title, heading, limits and footer; title and first lines of the card."""
    made_up = _evaluate(data=DataFacts(1500, 500, 1 / 3, "synthetic"))
    synthetic = report.render_report([made_up])
    for part in (
        'class="banner"',
        "(synthetic data)</title>",
        "test rows of synthetic people",
        "<footer><strong>Synthetic",
    ):
        assert part in synthetic
    assert "(synthetic data)" in report.render_card(made_up).splitlines()[0]
    assert 'class="banner"' not in page
    assert "ynthetic" not in card


def test_other_models_and_requirements_stand_in_the_report_when_given(measured):
    """Sections appear with their content only."""
    full = report.render_report([measured, measured], requirements=_requirements())
    bare = report.render_report([measured])
    for section in ('id="others"', 'id="promotion"', "change of ROC AUC against the champion"[1:]):
        assert section in full
        assert section not in bare


def test_an_evaluation_without_scores_groups_and_importance_renders(measured):
    """A schema need not have them."""
    plain = replace(measured, point_scores=(), subgroups=(), hidden_subgroups=(), importance=None)
    page = report.render_report([plain])
    assert 'id="scores"' not in page
    assert "The schema names no subgroups" in page
    assert "## Subgroups" not in report.render_card(plain)


@pytest.mark.parametrize("risk", [0.0, 0.2, None])
def test_a_tiny_split_or_a_useless_model_still_renders(risk):
    """Undefined figures are dashes: a constant risk has no calibration slope, 30 rows show no subgroup."""
    y, true_risk, frame = study.rows(30)
    risks = true_risk if risk is None else np.full(30, risk)
    tiny = _evaluate((y, risks, frame))
    page = report.render_report([tiny])
    assert "nan" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL).lower()
    assert "None" not in page
    assert "None" not in report.render_card(tiny)


def test_rendering_again_gives_the_same_bytes(measured, page, card):
    """No clock and no chance in the pictures."""
    assert report.render_report([measured, measured], requirements=_requirements()) == page
    assert report.render_card(measured, requirements=_requirements()) == card


def test_the_card_holds_the_record_of_change(measured):
    """A line an attempt, and what would break a table is harmless."""
    line = ("2026-11-27 10:00", "data", "attempt 2", "-0.001", "promoted, approved by a|b: why")
    card = report.render_card(measured, history=[line])
    assert "| 2026-11-27 10:00 | data | attempt 2 | -0.001 | promoted, approved by a\\|b: why |" in card
    assert "## Record of change" not in report.render_card(measured)


def test_a_report_needs_an_evaluation():
    """Nothing to show is an error."""
    with pytest.raises(ValueError, match="at least one"):
        report.render_report([])


def _led_nowhere(page: str) -> set[str]:
    """Places that the checklists claim and the page does not have."""
    return checklists.anchors() - {a["id"] for _, a in _elements(page).found if "id" in a}


def test_every_item_of_the_checklists_leads_somewhere(page):
    """What is claimed has a place in the report; what only a person can answer needs a text of the card."""
    assert not _led_nowhere(page)
    for item in (*checklists.TRIPOD_AI, *checklists.PROBAST_AI):
        if item.needs:
            assert item.anchors, item
            assert item.needs in Card.__dataclass_fields__


def test_without_its_section_a_claim_of_the_checklists_is_found_out(page):
    """Each section is removed in turn: the claimed places that it holds are missed, and no other."""
    sections = re.findall(r"<section.*?</section>", page, flags=re.DOTALL)
    lost = set()
    for section in sections:
        claimed = set(re.findall(r'id="([^"]+)"', section)) & checklists.anchors()
        assert _led_nowhere(page.replace(section, "")) == claimed
        lost |= claimed
    assert lost == checklists.anchors() - {"title"}


def test_what_nobody_has_written_is_said(page, measured):
    """Without a text of the card, an item is marked for a person; with it, it is linked."""
    assert not measured.schema.card.funding
    assert re.search(r"18a</th>.*?for a person to write", page, flags=re.DOTALL)
    card = Card(funding="Nobody paid for this.")
    funded = replace(measured, schema=replace(measured.schema, card=card))
    text = report.render_report([funded])
    assert re.search(r'18a</th><td[^>]*>Funding</td><td[^>]*><a href="#declarations">', text)
    assert "Nobody paid for this." in text
    assert "Nobody paid for this." in report.render_card(funded)


def test_a_glass_box_is_shown_by_its_terms_and_says_what_its_preference_cost(measured):
    """The largest terms with their sizes in report and card, in place of shuffled answers."""
    terms = (TermSize(("dose",), 0.71), TermSize(("dose", "ward"), 0.04))
    model = replace(measured.model, family="explainable_boosting", preference="kept at a cost of +0.00012")
    glass = replace(measured, terms=terms, importance=None, model=model)
    page, card = report.render_report([glass]), report.render_card(glass)
    for text in (page, card):
        assert "kept at a cost of +0.00012" in text
        assert "dose and ward" in text
        assert "0.710" in text
        assert "shuffled" not in text
    assert 'href="terms.html"' in page


def test_how_rows_were_divided_follows_the_schema(measured, page, card):
    """By their values, or by the person where a column names one."""
    by_person = replace(measured, schema=replace(measured.schema, by_person=True))
    for text, other in (
        (page, report.render_report([by_person])),
        (card, report.render_card(by_person)),
    ):
        assert "hash of the values" in text or "hash of their values" in text
        assert "hash of the person" in other
        assert "of the values" not in other
        assert "of their values" not in other


def test_chance_is_beside_e50_and_e90(measured, page, card):
    """They have no interval, and that is said."""
    chance = measured.curves.smooth_calibration.e50_by_chance
    assert chance is not None
    for text in (page, card):
        assert f"{100 * chance:.2f}" in text
        assert "by chance" in text.lower()
    assert "no interval, as chance can only add to a distance" in page


def test_not_a_forecast_is_said_only_where_the_schema_says_so(page, card, measured):
    """A study that follows people up is one."""
    assert "Not a forecast" not in page + card
    schema = replace(measured.schema, card=Card(cross_sectional=True))
    crossed = replace(measured, schema=schema)
    assert "Not a forecast" in report.render_report([crossed])
    assert "Not a forecast" in report.render_card(crossed)


def test_what_fairness_cannot_be_judged_by_is_named(measured):
    """Characteristics that are not in the data stand in report and card."""
    lacking = replace(measured, schema=replace(measured.schema, lacks=("shoe size",)))
    assert "Shoe size" in report.render_report([lacking])
    assert "shoe size" in report.render_card(lacking)


def test_the_other_model_of_a_chain_is_compared_on_the_same_rows(measured):
    """Differences are paired, with their intervals; without a comparison nothing is claimed."""
    y, risk, _ = study.rows()
    change = compare(y, risk, np.clip(risk + 0.1, 0, 1), 0.3, {})
    page = report.render_report([measured, measured], paired=change)
    assert "paired on the same rows: ROC AUC 0.0000" in page
    assert "log loss −" in page
    assert "paired on the same rows" not in report.render_report([measured, measured])


@pytest.mark.real
@pytest.mark.parametrize("width", [500, 1200])
def test_the_page_fits_a_window(page, tmp_path: Path, width: int):
    """In a real browser the page is never wider than its window: only tables scroll, each within itself."""
    chromium = require("chromium")
    probe = (
        "<script>document.title = document.documentElement.scrollWidth - window.innerWidth</script></body>"
    )
    (tmp_path / "page.html").write_text(page.replace("</body>", probe), encoding="utf-8")
    flags = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    )
    command = [chromium, *flags, "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", "--dump-dom"]
    answer = subprocess.run(
        [*command, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert "<title>0</title>" in answer.stdout


def test_report_and_card_say_what_a_missing_answer_costs(measured: Evaluation, page: str, card: str) -> None:
    """A line for every column, and in plain words what the table is not right for."""
    assert measured.missing_answers is not None
    assert len(measured.missing_answers.entries) >= len(measured.features)
    for text in (page, card):
        assert "One answer missing" in text
        assert "skip questions for reasons" in text
        assert all(entry.columns[0] in text for entry in measured.missing_answers.entries)


def test_open_questions_of_a_draft_are_said_without_their_texts(
    measured: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Report and card name how many and about what; a question may quote a value, so its text stays away."""
    assert "draft" not in report.render_report([measured]) + report.render_card(measured)
    asked = (
        OpenQuestion("dose", "May 999 mean no answer?"),
        OpenQuestion("ward", "Have the levels an order?"),
    )
    monkeypatch.setattr(study, "SCHEMA", replace(study.SCHEMA, open_questions=asked))
    draft = _evaluate()
    for text in (report.render_report([draft]), report.render_card(draft)):
        assert "a draft with 2 questions that only a person can answer, about dose, ward" in text
        assert "999 mean" not in text
