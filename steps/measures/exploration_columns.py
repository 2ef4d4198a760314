"""People and outcome rates by level of a column, by subgroup and by file.

Figures that would disclose a few people, directly or by subtraction, are hidden.
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

# A column is nearly constant from this share of its commonest value.
NEARLY_CONSTANT = 0.995
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Hidden:
    """Which levels or bands of a column are hidden, missing answers last, and which of its subgroups."""

    levels: Lines
    subgroups: Mapping[str, bool]


@dataclass(frozen=True, eq=False)
class _Counts:
    """Rows, labelled rows and positive rows of each group, all of shape (groups,)."""

    rows: Floats
    labels: Floats
    positives: Floats

    def level(self, index: int, label: str, total: int, hidden: bool) -> Level:
        """The group at this index, as the report shows it; `total` is the number of all rows."""
        if hidden:
            return Level(label, hidden=True)
        rows, labels, positives = (
            float(counts[index]) for counts in (self.rows, self.labels, self.positives)
        )
        rate = positives / labels if labels else float("nan")
        low, high = metrics.wilson_interval(positives, labels)
        return Level(
            label, False, int(rows), rows / max(1, total), defined(rate), defined(low), defined(high)
        )


def _count(codes: bins.Codes, size: int, outcome: Floats) -> _Counts:
    labelled = ~np.isnan(outcome)
    return _Counts(
        bins.counts(codes, size),
        bins.counts(codes[labelled], size),
        bins.counts(codes[labelled], size, outcome[labelled]),
    )


def hide(column: Coded, outcome: Floats, frame: pd.DataFrame, subgroups: Sequence[SchemaSubgroup]) -> Hidden:
    """Decide what to hide of a column: its levels and subgroups are one table, open to subtraction."""
    column_groups = [group for group in subgroups if group.column == column.column.name]
    cells = column.codes
    for group in column_groups:
        cells = cells * 2 + group.mask(frame)
    distinct, first, cell_of_row = np.unique(cells, return_index=True, return_inverse=True)
    count = _count(cell_of_row, len(distinct), outcome)
    levels = column.codes[first] == np.arange(column.size)[:, None]
    groups = [group.mask(frame)[first] for group in column_groups]
    members = np.vstack([levels, *groups]) if len(distinct) else np.zeros((column.size, 0), dtype=np.bool_)
    # The profile of a prepared data set shows the levels without their outcomes.
    hidden_in_profile = np.zeros(len(members), dtype=np.bool_)
    hidden_in_profile[: column.size] = hidden_counts(bins.counts(column.codes, column.size))
    hidden = hidden_lines(
        members, count.rows, count.positives, count.labels - count.positives, elsewhere=hidden_in_profile
    )
    names = [group.name for group in column_groups]
    return Hidden(hidden[: column.size], dict(zip(names, hidden[column.size :].tolist(), strict=True)))


def describe(
    column: Coded, outcome: Floats, frame: pd.DataFrame, alone: ColumnPrediction | None, hidden: Hidden
) -> Column:
    """Describe a column: shares and outcome rates of its levels or bands, and its oddities."""
    count = _count(column.codes, column.size, outcome)
    *levels, missing = (
        count.level(index, label, len(outcome), bool(hidden.levels[index]))
        for index, label in enumerate([*column.labels, "missing"])
    )
    answered = count.rows[: column.missing]
    largest_share = float(answered.max(initial=0) / max(1, count.rows.sum()))
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
        largest_share=largest_share,
        constant=bool((answered > 0).sum() <= 1),
        nearly_constant=largest_share >= NEARLY_CONSTANT,
        zeros=zeros,
        spike=None if spike is None else Spike(*spike),
        empty_levels=tuple(label for label, rows in zip(column.labels, answered, strict=True) if rows == 0),
        alone=alone,
    )


def files(frame: pd.DataFrame, outcome: Floats) -> tuple[Level, ...]:
    """The rows of each file; empty where rows do not name their file."""
    if FILE_COLUMN not in frame:
        return ()
    names = frame[FILE_COLUMN].astype("category")
    count = _count(names.cat.codes.to_numpy().astype(np.intp), len(names.cat.categories), outcome)
    hidden = hidden_cells(count.rows, count.labels, count.positives)
    return tuple(
        count.level(index, str(name), len(outcome), bool(hidden[index]))
        for index, name in enumerate(names.cat.categories)
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
            count.level(index, group.name, len(frame), hidden[group.column].subgroups[group.name]),
        )
        for index, group in enumerate(schema.subgroups)
    )
