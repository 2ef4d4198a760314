"""The runbook as a dashboard, so that a link in a message needs nothing but this Grafana."""

from __future__ import annotations

import re
from pathlib import Path

from monitoring.grafana.style import Panel, dashboard, text

UID = "runbook"
RUNBOOK = Path(__file__).resolve().parents[2] / "RUNBOOK.md"


def chapters(markdown: str) -> dict[str, str]:
    """Text under each heading of the second level, in order."""
    parts = re.split(r"^## (.+)$", markdown, flags=re.MULTILINE)[1:]
    return {title.strip(): body.strip() for title, body in zip(parts[::2], parts[1::2], strict=True)}


def board(markdown: str) -> Panel:
    """One panel a heading, each as high as its text needs."""
    panels = [text(title, body, height=_height(body)) for title, body in chapters(markdown).items()]
    return dashboard(UID, "Runbook", "What each alert means and what to do.", panels, refresh="")


def _height(body: str) -> int:
    lines = sum(1 + len(line) // 150 for line in body.splitlines())
    return max(6, 2 + round(lines * 0.75))
