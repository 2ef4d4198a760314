"""What may be shown of people: no count that gives away a few, no edge that is one's own value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SMALLEST_CELL = 10


def hidden_cells(rows: Floats, known: Floats, positives: Floats) -> NDArray[np.bool_]:
    """Which cells of one table may not be shown, shape (cells,).

    Hidden are fewer than 10 rows, and fewer than 10 of either outcome among the `known` of them. A cell that
    is hidden alone could be had by subtraction, so then the next smallest goes too. Empty cells are shown.
    """
    rare = np.minimum(positives, known - positives)
    hidden: NDArray[np.bool_] = (rows > 0) & ((rows < SMALLEST_CELL) | ((known > 0) & (rare < SMALLEST_CELL)))
    if hidden.sum() == 1:
        rest = np.where(hidden | (rows == 0), np.inf, rows)
        if np.isfinite(rest).any():
            hidden[int(np.argmin(rest))] = True
    return hidden


def on_grid(edges: Floats, minimum: float, maximum: float) -> list[float]:
    """Edges of bins, rounded to a power of ten near a hundredth of the schema's range, ascending, none twice.

    A quantile of real values is the value of somebody, with all the digits that nobody else has.
    """
    grain = 10.0 ** np.floor(np.log10((maximum - minimum) / 100)) if maximum > minimum else 1.0
    return [float(f"{edge:.10g}") for edge in np.unique(np.round(edges / grain) * grain)]


def hidden_counts(rows: Floats) -> NDArray[np.bool_]:
    """As `hidden_cells`, where no outcome is shown."""
    nobody = np.zeros(len(rows))
    return hidden_cells(rows, nobody, nobody)
