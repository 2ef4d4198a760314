"""Read the typed values of an entry point from texts, and write them. Only MLProject has defaults."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from steps.chain.values import Read, Values
from steps.data.errors import UserError

V = TypeVar("V", bound=Values)


def declared(project: Path) -> dict[str, dict[str, str]]:
    """Entry point -> parameter -> default, from the project's MLProject file."""
    import yaml

    document = yaml.safe_load((project / "MLProject").read_text(encoding="utf-8"))
    return {
        name: {key: str(value["default"]) for key, value in entry["parameters"].items()}
        for name, entry in document["entry_points"].items()
    }


def entry_point(kind: type[Values]) -> str:
    """The entry point whose parameters a class holds; it has the name of the class in small letters."""
    return kind.__name__.lower()


def parse(kind: type[V], project: Path, argv: Sequence[str] | None = None) -> V:
    """Values of an entry point from a command line of `--name value`; all problems are reported at once.

    Raises:
        UserError: an unknown parameter, or a value of the wrong kind or range.
    """
    step = entry_point(kind)
    names = declared(project)[step]
    parser = argparse.ArgumentParser(prog=step, add_help=False, allow_abbrev=False, exit_on_error=False)
    for name, default in names.items():
        parser.add_argument(f"--{name}", default=default)
    try:
        parsed, unknown = parser.parse_known_args(sys.argv[1:] if argv is None else list(argv))
    except argparse.ArgumentError as error:
        raise UserError(f"{step}: {error}") from None
    if unknown:
        stray = ", ".join(part.removeprefix("--") for part in unknown if part.startswith("--")) or unknown[0]
        raise UserError(f"{step} has no parameter {stray}; it has {', '.join(sorted(names))}")
    return check(vars(parsed), kind)


def given(kind: type[V], project: Path, texts: Mapping[str, str]) -> V:
    """Values of an entry point: some are given, the others are MLProject's defaults. Raises UserError."""
    return parse(kind, project, [f"--{name}={text}" for name, text in texts.items()])


def check(raw: Mapping[str, str], kind: type[V]) -> V:
    """Typed values of raw texts. Raises UserError, which names every invalid one."""
    readers, values, problems = _readers(kind), {}, []
    for name, text in raw.items():
        try:
            values[name] = readers[name](text)
        except ValueError as error:
            problems.append(f"parameter {name}: {error}")
    if problems:
        raise UserError("; ".join(problems))
    return kind(**values)


def texts(values: Values) -> dict[str, str]:
    """The values as texts, as `-P name=value` and MLProject write them; `check` reads them."""
    return {
        field.name: _write(getattr(values, field.name))
        for field in sorted(dataclasses.fields(values), key=lambda field: field.name)
    }


def from_words(words: Sequence[str]) -> dict[str, str]:
    """`-P name=value` pairs as `mlflow run` takes them. Raises UserError for anything else."""
    pairs: dict[str, str] = {}
    remaining = iter(words)
    for word in remaining:
        name, equals, value = (next(remaining, "") if word == "-P" else "").partition("=")
        if not (name and equals):
            raise UserError(f"{word!r} is not of the form -P name=value")
        pairs[name] = value
    return pairs


def to_words(pairs: Mapping[str, str]) -> list[str]:
    """`-P name=value` pairs for a command line."""
    return [word for name, value in pairs.items() for word in ("-P", f"{name}={value}")]


def _readers(kind: type[Values]) -> dict[str, Read]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: get_args(hints[field.name])[1] for field in dataclasses.fields(kind)}


def _write(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, Mapping):
        return ",".join(f"{key}={item}" for key, item in sorted(value.items()))
    return str(value)
