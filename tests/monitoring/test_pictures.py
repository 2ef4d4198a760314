"""`monitoring.pictures`: which pages, how small, and a real one through headless Chromium."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from monitoring import pictures
from steps.errors import UserError
from tests.conftest import require


def test_every_dashboard_is_taken_at_the_desk_and_on_a_phone() -> None:
    """High enough for all panels, so that none is left unloaded below the edge."""
    pages = {page.name: page for page in pictures.grafana_pages("http://g", "now-6h", "now", "-drift")}
    assert {"service-drift", "data-drift", "model-drift", "service-drift-phone", "alerts-drift"} <= set(pages)
    assert pages["service-drift"].height > 1500
    assert pages["service-drift"].url == "http://g/d/service?kiosk&from=now-6h&to=now"
    assert pages["data-drift-phone"].width < 500


def test_a_picture_is_made_small() -> None:
    """Few colours, same size."""
    large = io.BytesIO()
    Image.effect_noise((200, 100), 60).convert("RGB").save(large, "PNG")
    small = pictures.small_png(large.getvalue())
    assert len(small) < len(large.getvalue())
    assert Image.open(io.BytesIO(small)).size == (200, 100)


@pytest.mark.real
def test_a_page_is_taken_when_it_has_loaded(tmp_path: Path) -> None:
    """In the size asked for."""
    require("chromium")
    page = tmp_path / "page.html"
    page.write_text("<body style='background:#123456'>A page with a sentence.</body>", encoding="utf-8")
    with pictures.Browser() as browser:
        png = browser.png(pictures.Page("p", page.as_uri(), 320, 200))
    image = Image.open(io.BytesIO(png)).convert("RGB")
    assert image.size == (320, 200)
    assert image.getpixel((310, 190)) == (0x12, 0x34, 0x56)


@pytest.mark.real
def test_a_page_that_never_loads_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By its address."""
    require("chromium")
    monkeypatch.setattr(pictures, "LOAD_SECONDS", 1)
    page = tmp_path / "empty.html"
    page.write_text("", encoding="utf-8")
    with pictures.Browser() as browser, pytest.raises(UserError, match=r"empty\.html did not finish"):
        browser.png(pictures.Page("p", page.as_uri(), 320, 200))
