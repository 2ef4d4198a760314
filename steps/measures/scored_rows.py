"""Rows with their outcomes and a model's risks: the input of every measure of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steps.measures.metrics import Floats

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class ScoredRows:
    """`y` (rows,) of 0 and 1, `risk` (rows,) in [0, 1], `frame` the valid frame of the same rows."""

    y: NDArray[np.int8]
    risk: Floats
    frame: DataFrame

    @property
    def positives(self) -> int:
        """Rows with the outcome."""
        return int(self.y.sum())

    @property
    def rarer(self) -> int:
        """Rows of the rarer outcome."""
        return min(self.positives, len(self.y) - self.positives)

    @property
    def prevalence(self) -> float:
        """Share of rows with the outcome."""
        return self.positives / len(self.y)


def scored_rows(y: ArrayLike, risk: ArrayLike, frame: DataFrame) -> ScoredRows:
    """Rows to evaluate, checked.

    Raises:
        ValueError: one class is absent, the lengths differ or a risk is no probability: no metric is defined.
    """
    rows = ScoredRows(np.asarray(y, dtype=np.int8), np.asarray(risk, dtype=np.float64), frame)
    if not len(rows.y) == len(rows.risk) == len(frame):
        raise ValueError(
            f"{len(rows.y)} outcomes, {len(rows.risk)} risks and {len(frame)} rows cannot be one split"
        )
    if not 0 < rows.positives < len(rows.y):
        raise ValueError(
            f"an evaluation needs both classes: {rows.positives} of {len(rows.y)} rows are positive"
        )
    if not (np.isfinite(rows.risk).all() and rows.risk.min() >= 0 and rows.risk.max() <= 1):
        raise ValueError("risks must be probabilities from 0 to 1")
    return rows
