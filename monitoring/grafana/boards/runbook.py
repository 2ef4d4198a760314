"""The runbook as a dashboard, so that links in messages need only this Grafana."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import quote

from monitoring.grafana.style import Panel, dashboard, text

UID = "runbook"
RUNBOOK = Path(__file__).resolve().parents[2] / "RUNBOOK.md"
# Starts of commands; every other line of code is a query.
COMMANDS = ("docker ", "make ", "python ", "df ", "dmesg ")


def chapters(markdown: str) -> dict[str, str]:
    """Text under each heading of the second level, in order."""
    parts = re.split(r"^## (.+)$", markdown, flags=re.MULTILINE)[1:]
    return {title.strip(): body.strip() for title, body in zip(parts[::2], parts[1::2], strict=True)}


def with_links(body: str) -> str:
    """A chapter with each query as a link into Explore; commands stay blocks of code."""
    return "\n".join(
        f"- [{code[1]}]({explore(code[1])})"
        if (code := re.fullmatch(r" {4}(\S.*)", line)) and not code[1].startswith(COMMANDS)
        else line
        for line in body.splitlines()
    )


def explore(expr: str) -> str:
    """The link to a query over the last six hours in Grafana's Explore."""
    panes = {
        "a": {
            "datasource": "prometheus",
            "queries": [{"refId": "A", "expr": expr}],
            "range": {"from": "now-6h", "to": "now"},
        }
    }
    return f"/explore?schemaVersion=1&panes={quote(json.dumps(panes, separators=(',', ':')))}"


def board(markdown: str) -> Panel:
    """A panel for each heading, as high as its text needs."""
    panels = [
        text(title, with_links(body), height=_height(body)) for title, body in chapters(markdown).items()
    ]
    return dashboard(UID, "Runbook", "What each alert means and what to do.", panels, refresh="")


def _height(body: str) -> int:
    lines = sum(1 + len(line) // 150 for line in body.splitlines())
    return max(6, 2 + round(lines * 0.75))
