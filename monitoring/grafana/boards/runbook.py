"""The runbook as a dashboard, so that a link in a message needs nothing but this Grafana."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import quote

from monitoring.grafana.style import Panel, dashboard, text

UID = "runbook"
RUNBOOK = Path(__file__).resolve().parents[2] / "RUNBOOK.md"
# What a command starts with; every other line of code is a query.
COMMANDS = ("docker ", "make ", "python ", "df ")


def chapters(markdown: str) -> dict[str, str]:
    """Text under each heading of the second level, in order."""
    parts = re.split(r"^## (.+)$", markdown, flags=re.MULTILINE)[1:]
    return {title.strip(): body.strip() for title, body in zip(parts[::2], parts[1::2], strict=True)}


def with_links(body: str) -> str:
    """A chapter in which each query is a link into Explore; commands stay blocks of code."""
    return "\n".join(
        f"- [{found[1]}]({explore(found[1])})"
        if (found := re.fullmatch(r" {4}(\S.*)", line)) and not found[1].startswith(COMMANDS)
        else line
        for line in body.splitlines()
    )


def explore(expr: str) -> str:
    """Where Grafana shows a query over the last six hours."""
    panes = {
        "a": {
            "datasource": "prometheus",
            "queries": [{"refId": "A", "expr": expr}],
            "range": {"from": "now-6h", "to": "now"},
        }
    }
    return f"/explore?schemaVersion=1&panes={quote(json.dumps(panes, separators=(',', ':')))}"


def board(markdown: str) -> Panel:
    """One panel a heading, each as high as its text needs."""
    panels = [
        text(title, with_links(body), height=_height(body)) for title, body in chapters(markdown).items()
    ]
    return dashboard(UID, "Runbook", "What each alert means and what to do.", panels, refresh="")


def _height(body: str) -> int:
    lines = sum(1 + len(line) // 150 for line in body.splitlines())
    return max(6, 2 + round(lines * 0.75))
