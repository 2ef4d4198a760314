"""Permutation importance: how much a model's ranking loses when one column is shuffled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from steps.data.documents import defined
from steps.measures import metrics
from steps.measures.evaluation_document import ColumnImportance, Importance

if TYPE_CHECKING:
    from pandas import DataFrame

    from steps.data.schema import Column

ROWS = 5000
REPEATS = 5

Predict = Callable[["DataFrame"], ArrayLike]


def importance(
    predict: Predict,
    y: ArrayLike,
    features: DataFrame,
    columns: Sequence[Column],
    seed: int,
    rows: int = ROWS,
    repeats: int = REPEATS,
) -> Importance:
    """Permutation importance (Breiman 2001): loss of ROC AUC when one column is shuffled, mean and spread.

    Measured on a random sample of at most `rows` rows, so that the cost is at most columns x repeats x rows
    predictions. Columns with the same information share its importance, so each alone seems to matter less.
    """
    generator = np.random.default_rng(seed)
    labels = np.asarray(y)
    chosen = np.sort(generator.permutation(len(labels))[:rows])
    sample, outcomes = features.iloc[chosen].reset_index(drop=True), labels[chosen]
    base = metrics.roc_auc(outcomes, predict(sample))
    measured: list[ColumnImportance] = []
    for column in columns:
        losses = []
        for _ in range(repeats):
            shuffled = sample.copy()
            shuffled[column.name] = sample[column.name].array[generator.permutation(len(sample))]
            losses.append(base - metrics.roc_auc(outcomes, predict(shuffled)))
        mean, spread = float(np.mean(losses)), float(np.std(losses, ddof=1)) if repeats > 1 else 0.0
        measured.append(ColumnImportance(column.name, column.meaning, defined(mean), defined(spread)))
    measured.sort(key=lambda entry: entry.loss or 0.0, reverse=True)
    return Importance(len(sample), repeats, defined(base), tuple(measured))
