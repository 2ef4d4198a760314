"""Pictures of dashboards, alerts, their notifications and Prometheus' pages, through headless Chromium.

python -m docs.tools.grafana_pictures --grafana http://127.0.0.1:3000 --prometheus http://127.0.0.1:9090
python -m docs.tools.grafana_pictures --grafana http://127.0.0.1:3000 --alert "Model down" --only alert
python -m docs.tools.grafana_pictures --mail model-down.eml
"""

from __future__ import annotations

import argparse
import base64
import email
import email.message
import email.policy
import html
import os
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

from docs.tools.browser import OUT, Browser, Page
from monitoring.grafana import lint
from steps.data.errors import UserError

ROW_PIXELS, HEAD_PIXELS = 38, 96
DESK, PHONE = 1600, 420
MAIL_WIDTH, MAIL_HEIGHT = 680, 1200


def grafana_pages(
    url: str, since: str, until: str, suffix: str, titles: Sequence[str] = (), chosen: str = ""
) -> list[Page]:
    """Each dashboard on a wide screen, its top on a phone, the list of alerts, and pages of alert rules.

    `chosen` are values of the dashboards' variables as their addresses hold them, such as var-window=1h.
    Raises UserError if no rule has one of the titles.
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
    uid_by_title = {rule["title"]: rule["uid"] for _, rule in lint.read().rules()}
    for title in titles:
        if title not in uid_by_title:
            raise UserError(f"there is no alert {title!r}; there are: {', '.join(sorted(uid_by_title))}")
        uid = uid_by_title[title]
        address = f"{url}/alerting/grafana/{uid}/view?tab=instances&kiosk"
        pages.append(Page(f"alert-{uid}{suffix}", address, DESK, 640))
    return pages


def mail_page(mail: Path, folder: Path) -> Page:
    """A mail with its headers as an HTML file in a folder; the page fetches nothing.

    Raises UserError if the file is not a mail with an HTML part.
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

    Debian's Prometheus has its pages under /classic, to which it redirects requests for the first page.
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
    parameters = {"g0.tab": "0", "g0.range_input": span}
    if until != "now":
        end = datetime.fromtimestamp(int(until) / 1000, tz=UTC)
        parameters["g0.end_input"] = f"{end:%Y-%m-%d %H:%M}"
    return [
        Page(f"prometheus-targets{suffix}", f"{url}/targets", DESK, 700),
        Page(f"prometheus-rules{suffix}", f"{url}/rules", 1800, 1200),
        *(
            Page(
                f"prometheus-{name}{suffix}",
                f"{url}/graph?{urlencode({'g0.expr': expr, **parameters})}",
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
    """Take the pictures and print the names of the files; exit code 1 with one message on an error."""
    args = _parser().parse_args(argv)
    authorization = f"Basic {base64.b64encode(args.user.encode()).decode()}" if args.grafana else None
    try:
        with tempfile.TemporaryDirectory() as scratch:
            pages = _pages(args, Path(scratch))
            with Browser(authorization) as browser:
                for page in pages:
                    file = browser.save(page, args.out)
                    print(f"{file} ({file.stat().st_size // 1024} KB)")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _pages(args: argparse.Namespace, scratch: Path) -> list[Page]:
    """The pages that the arguments name."""
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
