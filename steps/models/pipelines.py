"""Families of scikit-learn: pipelines from raw indicators to a risk, derived from the schema.

Each pipeline handles missing codes, nulls, unseen categories and scaling with scikit-learn's own classes, so
a container needs only scikit-learn and skops to load it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from steps.data.schema import LevelledColumn, NumericColumn

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from steps.data.schema import Column, Schema
    from steps.models.families import Family, Value

# Histogram boosting takes at most this many categories; a column with more is passed as ordered codes.
_MOST_CATEGORIES = 255
_TREES = 100
_QUANTILES = 50
_DEPTH = 14


def build(family: Family, values: Mapping[str, Value], schema: Schema, seed: int) -> Pipeline:
    """An unfitted pipeline from a frame of the schema's raw features to the probability of the outcome.

    values: all hyperparameters of the family, as `families.check_params` gives them.
    """
    from sklearn.pipeline import Pipeline

    steps: list[tuple[str, Any]] = {
        "logistic_regression": _logistic_regression,
        "random_forest": _random_forest,
        "histogram_gradient_boosting": _histogram_gradient_boosting,
    }[family](values, schema, seed)
    return Pipeline(steps)


def _logistic_regression(values: Mapping[str, Value], schema: Schema, seed: int) -> list[tuple[str, Any]]:
    """One indicator per level, a cubic spline per number: log odds need not be linear in age or weight."""
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import MissingIndicator, SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer, SplineTransformer

    columns = _number_transformers(schema, known_levels_only=True)
    order = _order(columns)
    numbers = [index for index, name in enumerate(order) if schema.column(name).kind == "numeric"]
    levels = [index for index in range(len(order)) if index not in numbers]
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
    """Replace the smallest and largest training value in a fitted model by the schema's range.

    The ranks of a logistic regression end at the extreme training values, and each belongs to a person.
    """
    features = model.named_steps.get("features")
    if features is None or "numbers" not in features.named_transformers_:
        return
    order = _order(model.named_steps["columns"].transformers)
    (indices,) = (indices for name, _, indices in features.transformers if name == "numbers")
    columns = [schema.column(order[index]) for index in indices]
    numbers = [column for column in columns if isinstance(column, NumericColumn)]
    ranks = features.named_transformers_["numbers"].named_steps["quantiletransformer"]
    ranks.quantiles_[0] = [column.minimum for column in numbers]
    ranks.quantiles_[-1] = [column.maximum for column in numbers]


def _random_forest(values: Mapping[str, Value], schema: Schema, seed: int) -> list[tuple[str, Any]]:
    """Trees on numbers, ordered levels and one indicator per nominal level; leaves of at least 20 rows."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline

    nominal = [
        column for column in schema.columns if isinstance(column, LevelledColumn) and column.kind == "nominal"
    ]
    transformers = _number_transformers(schema, encoded_elsewhere=nominal)
    for name, encoder, encoded in _encoders("nominal", nominal):
        transformers.append((name, make_pipeline(encoder, _one_hot()), _names(encoded)))
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
    """Every column as one number or NaN: the value itself where that is enough, else the index of its level.

    known_levels_only: a number that is not a level of its column is NaN too.
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
    transformers += [
        (name, encoder, _names(encoded)) for name, encoder, encoded in _encoders("levels", levelled)
    ]
    for codes, numeric in _by_missing_codes(schema):
        if codes:
            names = "_".join(["numbers", *map(str, codes)])
            transformers.append((names, make_pipeline(*_null_makers(codes)), _names(numeric)))
    return transformers


def _order(transformers: Sequence[tuple[str, Any, list[str]]]) -> list[str]:
    """Names of the output columns of transformers that give one column for each input."""
    return [name for _, _, names in transformers for name in names]


def _is_plain(column: Column) -> bool:
    """Whether the raw value itself is the number that a tree should see."""
    return not column.is_text and not column.missing and column.kind != "nominal"


def _encoders(name: str, columns: Sequence[LevelledColumn]) -> list[tuple[str, Any, list[LevelledColumn]]]:
    """Index of each level from 0; NaN for a value that is not a level, such as a missing code.

    Texts are in the schema's order, numbers in ascending order, which scikit-learn requires. Numbers become
    an array first: scikit-learn splits a frame into columns, which takes a third longer for a single row.
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
    encoders: list[tuple[str, Any, list[LevelledColumn]]] = []
    if texts:
        text_encoder = encoder([np.array(column.codes, dtype=object) for column in texts])
        encoders.append((f"text_{name}", text_encoder, texts))
    if numbers:
        number_encoder = encoder([np.sort(np.array(column.codes, dtype=float)) for column in numbers])
        as_array = SimpleImputer(strategy="constant", fill_value=math.nan, keep_empty_features=True)
        encoders.append((name, make_pipeline(as_array, number_encoder), numbers))
    return encoders


def _one_hot() -> Any:
    """One indicator for each level seen in training; a missing answer counts as the commonest level.

    Otherwise a missing answer would count as the plain mean of all levels, rare and grave ones included.
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
    first, *further = codes
    fills = [(math.nan, first), *((code, first) for code in further), (first, math.nan)]
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
