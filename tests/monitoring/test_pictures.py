"""`docs.tools`: which pages are taken, when, and how small they are."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from docs.tools import browser, grafana_pictures, terminal
from steps.data.errors import UserError
from tests.conftest import require


def test_every_dashboard_is_taken_at_the_desk_and_on_a_phone() -> None:
    """High enough for all panels, so that none is left unloaded below the edge."""
    pages = {
        page.name: page for page in grafana_pictures.grafana_pages("http://g", "now-6h", "now", "-drift")
    }
    assert {"service-drift", "data-drift", "model-drift", "service-drift-phone", "alerts-drift"} <= set(pages)
    assert pages["service-drift"].height > 1500
    assert (
        pages["service-drift"].url == "http://g/d/service?kiosk&_dash.hideTimePicker=true&from=now-6h&to=now"
    )
    assert pages["data-drift-phone"].width < 500
    chosen = grafana_pictures.grafana_pages(
        "http://g", "now-6h", "now", "", chosen="var-one=BMI&var-window=1h"
    )
    assert chosen[0].url.endswith("&from=now-6h&to=now&var-one=BMI&var-window=1h")


def test_an_alert_is_taken_by_its_title() -> None:
    """On the page of its rule; one that does not exist is explained."""
    pages = {
        page.name: page
        for page in grafana_pictures.grafana_pages("http://g", "now-6h", "now", "", ["Model down"])
    }
    assert pages["alert-model-down"].url == "http://g/alerting/grafana/model-down/view?tab=instances&kiosk"
    with pytest.raises(UserError, match="no alert 'Modell down'; there are: Calibration, "):
        grafana_pictures.grafana_pages("http://g", "now-6h", "now", "", ["Modell down"])


def test_prometheus_pages_end_where_the_dashboards_do(tmp_path: Path) -> None:
    """The graphs of a past show that past; Prometheus is asked once, for where its pages are."""
    (tmp_path / "index.html").write_text("Prometheus", encoding="utf-8")
    url = (tmp_path / "index.html").as_uri()
    pages = {
        page.name: page.url for page in grafana_pictures.prometheus_pages(url, "3d", "1795561200000", "-x")
    }
    assert {"prometheus-targets-x", "prometheus-rules-x", "prometheus-rate-x"} <= set(pages)
    assert "&g0.range_input=3d&g0.end_input=2026-11-24+23%3A00" in pages["prometheus-roc-auc-x"]
    now = {page.name: page.url for page in grafana_pictures.prometheus_pages(url, "1h", "now", "")}
    assert "end_input" not in now["prometheus-roc-auc"]


MAIL = b"""From: "Grafana" <grafana@example.org>
To: oncall@example.org
Subject: [CRITICAL] Model <down>
MIME-Version: 1.0
Content-Type: text/html; charset=UTF-8
Content-Transfer-Encoding: quoted-printable

<html><body><p style=3D"height:300px">Nothing for 2=C2=A0minutes.</p></body></html>
"""


def test_a_mail_is_shown_with_its_headers(tmp_path: Path) -> None:
    """Decoded and escaped, and nothing is fetched for it."""
    mail = tmp_path / "model-down.eml"
    mail.write_bytes(MAIL)
    page = grafana_pictures.mail_page(mail, tmp_path)
    assert page.name == "mail-model-down"
    shown = (tmp_path / "model-down.html").read_text(encoding="utf-8")
    assert page.url == (tmp_path / "model-down.html").as_uri()
    assert "[CRITICAL] Model &lt;down&gt;" in shown
    assert "Grafana &lt;grafana@example.org&gt;" in shown
    assert "Nothing for 2\u00a0minutes." in shown
    assert "default-src 'none'" in shown


def test_a_file_that_is_no_mail_is_explained(tmp_path: Path) -> None:
    """By its name."""
    (tmp_path / "notes.eml").write_text("just words", encoding="utf-8")
    with pytest.raises(UserError, match=r"notes\.eml is no mail with an HTML part"):
        grafana_pictures.mail_page(tmp_path / "notes.eml", tmp_path)


def test_a_terminal_shows_commands_and_what_they_print() -> None:
    """In their order, both streams, as text."""
    page = terminal.transcript(["echo '<one>' >&2", "expr 1 + 1"])
    assert page.index("<b>echo &#x27;&lt;one&gt;&#x27; &gt;&amp;2</b>\n&lt;one&gt;\n") < page.index(
        "expr 1 + 1"
    )
    assert page.index("expr 1 + 1") < page.index("\n2\n")


def test_a_terminal_in_which_a_command_fails_is_not_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its end says why."""
    assert terminal.main(["answer", "echo nobody answers; exit 7", "--out", str(tmp_path)]) == 1
    assert "ended with 7: nobody answers" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_made_small() -> None:
    """Few colours, same size."""
    large = io.BytesIO()
    Image.effect_noise((200, 100), 60).convert("RGB").save(large, "PNG")
    small = browser.small_png(large.getvalue())
    assert len(small) < len(large.getvalue())
    assert Image.open(io.BytesIO(small)).size == (200, 100)


@pytest.mark.real
def test_a_page_is_taken_when_it_has_loaded(tmp_path: Path) -> None:
    """In the size asked for."""
    require("chromium")
    page = tmp_path / "page.html"
    page.write_text("<body style='background:#123456'>A page with a sentence.</body>", encoding="utf-8")
    with browser.Browser() as chromium:
        png = chromium.png(browser.Page("p", page.as_uri(), 320, 200))
    image = Image.open(io.BytesIO(png)).convert("RGB")
    assert image.size == (320, 200)
    assert image.getpixel((310, 190)) == (0x12, 0x34, 0x56)


@pytest.mark.real
def test_a_page_that_never_loads_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By its address."""
    require("chromium")
    monkeypatch.setattr(browser, "LOAD_SECONDS", 1)
    page = tmp_path / "empty.html"
    page.write_text("", encoding="utf-8")
    with browser.Browser() as chromium, pytest.raises(UserError, match=r"empty\.html did not finish"):
        chromium.png(browser.Page("p", page.as_uri(), 320, 200))


@pytest.mark.real
def test_a_page_that_fits_is_as_high_as_its_content(tmp_path: Path) -> None:
    """A mail with a paragraph of 300 pixels has no empty half, and no page is higher than asked for."""
    require("chromium")
    mail = tmp_path / "m.eml"
    mail.write_bytes(MAIL)
    page = grafana_pictures.mail_page(mail, tmp_path)
    with browser.Browser() as chromium:
        whole, part = chromium.png(page), chromium.png(replace(page, height=150))
    assert 400 < Image.open(io.BytesIO(whole)).height < 600
    assert Image.open(io.BytesIO(part)).height == 150


@pytest.mark.real
def test_a_terminal_is_taken(tmp_path: Path) -> None:
    """By one command."""
    require("chromium")
    assert terminal.main(["answer", "echo one", "--out", str(tmp_path)]) == 0
    with Image.open(tmp_path / "answer.png") as picture:
        assert picture.width == terminal.WIDTH
        assert picture.height < 100
