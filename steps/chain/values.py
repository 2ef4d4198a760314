"""The typed parameters of every entry point: the kind of value that each takes, and how its text is read.

A class holds the parameters that MLProject declares for the entry point of that name; MLProject alone has the
defaults. The classes inherit from each other as MLProject's blocks do: a later step takes all parameters of
the steps before it. `steps.chain.parameters` reads and writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from steps.data import processors
from steps.models.families import FAMILIES, Family

Read = Callable[[str], Any]
Role = Literal["tuned", "baseline"]
Engine = Literal["local", "spark"]


def number(kind: type, low: float, high: float) -> Read:
    """Reader of a number of this kind from low to high, both included."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise ValueError(f"{text!r} is not {'a whole number' if kind is int else 'a number'}") from None
        if not low <= value <= high:
            raise ValueError(f"{text} is outside {low:g} to {high:g}")
        return value

    return read


def choice(*allowed: str) -> Read:
    """Reader of one of a few words."""

    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"{text!r} is none of {', '.join(allowed)}")
        return text

    return read


def truth(text: str) -> bool:
    """`true` or `false`."""
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def optional(read: Read) -> Read:
    """Reader of the values that `read` reads; an empty text is None."""
    return lambda text: read(text) if text else None


def nonempty(text: str) -> str:
    """A text that is not empty."""
    if not text:
        raise ValueError("it is empty")
    return text


def parallelism(text: str) -> int:
    """Number of parallel trials; 0 means one for each processor that this process may use."""
    return int(number(int, 0, 1024)(text)) or processors.available()


def families(text: str) -> tuple[Family, ...]:
    """Names of families, separated by commas, each once."""
    names = tuple(name.strip() for name in text.split(","))
    listed: tuple[Family, ...] = tuple(family for name in names for family in FAMILIES if family == name)
    if len(listed) != len(names) or len(set(names)) != len(names):
        raise ValueError(f"{text!r} is not a list of different names out of {', '.join(FAMILIES)}")
    return listed


def hyperparameters(text: str) -> dict[str, float | int | str]:
    """`name=value,name=value`, each name once; a family checks names and values."""
    values: dict[str, float | int | str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or not name or not value or name in values:
            raise ValueError(f"{part!r} is not name=value, or repeats a name")
        values[name] = _literal(value)
    return values


def _literal(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@dataclass(frozen=True)
class Values:
    """Parameters of every entry point: the schema file and the data."""

    schema: Annotated[str, nonempty]
    data: Annotated[str, nonempty]


@dataclass(frozen=True)
class Reusable(Values):
    """An entry point whose earlier result is reused, unless `fresh`."""

    fresh: Annotated[bool, truth]


@dataclass(frozen=True)
class Preprocess(Reusable):
    """Parameters of preprocess."""

    max_rejected: Annotated[float, number(float, 0, 1)]
    publish_rows: Annotated[bool, truth]


@dataclass(frozen=True)
class Fit(Preprocess):
    """Parameters that train and tune share."""

    recall: Annotated[float, number(float, 0.01, 0.999)]
    threshold_odds: Annotated[float | None, optional(number(float, 0.01, 1000))]
    seed: Annotated[int, number(int, 0, 2**31 - 1)]


@dataclass(frozen=True)
class Train(Fit):
    """Parameters of train."""

    family: Annotated[Family, choice(*FAMILIES)]
    hyperparameters: Annotated[Mapping[str, float | int | str], hyperparameters]


@dataclass(frozen=True)
class Tune(Fit):
    """Parameters of tune."""

    families: Annotated[tuple[Family, ...], families]
    max_evals: Annotated[int, number(int, 1, 100_000)]
    parallelism: Annotated[int, parallelism]
    folds: Annotated[int, number(int, 2, 20)]
    patience: Annotated[int, number(int, 1, 100_000)]
    timeout_minutes: Annotated[float, number(float, 0.01, 100_000)]
    engine: Annotated[Engine, choice("local", "spark")]
    master: Annotated[str, str]


@dataclass(frozen=True)
class Evaluate(Train, Tune):
    """Parameters of evaluate; `model` is the role of the model that is measured."""

    model: Annotated[Role, choice("tuned", "baseline")]
    replicates: Annotated[int, number(int, 100, 100_000)]


@dataclass(frozen=True)
class Judged(Evaluate):
    """Parameters that main and promote share: a person's approval of another share of outcomes, and why."""

    accept_prevalence: Annotated[bool, truth]
    why: Annotated[str, str]


@dataclass(frozen=True)
class Main(Judged):
    """Parameters of main, the whole chain."""


@dataclass(frozen=True)
class Promote(Judged):
    """Parameters of promote.

    `rollback` is `false`, `true` or a registered model's name; `approve` is empty or a candidate's run id;
    with `recalibrate` the candidate is the champion with recalibrated risks.
    """

    rollback: Annotated[str, nonempty]
    approve: Annotated[str, str]
    recalibrate: Annotated[bool, truth]


@dataclass(frozen=True)
class Explore(Reusable):
    """Parameters of explore."""

    against: Annotated[str, str]
    seed: Annotated[int, number(int, 0, 2**31 - 1)]


@dataclass(frozen=True)
class Score(Values):
    """Parameters of score; `model` names any model."""

    out: Annotated[str, str]
    model: Annotated[str, nonempty]
    columns: Annotated[Literal["identifiers", "all"], choice("identifiers", "all")]
    max_rejected: Annotated[float, number(float, 0, 1)]
    reasons: Annotated[int, number(int, 0, 100)]
    engine: Annotated[Engine, choice("local", "spark")]
    master: Annotated[str, str]


@dataclass(frozen=True)
class Drift(Values):
    """Parameters of drift; `model` names any model."""

    model: Annotated[str, nonempty]
    seed: Annotated[int, number(int, 0, 2**31 - 1)]
