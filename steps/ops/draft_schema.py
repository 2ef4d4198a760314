"""`make schema DATA=my.csv`: write `data/<name>.yaml` for a table that has no schema yet.

The draft describes the values. Questions for a person are in its `open_questions`; the chain refuses the
schema until the question about the outcome is answered, the others are warnings.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from steps.data import atomic, readers, sources
from steps.data.draft import Draft, draft
from steps.data.errors import UserError
from steps.data.files import LocalFile, SourceError, local_file, path_of
from steps.data.schema_file import load

PROJECT = Path(__file__).resolve().parents[2]
MOST_ROWS = 200_000
_HEAD = """# yaml-language-server: $schema=schema.json
# Drafted from {file}: read it through. Every key is explained in docs/data.md.
"""


def read(file: LocalFile) -> pd.DataFrame:
    """The first rows of a file, not converted."""
    frames, rows = [], 0
    for table in readers.tables(file, MOST_ROWS, None):
        frames.append(sources.frame_of(table, file))
        rows += table.num_rows
        if rows >= MOST_ROWS:
            break
    if not frames:
        raise SourceError(f"{file.name} has a header but no rows: is the file complete?")
    return pd.concat([frame.astype(object) for frame in frames], ignore_index=True)


def write(file: LocalFile, folder: Path, outcome: str | None) -> tuple[Path, Draft]:
    """Draft a schema for a file and write it. Raises UserError if a schema of that name exists."""
    name = re.sub(r"[^a-z0-9]+", "-", Path(file.name).name.split(".")[0].lower()).strip("-") or "table"
    path = folder / f"{name}.yaml"
    if path.exists():
        raise UserError(f"{path} is there already: delete or rename it first")
    title = name.replace("-", " ").capitalize()
    frame = _without_decimal_commas(read(file), file)
    document, drafted = draft(frame, name, title, outcome)
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
    atomic.write_text(path, _HEAD.format(file=file.name) + text)
    load(path)
    return path, drafted


def _without_decimal_commas(frame: pd.DataFrame, file: LocalFile) -> pd.DataFrame:
    """The frame with decimal points, where the file has decimal commas."""
    from steps.data.files import kind
    from steps.data.reading import plain_number
    from steps.data.text_files import format_of

    if kind(file) != "text" or format_of(file).decimal == ".":
        return frame

    def plain(value: Any) -> Any:
        return plain_number(value.strip(), ",", None) if isinstance(value, str) else value

    return frame.map(plain)


def main(argv: list[str] | None = None) -> int:
    """Draft a schema; exit code 1 with the reason if that fails."""
    parser = argparse.ArgumentParser(prog="make schema DATA=", description=(__doc__ or "").split(":")[0])
    parser.add_argument("data", help="the file to describe")
    parser.add_argument("--outcome", help="the column that holds the outcome")
    parser.add_argument("--folder", type=Path, default=PROJECT / "data", help="where the schema goes")
    args = parser.parse_args(argv)
    try:
        source = path_of(args.data, Path.cwd())
        file = local_file(source, source.name)
        path, drafted = write(file, args.folder, args.outcome)
    except UserError as error:
        print(f"schema: error: {error}", file=sys.stderr)
        return 1
    note = readers.note(file)
    if note:
        print(f"schema: {file.name}: {note}")
    print(f"schema: {len(drafted.columns)} columns in {path}")
    for name, reason in drafted.left_out:
        print(f"schema: left out: {name or '(no name)'} {reason}")
    print(f"schema: {len(drafted.questions)} open questions, the first about the outcome:")
    print(f"schema:   {drafted.questions[0][1]}")
    schema_path = path.relative_to(PROJECT) if path.is_relative_to(PROJECT) else path
    print(f'schema: answer them in the file, then: make run ARGS="-P schema={schema_path} -P data={source}"')
    return 0


if __name__ == "__main__":
    sys.exit(main())
