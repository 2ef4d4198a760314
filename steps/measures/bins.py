"""Columns as small whole numbers: one code for each level, or for each tenth of a numeric column's rows.

Exploration and the drift classifier count codes instead of sorting values, which takes milliseconds for a
quarter of a million rows. A missing value has the last code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steps.data.disclosure import quantile_edges
from steps.data.schema import NumericColumn

if TYPE_CHECKING:
    import pandas as pd

    from steps.data.schema import Column, LevelledColumn, Schema

Codes = NDArray[np.intp]
Floats = NDArray[np.float64]

_MINUS = "−"


@dataclass(frozen=True)
class Coded:
    """A column: `codes` (rows,) index `labels`; a missing value has the code `len(labels)`."""

    column: Column
    codes: Codes
    labels: tuple[str, ...]
    edges: tuple[float, ...]

    @property
    def size(self) -> int:
        """Number of codes, the missing one included."""
        return len(self.labels) + 1

    @property
    def missing(self) -> int:
        """The code of a missing value."""
        return len(self.labels)


def code(frame: pd.DataFrame, schema: Schema, like: Sequence[Coded] | None = None) -> tuple[Coded, ...]:
    """Every feature of a valid frame as codes; with `like`, the bins of another table are used."""
    edges = {coded.column.name: coded.edges for coded in like or ()}
    return tuple(
        _numeric(np.asarray(frame[column.name], dtype=np.float64), column, edges.get(column.name))
        if isinstance(column, NumericColumn)
        else _levels(frame[column.name], column)
        for column in schema.columns
    )


def counts(codes: Codes, size: int, weights: Floats | None = None) -> Floats:
    """Rows of each code, or sums of their weights, shape (size,)."""
    return np.bincount(codes, weights=weights, minlength=size).astype(np.float64)


def cross(first: Coded, second: Coded) -> Codes:
    """One code for each pair of codes: first * second.size + second."""
    return first.codes * second.size + second.codes


def matrix(columns: Sequence[Coded], frame: pd.DataFrame) -> Floats:
    """Input of trees, shape (rows, columns): numbers as they are, levels by their index, NaN for missing."""
    return np.column_stack(
        [
            np.asarray(frame[column.column.name], dtype=np.float64)
            if column.column.kind == "numeric"
            else np.where(column.codes == column.missing, np.nan, column.codes.astype(np.float64))
            for column in columns
        ]
    )


def _numeric(values: Floats, column: NumericColumn, edges: tuple[float, ...] | None) -> Coded:
    missing = np.isnan(values)
    if edges is None:
        edges = quantile_edges(values, column.minimum, column.maximum)
    codes = np.searchsorted(np.asarray(edges), values, side="right").astype(np.intp)
    codes[missing] = len(edges) + 1
    return Coded(column, codes, band_names(edges, column), edges)


def band_names(edges: Sequence[float], column: NumericColumn) -> tuple[str, ...]:
    """Names of the bands; whole-number edges give whole-number limits: 25-27, not 25 to 28."""
    limits = [column.minimum, *edges, column.maximum]
    is_whole = all(float(limit).is_integer() for limit in limits)
    names = []
    for index, (low, high) in enumerate(pairwise(limits)):
        is_last = index == len(edges)
        top = high if is_last or not is_whole else high - 1
        if is_last and edges:
            names.append(f"{_number(low)} and over" if low < high else _number(low))
        elif is_whole and top == low:
            names.append(_number(low))
        elif is_whole:
            names.append(f"{_number(low)}-{_number(top)}")
        else:
            names.append(f"{_number(low)} to {_number(high)}")
    return tuple(names)


def _number(value: float) -> str:
    return f"{value:,.6g}".replace("-", _MINUS)


def _levels(values: pd.Series, column: LevelledColumn) -> Coded:
    import pandas as pd

    codes = pd.Index(list(column.codes)).get_indexer(pd.Index(values)).astype(np.intp)
    codes[codes < 0] = len(column.codes)
    return Coded(column, codes, tuple(column.levels.values()), ())
