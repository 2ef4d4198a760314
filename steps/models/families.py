"""The model families: pipelines from raw indicators to a risk, derived from the schema.

Missing codes, nulls, unseen categories and scaling are handled inside the pipeline, with scikit-learn's own
classes only: the served image holds no module of this project, and skops loads no type that `TRUSTED_TYPES`
does not name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from steps.data.errors import UserError
from steps.data.schema import LevelledColumn, NumericColumn

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray
    from sklearn.pipeline import Pipeline

    from steps.data.schema import Column, Schema

Family = Literal["logistic_regression", "random_forest", "histogram_gradient_boosting"]
Value = int | float

# What skops must be told to trust to load a fitted pipeline, each looked at: compiled trees, splines and
# calibrators hold arrays and numbers only; the two functions check and convert arrays; a partial binds
# arguments to a function that skops has to trust by itself.
TRUSTED_TYPES: list[str] = [
    "functools.partial",
    "numpy.dtype",
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    "scipy.interpolate._bsplines.BSpline",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
    "sklearn.utils.validation.check_array",
]

# Packages that the serving container needs beside the interpreter; what they pull in, MLflow pins or they do.
# uvicorn, MLflow's server, takes uvloop and httptools in the place of slower parts of its own when they are
# there.
_SERVED_PACKAGES = ("httptools", "mlflow", "numpy", "pandas", "scikit-learn", "scipy", "skops", "uvloop")

# A histogram boosting model cannot tell more categories than bins apart; beyond, levels are ordered codes.
_MOST_CATEGORIES = 255
_TREES = 100
_QUANTILES = 50
_DEPTH = 14


@dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter of a family: from `low` to `high` inclusive, searched evenly or in its logarithm.

    `default` is what a model that was not tuned uses, and the first trial of a search.
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
        """Where the value lies between low (0) and high (1) on this hyperparameter's scale."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


# What each family can be told. The ranges hold what works on survey-sized tables of health indicators, and
# bound the cost of a model: no family can be made to take minutes for a hundred thousand rows.
SPACE: Mapping[Family, tuple[Hyperparameter, ...]] = {
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
    known = {hyperparameter.name: hyperparameter for hyperparameter in SPACE[cast(Family, family)]}
    problems = []
    for name, value in params.items():
        if name not in known:
            problems.append(f"{family} has no hyperparameter {name!r}; it has {', '.join(known)}")
            continue
        one = known[name]
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if not numeric or not one.low <= value <= one.high or (one.integer and value != round(value)):
            what = "a whole number" if one.integer else "a number"
            problems.append(f"{name} should be {what} from {one.low:g} to {one.high:g}")
    if problems:
        raise UserError("; ".join(problems))
    return {
        name: (int(given) if one.integer else float(given))
        for name, one in known.items()
        for given in [params.get(name, one.default)]
    }


def build(family: Family, params: Mapping[str, Any], schema: Schema, seed: int) -> Pipeline:
    """An unfitted pipeline from a frame of the schema's raw features to the probability of the outcome.

    params: any of the family's hyperparameters; the others take their defaults. Raises UserError for
    parameters that will not do.
    """
    from sklearn.pipeline import Pipeline

    values = check_params(family, params)
    steps: list[tuple[str, Any]] = {
        "logistic_regression": _logistic_regression,
        "random_forest": _random_forest,
        "histogram_gradient_boosting": _histogram_gradient_boosting,
    }[family](values, schema, seed)
    return Pipeline(steps)


def _logistic_regression(values: Mapping[str, Value], schema: Schema, seed: int) -> list[tuple[str, Any]]:
    """One indicator a level, a cubic spline a number: log odds need not be straight in age or weight."""
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import MissingIndicator, SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer, SplineTransformer

    columns = _number_transformers(schema, known_levels_only=True)
    order = _order(columns)
    numbers = [place for place, name in enumerate(order) if schema.column(name).kind == "numeric"]
    levels = [place for place in range(len(order)) if place not in numbers]
    indicator = MissingIndicator(features="missing-only", error_on_new=False)
    features: list[tuple[str, Any, list[int]]] = [("missing", indicator, list(range(len(order))))]
    if levels:
        features.append(("levels", _one_hot(), levels))
    if numbers:
        median = SimpleImputer(strategy="median", keep_empty_features=True)
        ranks = QuantileTransformer(n_quantiles=_QUANTILES, random_state=seed)
        knots = np.tile(np.linspace(0, 1, int(values["knots"]))[:, None], (1, len(numbers)))
        splines = SplineTransformer(knots=knots, extrapolation="constant")
        features.append(("numbers", make_pipeline(median, ranks, splines), numbers))
    model = LogisticRegression(C=float(values["C"]), max_iter=1000, random_state=seed)
    return [
        ("columns", ColumnTransformer(columns)),
        ("features", ColumnTransformer(features)),
        ("model", model),
    ]


def forget_extremes(model: Pipeline, schema: Schema) -> None:
    """Put the schema's range in the place of the smallest and largest value that a fitted model remembers.

    The ranks of a logistic regression end at the extreme training values, and those are somebody's.
    """
    features = model.named_steps.get("features")
    if features is None or "numbers" not in features.named_transformers_:
        return
    order = _order(model.named_steps["columns"].transformers)
    (places,) = (places for name, _, places in features.transformers if name == "numbers")
    by_place = [schema.column(order[place]) for place in places]
    numbers = [column for column in by_place if isinstance(column, NumericColumn)]
    ranks = features.named_transformers_["numbers"].named_steps["quantiletransformer"]
    ranks.quantiles_[0] = [column.minimum for column in numbers]
    ranks.quantiles_[-1] = [column.maximum for column in numbers]


def _random_forest(values: Mapping[str, Value], schema: Schema, seed: int) -> list[tuple[str, Any]]:
    """Trees on numbers, ordered levels and one indicator a nominal level; leaves of at least 20 rows."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline

    nominal = [
        column for column in schema.columns if isinstance(column, LevelledColumn) and column.kind == "nominal"
    ]
    transformers = _number_transformers(schema, encoded_elsewhere=nominal)
    for name, encoder, those in _encoders("nominal", nominal):
        transformers.append((name, make_pipeline(encoder, _one_hot()), _names(those)))
    model = RandomForestClassifier(
        n_estimators=_TREES,
        max_depth=_DEPTH,
        min_samples_leaf=int(values["min_samples_leaf"]),
        max_features=float(values["max_features"]),
        max_samples=float(values["max_samples"]),
        random_state=seed,
    )
    return [("columns", ColumnTransformer(transformers)), ("model", model)]


def _histogram_gradient_boosting(
    values: Mapping[str, Value], schema: Schema, seed: int
) -> list[tuple[str, Any]]:
    """Boosted trees with their own handling of nulls and of nominal levels."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier

    transformers = _number_transformers(schema)
    order = _order(transformers)
    categorical = [
        order.index(column.name)
        for column in schema.columns
        if isinstance(column, LevelledColumn)
        and column.kind == "nominal"
        and len(column.codes) <= _MOST_CATEGORIES
    ]
    model = HistGradientBoostingClassifier(
        learning_rate=float(values["learning_rate"]),
        max_iter=int(values["max_iter"]),
        max_leaf_nodes=int(values["max_leaf_nodes"]),
        min_samples_leaf=int(values["min_samples_leaf"]),
        l2_regularization=float(values["l2_regularization"]),
        max_features=float(values["max_features"]),
        categorical_features=categorical or None,
        early_stopping=False,
        random_state=seed,
    )
    return [("columns", ColumnTransformer(transformers)), ("model", model)]


def _number_transformers(
    schema: Schema, encoded_elsewhere: Sequence[Column] = (), known_levels_only: bool = False
) -> list[tuple[str, Any, list[str]]]:
    """Every column as one number or NaN: as it is where that says it all, else as the place of its level.

    known_levels_only: a number that is none of its column's levels is NaN too.
    """
    from sklearn.pipeline import make_pipeline

    columns = [column for column in schema.columns if column not in encoded_elsewhere]
    plain = [
        column
        for column in columns
        if _is_plain(column) and not (known_levels_only and isinstance(column, LevelledColumn))
    ]
    levelled = [column for column in columns if isinstance(column, LevelledColumn) and column not in plain]
    transformers: list[tuple[str, Any, list[str]]] = []
    if plain:
        transformers.append(("plain", "passthrough", _names(plain)))
    transformers += [(name, encoder, _names(those)) for name, encoder, those in _encoders("levels", levelled)]
    for codes, numeric in _by_missing_codes(schema):
        if codes:
            names = "_".join(["numbers", *map(str, codes)])
            transformers.append((names, make_pipeline(*_null_makers(codes)), _names(numeric)))
    return transformers


def _order(transformers: Sequence[tuple[str, Any, list[str]]]) -> list[str]:
    """Names of the columns that come out of transformers which give one column for each."""
    return [name for _, _, names in transformers for name in names]


def _is_plain(column: Column) -> bool:
    """Whether the raw value itself is the number that a tree should see."""
    return not column.is_text and not column.missing and column.kind != "nominal"


def _encoders(name: str, columns: Sequence[LevelledColumn]) -> list[tuple[str, Any, list[LevelledColumn]]]:
    """Place of each level from 0; NaN for whatever is no level, missing codes among it.

    Texts stand in the schema's order, numbers in ascending order, as scikit-learn insists. Numbers become an
    array first: a frame is taken apart column by column, which costs a single row a third more.
    """
    import numpy as np
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    def encoder(categories: list[Any]) -> Any:
        unknown: dict[str, Any] = {"handle_unknown": "use_encoded_value", "unknown_value": math.nan}
        return OrdinalEncoder(categories=categories, **unknown)

    texts = [column for column in columns if column.is_text]
    numbers = [column for column in columns if not column.is_text]
    found: list[tuple[str, Any, list[LevelledColumn]]] = []
    if texts:
        of_texts = encoder([np.array(column.codes, dtype=object) for column in texts])
        found.append((f"text_{name}", of_texts, texts))
    if numbers:
        of_numbers = encoder([np.sort(np.array(column.codes, dtype=float)) for column in numbers])
        as_array = SimpleImputer(strategy="constant", fill_value=math.nan, keep_empty_features=True)
        found.append((name, make_pipeline(as_array, of_numbers), numbers))
    return found


def _one_hot() -> Any:
    """One indicator for each level seen in training; who gives none counts as having the commonest.

    Without that, a missing answer would count as the plain mean of all levels, rare and grave ones included.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    commonest = SimpleImputer(strategy="most_frequent", keep_empty_features=True)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_pipeline(commonest, encoder)


def _null_makers(codes: Sequence[float]) -> list[Any]:
    """Steps after which each missing code of a number is NaN.

    SimpleImputer refuses NaN beside another missing value, so nulls and codes all become the first code,
    which then becomes NaN.
    """
    from sklearn.impute import SimpleImputer

    if not codes:
        return []
    first, *others = codes
    fills = [(math.nan, first), *((code, first) for code in others), (first, math.nan)]
    return [
        SimpleImputer(missing_values=code, strategy="constant", fill_value=fill, keep_empty_features=True)
        for code, fill in fills
    ]


def _by_missing_codes(schema: Schema) -> list[tuple[tuple[float, ...], list[Column]]]:
    """The numeric columns, grouped by their missing codes."""
    groups: dict[tuple[float, ...], list[Column]] = {}
    for column in schema.columns:
        if column.kind == "numeric":
            groups.setdefault(tuple(code for code in column.missing if not isinstance(code, str)), []).append(
                column
            )
    return list(groups.items())


def _names(columns: Sequence[Column]) -> list[str]:
    return [column.name for column in columns]


def predict_risk(model: Any, frame: pd.DataFrame) -> NDArray[np.float64]:
    """Probability of the outcome for each row of raw features, shape (rows,)."""
    import numpy as np

    return np.asarray(model.predict_proba(frame)[:, 1], dtype=np.float64)


def prediction_digest(model: Any, frame: pd.DataFrame) -> str:
    """16 hex digits of the predicted risks to the last bit: equal for models that answer equally."""
    import hashlib

    return hashlib.sha256(predict_risk(model, frame).astype("<f8").tobytes()).hexdigest()[:16]


def example_rows(schema: Schema, count: int, *, nulls: bool = False) -> pd.DataFrame:
    """Rows made from the schema alone, so that no person stands in an example; shape (count, features).

    The first holds every column's middle; the others walk through ranges and levels, as many of them as there
    are rows. With `nulls`, the last row lacks every third value.
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


def pip_requirements() -> list[str]:
    """What a container needs to serve a model, pinned to the versions installed here."""
    from importlib.metadata import version

    return [f"{package}=={version(package)}" for package in _SERVED_PACKAGES]


def save(model: Any, folder: Path, schema: Schema, metadata: Mapping[str, Any]) -> None:
    """Write the fitted pipeline as an MLflow model into a folder that does not exist yet.

    Its `predict` answers with the probabilities of both classes, shape (rows, 2). metadata: JSON-able, shown
    by whoever reads the MLmodel file. Nothing of the training rows is saved but what the estimator learned.
    """
    import mlflow.sklearn
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, TensorSpec
    from mlflow.types import Schema as MlflowSchema

    inputs = MlflowSchema([ColSpec("string" if c.is_text else "double", c.name) for c in schema.columns])
    outputs = MlflowSchema([TensorSpec(np.dtype(np.float64), (-1, 2))])
    mlflow.sklearn.save_model(
        model,
        str(folder),
        signature=ModelSignature(inputs, outputs),
        input_example=example_rows(schema, 2),
        pip_requirements=pip_requirements(),
        pyfunc_predict_fn="predict_proba",
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_SKOPS,
        skops_trusted_types=TRUSTED_TYPES,
        metadata=dict(metadata),
    )


def load(folder: Path) -> Any:
    """The fitted pipeline that `save` wrote."""
    import mlflow.sklearn

    return mlflow.sklearn.load_model(str(folder))
