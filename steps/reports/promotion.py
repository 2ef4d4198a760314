"""A promotion for a reader: its verdict in a sentence, the requirements as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steps.measures.promotion import Finding


@dataclass(frozen=True)
class Outcome:
    """The outcome of a promotion for a summary.

    `verdict`: promoted, unchanged, refused or undecided. `champion`: the present champion's version, if there
    is one. `remedy`: the command for the next step.
    """

    verdict: str
    model: str
    champion: str | None
    explanation: str
    remedy: str | None
    requirements: Sequence[Finding]

    @property
    def sentence(self) -> str:
        """The outcome and its model in a sentence."""
        version = f"version {self.champion} of {self.model}"
        if self.verdict == "promoted":
            return f"{version} is the champion now"
        if self.verdict == "unchanged":
            return f"{version} is this model already"
        stays = f"{version} stays champion" if self.champion else f"{self.model} has no champion"
        return f"{self.explanation}; {stays}"


_HEAD = ("requirement", "value", "interval", "limit", "outcome", "")


def terminal_table(findings: Sequence[Finding]) -> str:
    """One line per requirement: name, value, interval, limit, outcome, detail."""
    rows = [_HEAD, *(_cells(finding) for finding in findings)]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def _cells(finding: Finding) -> tuple[str, ...]:
    signed = finding.name.startswith("change")
    interval = f"{_number(finding.low, signed)} to {_number(finding.high, signed)}"
    detail = finding.detail
    if finding.events is not None:
        detail += f"; about {finding.events:,} events in the test part would decide it"
    outcome = finding.outcome if finding.outcome in ("passed", "shown") else finding.outcome.upper()
    return (
        finding.name,
        _number(finding.value, signed),
        "–" if finding.low is None else interval,
        finding.limit,
        outcome,
        detail,
    )


def _number(value: float | None, signed: bool) -> str:
    if value is None:
        return "–"
    text = f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:.4f}"
    return ("+" if signed and value > 0 else "") + text.replace("-", "−")
