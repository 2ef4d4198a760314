"""A model whose risks were recalibrated by intercept and slope: the same model with two more numbers.

Where the outcome comes 1 log odds more often, 15,000 labels bring observed / expected to within 0.03 of 1 in
92 of 100 cases, 5,000 in 71 (benchmarks/recalibration.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from steps.data.errors import UserError
from steps.data.files import TARGET_COLUMN
from steps.measures import metrics, recalibration
from steps.measures.recalibration import Recalibration
from steps.models import families
from steps.models.served_model import Terms
from steps.models.terms import recalibrated

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from steps.data.schema import Schema
    from steps.models.families import Model

# A model that gives no log odds is recalibrated by a curve with this many knots, evenly spaced on the logit
# from -14 to 14. Linear interpolation between them errs by less than 1e-5.
_KNOTS = 2801
_LARGEST_LOGIT = 14.0

_THRESHOLD_DIGITS = 6
_CHI_SQUARE_95 = 5.991


@dataclass(frozen=True, eq=False)
class Recalibrated:
    """A recalibrated model, and the rows that judge it: `judge` holds features and outcome.

    `by` was fitted on `fitted_rows` other rows; `known_rows` are left out, since the model was trained on
    them. `likelihood_ratio` is twice the gain in log likelihood on the rows that `by` was fitted on.
    """

    model: Model
    by: Recalibration
    threshold: float
    judge: pd.DataFrame
    fitted_rows: int
    known_rows: int
    likelihood_ratio: float

    @property
    def changes_something(self) -> bool:
        """Whether intercept and slope differ significantly from 0 and 1 (95 % point of chi-square, 2 df)."""
        return self.likelihood_ratio > _CHI_SQUARE_95


def on_new_labels(
    model: Model,
    rows: pd.DataFrame,
    schema: Schema,
    threshold: float,
    trained_on: pd.DataFrame | None = None,
) -> Recalibrated:
    """Fit intercept and slope on one half of the rows (features and outcome), and keep the other to judge.

    A hash of the answers decides the half, so that repeats of a row stay together. Rows of `trained_on` are
    left out. The threshold is recalibrated with the risks, so that the same people are flagged.

    Raises UserError where nothing can be fitted, or where the risks do not rise with the outcome.
    """
    from pandas.util import hash_pandas_object

    names = list(schema.feature_names)
    row_hash = hash_pandas_object(rows[names], index=False).to_numpy()
    is_known = np.zeros(len(rows), dtype=np.bool_)
    if trained_on is not None:
        is_known = np.isin(row_hash, hash_pandas_object(trained_on[names], index=False).to_numpy())
    is_fitted = (row_hash >> np.uint64(17)) % np.uint64(2) == 0
    fit, judge = rows[~is_known & is_fitted], rows[~is_known & ~is_fitted].reset_index(drop=True)
    y = fit[TARGET_COLUMN].to_numpy()
    risk = families.predict_risk(model, fit[names]) if len(fit) else np.empty(0)
    by = recalibration.fit(y, risk) if len(fit) else recalibration.UNDEFINED
    if not math.isfinite(by.slope):
        raise UserError(
            f"{len(fit):,} labelled rows are left to recalibrate with, too few or all with one outcome: "
            "bring more rows that the model was not trained on"
        )
    if by.slope <= 0:
        raise UserError(
            "on these labels people with higher risks have the outcome less often: no recalibration mends "
            "that. Look at the data, or train"
        )
    scale = 10.0**_THRESHOLD_DIGITS
    new_threshold = math.floor(float(by.apply([threshold])[0]) * scale) / scale
    gain = metrics.log_losses(y, risk) - metrics.log_losses(y, by.apply(risk))
    return Recalibrated(
        model=recalibrate(model, by, fit[names], y),
        by=by,
        threshold=min(max(new_threshold, 1 / scale), 1 - 1 / scale),
        judge=judge,
        fitted_rows=len(fit),
        known_rows=int(is_known.sum()),
        likelihood_ratio=2 * float(gain.sum()),
    )


def recalibrate(model: Model, by: Recalibration, X: pd.DataFrame, y: NDArray[np.int8]) -> Model:
    """The model with its risks changed by `by.apply`.

    Two numbers change in the document of a glass box. Any other model is wrapped in scikit-learn's
    `CalibratedClassifierCV`, which the stock image serves and skops can save: as a sigmoid of the log odds,
    or as a monotone curve for a model that gives only probabilities. X and y are features and outcomes of a
    few rows, at least one of each class: scikit-learn needs them to set the wrapper up.
    """
    if isinstance(model, Terms):
        return recalibrated(model, by.slope, by.intercept)
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.isotonic import IsotonicRegression

    has_log_odds = hasattr(model, "decision_function")
    method = "sigmoid" if has_log_odds else "isotonic"
    wrapped = CalibratedClassifierCV(FrozenEstimator(model), method=method).fit(X, y)
    (inner,) = wrapped.calibrated_classifiers_
    if has_log_odds:
        # scikit-learn's sigmoid is 1 / (1 + exp(a x + b)).
        inner.calibrators[0].a_, inner.calibrators[0].b_ = -by.slope, -by.intercept
        return wrapped
    risks = 1 / (1 + np.exp(-np.linspace(-_LARGEST_LOGIT, _LARGEST_LOGIT, _KNOTS)))
    inner.calibrators[0] = IsotonicRegression(out_of_bounds="clip").fit(risks, by.apply(risks))
    return wrapped
