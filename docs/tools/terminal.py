"""A picture of a terminal: commands are run, and their real output is drawn by headless Chromium.

    python -m docs.tools.terminal answer 'curl -s localhost:8080/ping' 'python -m monitoring.predict --BMI 31'

writes docs/pictures/answer.png. Each command is one line for bash; a line that fails stops the program.
"""

from __future__ import annotations

import argparse
import html
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from docs.tools.browser import OUT, Browser, Page
from steps.data.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 1060, 2000
_STYLE = (
    "margin: 0; padding: 16px 20px; background: #14171c; color: #d8dce3; white-space: pre-wrap; "
    "overflow-wrap: anywhere; font: 14px/1.45 'DejaVu Sans Mono', monospace"
)


def output_of(command: str) -> str:
    """The output of a line for bash, run in the project's folder.

    Raises UserError with the end of the output if it fails.
    """
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(f"{command!r} ended with {done.returncode}: {done.stdout.strip()[-500:]}")
    return done.stdout


def transcript(commands: Sequence[str]) -> str:
    """An HTML page of the commands, each after a prompt, with their output."""
    parts = []
    for command in commands:
        text = html.escape(output_of(command).rstrip("\n"))
        parts.append(f"<span style='color: #73bf69'>$</span> <b>{html.escape(command)}</b>\n{text}\n")
    return f"<!doctype html><meta charset='utf-8'><body style=\"{_STYLE}\">{'<br>'.join(parts)}</body>"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the commands and take the picture; exit code 1 with one message if one fails."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.tools.terminal", description="Take a picture of a terminal."
    )
    parser.add_argument("name", help="of the picture, without .png")
    parser.add_argument("commands", nargs="+", metavar="command", help="a line for bash")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            page = Path(scratch) / "terminal.html"
            page.write_text(transcript(args.commands), encoding="utf-8")
            with Browser() as browser:
                file = browser.save(Page(args.name, page.as_uri(), WIDTH, HEIGHT, fits=True), args.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{file} ({file.stat().st_size // 1024} KB)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
