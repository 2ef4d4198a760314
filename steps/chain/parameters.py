"""The parameters of every entry point: what kind of value each takes. MLProject alone has their defaults."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from steps.data.errors import UserError
from steps.models.families import FAMILIES

Parse = Callable[[str], Any]


def _number(kind: type, low: float, high: float) -> Parse:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(f"{text!r} is not {'a whole number' if kind is int else 'a number'}") from None
        if not low <= value <= high:
            raise ValueError(f"{text} is outside {low:g} to {high:g}")
        return value

    return parse


def _choice(*allowed: str) -> Parse:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"{text!r} is none of {', '.join(allowed)}")
        return text

    return parse


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _parallelism(text: str) -> int:
    return int(_number(int, 0, 1024)(text)) or cores()


def _truth(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def _text(text: str) -> str:
    if not text:
        raise ValueError("it is empty")
    return text


def _families(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in FAMILIES]
    if unknown or len(set(names)) != len(names):
        raise ValueError(f"{text!r} is not a list without repeats of {', '.join(FAMILIES)}")
    return names


def _hyperparameters(text: str) -> dict[str, float | int | str]:
    values: dict[str, float | int | str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name or not value or name in values:
            raise ValueError(f"{part!r} is not a new name=value")
        values[name] = _literal(value)
    return values


def _literal(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


PARSERS: Mapping[str, Parse] = {
    "schema": _text,
    "data": _text,
    "max_rejected": _number(float, 0, 1),
    "publish_rows": _truth,
    "fresh": _truth,
    "family": _choice(*FAMILIES),
    "hyperparameters": _hyperparameters,
    "recall": _number(float, 0.01, 0.999),
    "seed": _number(int, 0, 2**31 - 1),
    "families": _families,
    "max_evals": _number(int, 1, 100_000),
    "parallelism": _parallelism,
    "folds": _number(int, 2, 20),
    "patience": _number(int, 1, 100_000),
    "timeout_minutes": _number(float, 0.01, 100_000),
    "model": _choice("tuned", "baseline"),
    "replicates": _number(int, 100, 100_000),
    "rollback": _text,
    "against": str,
    "out": str,
    "columns": _choice("identifiers", "all"),
    "engine": _choice("local", "spark"),
    "master": str,
    "evidence": _number(float, 0, 100),
    "psi_watch": _number(float, 0, 10),
    "psi_retrain": _number(float, 0, 10),
    "share_change": _number(float, 0, 1),
    "roc_auc_loss": _number(float, 0, 1),
    "calibration_error": _number(float, 0, 1),
    "separability": _number(float, 0.5, 1),
}

# Where a step means something of its own by a name: these name any model, not one of the chain's two.
OWN_PARSERS: Mapping[tuple[str, str], Parse] = {("score", "model"): _text, ("drift", "model"): _text}


def declared(project: Path) -> dict[str, dict[str, str]]:
    """Entry point -> parameter -> default, from the project's MLProject file."""
    import yaml

    document = yaml.safe_load((project / "MLProject").read_text(encoding="utf-8"))
    return {
        name: {key: str(value["default"]) for key, value in entry["parameters"].items()}
        for name, entry in document["entry_points"].items()
    }


def parse(step: str, project: Path, argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Values of a step's parameters from the command line; every problem is named at once.

    Raises:
        UserError: an unknown parameter, or a value of the wrong kind or range.
    """
    names = declared(project)[step]
    parser = argparse.ArgumentParser(prog=step, add_help=False, allow_abbrev=False, exit_on_error=False)
    for name, default in names.items():
        parser.add_argument(f"--{name}", default=default)
    try:
        known, unknown = parser.parse_known_args(sys.argv[1:] if argv is None else list(argv))
    except argparse.ArgumentError as error:
        raise UserError(f"{step}: {error}") from None
    if unknown:
        stray = ", ".join(part.removeprefix("--") for part in unknown if part.startswith("--")) or unknown[0]
        raise UserError(f"{step} has no parameter {stray}; it has {', '.join(sorted(names))}")
    raw = vars(known)
    return check(raw, step)


def check(raw: Mapping[str, str], step: str = "") -> dict[str, Any]:
    """Parsed values of raw texts, or a UserError that names every one that will not do."""
    values, problems = {}, []
    for name, text in raw.items():
        try:
            values[name] = OWN_PARSERS.get((step, name), PARSERS[name])(text)
        except ValueError as error:
            problems.append(f"parameter {name}: {error}")
    if problems:
        raise UserError("; ".join(problems))
    return values


def texts(values: Mapping[str, Any]) -> dict[str, str]:
    """The values as `-P name=value` and MLProject write them; `check` gives them back."""
    return {name: _write(value) for name, value in values.items()}


def _write(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in sorted(value.items()))
    return str(value)
