"""From hyperparameters to a model that can be served: a fit on training rows, then calibration and decision
threshold from validation rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from steps.data import processors
from steps.data.errors import UserError
from steps.data.files import TARGET_COLUMN
from steps.measures import metrics
from steps.models import cross_validation, estimators, families, missing_answers
from steps.models.served_model import Terms
from steps.models.terms import recalibrated

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from steps.data.schema import Schema
    from steps.models.families import Family, Model

Method = Literal["none", "sigmoid", "isotonic"]

# Bags of a glass box; its tables are their mean, and its document has their spread.
_BAGS = 4
# Number of folds of the validation rows, to judge a calibration on rows that it did not see.
_CALIBRATION_FOLDS = 5
# A calibration is kept if its mean gain in log loss is this many standard errors above 0.
_STANDARD_ERRORS = 1.96
# No calibration is tried with fewer positive or fewer negative validation rows than this.
_ENOUGH_OF_EACH = 50
_THRESHOLD_DIGITS = 6


@dataclass(frozen=True, eq=False)
class Parts:
    """Rows with features and target, to fit a model (`train`) and to judge the fit (`validation`)."""

    train: pd.DataFrame
    validation: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A model, calibrated if that helps.

    `risk` (rows,) holds the risk of each validation row from a calibration that did not see it, since a
    calibration flatters its own rows; `log_losses` holds the cross-fitted mean of each method. The method
    "none" is the model without calibration.
    """

    model: Model
    method: Method
    log_losses: Mapping[str, float]
    risk: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model ready to be saved. Predicted class is 1 where the risk is at least `threshold`.

    `validation_risk` and `validation_losses` (rows,): risks and log losses of the validation rows from a
    calibration that did not see them. The reference for the monitor is measured on them.
    """

    model: Model
    family: Family
    params: Mapping[str, Any]
    threshold: float
    calibration: Method
    calibration_log_losses: Mapping[str, float]
    validation_risk: NDArray[np.float64]
    validation_losses: NDArray[np.float64]
    fit_seconds: float


def fit_model(
    family: Family,
    params: Mapping[str, Any],
    parts: Parts,
    schema: Schema,
    *,
    recall: float,
    seed: int,
    threads: int | None = None,
    while_fitting: AbstractContextManager[object] | None = None,
) -> Fitted:
    """Fit on training rows, calibrate if that helps, choose the threshold.

    threads: the most threads; None is one for each core that this process may use. `while_fitting` surrounds
    only the fit, not the steps after it.
    Raises UserError where one of the two outcomes is absent from training or validation rows.
    """
    import time

    started = time.perf_counter()
    with while_fitting or nullcontext():
        model = fit(family, params, parts.train, schema, seed=seed, threads=threads)
    seconds = time.perf_counter() - started
    calibrated = calibrate_if_better(model, parts.validation, schema)
    y = parts.validation[TARGET_COLUMN].to_numpy()
    risk = families.predict_risk(calibrated.model, parts.validation[list(schema.feature_names)])
    return Fitted(
        model=calibrated.model,
        family=family,
        params=families.check_params(family, params),
        threshold=choose_threshold(y, risk, recall),
        calibration=calibrated.method,
        calibration_log_losses=calibrated.log_losses,
        validation_risk=calibrated.risk,
        validation_losses=metrics.log_losses(y, calibrated.risk),
        fit_seconds=seconds,
    )


def fit(
    family: Family,
    params: Mapping[str, Any],
    train: pd.DataFrame,
    schema: Schema,
    *,
    seed: int,
    threads: int | None = None,
) -> Model:
    """Fit a model on the training rows and on copies of them with answers hidden at random.

    Raises UserError where the target has one outcome only, or a feature has no value at all.
    """
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
    rows = missing_answers.with_hidden_answers(X, y, seed)
    threads = threads or processors.available()
    return estimators.fit(family, params, rows, schema, seed=seed, bags=_BAGS, threads=threads)


def calibrate_if_better(model: Model, validation: pd.DataFrame, schema: Schema) -> Calibrated:
    """Add a calibration to the model if its gain is significant.

    A calibration is a sigmoid on the log odds or, except for a glass box, isotonic. The log loss of each on
    validation rows that it did not see (cross-fitted in folds that keep repeats together) is compared with
    that of the model, row by row. The best is fitted on all validation rows.
    """
    X, y = validation[list(schema.feature_names)], validation[TARGET_COLUMN].to_numpy()
    risks: dict[Method, NDArray[np.float64]] = {"none": families.predict_risk(model, X)}
    plain = metrics.log_losses(y, risks["none"])
    losses: dict[Method, NDArray[np.float64]] = {"none": plain}
    best: Method = "none"
    methods: tuple[Method, ...] = ("sigmoid",) if isinstance(model, Terms) else ("sigmoid", "isotonic")
    if min(np.sum(y == 1), np.sum(y == 0)) < _ENOUGH_OF_EACH:
        methods = ()
    fold = cross_validation.folds(validation, schema, _CALIBRATION_FOLDS)
    for method in methods:
        risks[method] = np.empty(len(y))
        for fold_number in np.unique(fold):
            inside = fold == fold_number
            from_other_folds = calibrated(model, method, X[~inside], y[~inside])
            risks[method][inside] = families.predict_risk(from_other_folds, X[inside])
        losses[method] = metrics.log_losses(y, risks[method])
        gain = plain - losses[method]
        is_significant = gain.mean() > _STANDARD_ERRORS * gain.std(ddof=1) / math.sqrt(len(gain))
        if is_significant and losses[method].mean() < losses[best].mean():
            best = method
    means: dict[str, float] = {method: float(values.mean()) for method, values in losses.items()}
    return Calibrated(calibrated(model, best, X, y), best, means, risks[best])


def calibrated(model: Model, method: Method, X: pd.DataFrame, y: NDArray[np.integer[Any]]) -> Model:
    """The model with a calibration fitted on these rows; in a glass box two numbers change."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression

    if method == "none":
        return model
    if not isinstance(model, Terms):
        return CalibratedClassifierCV(FrozenEstimator(model), method=method).fit(X, y)
    sigmoid = LogisticRegression(C=math.inf, tol=1e-9).fit(model.log_odds(X)[:, None], y)
    return recalibrated(model, float(sigmoid.coef_[0, 0]), float(sigmoid.intercept_[0]))


def at_odds(fitted: Fitted, odds: float | None) -> Fitted:
    """Set the threshold at which one person found is worth `odds` false alarms; None changes nothing.

    The threshold is a risk of 1 / (1 + odds) (Vickers and Elkin 2006), whatever its recall.
    """
    return fitted if odds is None else replace(fitted, threshold=round(1 / (1 + odds), _THRESHOLD_DIGITS))


def choose_threshold(y: NDArray[np.integer[Any]], risk: NDArray[np.float64], recall: float) -> float:
    """The highest threshold, to six decimals, at which at least this share of the positives is flagged.

    Rows with risk >= threshold are flagged. Raises UserError where there is no positive row.
    """
    positives = np.sort(risk[y == 1])
    if len(positives) == 0:
        raise UserError(
            "the validation rows hold no positive outcome, so no threshold can be chosen: more data is needed"
        )
    flagged_count = math.ceil(recall * len(positives) - 1e-9)
    lowest = float(positives[len(positives) - flagged_count])
    scale = 10.0**_THRESHOLD_DIGITS
    return min(math.floor(lowest * scale) / scale, 1 - 1 / scale)
