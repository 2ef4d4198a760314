"""`make changes`: every attempt to replace a champion, with what came of it and who approved what."""

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
    """A line an attempt, oldest first."""
    return [
        (
            one.at.replace("T", " ")[:16],
            str(one.number) if one.number else "–",
            ", ".join(one.kinds),
            one.candidate_run_id or "–",
            "–" if one.anchor_change is None else f"{one.anchor_change:+.4f}".replace("-", "−"),
            one.verdict + (" by a person" if one.approval else ""),
            _why(one),
        )
        for one in history
    ]


def _why(one: Attempt) -> str:
    if one.approval is not None:
        text = f"{one.approval.user}: {one.approval.why}"
    elif one.accepted_prevalence is not None and one.verdict == "promoted":
        text = f"{one.accepted_prevalence.user}: {one.accepted_prevalence.why}"
    elif one.verdict == "promoted":
        text = "first model" if one.champion is None else one.explanation or "every requirement holds"
    else:
        text = f"{one.reason}: {one.explanation}"
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
    given = parser.parse_args(argv)
    return process.command("changes", partial(_show, given.schema))


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
