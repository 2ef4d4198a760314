"""K-fold cross-validation on the training rows: what a trial of the tuning measures.

Folds use the same keys as the split into parts. All rows of a person are in one fold if the schema names a
column for the person; otherwise exact repeats of a row are in one fold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from steps.data import split
from steps.data.files import PERSON_COLUMN, TARGET_COLUMN
from steps.measures import metrics
from steps.models import estimators, families, missing_answers
from steps.models.families import Family, Value

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from steps.data.schema import Schema

# A trial sees at most about this many training rows: more rows cost time and hardly change which
# hyperparameters win. The refit of the winner uses all rows.
TRIAL_ROWS = 150_000


def folds(frame: pd.DataFrame, schema: Schema, count: int) -> NDArray[np.int64]:
    """Fold of each row from 0 to count - 1, shape (rows,); independent of the split into parts."""
    keys = split.mix(split.group_keys(frame, schema))
    return (keys % np.uint64(count)).astype(np.int64)


def sample(frame: pd.DataFrame, schema: Schema, rows: int) -> pd.DataFrame:
    """Sample at most about `rows` rows by their keys: the same rows every time.

    Repeats of a row, or all rows of a person, stay together.
    """
    if len(frame) <= rows:
        return frame
    keys = split.mix(split.mix(split.group_keys(frame, schema)))
    return frame[keys < np.uint64(rows / len(frame) * 2.0**64)]


def cross_validate(
    family: Family,
    params: Mapping[str, Value],
    frame: pd.DataFrame,
    schema: Schema,
    fold: NDArray[np.int64],
    seed: int,
) -> dict[str, float]:
    """Mean and spread over the folds of log loss, ROC AUC, average precision and Brier score.

    frame: features and target. The spread is the standard deviation over folds. `loss` is the mean log loss,
    `fit_seconds` the mean time of one fold's fit, `rows_per_second` the speed of prediction.
    """
    scores = {
        "log_loss": metrics.log_loss,
        "roc_auc": metrics.roc_auc,
        "average_precision": metrics.average_precision,
        "brier": metrics.brier,
    }
    X, y = frame[list(schema.feature_names)], frame[TARGET_COLUMN].to_numpy()
    by_fold: dict[str, list[float]] = {name: [] for name in scores}
    fit_seconds, predict_seconds = 0.0, 0.0
    numbers = np.unique(fold)
    for number in numbers:
        outside, inside = fold != number, fold == number
        started = time.perf_counter()
        rows = missing_answers.as_they_are(X[outside].reset_index(drop=True), y[outside])
        model = estimators.fit(family, params, rows, schema, seed=seed)
        fitted = time.perf_counter()
        risk = families.predict_risk(model, X[inside])
        predict_seconds += time.perf_counter() - fitted
        fit_seconds += fitted - started
        for name, score in scores.items():
            by_fold[name].append(score(y[inside], risk))
    result = {"loss": float(np.mean(by_fold["log_loss"]))}
    for name, values in by_fold.items():
        result[f"{name}_mean"] = float(np.mean(values))
        result[f"{name}_spread"] = float(np.std(values, ddof=1))
    result["fit_seconds"] = fit_seconds / len(numbers)
    result["rows_per_second"] = len(y) / predict_seconds
    return result


def make_objective(
    table: Path, schema_path: Path, *, fold_count: int, rows: int, seed: int
) -> Callable[[Family, Mapping[str, Value]], dict[str, float]]:
    """An objective for `steps.models.search.search`: reads the training table once, then cross-validates.

    rows: the most training rows, about, that a trial sees (see `sample`).
    """
    import pandas as pd
    from pyarrow import parquet

    from steps.data.schema_file import load

    schema = load(schema_path)
    columns = [*schema.feature_names, TARGET_COLUMN, PERSON_COLUMN]
    stored = set(parquet.read_schema(table).names)
    frame = pd.read_parquet(table, columns=[name for name in columns if name in stored])
    frame = sample(frame, schema, rows)
    fold = folds(frame, schema, fold_count)

    def objective(family: Family, params: Mapping[str, Value]) -> dict[str, float]:
        return cross_validate(family, params, frame, schema, fold, seed)

    return objective
