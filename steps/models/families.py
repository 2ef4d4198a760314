"""The model families: their hyperparameters, and what every model offers.

`explainable_boosting` is the glass box: an additive model whose terms are tables (`explainable_boosting.py`).
The others are scikit-learn pipelines (`pipelines.py`). All take frames of the schema's raw features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from steps.data.errors import UserError
from steps.data.schema import NumericColumn
from steps.models.served_model import Terms

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

    from steps.data.schema import Schema

Family = Literal[
    "explainable_boosting", "logistic_regression", "random_forest", "histogram_gradient_boosting"
]
GLASS_BOX: Family = "explainable_boosting"
Value = int | float
Model: TypeAlias = "Terms | Pipeline"


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter of a family: from `low` to `high` inclusive, searched evenly or in its logarithm.

    An untuned model and the first trial of a search use `default`.
    """

    name: str
    low: float
    high: float
    default: Value
    log: bool = False
    integer: bool = False

    def round(self, value: float) -> Value:
        """The value as a model uses it and a run records it: a whole number, or four significant digits."""
        if self.integer:
            return round(value)
        return min(max(float(f"{value:.4g}"), self.low), self.high)

    def position(self, value: float) -> float:
        """Position of the value between low (0) and high (1) on this hyperparameter's scale."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


# The ranges cover what works on survey-sized tables of health indicators, and bound the cost of a model: no
# family can be made to take minutes for a hundred thousand rows.
SPACE: Mapping[Family, tuple[Hyperparameter, ...]] = {
    "explainable_boosting": (
        Hyperparameter("interactions", 10, 50, default=30, integer=True),
        Hyperparameter("learning_rate", 0.015, 0.1, default=0.05, log=True),
        Hyperparameter("max_leaves", 2, 3, default=2, integer=True),
        Hyperparameter("min_samples_leaf", 4, 100, default=20, log=True, integer=True),
    ),
    "logistic_regression": (
        Hyperparameter("C", 1e-3, 10.0, default=0.3, log=True),
        Hyperparameter("knots", 3, 8, default=5, integer=True),
    ),
    "random_forest": (
        Hyperparameter("min_samples_leaf", 20, 200, default=40, log=True, integer=True),
        Hyperparameter("max_features", 0.1, 0.7, default=0.3),
        Hyperparameter("max_samples", 0.1, 0.4, default=0.25),
    ),
    "histogram_gradient_boosting": (
        Hyperparameter("learning_rate", 0.02, 0.2, default=0.06, log=True),
        Hyperparameter("max_iter", 60, 400, default=250, integer=True),
        Hyperparameter("max_leaf_nodes", 4, 32, default=12, log=True, integer=True),
        Hyperparameter("min_samples_leaf", 20, 300, default=60, log=True, integer=True),
        Hyperparameter("l2_regularization", 0.01, 100.0, default=5.0, log=True),
        Hyperparameter("max_features", 0.15, 1.0, default=0.4),
    ),
}
FAMILIES: tuple[Family, ...] = tuple(SPACE)


def check_params(family: str, params: Mapping[str, Any]) -> dict[str, Value]:
    """The family's defaults with the given values in their place.

    Raises UserError naming every hyperparameter that the family does not have, or whose value is out of
    range.
    """
    if family not in SPACE:
        raise UserError(f"there is no family {family!r}; there are: {', '.join(FAMILIES)}")
    by_name = {hyperparameter.name: hyperparameter for hyperparameter in SPACE[cast(Family, family)]}
    problems = []
    for name, value in params.items():
        if name not in by_name:
            problems.append(f"{family} has no hyperparameter {name!r}; it has {', '.join(by_name)}")
            continue
        limits = by_name[name]
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if (
            not numeric
            or not limits.low <= value <= limits.high
            or (limits.integer and value != round(value))
        ):
            kind = "a whole number" if limits.integer else "a number"
            problems.append(f"{name} should be {kind} from {limits.low:g} to {limits.high:g}")
    if problems:
        raise UserError("; ".join(problems))
    return {
        name: (int(value) if hyperparameter.integer else float(value))
        for name, hyperparameter in by_name.items()
        for value in [params.get(name, hyperparameter.default)]
    }


def predict_risk(model: Model, frame: pd.DataFrame) -> NDArray[np.float64]:
    """Probability of the outcome for each row of raw features, shape (rows,)."""
    import numpy as np

    if isinstance(model, Terms):
        return model.risk(frame)
    return np.asarray(model.predict_proba(frame)[:, 1], dtype=np.float64)


def prediction_digest(model: Model, frame: pd.DataFrame) -> str:
    """16 hex digits that are equal for models whose predicted risks are equal to the last bit."""
    import hashlib

    return hashlib.sha256(predict_risk(model, frame).astype("<f8").tobytes()).hexdigest()[:16]


def example_rows(schema: Schema, count: int, *, nulls: bool = False) -> pd.DataFrame:
    """Rows made from the schema alone, so that no example shows a person; shape (count, features).

    The first row holds the middle of every column; the others step through the ranges and levels. With
    `nulls`, every third value of the last row is missing.
    """
    import pandas as pd

    cells: dict[str, list[Any]] = {}
    for position, column in enumerate(schema.columns):
        if isinstance(column, NumericColumn):
            low, width = column.minimum, column.maximum - column.minimum
            shares = [(0.5 + (1 + 2 * (position % 3)) * row / count) % 1 for row in range(count)]
            cells[column.name] = [float(f"{low + width * share:.6g}") for share in shares]
        else:
            codes, size = column.codes, len(column.codes)
            stride = next(
                s for s in range(max(math.ceil(size / count), 1), size + 2) if math.gcd(s, size) == 1
            )
            step = stride if position % 2 else -stride
            cells[column.name] = [codes[(size // 2 + step * row) % size] for row in range(count)]
        if nulls and position % 3 == 0:
            cells[column.name][-1] = None
    frame = pd.DataFrame(cells)
    return frame.astype({column.name: "str" if column.is_text else "float64" for column in schema.columns})
