"""All terms of a glass box: curves with bands, pairs as heat maps, and a table of every entry."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from steps.data.schema import LevelledColumn
from steps.models.terms import size
from steps.reports import svg
from steps.reports.html import environment

if TYPE_CHECKING:
    from steps.data.schema import Schema
    from steps.models.served_model import Term, Terms

# Half of the width of a 95 % interval over other samples of the same size, in standard deviations.
_BAND = 1.96
# Number of terms in the picture of importances; the rest of the page has all terms.
_LISTED = 25
READS = ("templates/terms.html", "templates/report.css")


@dataclass(frozen=True)
class Surprise:
    """A stretch of a curve that contradicts the schema's expectation by `log_odds`."""

    first: str
    last: str
    log_odds: float


@dataclass(frozen=True)
class TermView:
    """A term for the page. `importance` is the mean size of its effect over the training rows."""

    title: str
    meanings: tuple[str, ...]
    importance: float
    lowest: tuple[str, float]
    highest: tuple[str, float]
    picture: str
    surprises: tuple[Surprise, ...] = ()


def render(terms: Terms, schema: Schema, *, name: str, synthetic: bool) -> str:
    """The page: all terms by importance, in one self-contained file."""
    views = [_view(terms, term, schema) for term in terms.terms]
    views.sort(key=lambda view: (-view.importance, view.title))
    return (
        environment()
        .get_template("terms.html")
        .render(
            views=views,
            schema=schema,
            name=name,
            synthetic=synthetic,
            baseline=1 / (1 + math.exp(-terms.baseline)),
            baseline_log_odds=terms.baseline,
            calibration=terms.calibration,
            pairs=sum(len(term.columns) == 2 for term in terms.terms),
            listed=min(len(views), _LISTED),
            bars=svg.bars([(v.title, v.importance) for v in views[:_LISTED]], "Mean effect of each term"),
        )
    )


def pages(terms: Terms, schema: Schema, *, name: str, synthetic: bool) -> tuple[str, str]:
    """Page and table, as they stand beside a report (`steps.data.release_facts.TERMS_FILES`)."""
    return render(terms, schema, name=name, synthetic=synthetic), table(terms)


def table(terms: Terms) -> str:
    """Every entry of every term as CSV: levels, log odds (calibrated), spread, factor on the odds, people."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["column", "level", "second_column", "second_level", "log_odds", "spread", "odds_factor", "people"]
    )
    slope = terms.calibration.slope
    for term in terms.terms:
        columns = [terms.columns[index] for index in term.columns]
        for cell in np.ndindex(*term.effects.shape):
            named = [
                part
                for column, bin_index in zip(columns, cell, strict=True)
                for part in (column.name, column.label(bin_index))
            ]
            effect = slope * term.effects[cell]
            people = term.people[cell]
            writer.writerow(
                [
                    *(*named, "", "")[:4],
                    f"{effect:.6f}",
                    f"{abs(slope) * term.spread[cell]:.4f}",
                    f"{math.exp(effect):.4f}",
                    "" if math.isnan(people) else f"{people:.0f}",
                ]
            )
    return text.getvalue()


def _view(terms: Terms, term: Term, schema: Schema) -> TermView:
    columns = [terms.columns[index] for index in term.columns]
    title = " and ".join(column.name for column in columns)
    effects = terms.calibration.slope * term.effects
    spread = abs(terms.calibration.slope) * term.spread
    labels = [[column.label(bin_index) for bin_index in range(column.size)] for column in columns]
    has_people = np.nan_to_num(term.people) > 0

    def extreme(cell: Sequence[int]) -> tuple[str, float]:
        return ", ".join(axis[at] for axis, at in zip(labels, cell, strict=True)), float(effects[tuple(cell)])

    order = sorted(
        (cell for cell in np.ndindex(*effects.shape) if has_people[cell]), key=lambda cell: effects[cell]
    )
    no_level = ("", 0.0)
    if len(columns) == 1:
        picture = svg.term_curve(
            labels[0],
            effects.tolist(),
            (_BAND * spread).tolist(),
            np.nan_to_num(term.people).tolist(),
            ordered=_is_ordered(schema, columns[0].name),
            alt=f"Effect of {title} on the log odds, by level, with the band of other samples",
        )
    else:
        alt = f"Effect of {title} on the log odds, by both levels"
        picture = svg.term_table(labels[0], labels[1], effects.tolist(), has_people.tolist(), alt)
    return TermView(
        title,
        tuple(schema.column(column.name).meaning for column in columns),
        size(term, terms.calibration),
        extreme(order[0]) if order else no_level,
        extreme(order[-1]) if order else no_level,
        picture,
        surprises(terms, term, schema) if len(columns) == 1 else (),
    )


def surprises(terms: Terms, term: Term, schema: Schema) -> tuple[Surprise, ...]:
    """Stretches where a column's own curve falls although the schema expects it to rise, or the reverse.

    A stretch counts if it contradicts the expectation by more than the band of the curve at both ends.
    Effects of pairs with other columns are not included.
    """
    column = terms.columns[term.columns[0]]
    expected = schema.column(column.name).expect
    if expected is None:
        return ()
    slope = terms.calibration.slope
    heights = (1 if expected == "up" else -1) * slope * term.effects[1:]
    spread = _BAND * abs(slope) * term.spread[1:]
    stretches = []
    start = 0
    for end in range(1, len(heights) + 1):
        if end < len(heights) and heights[end] < heights[end - 1]:
            continue
        against = float(heights[start] - heights[end - 1])
        if against > math.hypot(spread[start], spread[end - 1]):
            stretches.append(Surprise(column.label(start + 1), column.label(end), against))
        start = end
    return tuple(stretches)


def _is_ordered(schema: Schema, name: str) -> bool:
    column = schema.column(name)
    return not (isinstance(column, LevelledColumn) and column.kind == "nominal")
