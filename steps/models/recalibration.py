"""A model whose risks were recalibrated by intercept and slope: the same model, and two numbers around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from steps.measures.recalibration import Recalibration
from steps.models.served_model import Terms
from steps.models.terms import recalibrated

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from steps.models.families import Model

# Knots of the curve that stands for the two numbers where a model has no log odds of its own, evenly spaced
# on the logit from -14 to 14: linear between them, it errs by less than 1e-5.
_KNOTS = 2801
_LARGEST_LOGIT = 14.0


def recalibrate(model: Model, by: Recalibration, X: pd.DataFrame, y: NDArray[np.int8]) -> Model:
    """The model with the risks that `by.apply` makes of its own; features X and outcomes y of a few rows.

    Of a glass box two numbers of the document change. Any other model is put into scikit-learn's
    `CalibratedClassifierCV`, which the stock image serves and skops can save: as a sigmoid of the log odds,
    or, for a model that gives probabilities alone, as a monotone curve. The rows are only what scikit-learn
    needs to set it up, one of each class at least.
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
