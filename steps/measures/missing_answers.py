"""Performance of a model without the answers to a column, and to columns that go missing together.

The answers of all people are removed, so the figures hold for answers that are missing at random. People skip
questions for reasons, and the data do not have the answers that they would have given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steps.data.documents import defined
from steps.measures import intervals, metrics
from steps.measures.evaluation_document import Estimate, MissingAnswer, MissingAnswers
from steps.measures.importance import Predict

if TYPE_CHECKING:
    from pandas import DataFrame

    from steps.data.schema import Schema

Floats = NDArray[np.float64]

ROWS = 20_000


def missing_together(schema: Schema) -> tuple[tuple[str, ...], ...]:
    """The sets of columns that the schema's scenarios leave out together, without repeats."""
    column_sets = (
        tuple(
            change.column
            for change in scenario.changes
            if change.operation == "missing" and change.column is not None
        )
        for scenario in schema.scenarios
    )
    return tuple(dict.fromkeys(columns for columns in column_sets if len(columns) > 1))


def measure(
    predict: Predict,
    y: ArrayLike,
    features: DataFrame,
    schema: Schema,
    threshold: float,
    seed: int,
    rows: int = ROWS,
) -> MissingAnswers:
    """ROC AUC, observed / expected and share flagged with all answers, then without each column.

    Measured on a random sample of at most `rows` rows of the features (rows, columns) and outcomes y (rows,)
    of 0 and 1. Intervals of observed / expected assume that the risks are right.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(features))[:rows])
    sample, outcomes = features.iloc[chosen].reset_index(drop=True), np.asarray(y)[chosen]

    def without(columns: Sequence[str]) -> MissingAnswer:
        answers = sample.copy()
        for name in columns:
            answers[name] = answers[name].where(np.zeros(len(answers), dtype=np.bool_))
        risk = np.asarray(predict(answers), dtype=np.float64)
        expected = float(risk.sum())
        ratio = float(outcomes.sum()) / expected if expected else math.nan
        half_width = (
            intervals.Z * math.sqrt(float((risk * (1 - risk)).sum())) / expected if expected else math.nan
        )
        return MissingAnswer(
            columns=tuple(columns),
            roc_auc=defined(metrics.roc_auc(outcomes, risk)),
            observed_expected=Estimate(
                defined(ratio), defined(ratio - half_width), defined(ratio + half_width), method="normal"
            ),
            flagged=float((risk >= threshold).mean()),
        )

    single = [(name,) for name in schema.feature_names]
    entries = tuple(without(columns) for columns in (*single, *missing_together(schema)))
    return MissingAnswers(rows=len(sample), complete=without(()), entries=entries)
