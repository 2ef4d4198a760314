"""Risks by the level of an outcome that has more than two.

A level between no and yes, such as prediabetes, counts as one of the two; these figures show the effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from steps.data.disclosure import hidden_counts
from steps.data.files import LEVEL_COLUMN
from steps.measures import intervals
from steps.measures.delong import placements
from steps.measures.evaluation_document import Estimate, OutcomeLevel
from steps.measures.scored_rows import ScoredRows

if TYPE_CHECKING:
    from steps.data.schema import Schema


def measure(rows: ScoredRows, schema: Schema, threshold: float) -> tuple[OutcomeLevel, ...]:
    """Rows, mean risk and share flagged of each level; empty where the rows do not have their level.

    ROC AUC without a level that counts as negative shows the cost of including it, where it is the smaller
    part of all negatives. If a level has fewer than 10 rows, no level is shown.
    """
    if LEVEL_COLUMN not in rows.frame:
        return ()
    level_of_row = rows.frame[LEVEL_COLUMN].to_numpy(dtype=np.float64)
    masks = [level_of_row == number for number in range(len(schema.target.levels))]
    counts = np.array([mask.sum() for mask in masks], dtype=np.float64)
    if hidden_counts(counts[counts > 0]).any():
        return ()
    negatives = len(rows.y) - rows.positives
    results = []
    for (code, label), mask in zip(schema.target.levels.items(), masks, strict=True):
        if mask.any():
            positive = code in schema.target.positive
            without = _roc_auc(rows, ~mask) if not positive and 2 * mask.sum() < negatives else None
            risk = rows.risk[mask]
            results.append(
                OutcomeLevel(
                    label, positive, len(risk), float(risk.mean()), float((risk >= threshold).mean()), without
                )
            )
    return tuple(results)


def _roc_auc(rows: ScoredRows, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Estimate:
    placed = placements(rows.y[mask], rows.risk[mask])
    rarer = int(min(rows.y[mask].sum(), (1 - rows.y[mask]).sum()))
    return intervals.logit_delong(placed.roc_auc, placed.standard_error, rarer)
