"""Pages as pictures: one headless Chromium, driven by Playwright."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from steps.data.errors import UserError

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

OUT = Path(__file__).resolve().parents[2] / "docs" / "pictures"
FLAGS = ("--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run")
LOAD_SECONDS = 180
COLOURS = 96
# How many checks in succession, half a second apart, must find a page fully loaded.
CALM_LOOKS = 4
# True once no panel of Grafana and no part of MLflow's pages is loading, or another page is complete.
_LOADED = """
document.readyState === 'complete' && document.body.innerText.length > 10 &&
!document.querySelector('[aria-label="Panel loading bar"], .preloader, [data-testid="Spinner"]') &&
!document.querySelector('[class*="skeleton"]')
"""


@dataclass(frozen=True)
class Page:
    """A page to take a picture of: file name, address, width and height in CSS pixels.

    With `fits` the picture is as high as the content, `height` at most; `without_right` pixels at the right
    are cut off.
    """

    name: str
    url: str
    width: int
    height: int
    fits: bool = False
    without_right: int = 0


class Browser:
    """One headless Chromium for as long as the `with` block lasts. Raises UserError if none is installed."""

    def __init__(self, authorization: str | None = None) -> None:
        self._headers = {"Authorization": authorization} if authorization else {}

    def __enter__(self) -> Browser:
        from playwright.sync_api import sync_playwright

        program = shutil.which("chromium") or shutil.which("chromium-browser")
        if program is None:
            raise UserError("chromium is not installed: apt-get install chromium")
        self._playwright = sync_playwright().start()
        self._chromium = self._playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        return self

    def __exit__(self, *_: object) -> None:
        self._chromium.close()
        self._playwright.stop()

    def png(self, page: Page) -> bytes:
        """The loaded page as a PNG. Raises UserError if it does not finish loading."""
        tab = self._chromium.new_page(
            viewport={"width": page.width, "height": page.height}, extra_http_headers=self._headers
        )
        tab.route(lambda url: not _is_of_the_same_server(url, page.url), lambda route: route.abort())
        under_way: set[Any] = set()
        tab.on("request", lambda request: under_way.add(request) if _is_waited_for(request.url) else None)
        tab.on("requestfinished", lambda request: under_way.discard(request))
        tab.on("requestfailed", lambda request: under_way.discard(request))
        try:
            tab.set_default_timeout(LOAD_SECONDS * 1000)
            tab.goto(page.url)
            _wait(tab, page.url, under_way)
            height = page.height
            if page.fits:
                content = tab.evaluate("Math.ceil(document.body.getBoundingClientRect().height)")
                height = min(height, int(content))
                tab.set_viewport_size({"width": page.width, "height": height})
            width = page.width - page.without_right
            return tab.screenshot(clip={"x": 0, "y": 0, "width": width, "height": height})
        finally:
            tab.close()

    def save(self, page: Page, folder: Path) -> Path:
        """Take a picture of the page and write it, with few colours, into a folder under the page's name."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{page.name}.png"
        file.write_bytes(small_png(self.png(page)))
        return file


def _is_of_the_same_server(url: str, page: str) -> bool:
    """Whether a page may ask for an address: no picture depends on what lies elsewhere."""
    return urlsplit(url)[:2] == urlsplit(page)[:2] or not url.startswith("http")


def _is_waited_for(url: str) -> bool:
    """Whether a page is not complete before this has come; of a worker's script no end is reported."""
    return not url.endswith(".worker.js")


def _wait(tab: Tab, url: str, under_way: Collection[Any]) -> None:
    """Until the page has loaded, and waits for nothing in several looks."""
    until, calm = time.monotonic() + LOAD_SECONDS, 0
    while calm < CALM_LOOKS:
        if time.monotonic() > until:
            raise UserError(f"{url} did not finish to load in {LOAD_SECONDS} s")
        tab.wait_for_timeout(500)
        calm = calm + 1 if not under_way and tab.evaluate(_LOADED) is True else 0


def small_png(png: bytes) -> bytes:
    """The picture with few colours, which suffice for pages and keep the repository small."""
    from PIL import Image

    buffer = io.BytesIO()
    reduced = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    reduced.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
