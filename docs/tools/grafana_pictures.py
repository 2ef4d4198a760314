"""Pictures of dashboards, alerts, their notifications and Prometheus' pages, through headless Chromium.

    python -m docs.tools.grafana_pictures --grafana http://127.0.0.1:3000 --prometheus http://127.0.0.1:9090
    python -m docs.tools.grafana_pictures --grafana http://127.0.0.1:3000 --alert "Model down" --only alert
    python -m docs.tools.grafana_pictures --mail model-down.eml

Chromium is spoken to over a pair of pipes (the DevTools protocol), so nothing but it is needed.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import email
import email.message
import email.policy
import html
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from monitoring.grafana import lint
from steps.data.errors import UserError

OUT = Path(__file__).resolve().parents[2] / "docs" / "pictures"
ROW_PIXELS, HEAD_PIXELS = 38, 96
COLOURS = 96
LOAD_SECONDS = 90
DESK, PHONE = 1440, 420
MAIL_WIDTH, MAIL_HEIGHT = 680, 1200
# True once no panel of Grafana is loading, or a page without panels is complete.
_LOADED = """
document.readyState === 'complete' && document.body.innerText.length > 10 &&
!document.querySelector('[aria-label="Panel loading bar"], .preloader, [data-testid="Spinner"]')
"""


@dataclass(frozen=True)
class Page:
    """A page to take: file name, address, width and height in CSS pixels.

    One that `fits` is taken as high as its content is, `height` at most.
    """

    name: str
    url: str
    width: int
    height: int
    fits: bool = False


class Browser:
    """One headless Chromium for as long as the `with` block lasts."""

    def __init__(self, authorization: str | None = None) -> None:
        self._authorization = authorization
        self._number = 0
        self._rest = b""

    def __enter__(self) -> Browser:
        program = shutil.which("chromium") or shutil.which("chromium-browser")
        if program is None:
            raise UserError("chromium is not installed: apt-get install chromium")
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()

        def pipes() -> None:
            read, write = os.dup(to_browser), os.dup(from_browser)
            os.dup2(read, 3)
            os.dup2(write, 4)

        self._process = subprocess.Popen(
            [
                program,
                *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
                *("--disable-background-networking", "--remote-debugging-pipe"),
                f"--user-data-dir={self._profile.name}",
            ],
            preexec_fn=pipes,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._call("Browser.close")
        self._process.terminate()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)
        self._profile.cleanup()

    def png(self, page: Page) -> bytes:
        """The page as a PNG, when it has loaded; UserError if it never does."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._resize(session, page.width, page.height)
        self._call("Network.enable", session)
        if self._authorization:
            headers = {"Authorization": self._authorization}
            self._call("Network.setExtraHTTPHeaders", session, headers=headers)
        self._call("Page.enable", session)
        self._call("Page.navigate", session, url=page.url)
        self._wait(session, page.url)
        if page.fits:
            content = self._evaluate(session, "Math.ceil(document.body.getBoundingClientRect().height)")
            self._resize(session, page.width, min(page.height, int(content)))
        shot = self._call("Page.captureScreenshot", session, format="png")["data"]
        self._call("Target.closeTarget", targetId=target)
        return base64.b64decode(shot)

    def _resize(self, session: str, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self._call("Emulation.setDeviceMetricsOverride", session, mobile=False, **size)

    def _evaluate(self, session: str, expression: str) -> Any:
        return self._call("Runtime.evaluate", session, expression=expression)["result"].get("value")

    def _wait(self, session: str, url: str) -> None:
        until, calm = time.monotonic() + LOAD_SECONDS, 0
        while calm < 4:
            if time.monotonic() > until:
                raise UserError(f"{url} did not finish to load in {LOAD_SECONDS} s")
            time.sleep(0.5)
            calm = calm + 1 if self._evaluate(session, _LOADED) is True else 0

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        for answer in self._messages():
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise UserError(f"Chromium refuses {method}: {answer['error'].get('message')}")
                return dict(answer["result"])
        raise UserError("Chromium ended before it answered")

    def _messages(self) -> Iterator[dict[str, Any]]:
        while True:
            while b"\0" in self._rest:
                first, _, self._rest = self._rest.partition(b"\0")
                yield json.loads(first)
            part = os.read(self._read, 1 << 20)
            if not part:
                return
            self._rest += part


def small_png(png: bytes) -> bytes:
    """The same picture with few colours: dashboards need no more, and repositories keep every byte."""
    from PIL import Image

    out = io.BytesIO()
    reduced = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    reduced.save(out, "PNG", optimize=True)
    return out.getvalue()


def grafana_pages(
    url: str, since: str, until: str, suffix: str, titles: Sequence[str] = (), chosen: str = ""
) -> list[Page]:
    """Each dashboard at the desk, its top on a phone, the list of alerts, and the pages of some alert rules.

    `chosen` are values of the dashboards' variables as their addresses hold them, such as var-window=1h.
    Raises UserError if there is no rule of a title.
    """
    pages = []
    for board in lint.read().dashboards.values():
        if board["uid"] == "runbook":
            continue
        address = f"{url}/d/{board['uid']}?kiosk&_dash.hideTimePicker=true&from={since}&to={until}"
        address += f"&{chosen}" if chosen else ""
        rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
        pages.append(Page(f"{board['uid']}{suffix}", address, DESK, rows * ROW_PIXELS + HEAD_PIXELS))
        pages.append(Page(f"{board['uid']}{suffix}-phone", address, PHONE, 1400))
    pages.append(Page(f"alerts{suffix}", f"{url}/alerting/list?search=state:firing", DESK, 900))
    known = {rule["title"]: rule["uid"] for _, rule in lint.read().rules()}
    for title in titles:
        if title not in known:
            raise UserError(f"there is no alert {title!r}; there are: {', '.join(sorted(known))}")
        uid = known[title]
        address = f"{url}/alerting/grafana/{uid}/view?tab=instances&kiosk"
        pages.append(Page(f"alert-{uid}{suffix}", address, DESK, 640))
    return pages


def mail_page(mail: Path, folder: Path) -> Page:
    """A mail as its reader sees it, headers above, as an HTML file in a folder; nothing is fetched for it.

    Raises UserError if the file is no mail with an HTML part.
    """
    message = email.message_from_bytes(mail.read_bytes(), policy=email.policy.default)
    body = message.get_body(("html",)) if isinstance(message, email.message.EmailMessage) else None
    if body is None:
        raise UserError(f"{mail} is no mail with an HTML part: give one as it was received (.eml)")
    headers = "".join(
        f"<div><b style='display:inline-block;width:5em'>{name}</b>{html.escape(str(message[name]))}</div>"
        for name in ("From", "To", "Date", "Subject")
    )
    file = folder / f"{mail.stem}.html"
    file.write_text(
        "<!doctype html><meta charset='utf-8'>"
        "<meta http-equiv='Content-Security-Policy'"
        " content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        "<style>body {margin: 0; background: #fff}</style>"
        "<div style='font: 14px/1.6 sans-serif; padding: 12px 24px; background: #eef0f3'>"
        f"{headers}</div>{body.get_content()}",
        encoding="utf-8",
    )
    return Page(f"mail-{mail.stem}", file.as_uri(), MAIL_WIDTH, MAIL_HEIGHT, fits=True)


def prometheus_pages(url: str, span: str, until: str, suffix: str) -> list[Page]:
    """Targets, rules, and a graph each of request rate, latency, evidence and ROC AUC.

    The graphs show a `span` such as 3d that ends `until`: "now", or milliseconds since 1970 as in Grafana.

    Debian's Prometheus has its pages under /classic, and sends there whoever asks for the first one.
    """
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
        url = f"{url}/classic" if "/classic/" in answer.url else url
    graphs = {
        "rate": "status:sidecar_requests:rate5m",
        "latency": "quantile:sidecar_request_duration_seconds:rate5m",
        "evidence": "feature:model_feature_values:drift_alarm"
        " > on (model_name, model_version) group_left () version:model_evidence:limit",
        "roc-auc": 'window:model_expected:roc_auc{window=~"6h|1d|14d"}',
    }
    shown = {"g0.tab": "0", "g0.range_input": span}
    if until != "now":
        end = datetime.fromtimestamp(int(until) / 1000, tz=UTC)
        shown["g0.end_input"] = f"{end:%Y-%m-%d %H:%M}"
    return [
        Page(f"prometheus-targets{suffix}", f"{url}/targets", DESK, 700),
        Page(f"prometheus-rules{suffix}", f"{url}/rules", 1800, 1200),
        *(
            Page(
                f"prometheus-{name}{suffix}",
                f"{url}/graph?{urlencode({'g0.expr': expr, **shown})}",
                DESK,
                900,
            )
            for name, expr in graphs.items()
        ),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m docs.tools.grafana_pictures", description="Take the pictures."
    )
    parser.add_argument("--grafana", help="address of a Grafana with the dashboards")
    parser.add_argument("--prometheus", help="address of a Prometheus with the rules")
    parser.add_argument("--user", default=os.environ.get("GRAFANA_USER", "admin:admin"), help="name:password")
    parser.add_argument("--from", dest="since", default="now-24h", help="start of the time range")
    parser.add_argument("--to", dest="until", default="now", help="its end: now, or ms since 1970")
    parser.add_argument("--vars", dest="chosen", default="", help="of the dashboards, as in var-one=BMI")
    parser.add_argument("--range", dest="span", default="1h", help="of Prometheus' graphs, up to --to")
    parser.add_argument("--suffix", default="", help="added to the files' names, such as -drift")
    parser.add_argument("--height", type=int, default=10_000, help="at most so many pixels of a page")
    parser.add_argument("--alert", nargs="*", default=[], metavar="TITLE", help="alert rules to take too")
    parser.add_argument("--mail", nargs="*", default=[], type=Path, metavar="FILE", help="mails as received")
    parser.add_argument("--only", nargs="*", help="names of the pictures to take (default: all)")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Take the pictures and name the files; 1 with one message if that cannot be done."""
    args = _parser().parse_args(argv)
    authorization = f"Basic {base64.b64encode(args.user.encode()).decode()}" if args.grafana else None
    try:
        with tempfile.TemporaryDirectory() as scratch:
            pages = _pages(args, Path(scratch))
            args.out.mkdir(parents=True, exist_ok=True)
            with Browser(authorization) as browser:
                for page in pages:
                    file = args.out / f"{page.name}.png"
                    file.write_bytes(small_png(browser.png(page)))
                    print(f"{file} ({file.stat().st_size // 1024} KB)")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _pages(args: argparse.Namespace, scratch: Path) -> list[Page]:
    """The pages that were asked for."""
    pages: list[Page] = []
    if args.grafana:
        pages += grafana_pages(
            args.grafana.rstrip("/"), args.since, args.until, args.suffix, args.alert, args.chosen
        )
    if args.prometheus:
        pages += prometheus_pages(args.prometheus.rstrip("/"), args.span, args.until, args.suffix)
    pages += [mail_page(mail, scratch) for mail in args.mail]
    return [
        replace(page, height=min(page.height, args.height))
        for page in pages
        if not args.only or page.name in args.only
    ]


if __name__ == "__main__":
    raise SystemExit(main())
