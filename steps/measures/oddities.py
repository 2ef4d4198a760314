"""Oddities of a numeric column: zeros that mean "not measured", a value filled in, a range that determines
the outcome.

Each is found from counts of many people, and values are rounded, so that none is a person's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steps.data.disclosure import SMALLEST_CELL
from steps.measures import metrics

Floats = NDArray[np.float64]

# A value may have been filled in from this share of the rows.
SPIKE_SHARE = 0.25
# Fewest distinct values of a column in which one value can stand out.
_FEWEST_VALUES = 20
# Smallest share of zeros that is reported.
_ZERO_SHARE = 0.01
# Values determine the outcome from this many people, and this lower end of Wilson's interval of its share.
DECIDED_ROWS = 50
DECIDED_RATE = 0.98


@dataclass(frozen=True)
class Decided:
    """Values that only people with the outcome have: from `low` to `high`, None where open.

    `rows` people have them; they are the `share` of all who have the outcome.
    """

    low: float | None
    high: float | None
    rows: int
    share: float


def impossible_zeros(values: Floats) -> float | None:
    """Share of rows that are 0 where no other value is near 0; None without such rows.

    Counts, such as days, reach 0 in steps: their smallest positive value is at most three steps.
    """
    present = values[~np.isnan(values)]
    zeros = int((present == 0).sum())
    positive = present[present > 0]
    if zeros < max(SMALLEST_CELL, _ZERO_SHARE * len(present)) or len(positive) < SMALLEST_CELL:
        return None
    distinct = np.unique(positive)
    step = float(np.diff(distinct).min()) if len(distinct) > 1 else float(distinct[0])
    near = int((positive <= 0.1 * np.median(positive)).sum())
    is_apart = distinct[0] > 3 * step and distinct[0] > 0.02 * np.median(positive)
    return zeros / len(present) if (present >= 0).all() and is_apart and near < 0.01 * zeros else None


def spike(values: Floats) -> tuple[float, float] | None:
    """A value that at least a quarter of the rows have, and its share; None without such a value.

    The smallest and the largest value do not count: they are common in ranges such as days of the past 30.
    """
    distinct, rows = np.unique(values[~np.isnan(values)], return_counts=True)
    if len(distinct) < _FEWEST_VALUES:
        return None
    index = int(np.argmax(rows[1:-1])) + 1
    share = float(rows[index] / rows.sum())
    return (float(f"{distinct[index]:.4g}"), share) if share >= SPIKE_SHARE else None


def decided(values: Floats, outcome: Floats, minimum: float, maximum: float) -> Decided | None:
    """Find values that only people with the outcome have: a run at an end of the range, or a single value.

    None without such values; of several, those of the most people. `outcome` (rows,) is 1, 0, or NaN. Ends of
    runs are rounded to a hundredth of the schema's range.
    """
    is_known = ~np.isnan(values) & ~np.isnan(outcome)
    grain = 10.0 ** np.floor(np.log10((maximum - minimum) / 100))
    distinct, value_of_row = np.unique(values[is_known], return_inverse=True)
    rows = np.bincount(value_of_row).astype(np.float64)
    hits = np.bincount(value_of_row, weights=outcome[is_known]).astype(np.float64)
    total = hits.sum()
    if total == 0 or len(distinct) < 2:
        return None
    candidates = []
    for sign in (1, -1):
        cut = _run(distinct[::sign], rows[::sign], hits[::sign], grain)
        if cut is not None:
            inside = distinct <= cut if sign == 1 else distinct >= cut
            people, positives = rows[inside].sum(), hits[inside].sum()
            if _decides(positives, people):
                low, high = (None, cut) if sign == 1 else (cut, None)
                candidates.append(Decided(low, high, int(people), float(positives / total)))
    is_frequent = rows >= DECIDED_ROWS
    for value, people, positives in zip(
        distinct[is_frequent], rows[is_frequent], hits[is_frequent], strict=True
    ):
        if _decides(positives, people):
            rounded = float(f"{value:.6g}")
            candidates.append(Decided(rounded, rounded, int(people), float(positives / total)))
    return max(candidates, key=lambda candidate: candidate.rows, default=None)


def _run(distinct: Floats, rows: Floats, hits: Floats, grain: float) -> float | None:
    """End of the longest run, from the first value on, that determines the outcome; rounded inwards."""
    people, positives = np.cumsum(rows), np.cumsum(hits)
    possible_ends = np.flatnonzero((people >= DECIDED_ROWS) & (positives >= DECIDED_RATE * people))[::-1]
    last = next((index for index in possible_ends if _decides(positives[index], people[index])), None)
    if last is None or last == len(people) - 1:
        return None
    end = distinct[last] / grain
    rounded = np.floor(end) if distinct[0] < distinct[-1] else np.ceil(end)
    return float(f"{rounded * grain:.10g}")


def _decides(positives: float, people: float) -> bool:
    if people < DECIDED_ROWS:
        return False
    return metrics.wilson_interval(positives, people)[0] >= DECIDED_RATE - _slack(people)


def _slack(people: float) -> float:
    """How far the limit is lowered for few people: to Wilson's lower end where all have the outcome."""
    return max(0.0, DECIDED_RATE - metrics.wilson_interval(people, people)[0])
