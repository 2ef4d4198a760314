"""Who stands at which level of a column, in which subgroup and file, and how common the outcome is there.

What would give a few people away is hidden, here and by subtraction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from steps.data.disclosure import Lines, hidden_cells, hidden_counts, hidden_lines
from steps.data.documents import defined
from steps.data.files import FILE_COLUMN
from steps.data.schema import NumericColumn
from steps.measures import bins, metrics, oddities
from steps.measures.bins import Coded, Floats
from steps.measures.exploration_document import Column, ColumnPrediction, Level, Spike, Subgroup

if TYPE_CHECKING:
    import pandas as pd

    from steps.data.schema import Schema
    from steps.data.schema import Subgroup as SchemaSubgroup

# Share of one value from which a column is nearly constant.
NEARLY_CONSTANT = 0.995
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Hidden:
    """What is not shown of one column: its levels or bands, the missing answers last; and its subgroups."""

    levels: Lines
    subgroups: Mapping[str, bool]


@dataclass(frozen=True, eq=False)
class _Counts:
    """Rows, rows with an outcome, and rows that have it, of each group, all of shape (groups,)."""

    rows: Floats
    known: Floats
    positives: Floats

    def level(self, place: int, label: str, everybody: int, hidden: bool) -> Level:
        """One group as it is shown, among `everybody`."""
        if hidden:
            return Level(label, hidden=True)
        rows, known, positives = (float(part[place]) for part in (self.rows, self.known, self.positives))
        rate = positives / known if known else float("nan")
        low, high = metrics.wilson_interval(positives, known)
        return Level(
            label, False, int(rows), rows / max(1, everybody), defined(rate), defined(low), defined(high)
        )


def _count(codes: bins.Codes, size: int, outcome: Floats) -> _Counts:
    labelled = ~np.isnan(outcome)
    return _Counts(
        bins.counts(codes, size),
        bins.counts(codes[labelled], size),
        bins.counts(codes[labelled], size, outcome[labelled]),
    )


def hide(column: Coded, outcome: Floats, frame: pd.DataFrame, subgroups: Sequence[SchemaSubgroup]) -> Hidden:
    """Levels and subgroups of a column as one table: a subgroup less a level is a level."""
    own = [group for group in subgroups if group.column == column.column.name]
    cells = column.codes
    for group in own:
        cells = cells * 2 + group.mask(frame)
    distinct, first, place = np.unique(cells, return_index=True, return_inverse=True)
    count = _count(place, len(distinct), outcome)
    levels = column.codes[first] == np.arange(column.size)[:, None]
    groups = [group.mask(frame)[first] for group in own]
    members = np.vstack([levels, *groups]) if len(distinct) else np.zeros((column.size, 0), dtype=np.bool_)
    # The profile of a prepared data set shows the levels without their outcomes.
    elsewhere = np.zeros(len(members), dtype=np.bool_)
    elsewhere[: column.size] = hidden_counts(bins.counts(column.codes, column.size))
    hidden = hidden_lines(
        members, count.rows, count.positives, count.known - count.positives, elsewhere=elsewhere
    )
    names = [group.name for group in own]
    return Hidden(hidden[: column.size], dict(zip(names, hidden[column.size :].tolist(), strict=True)))


def describe(
    column: Coded, outcome: Floats, frame: pd.DataFrame, alone: ColumnPrediction | None, hidden: Hidden
) -> Column:
    """Shares and outcome rates of a column's levels or bands, and what looks odd about it."""
    count = _count(column.codes, column.size, outcome)
    *levels, missing = (
        count.level(place, label, len(outcome), bool(hidden.levels[place]))
        for place, label in enumerate([*column.labels, "missing"])
    )
    answered = count.rows[: column.missing]
    most = float(answered.max(initial=0) / max(1, count.rows.sum()))
    quantiles, zeros, spike = None, None, None
    if isinstance(column.column, NumericColumn):
        values = np.asarray(frame[column.column.name], dtype=np.float64)
        zeros, spike = oddities.impossible_zeros(values), oddities.spike(values)
        if np.isfinite(values).any():
            quantiles = tuple(float(f"{value:.4g}") for value in np.nanquantile(values, _QUANTILES))
    return Column(
        name=column.column.name,
        meaning=column.column.meaning,
        kind=column.column.kind,
        unit=column.column.unit,
        levels=tuple(levels),
        missing=missing,
        quantiles=quantiles,
        largest_share=most,
        constant=bool((answered > 0).sum() <= 1),
        nearly_constant=most >= NEARLY_CONSTANT,
        zeros=zeros,
        spike=None if spike is None else Spike(*spike),
        empty_levels=tuple(label for label, rows in zip(column.labels, answered, strict=True) if rows == 0),
        alone=alone,
    )


def files(frame: pd.DataFrame, outcome: Floats) -> tuple[Level, ...]:
    """The rows of each file; nothing if nobody knows which file a row is from."""
    if FILE_COLUMN not in frame:
        return ()
    names = frame[FILE_COLUMN].astype("category")
    count = _count(names.cat.codes.to_numpy().astype(np.intp), len(names.cat.categories), outcome)
    hidden = hidden_cells(count.rows, count.known, count.positives)
    return tuple(
        count.level(place, str(name), len(outcome), bool(hidden[place]))
        for place, name in enumerate(names.cat.categories)
    )


def subgroups(
    frame: pd.DataFrame, outcome: Floats, schema: Schema, hidden: Mapping[str, Hidden]
) -> tuple[Subgroup, ...]:
    """The people of each subgroup of the schema; `hidden` by the name of the column."""
    labelled = ~np.isnan(outcome)
    masks = [group.mask(frame) for group in schema.subgroups]
    count = _Counts(
        np.array([mask.sum() for mask in masks], dtype=np.float64),
        np.array([(mask & labelled).sum() for mask in masks], dtype=np.float64),
        np.array([np.nansum(outcome[mask]) for mask in masks], dtype=np.float64),
    )
    return tuple(
        Subgroup(
            group.column,
            group.headline,
            count.level(place, group.name, len(frame), hidden[group.column].subgroups[group.name]),
        )
        for place, group in enumerate(schema.subgroups)
    )
