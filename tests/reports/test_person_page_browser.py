"""One person's page in a real browser: by keyboard, without a network, readable, and as exact as Python."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steps.data.schema import Schema
from steps.data.schema_file import load
from steps.models.served_model import Terms
from steps.models.terms import to_document
from steps.reports.person_page import PageFacts, render_page
from tests.conftest import ROOT, require
from tests.made_up.clinic import SCHEMA
from tests.made_up.glass_box import evaluated, glass_box, people

pytestmark = pytest.mark.real
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
ROWS = 10_000


@pytest.fixture(scope="module")
def brfss() -> Schema:
    return load(ROOT / "data" / "brfss2015.yaml")


@pytest.fixture(scope="module")
def box(brfss: Schema) -> Terms:
    return glass_box(brfss)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    executable = require("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield started
        started.close()


def write(folder: Path, schema: Schema, terms: Terms, *, additive: bool = True) -> Path:
    """The page as a file."""
    document = to_document(terms) if additive else None
    facts = PageFacts(schema.name, "7", True, document, datetime(2026, 1, 2, tzinfo=UTC))
    path = folder / "risk.html"
    path.write_text(render_page(schema, evaluated(schema, terms), facts), encoding="utf-8")
    return path


@contextmanager
def opened(browser: Any, address: str, **settings: Any) -> Iterator[tuple[Any, list[str], list[str]]]:
    """The page, the addresses that it asked for, and what went wrong."""
    context = browser.new_context(**settings)
    page = context.new_page()
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.goto(address)
    yield page, asked, faults
    context.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, brfss: Schema, box: Terms) -> str:
    return write(tmp_path_factory.mktemp("page"), brfss, box).as_uri()


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]


@pytest.mark.parametrize("trade", ["survey", "clinic"])
def test_risk_and_reasons_are_pythons(browser: Any, trade: str, brfss: Schema, tmp_path: Path) -> None:
    """On rows of every kind: answered, missing, never seen, out of range; a schema with text as well."""
    schema = brfss
    if trade == "clinic":
        (tmp_path / "clinic.yaml").write_text(SCHEMA, encoding="utf-8")
        schema = load(tmp_path / "clinic.yaml")
    terms = glass_box(schema, seed=5)
    frame = people(schema, ROWS, seed=6)
    with opened(browser, write(tmp_path, schema, terms).as_uri()) as (page, _, faults):
        found = page.evaluate(
            """rows => {
                const { compute } = riskPage.model(riskPage.page.terms);
                return rows.map(row => {
                    const { risk, reasons } = compute(row);
                    return [risk, ...reasons.map(reason => reason.effect)];
                });
            }""",
            records(frame),
        )
    assert faults == []
    answered = np.array(found)
    assert np.abs(answered[:, 0] - terms.risk(frame)).max() <= 1e-12
    assert np.abs(answered[:, 1:] - terms.effects(terms.bins(frame))).max() <= 1e-12


def test_by_keyboard_alone_with_the_network_off(browser: Any, address: str) -> None:
    """Tab, arrows, space and digits answer every question; the result follows, and nothing is asked for."""
    with opened(browser, address, offline=True) as (page, asked, faults):
        page.focus("#clear")
        questions = page.evaluate("riskPage.page.questions")
        for question in questions:
            page.keyboard.press("Tab")
            if question["kind"] == "levels":
                page.keyboard.press("ArrowRight")  # from "not asked" round to the first level
            else:
                for part in question["from"] or ["number"]:
                    page.keyboard.type({"height": "170", "weight": "80", "number": "5"}[part])
                    page.keyboard.press("Tab")
        text = page.inner_text("#status")
        assert re.search(r"of 100 people with these answers have been told", text), text
        assert "Not answered" not in page.inner_text("#detail")
        assert "body mass index: 28" in page.inner_text("#questions")
    assert asked == [address]
    assert faults == []


def test_a_number_out_of_range_is_said_and_counts_as_open(browser: Any, address: str) -> None:
    """With the range, tied to its field for a screen reader; no risk is computed of it."""
    with opened(browser, address) as (page, _, _):
        page.click("#example")
        field = page.get_by_label("days").first
        field.fill("31")
        described = str(field.get_attribute("aria-describedby")).split()
        assert field.get_attribute("aria-invalid") == "true"
        told = " ".join(page.inner_text(f"#{name}") for name in described)
        assert "Please give a number from 0 to 30." in told
        assert "Not answered: days of poor physical health" in page.inner_text("#detail")


def test_too_many_open_questions_give_no_risk(browser: Any, address: str) -> None:
    """The model was never asked about somebody who gave three of 21 answers."""
    with opened(browser, address) as (page, _, _):
        assert "21 questions are open" in page.inner_text("#status")
        page.click("#example")
        assert "of 100 people" in page.inner_text("#status")
        page.click("#clear")
        assert "21 questions are open" in page.inner_text("#status")


def test_a_required_answer_is_asked_for_by_name(
    browser: Any, brfss: Schema, box: Terms, tmp_path: Path
) -> None:
    """Without it there is no risk, as the guard and `score` refuse such a row."""
    columns = tuple(replace(one, required=one.name == "Age") for one in brfss.columns)
    path = write(tmp_path, replace(brfss, columns=columns), box)
    with opened(browser, path.as_uri()) as (page, _, _):
        page.click("#example")
        assert "of 100 people" in page.inner_text("#status")
        page.get_by_role("group", name="How old are you? (has to be answered)").get_by_label(
            "not asked"
        ).check()
        assert "these are answered: age" in page.inner_text("#status")


@pytest.mark.parametrize("width", [320, 768, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out(browser: Any, address: str, width: int, scheme: Any) -> None:
    """axe finds nothing before, with and after an answer; nothing is wider than the screen."""
    from axe_playwright_python.sync_playwright import Axe

    settings = {
        "viewport": {"width": width, "height": 800},
        "color_scheme": scheme,
        "reduced_motion": "reduce",
    }
    # axe is a script, and the page's own policy would refuse it.
    with opened(browser, address, bypass_csp=True, **settings) as (page, _, _):
        for prepare in (
            lambda: None,
            lambda: page.click("#example"),
            lambda: page.get_by_label("days").first.fill("99"),
            lambda: page.click("details summary"),
        ):
            prepare()
            found = Axe().run(page).response["violations"]
            assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
            assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_is_readable_at_twice_the_size(browser: Any, address: str) -> None:
    """200 % zoom of a 1,280 pixel screen leaves 640 pixels: nothing is cut off."""
    with opened(browser, address, viewport={"width": 640, "height": 400}, device_scale_factor=2) as (
        page,
        _,
        _,
    ):
        page.click("#example")
        assert page.evaluate("document.documentElement.scrollWidth") <= 640


def test_it_prints_on_one_page(browser: Any, address: str) -> None:
    """The answer, its reasons and the answers given, without the form."""
    with opened(browser, address) as (page, _, _):
        page.click("#example")
        printed = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 1


def test_its_policy_stops_a_script_and_a_request_of_anybody_else(browser: Any, address: str) -> None:
    """Even if somebody got markup into the page: the script does not run, and nothing reaches a server."""
    with listening(lambda handler: None) as (server, reached):
        with opened(browser, address) as (page, _, faults):
            page.evaluate(
                """address => {
                    const script = document.createElement("script");
                    script.textContent = "document.title = 'taken over'";
                    document.body.append(script);
                    const image = new Image();
                    image.src = address + "x.png";
                    document.body.append(image);
                    return fetch(address).catch(() => null);
                }""",
                server,
            )
            assert page.title() != "taken over"
        assert reached == []
        assert len([fault for fault in faults if "Content Security Policy" in fault]) >= 3


@contextmanager
def listening(
    answer: Callable[[http.server.BaseHTTPRequestHandler], None],
) -> Iterator[tuple[str, list[str]]]:
    """A server on loopback: its address, and the requests that reached it."""
    reached: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reached.append(f"{self.command} {self.path}")
            answer(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", reached
        finally:
            server.shutdown()


def send(handler: http.server.BaseHTTPRequestHandler, content: bytes, kind: str) -> None:
    """Answer with 200."""
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def test_another_family_is_asked_of_the_service_that_the_page_came_from(
    browser: Any, brfss: Schema, box: Terms, tmp_path: Path
) -> None:
    """With the answers in MLflow's own form; from a file the page says that it needs the service."""
    file = write(tmp_path, brfss, box, additive=False)
    bodies: list[Any] = []

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.command == "GET":
            send(handler, file.read_bytes(), "text/html; charset=utf-8")
        else:
            bodies.append(json.loads(handler.rfile.read(int(handler.headers["Content-Length"]))))
            send(handler, b'{"predictions": [[0.75, 0.25]]}', "application/json")

    with listening(answer) as (server, reached), opened(browser, server) as (page, _, faults):
        page.click("#example")
        page.wait_for_selector("#status .big")
        assert "About 25 of 100 people" in page.inner_text("#status")
        assert "gives no reasons" in page.inner_text("#detail")
    assert reached == ["GET /", "POST /invocations"]
    assert faults == []
    split = bodies[-1]["dataframe_split"]
    assert dict(zip(split["columns"], split["data"][0], strict=True))["BMI"] == 31
    with opened(browser, file.as_uri()) as (page, _, _):
        page.click("#example")
        assert "has to be opened from the service" in page.inner_text("body")
