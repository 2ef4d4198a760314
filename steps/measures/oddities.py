"""What a numeric column may hide: zeros that mean "not measured", one value filled in for many, an end that
decides the outcome.

Each is found from counts of many people; values are rounded, so that none is somebody's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steps.data.disclosure import SMALLEST_CELL
from steps.measures import metrics

Floats = NDArray[np.float64]

# Share of one value from which it may have been filled in.
SPIKE_SHARE = 0.25
# Fewest distinct values of a column in which one value can stand out.
_FEWEST_VALUES = 20
# Least share of zeros that is told.
_ZERO_SHARE = 0.01
# Fewest people, and share of the outcome (lower end of Wilson's interval), of values that decide it.
DECIDED_ROWS = 50
DECIDED_RATE = 0.98


@dataclass(frozen=True)
class Decided:
    """Values that go with the outcome alone: from `low` to `high`, None where open.

    `rows` people have them; they are the `share` of all who have the outcome.
    """

    low: float | None
    high: float | None
    rows: int
    share: float


def impossible_zeros(values: Floats) -> float | None:
    """Share of rows that are 0 where nothing else is near 0; None if there are none.

    Counts, such as days, come down to 0 in steps: their smallest other number is no more than three steps.
    """
    known = values[~np.isnan(values)]
    zeros = int((known == 0).sum())
    positive = known[known > 0]
    if zeros < max(SMALLEST_CELL, _ZERO_SHARE * len(known)) or len(positive) < SMALLEST_CELL:
        return None
    distinct = np.unique(positive)
    step = float(np.diff(distinct).min()) if len(distinct) > 1 else float(distinct[0])
    near = int((positive <= 0.1 * np.median(positive)).sum())
    apart = distinct[0] > 3 * step and distinct[0] > 0.02 * np.median(positive)
    return zeros / len(known) if (known >= 0).all() and apart and near < 0.01 * zeros else None


def spike(values: Floats) -> tuple[float, float] | None:
    """A value that stands in a quarter of the rows or more, and its share; None if none does.

    The smallest and the largest value are left out: nobody and everybody, as in days of the past 30.
    """
    distinct, rows = np.unique(values[~np.isnan(values)], return_counts=True)
    if len(distinct) < _FEWEST_VALUES:
        return None
    place = int(np.argmax(rows[1:-1])) + 1
    share = float(rows[place] / rows.sum())
    return (float(f"{distinct[place]:.4g}"), share) if share >= SPIKE_SHARE else None


def decided(values: Floats, outcome: Floats, minimum: float, maximum: float) -> Decided | None:
    """The values of a column that go with the outcome alone: a run at an end of it, or one value.

    None if there are none; of several, the one with the most people. `outcome` (rows,) is 1, 0, or NaN. Ends
    of runs are rounded to a hundredth of the schema's range.
    """
    known = ~np.isnan(values) & ~np.isnan(outcome)
    grain = 10.0 ** np.floor(np.log10((maximum - minimum) / 100))
    distinct, place = np.unique(values[known], return_inverse=True)
    rows = np.bincount(place).astype(np.float64)
    hits = np.bincount(place, weights=outcome[known]).astype(np.float64)
    total = hits.sum()
    if total == 0 or len(distinct) < 2:
        return None
    found = []
    for sign in (1, -1):
        cut = _run(distinct[::sign], rows[::sign], hits[::sign], grain)
        if cut is not None:
            inside = distinct <= cut if sign == 1 else distinct >= cut
            many, ill = rows[inside].sum(), hits[inside].sum()
            if _decides(ill, many):
                low, high = (None, cut) if sign == 1 else (cut, None)
                found.append(Decided(low, high, int(many), float(ill / total)))
    often = rows >= DECIDED_ROWS
    for value, many, ill in zip(distinct[often], rows[often], hits[often], strict=True):
        if _decides(ill, many):
            shown = float(f"{value:.6g}")
            found.append(Decided(shown, shown, int(many), float(ill / total)))
    return max(found, key=lambda one: one.rows, default=None)


def _run(distinct: Floats, rows: Floats, hits: Floats, grain: float) -> float | None:
    """End of the longest run, from the first value on, that goes with the outcome alone; rounded inwards."""
    many, ill = np.cumsum(rows), np.cumsum(hits)
    able = np.flatnonzero((many >= DECIDED_ROWS) & (ill >= DECIDED_RATE * many))[::-1]
    last = next((place for place in able if _decides(ill[place], many[place])), None)
    if last is None or last == len(many) - 1:
        return None
    end = distinct[last] / grain
    rounded = np.floor(end) if distinct[0] < distinct[-1] else np.ceil(end)
    return float(f"{rounded * grain:.10g}")


def _decides(ill: float, many: float) -> bool:
    return many >= DECIDED_ROWS and metrics.wilson_interval(ill, many)[0] >= DECIDED_RATE - _slack(many)


def _slack(many: float) -> float:
    """Of few people even Wilson's interval of "all of them" ends below the limit: then all must have it."""
    return max(0.0, DECIDED_RATE - metrics.wilson_interval(many, many)[0])
