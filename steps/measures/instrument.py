"""Whether a column looks as if its scale or its zero had changed.

Pounds for kilograms, a device that reads a third too much, ages counted from 0: the new values are a x + b,
and undoing that restores the former distribution. So candidates for a (with b = 0) and for b (with a = 1) are
undone, and the best is an explanation if little of the shift is left. Values that really rose can look the
same: the finding means "look at the instrument first", not that the instrument is broken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steps.measures import evidence

Floats = NDArray[np.float64]

# Scales from a fifth to five times, in steps of about 2 %; offsets up to half the range of the column.
_SCALES = np.exp(np.linspace(-np.log(5), np.log(5), 161))
_OFFSETS = np.linspace(-0.5, 0.5, 161)
# A transformation explains a shift if at most this share of its PSI is left.
_LEFT = 0.25


@dataclass(frozen=True)
class Transformation:
    """New values are `scale` times old values plus `offset`; `psi_left` is the PSI after undoing that."""

    scale: float
    offset: float
    psi_left: float


def explain(
    values: Floats, edges: Floats, counts: Floats, bounds: tuple[float, float], smallest_psi: float
) -> Transformation | None:
    """Find the scale or offset that explains how values (rows,) differ from counts (bins,).

    `edges`: inner edges of the bins. `bounds`: least and largest value of the schema. `smallest_psi`: a PSI
    up to this counts as no shift. None without an explanation, and with fewer than two bins.
    """
    if not len(values) or not len(edges) or not counts.sum():
        return None
    distinct, rows = np.unique(values, return_counts=True)
    is_whole = bool(np.all(distinct == np.round(distinct)))

    def psi_left(scale: float, offset: float) -> float:
        return _psi_undone(distinct, rows, edges, counts, scale, offset, is_whole)

    before = psi_left(1.0, 0.0)
    width = bounds[1] - bounds[0]
    scale = _least(lambda a: psi_left(a, 0.0), _SCALES)
    offset = _least(lambda b: psi_left(1.0, b), width * _OFFSETS)
    best = min(
        Transformation(scale, 0.0, psi_left(scale, 0.0)),
        Transformation(1.0, offset, psi_left(1.0, offset)),
        key=lambda candidate: candidate.psi_left,
    )
    return best if best.psi_left <= max(_LEFT * before, smallest_psi) and before > smallest_psi else None


def _psi_undone(
    distinct: Floats,
    rows: NDArray[np.int64],
    edges: Floats,
    counts: Floats,
    scale: float,
    offset: float,
    is_whole: bool,
) -> float:
    """PSI of the values against the counts after undoing a scale and an offset.

    The edges are moved instead of the values. Whole numbers are recorded after rounding, so the edges are
    rounded too: 27 x 1.3 + 0 is recorded as 35.
    """
    moved = scale * edges + offset
    moved = np.round(scale * np.ceil(edges) + offset) if is_whole else moved - 1e-9 * np.abs(moved)
    bin_of_value = np.searchsorted(moved, distinct, side="right")
    return float(evidence.psi(np.bincount(bin_of_value, rows, len(edges) + 1), counts))


def _least(function: Callable[[float], float], candidates: Floats) -> float:
    """The candidate with the least value, refined by 41 points between its neighbours; the middle of ties.

    Whole numbers give ties: any offset from 3.5 to 4.5 equals 4.
    """
    values = [function(float(candidate)) for candidate in candidates]
    best = int(np.argmin(values))
    low, high = candidates[max(best - 1, 0)], candidates[min(best + 1, len(candidates) - 1)]
    finer = np.linspace(low, high, 41)
    refined = np.array([function(float(candidate)) for candidate in finer])
    equal = np.flatnonzero(refined <= min(refined.min(), values[best]) + 1e-12)
    return float(finer[equal[len(equal) // 2]]) if len(equal) else float(candidates[best])
