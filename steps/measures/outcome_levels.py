"""How a model judges people by their answer to the question of the outcome, where more than two exist.

What lies between no and yes, such as prediabetes, counts as one of them: these figures say what that means.
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
    """Rows, mean risk and share flagged of each level; none where the rows do not carry their level.

    ROC AUC without a level that counts as negative shows what that level costs, where it is the smaller part
    of all negatives. Where a level has fewer than 10 rows, no level is shown.
    """
    if LEVEL_COLUMN not in rows.frame:
        return ()
    place = rows.frame[LEVEL_COLUMN].to_numpy(dtype=np.float64)
    masks = [place == number for number in range(len(schema.target.levels))]
    counts = np.array([mask.sum() for mask in masks], dtype=np.float64)
    if hidden_counts(counts[counts > 0]).any():
        return ()
    negatives = len(rows.y) - rows.positives
    found = []
    for (code, label), mask in zip(schema.target.levels.items(), masks, strict=True):
        if mask.any():
            positive = code in schema.target.positive
            without = _roc_auc(rows, ~mask) if not positive and 2 * mask.sum() < negatives else None
            risk = rows.risk[mask]
            found.append(
                OutcomeLevel(
                    label, positive, len(risk), float(risk.mean()), float((risk >= threshold).mean()), without
                )
            )
    return tuple(found)


def _roc_auc(rows: ScoredRows, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Estimate:
    own = placements(rows.y[mask], rows.risk[mask])
    rarer = int(min(rows.y[mask].sum(), (1 - rows.y[mask]).sum()))
    return intervals.logit_delong(own.roc_auc, own.standard_error, rarer)
