"""From hyperparameters to a model that can be served: a fit on training rows, then calibration and decision
threshold from validation rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from steps.data import processors
from steps.data.errors import UserError
from steps.data.files import TARGET_COLUMN
from steps.measures import metrics
from steps.models import cross_validation, families
from steps.models.families import Family

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

    from steps.data.schema import Schema

Method = Literal["none", "sigmoid", "isotonic"]

# Validation rows are cut into so many folds to judge a calibration on rows that it did not see.
_CALIBRATION_FOLDS = 5
# A calibration is kept if its mean gain in log loss is so many of its own standard errors above nothing.
_STANDARD_ERRORS = 1.96
# Fewer positive or negative validation rows than this say nothing about calibration.
_ENOUGH_OF_EACH = 50
_THRESHOLD_DIGITS = 6


@dataclass(frozen=True)
class Calibrated:
    """A model after the question of calibration. `log_losses` has the cross-fitted log loss of each method on
    validation rows; "none" is the model as it was fitted."""

    model: Any
    method: Method
    log_losses: Mapping[str, float]


@dataclass(frozen=True)
class Fitted:
    """A model ready to be saved. Predicted class is 1 where the risk is at least `threshold`."""

    model: Any
    family: Family
    params: Mapping[str, Any]
    threshold: float
    calibration: Method
    calibration_log_losses: Mapping[str, float]
    fit_seconds: float


def fit_model(
    family: Family,
    params: Mapping[str, Any],
    train: pd.DataFrame,
    validation: pd.DataFrame,
    schema: Schema,
    *,
    recall: float,
    seed: int,
    threads: int | None = None,
    while_fitting: AbstractContextManager[object] | None = None,
) -> Fitted:
    """Fit on training rows, calibrate if that helps, choose the threshold; frames hold features and target.

    `while_fitting` surrounds the fit alone, without what follows it.
    Raises UserError where one of the two outcomes is absent from training or validation rows.
    """
    import time

    started = time.perf_counter()
    with while_fitting or nullcontext():
        model = fit(family, params, train, schema, seed=seed, threads=threads)
    seconds = time.perf_counter() - started
    calibrated = calibrate_if_better(model, validation, schema)
    risk = families.predict_risk(calibrated.model, validation[list(schema.feature_names)])
    threshold = choose_threshold(validation[TARGET_COLUMN].to_numpy(), risk, recall)
    complete = families.check_params(family, params)
    return Fitted(
        calibrated.model, family, complete, threshold, calibrated.method, calibrated.log_losses, seconds
    )


def fit(
    family: Family,
    params: Mapping[str, Any],
    train: pd.DataFrame,
    schema: Schema,
    *,
    seed: int,
    threads: int | None = None,
) -> Pipeline:
    """A fitted pipeline, with at most `threads` threads (None: one for each core that this process may use).

    Raises UserError where the target holds one outcome only, or a feature no value at all.
    """
    from threadpoolctl import threadpool_limits

    y = train[TARGET_COLUMN].to_numpy()
    if len(np.unique(y)) < 2:
        raise UserError(
            "the training rows hold one outcome only, so there is nothing to learn: look at the target "
            "column and at the schema's positive values"
        )
    X = train[list(schema.feature_names)]
    empty = [name for name in schema.feature_names if X[name].isna().all()]
    if empty:
        raise UserError(
            f"no training row has a value in {', '.join(empty)}: a column that is always missing cannot be "
            "learned from, so take it out of the schema or give it values"
        )
    # Histogram boosting gives the same bits with any number of threads; sums of BLAS do not, and gain no time
    # here.
    with threadpool_limits({"openmp": threads or processors.available(), "blas": 1}):
        model = families.build(family, params, schema, seed).fit(X, y)
    families.forget_extremes(model, schema)
    return model


def calibrate_if_better(model: Any, validation: pd.DataFrame, schema: Schema) -> Calibrated:
    """The model, or the model with a sigmoid or isotonic calibration on top where that helps beyond doubt.

    Each method is judged by its log loss on validation rows that it did not see (cross-fitted in folds that
    keep repeats together), against the model as it is, row by row. The winner is fitted on all validation
    rows.
    """
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    X, y = validation[list(schema.feature_names)], validation[TARGET_COLUMN].to_numpy()
    plain = metrics.log_losses(y, families.predict_risk(model, X))
    log_losses: dict[str, float] = {"none": float(plain.mean())}
    if min(np.sum(y == 1), np.sum(y == 0)) < _ENOUGH_OF_EACH:
        return Calibrated(model, "none", log_losses)

    def calibrated(method: Method, rows: NDArray[np.bool_]) -> Any:
        return CalibratedClassifierCV(FrozenEstimator(model), method=method).fit(X[rows], y[rows])

    fold = cross_validation.folds(validation, schema, _CALIBRATION_FOLDS)
    best: Method = "none"
    methods: tuple[Method, ...] = ("sigmoid", "isotonic")
    for method in methods:
        losses = np.empty(len(y))
        for number in range(_CALIBRATION_FOLDS):
            inside = fold == number
            if inside.any():
                risk = families.predict_risk(calibrated(method, ~inside), X[inside])
                losses[inside] = metrics.log_losses(y[inside], risk)
        log_losses[method] = float(losses.mean())
        gain = plain - losses
        helps = gain.mean() > _STANDARD_ERRORS * gain.std(ddof=1) / math.sqrt(len(gain))
        if helps and log_losses[method] < log_losses[best]:
            best = method
    if best == "none":
        return Calibrated(model, best, log_losses)
    return Calibrated(calibrated(best, np.ones(len(y), dtype=bool)), best, log_losses)


def choose_threshold(y: NDArray[np.integer[Any]], risk: NDArray[np.float64], recall: float) -> float:
    """The highest threshold, to six decimals, at which at least this share of the positives is flagged.

    Rows with risk >= threshold are flagged. Raises UserError where there is no positive row.
    """
    positives = np.sort(risk[y == 1])
    if len(positives) == 0:
        raise UserError(
            "the validation rows hold no positive outcome, so no threshold can be chosen: more data is needed"
        )
    kept = math.ceil(recall * len(positives) - 1e-9)
    lowest = float(positives[len(positives) - kept])
    scale = 10.0**_THRESHOLD_DIGITS
    return min(math.floor(lowest * scale) / scale, 1 - 1 / scale)
