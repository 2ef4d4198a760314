"""Document the keys of a schema file from the models that read it: `python -m docs.tools.schema_keys`.

Writes the tables between two marks of docs/data.md, and data/schema.json, with which an editor completes and
checks a schema (`# yaml-language-server: $schema=schema.json` as its first line). `--check` only compares.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from steps.data.schema_keys import Keys, SchemaKeys, in_words, model_of

ROOT = Path(__file__).resolve().parents[2]
PAGE, SCHEMA = ROOT / "docs" / "data.md", ROOT / "data" / "schema.json"
BEGIN = "<!-- keys: written by `python -m docs.tools.schema_keys` from steps/data/schema_keys.py -->"
END = "<!-- end of keys -->"


def models(model: type[Keys] = SchemaKeys, place: str = "The file") -> list[tuple[str, type[Keys]]]:
    """Every mapping that a schema may hold, with its place in the file, outermost first; each once."""
    mappings = [(place, model)]
    for name, field in model.model_fields.items():
        inner = model_of(field.annotation)
        key = field.alias or name
        where = f"`{key}`" if model is SchemaKeys else f"{place}, `{key}`"
        if inner is not None:
            listed = [mapping for _, mapping in mappings]
            mappings += [pair for pair in models(inner, where) if pair[1] not in listed]
    return mappings


def tables() -> str:
    """The tables of keys in Markdown."""
    parts = []
    for place, model in models():
        parts.append(
            f"### {place}\n\n{(model.__doc__ or '').strip()}\n\n| key | value | meaning |\n| --- "
            f"| --- | --- |"
        )
        for name, field in model.model_fields.items():
            value = in_words(field) + ("; required" if field.is_required() else "")
            key, meaning = field.alias or name, (field.description or "").replace("|", "\\|")
            parts.append(
                f"| `{key}` | {value.replace('|', chr(92) + '|').replace(chr(9), 'tab')} | {meaning} |"
            )
        parts.append("")
    return "\n".join(parts)


def page() -> str:
    """docs/data.md with current tables."""
    text = PAGE.read_text(encoding="utf-8")
    head, after = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{tables()}\n{END}{after.split(END)[1]}"


def json_schema() -> str:
    """The JSON Schema of a schema file."""
    return json.dumps(SchemaKeys.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def main(argv: list[str]) -> int:
    """Write both files; with --check, exit code 1 if one of them is stale."""
    parser = argparse.ArgumentParser(description="the keys of a schema file, for docs and editors")
    parser.add_argument("--check", action="store_true", help="say whether both are up to date")
    check = parser.parse_args(argv).check
    stale = [(path, text) for path, text in ((PAGE, page()), (SCHEMA, json_schema())) if _old(path) != text]
    for path, text in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is stale: run python -m docs.tools.schema_keys", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
    return 1 if stale and check else 0


def _old(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
