"""`make changes`: every attempt to replace a champion, with its verdict and its approval."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from steps.chain import attempts, parameters, pipeline, process, tracking
from steps.chain.values import Main
from steps.data.schema import registered_names
from steps.data.schema_file import load

if TYPE_CHECKING:
    from steps.chain.attempts import Attempt

_HEAD = ("when", "no.", "what changed", "candidate", "against the anchor", "verdict", "why")
_WHY = 78


def rows(history: Sequence[Attempt]) -> list[tuple[str, ...]]:
    """A row of the table for each attempt, oldest first."""
    return [
        (
            attempt.at.replace("T", " ")[:16],
            str(attempt.number) if attempt.number else "–",
            ", ".join(attempt.kinds),
            attempt.candidate_run_id or "–",
            "–" if attempt.anchor_change is None else f"{attempt.anchor_change:+.4f}".replace("-", "−"),
            attempt.verdict + (" by a person" if attempt.approval else ""),
            _reason(attempt),
        )
        for attempt in history
    ]


def _reason(attempt: Attempt) -> str:
    if attempt.approval is not None:
        text = f"{attempt.approval.user}: {attempt.approval.why}"
    elif attempt.accepted_prevalence is not None and attempt.verdict == "promoted":
        text = f"{attempt.accepted_prevalence.user}: {attempt.accepted_prevalence.why}"
    elif attempt.verdict == "promoted":
        text = "first model" if attempt.champion is None else attempt.explanation or "every requirement holds"
    else:
        text = f"{attempt.reason}: {attempt.explanation}"
    return text if len(text) <= _WHY else text[: _WHY - 1] + "…"


def table(history: Sequence[Attempt]) -> str:
    """The attempts as aligned text."""
    lines = [_HEAD, *rows(history)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of each registered model of the schema; exit code 1 with the reason if that fails."""
    parser = argparse.ArgumentParser(prog="changes", description=__doc__)
    parser.add_argument("--schema", help="the schema's file (default: MLProject's)")
    arguments = parser.parse_args(argv)
    return process.command("changes", partial(_show, arguments.schema))


def _show(schema: str | None) -> int:
    path = schema or parameters.given(Main, pipeline.PROJECT, {}).schema
    names = registered_names(load(pipeline.PROJECT / path))
    client = tracking.connect()
    with tempfile.TemporaryDirectory() as folder:
        histories = {name: attempts.history(client, name, Path(folder)) for name in names}
    for name, history in histories.items():
        if history:
            print(f"{name}\n{table(history)}")
    if not any(histories.values()):
        print("no attempt yet: `make run` makes one")
    return 0


if __name__ == "__main__":
    sys.exit(main())
