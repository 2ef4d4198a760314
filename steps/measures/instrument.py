"""Does one column look as if it were measured with another scale, or from another zero?

Pounds for kilograms, a device that reads a third too much, ages counted from 0: the values are a x + b of
what they were, and undoing that gives the former distribution back. So candidates for (a, 1) and (1, b) are
undone, and the best of them is an explanation if little of the shift is left. Values that really rose can
look the same: the finding says "look at the instrument first", never that it is broken.
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
    """Values are `scale` times what they were, plus `offset`; `psi_left` is the PSI after undoing that."""

    scale: float
    offset: float
    psi_left: float


def explain(
    values: Floats, edges: Floats, counts: Floats, bounds: tuple[float, float], smallest_psi: float
) -> Transformation | None:
    """The scale or offset that explains how values (rows,) differ from counts (bins,) between inner edges.

    `bounds`: least and largest value that the schema allows. `smallest_psi`: what counts as no shift. None
    where nothing explains it, or the values have fewer than two bins.
    """
    if not len(values) or not len(edges) or not counts.sum():
        return None
    distinct, rows = np.unique(values, return_counts=True)
    whole = bool(np.all(distinct == np.round(distinct)))

    def psi_left(scale: float, offset: float) -> float:
        return _psi_undone(distinct, rows, edges, counts, scale, offset, whole)

    before = psi_left(1.0, 0.0)
    width = bounds[1] - bounds[0]
    scale = _least(lambda a: psi_left(a, 0.0), _SCALES)
    offset = _least(lambda b: psi_left(1.0, b), width * _OFFSETS)
    found = min(
        Transformation(scale, 0.0, psi_left(scale, 0.0)),
        Transformation(1.0, offset, psi_left(1.0, offset)),
        key=lambda one: one.psi_left,
    )
    return found if found.psi_left <= max(_LEFT * before, smallest_psi) and before > smallest_psi else None


def _psi_undone(
    distinct: Floats,
    rows: NDArray[np.int64],
    edges: Floats,
    counts: Floats,
    scale: float,
    offset: float,
    whole: bool,
) -> float:
    """PSI of the values against the counts after undoing a scale and an offset.

    The edges are moved instead of the values. Whole numbers were rounded after they were moved, and so are
    the edges: 27 x 1.3 + 0 is recorded as 35.
    """
    moved = scale * edges + offset
    moved = np.round(scale * np.ceil(edges) + offset) if whole else moved - 1e-9 * np.abs(moved)
    place = np.searchsorted(moved, distinct, side="right")
    return float(evidence.psi(np.bincount(place, rows, len(edges) + 1), counts))


def _least(function: Callable[[float], float], candidates: Floats) -> float:
    """The candidate with the least value, refined by 41 between its neighbours; the middle one of equals.

    Whole numbers give equals: any offset from 3.5 to 4.5 is the same as 4.
    """
    values = [function(float(candidate)) for candidate in candidates]
    best = int(np.argmin(values))
    low, high = candidates[max(best - 1, 0)], candidates[min(best + 1, len(candidates) - 1)]
    finer = np.linspace(low, high, 41)
    refined = np.array([function(float(candidate)) for candidate in finer])
    equal = np.flatnonzero(refined <= min(refined.min(), values[best]) + 1e-12)
    return float(finer[equal[len(equal) // 2]]) if len(equal) else float(candidates[best])
