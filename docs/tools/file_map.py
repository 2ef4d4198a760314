"""The README's list of modules, one line from each docstring: `python -m docs.tools.file_map`."""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("steps", "monitoring", "benchmarks", "docs")
START, END = "<!-- files: python -m docs.tools.file_map -->", "<!-- /files -->"


def lines(root: Path) -> list[str]:
    """A Markdown table row for each module, by folder."""
    found = []
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            if path.name == "__init__.py":
                continue
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            opening = " ".join(docstring.split("\n\n")[0].split())
            first = re.split(r"(?<=[.?])\s", opening, maxsplit=1)[0]
            found.append(f"| `{path.relative_to(root).as_posix()}` | {first} |")
    return found


def rewritten(readme: str, root: Path) -> str:
    """The README with its list of modules as they are now."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return (
        f"{before}{START}\n"
        + "\n".join(["| file | what it is |", "|---|---|", *lines(root)])
        + f"\n{END}{after}"
    )


def main() -> int:
    """Rewrite the list; with --check exit 1 if it is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m docs.tools.file_map")
    parser.add_argument("--check", action="store_true")
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    fresh = rewritten(text, ROOT)
    if parser.parse_args().check:
        return int(fresh != text)
    path.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
