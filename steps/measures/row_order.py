"""Whether rows are in random order: columns whose mean changes along the file, and where it changes.

The head of a file that is sorted by place or date is no random sample, and its tail no fair test set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Probability that a random order of the rows counts as sorted, over all columns together.
SIGNIFICANCE = 1e-4
_MOST_STRETCHES = 250
_FEWEST_ROWS = 100


@dataclass(frozen=True)
class Trend:
    """One column along the file: means of consecutive stretches of equal length, and how far they differ.

    `between` is the share of the column's variance between stretches, 0 for a random order. `p_value` is
    that of the analysis of variance over stretches (Fisher's F).
    """

    name: str
    means: Floats
    overall: float
    stderr: float
    between: float
    p_value: float


@dataclass(frozen=True)
class RowOrder:
    """Columns by which rows are ordered. `breaks` are positions in the file, as shares of its length."""

    trends: tuple[Trend, ...]
    ordered: tuple[str, ...]
    breaks: tuple[float, ...]
    stretches: int


def examine(values: Mapping[str, Floats]) -> RowOrder:
    """Trends of columns given in file order, each (rows,) of numbers or NaN; strongest first."""
    rows = len(next(iter(values.values()), np.zeros(0)))
    stretches = min(_MOST_STRETCHES, rows // _FEWEST_ROWS)
    if stretches < 2:
        return RowOrder((), (), (), 0)
    stretch = np.arange(rows) * stretches // rows
    trends = [_trend(name, column, stretch, stretches) for name, column in values.items()]
    trends.sort(key=lambda trend: -trend.between)
    ordered = tuple(trend.name for trend in trends if trend.p_value < SIGNIFICANCE / len(trends))
    breaks = (
        _breaks(np.column_stack([values[name] for name in ordered]), stretch, stretches) if ordered else ()
    )
    return RowOrder(tuple(trends), ordered, breaks, stretches)


def _trend(name: str, values: Floats, stretch: NDArray[np.intp], stretches: int) -> Trend:
    from scipy import special

    present = ~np.isnan(values)
    stretch_of_value, present_values = stretch[present], values[present]
    size = np.bincount(stretch_of_value, minlength=stretches).astype(np.float64)
    sums = np.bincount(stretch_of_value, weights=present_values, minlength=stretches)
    means = np.divide(sums, size, out=np.full(stretches, np.nan), where=size > 0)
    used, n = int((size > 0).sum()), len(present_values)
    overall = float(present_values.mean()) if n else float("nan")
    total = float(((present_values - overall) ** 2).sum()) if n else 0.0
    if total == 0 or used < 2 or n <= used:
        return Trend(name, means, overall, 0.0, 0.0, 1.0)
    between = float(np.nansum(size * (means - overall) ** 2))
    noise = (total - between) / (n - used)
    if noise <= 0:
        return Trend(name, means, overall, 0.0, 1.0, 0.0)
    ratio = between / (used - 1) / noise
    share = max(0.0, 1 - noise * (n - 1) / total)
    return Trend(
        name,
        means,
        overall,
        float(np.sqrt(noise / size.mean())),
        share,
        float(special.fdtrc(used - 1, n - used, ratio)),
    )


def _breaks(values: Floats, stretch: NDArray[np.intp], stretches: int) -> tuple[float, ...]:
    """Where the means change lastingly: the segmentation of least squared error with BIC's penalty.

    Optimal partitioning (Jackson and others, IEEE Signal Processing Letters 12, 2005) of the stretches'
    standardised means; a break costs (columns + 1) / 2 * log(stretches) nats.
    """
    standardised = np.nan_to_num(
        (values - np.nanmean(values, axis=0)) / np.maximum(np.nanstd(values, axis=0), 1e-12)
    )
    size = np.bincount(stretch, minlength=stretches).astype(np.float64)
    sums = np.column_stack(
        [np.bincount(stretch, weights=column, minlength=stretches) for column in standardised.T]
    )
    total = np.vstack([np.zeros(sums.shape[1]), np.cumsum(sums, axis=0)])
    length = np.concatenate([[0.0], np.cumsum(size)])
    penalty = (sums.shape[1] + 1) * np.log(stretches)
    best = np.zeros(stretches + 1)
    last = np.zeros(stretches + 1, dtype=np.intp)
    for end in range(1, stretches + 1):
        # Twice the log likelihood that a segment's own mean gains over the overall one.
        gain = ((total[end] - total[:end]) ** 2).sum(axis=1) / (length[end] - length[:end])
        value = best[:end] + gain - penalty
        last[end] = int(np.argmax(value))
        best[end] = value[last[end]]
    breaks = []
    end = stretches
    while end > 0:
        end = int(last[end])
        if end > 0:
            breaks.append(end / stretches)
    return tuple(reversed(breaks))
