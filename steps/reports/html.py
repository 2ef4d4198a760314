"""The Jinja environment and the number formats of all reports and cards.

A number has a real minus sign, a thousands separator and no sign on zero; an undefined number is a dash.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
UNDEFINED = "–"


class Interval(Protocol):
    """An object with the two ends of an interval."""

    @property
    def low(self) -> float | None:
        """Lower end."""

    @property
    def high(self) -> float | None:
        """Upper end."""


class Estimated(Interval, Protocol):
    """A figure with an interval."""

    @property
    def value(self) -> float | None:
        """The figure."""


def environment() -> Environment:
    """The environment for `steps/reports/templates`: an unknown name is an error, HTML is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    jinja = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    jinja.filters.update(
        number=number,
        percent=percent,
        count=count,
        estimate=estimate,
        spread=spread,
        words=words,
        cell=lambda text: str(text).replace("|", "\\|"),
        sentence=sentence,
        open_questions=open_questions,
    )
    return jinja


def number(value: float | None, digits: int = 0, signed: bool = False) -> str:
    """A number with a fixed count of decimals: 1,234.50, −0.03; with `signed` also +0.03."""
    if value is None or not math.isfinite(value):
        return UNDEFINED
    text = f"{value:{'+' if signed else ''},.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def percent(share: float | None, digits: int | None = None) -> str:
    """A share as a percentage: 13.9 %, 0.04 %, 0 %, 100 %; `digits` sets the number of decimals."""
    if share is None:
        return UNDEFINED
    if digits is None:
        size = abs(100 * share)
        digits = 0 if size >= 99.95 or size == 0 else 1 if size >= 1 else 2
    return f"{number(100 * share, digits)} %"


def count(people: float | None) -> str:
    """A count of people; None is a count that is hidden because it is small."""
    return "fewer than 10" if people is None else number(people)


def estimate(figure: Estimated, digits: int, as_percent: bool = False) -> str:
    """Value and interval: 0.827 (0.823 to 0.832)."""
    value = percent(figure.value, digits) if as_percent else number(figure.value, digits)
    return f"{value} ({spread(figure, digits, as_percent)})"


def spread(figure: Interval, digits: int, as_percent: bool = False, signed: bool = False) -> str:
    """The interval alone: 0.823 to 0.832."""
    factor = 100 if as_percent else 1
    low, high = (None if end is None else factor * end for end in (figure.low, figure.high))
    return f"{number(low, digits, signed)} to {number(high, digits, signed)}"


def words(name: object) -> str:
    """A name for people: spaces instead of underscores."""
    return str(name).replace("_", " ")


def sentence(text: str) -> str:
    """The text with one full stop at its end and a capital at its start."""
    stripped = text.strip().rstrip(".")
    return f"{stripped[:1].upper()}{stripped[1:]}."


def open_questions(topics: Sequence[str]) -> str:
    """A sentence about a draft schema: the number of its open questions, and their topics."""
    question_count = f"{len(topics)} question{'s' * (len(topics) != 1)}"
    return (
        f"The schema is a draft with {question_count} that only a person can answer, about "
        f"{', '.join(dict.fromkeys(topics))}: see open_questions in its file."
    )
