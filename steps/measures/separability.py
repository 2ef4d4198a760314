"""Whether a classifier can tell new rows from training rows: it sees shifts that no single column shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from steps.measures import bins, evidence, metrics
from steps.measures.drift_document import ColumnPart, Figure, Separability

if TYPE_CHECKING:
    import pandas as pd

    from steps.data.schema import Schema

# Most and fewest rows of each side.
_MOST_ROWS = 20_000
FEWEST_ROWS = 500
_SHOWN_COLUMNS = 8


def is_measurable(trained_on: pd.DataFrame | None, new: pd.DataFrame) -> bool:
    """Whether there are training rows, and both sides have at least 500 rows."""
    return trained_on is not None and min(len(trained_on), len(new)) >= FEWEST_ROWS


def measure(trained_on: pd.DataFrame, new: pd.DataFrame, schema: Schema, seed: int) -> Separability:
    """Measure how well boosted trees tell training rows from new rows, and by which columns.

    Rows are sampled; one half is learned from, the other half judged (Lopez-Paz and Oquab, "Revisiting
    classifier two-sample tests", ICLR 2017). A column's part is the ROC AUC lost when its values are
    shuffled. The standard error is that of indistinguishable rows.
    """
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingClassifier

    generator = np.random.default_rng(seed)
    size = min(len(trained_on), len(new), _MOST_ROWS)
    names = list(schema.feature_names)
    sides = [
        frame[names].iloc[np.sort(generator.permutation(len(frame))[:size])] for frame in (trained_on, new)
    ]
    all_rows = pd.concat(sides, ignore_index=True)
    matrix = bins.matrix(bins.code(all_rows, schema), all_rows)
    origin = np.repeat(np.array([0, 1], dtype=np.int8), size)
    order = generator.permutation(2 * size)
    learn, judge = order[:size], order[size:]
    trees = HistGradientBoostingClassifier(
        max_iter=50, learning_rate=0.1, max_leaf_nodes=10, min_samples_leaf=50, early_stopping=False,
        random_state=seed,
    )  # fmt: skip
    trees.fit(matrix[learn], origin[learn])
    judged, truth = matrix[judge], origin[judge]
    auc = metrics.roc_auc(truth, trees.decision_function(judged))
    stderr = float(evidence.roc_auc_stderr(0.5, truth.sum(), len(truth) - truth.sum()))
    parts = []
    for index, name in enumerate(names):
        shuffled = judged.copy()
        shuffled[:, index] = generator.permutation(shuffled[:, index])
        lost = auc - metrics.roc_auc(truth, trees.decision_function(shuffled))
        parts.append(ColumnPart(name, float(lost)))
    parts.sort(key=lambda part: -part.lost)
    return Separability(
        rows=size,
        roc_auc=Figure(auc, auc - 1.96 * stderr, auc + 1.96 * stderr),
        stderr=stderr,
        columns=tuple(parts[:_SHOWN_COLUMNS]),
    )
