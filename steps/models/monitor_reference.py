"""`reference.json`: the facts about a model that a monitor needs, built where the model is trained.

Feature bins come from training rows; score bins, threshold and figures come from validation rows, which the
model did not see. `monitoring.reference`, which reads the document, also counts the rows here, so both bin
alike. The document holds counts, sums and bin edges, no row: outer edges and golden rows come from the
schema.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from monitoring import reference as reader
from steps.data.disclosure import coarse, coarse_parts, quantile_edges
from steps.data.files import TARGET_COLUMN
from steps.data.schema import Column, NumericColumn, Schema, format_code
from steps.measures import concordance, metrics
from steps.models import families

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

_SCORE_BINS = 20
_GOLDEN_ROWS = 8
_SCORE_DECIMALS = 6


def build_reference(
    model: Any,
    train: pd.DataFrame,
    validation: pd.DataFrame,
    schema: Schema,
    *,
    threshold: float,
    info: Mapping[str, Any],
    risk: NDArray[np.float64] | None = None,
) -> reader.Reference:
    """Build a model's reference; frames hold features and target.

    info: `name`, `version` (None before it is registered), `run_id`, `family`, `trained_at` (seconds since
    1970), `synthetic`; and of the data `kind` and `data_digest`, and, where they are known, `read` (rows
    before any was rejected) and `invalid` (how many of them were invalid in each column). risk: the
    validation rows' risks (rows,), from calibrations that did not see them; the model's own by default.
    Raises KeyError where a key of `info` is missing, and ReferenceError if the reader would refuse it.
    """
    names = list(schema.feature_names)
    y = validation[TARGET_COLUMN].to_numpy()
    if risk is None:
        risk = families.predict_risk(model, validation[names])
    groups = [np.asarray(group.mask(validation)) for group in schema.subgroups]
    golden = families.example_rows(schema, _GOLDEN_ROWS, nulls=True)
    features = tuple(_feature(column, train[column.name]) for column in schema.columns)
    built = reader.Reference(
        model=reader.Model(
            **{key: info[key] for key in ("name", "version", "run_id", "family", "trained_at")},
            digest=families.prediction_digest(model, validation[names]),
            synthetic=info["synthetic"],
        ),
        features=features,
        groups=_monitored_groups(schema, features),
        score=_score(y, risk, threshold),
        floors={} if schema.gates.roc_auc_min is None else {"roc_auc": schema.gates.roc_auc_min},
        golden=reader.Golden(
            columns=tuple(names),
            rows=tuple(tuple(map(_plain, row)) for row in golden.itertuples(index=False)),
            scores=tuple(float(score) for score in families.predict_risk(model, golden)),
        ),
        data={
            "schema": schema.name,
            "kind": info["kind"],
            "digest": info["data_digest"],
            "rows": {"train": len(train), "validation": len(validation), **_read(info)},
            "invalid": dict(info.get("invalid", {})),
            "prevalence": float(np.mean(y)),
        },
        target={
            "name": schema.target.name,
            "meaning": schema.target.meaning,
            "disclaimer": schema.disclaimer,
        },
        validation=_describe_validation(y, risk, threshold, groups),
    )
    return reader.parse(reader.document(built))


def recalibrated_reference(
    before: reader.Reference,
    model: Any,
    validation: pd.DataFrame,
    schema: Schema,
    *,
    threshold: float,
    run_id: str,
    trained_at: int,
) -> reader.Reference:
    """The reference of a recalibrated model: features as before, risks and figures from other rows.

    before: the reference of the model that was recalibrated. validation: features and target of rows that it
    was not trained on.
    """
    names = list(schema.feature_names)
    y, risk = validation[TARGET_COLUMN].to_numpy(), families.predict_risk(model, validation[names])
    groups = [np.asarray(group.mask(validation)) for group in schema.subgroups]
    golden = families.example_rows(schema, _GOLDEN_ROWS, nulls=True)
    built = dataclasses.replace(
        before,
        groups=_monitored_groups(schema, before.features),
        model=dataclasses.replace(
            before.model,
            version=None,
            run_id=run_id,
            trained_at=trained_at,
            digest=families.prediction_digest(model, validation[names]),
        ),
        data={
            **before.data,
            "rows": {**before.data["rows"], "validation": len(validation)},
            "prevalence": float(np.mean(y)),
        },
        score=_score(y, risk, threshold),
        validation=_describe_validation(y, risk, threshold, groups),
        golden=dataclasses.replace(
            before.golden, scores=tuple(float(score) for score in families.predict_risk(model, golden))
        ),
    )
    return reader.parse(reader.document(built))


def _monitored_groups(schema: Schema, features: Sequence[reader.Feature]) -> reader.Groups | None:
    """The schema's groups that the monitor counts by."""
    if not schema.monitored_groups:
        return None
    return reader.Groups(
        next(feature for feature in features if feature.name == schema.monitor_by),
        tuple(
            reader.Group(group.name, group.values or (), group.minimum, group.maximum)
            for group in schema.monitored_groups
        ),
    )


def _feature(column: Column, values: pd.Series[Any]) -> reader.Feature:
    """A column, its bins and the training rows in them.

    Counts are multiples of ten (see `steps.data.disclosure.coarse_parts`), since a release contains the
    document.
    """
    edges: tuple[float, ...] = ()
    levels: tuple[reader.Level, ...] = ()
    labels: tuple[str, ...] = ()
    minimum = maximum = None
    if isinstance(column, NumericColumn):
        minimum, maximum = column.minimum, column.maximum
        edges = tuple(inner_edges(values.to_numpy(dtype=np.float64), minimum, maximum))
        bins = _bin_names([minimum, *edges, maximum])
    else:
        levels, labels = tuple(column.codes), tuple(column.levels.values())
        bins = [format_code(code) for code in column.codes]
    empty = reader.Feature(
        name=column.name,
        kind=column.kind,
        type="string" if column.is_text else "double",
        bins=tuple(bins),
        counts=(0,) * len(bins),
        missing=0,
        labels=labels,
        levels=levels,
        edges=edges,
        minimum=minimum,
        maximum=maximum,
        missing_codes=tuple(code for code in column.missing if column.is_text == isinstance(code, str)),
        required=column.required,
    )
    counts = empty.count(values.to_numpy(dtype=object if column.is_text else np.float64))
    *in_bins, missing = coarse_parts([*counts.bins, counts.missing]).tolist()
    return dataclasses.replace(empty, counts=tuple(in_bins), missing=missing)


def inner_edges(values: NDArray[np.float64], minimum: float, maximum: float) -> list[float]:
    """Deciles of the values inside the range, rounded, without those that leave a bin empty."""
    inside = values[(values >= minimum) & (values <= maximum)]
    edges = np.array(quantile_edges(inside, minimum, maximum))
    if len(edges) == 0:
        return []
    counts = np.bincount(np.searchsorted(edges, inside, side="right"), minlength=len(edges) + 1)
    edges = edges[counts[1:] > 0]
    return [float(edge) for edge in (edges[1:] if counts[0] == 0 else edges)]


def _bin_names(edges: Sequence[float]) -> list[str]:
    texts = [f"{edge:.6g}" for edge in edges]
    halves = [f"[{low},{high})" for low, high in pairwise(texts)]
    return [*halves[:-1], halves[-1][:-1] + "]"]


def score_edges(risk: NDArray[np.float64], threshold: float) -> list[float]:
    """Edges of at most 20 score bins of about equal validation rows, from 0 to 1, the threshold among them.

    Risks with many ties give fewer bins. The threshold replaces the nearest edge.
    """
    quantiles = np.quantile(risk, np.arange(1, _SCORE_BINS) / _SCORE_BINS)
    inner = np.unique(np.round(quantiles, _SCORE_DECIMALS))
    inner = inner[(inner > 0) & (inner < 1)]
    if 0 < threshold < 1 and threshold not in inner:
        if len(inner) == _SCORE_BINS - 1:
            inner[np.argmin(np.abs(inner - threshold))] = threshold
        else:
            inner = np.append(inner, threshold)
    return [0.0, *(float(edge) for edge in np.unique(inner)), 1.0]


def _score(y: NDArray[np.int8], risk: NDArray[np.float64], threshold: float) -> reader.Score:
    """Score bins and the validation rows in them; counts are multiples of ten."""
    edges = score_edges(risk, threshold)
    size = len(edges) - 1
    zeros = (0,) * size
    empty = reader.Score(
        edges=tuple(edges),
        bins=tuple(f"{low:.4f}-{high:.4f}" for low, high in pairwise(edges)),
        counts=zeros,
        sums=zeros,
        positives=zeros,
        threshold=threshold,
        threshold_bin=edges.index(threshold),
    )
    bin_of_row = empty.bin(risk)
    exact = np.bincount(bin_of_row, minlength=size)
    rows = coarse(exact)
    sums = np.bincount(bin_of_row, weights=risk, minlength=size) / np.maximum(exact, 1) * rows
    return dataclasses.replace(
        empty,
        counts=tuple(rows.tolist()),
        sums=tuple(float(f"{value:.4g}") for value in sums),
        positives=tuple(coarse(np.bincount(bin_of_row[y == 1], minlength=size)).tolist()),
    )


def _read(info: Mapping[str, Any]) -> dict[str, int]:
    """The number of rows read, valid or not, where it is known."""
    return {"read": int(info["read"])} if "read" in info else {}


def _describe_validation(
    y: NDArray[Any], risk: NDArray[np.float64], threshold: float, groups: Sequence[NDArray[np.bool_]]
) -> dict[str, Any]:
    """Figures of validation rows.

    `expected_roc_auc`: expected from the risks; `gap_stderr`: the standard error of realised less expected.
    `people_error`: the typical error of the expected ROC AUC on other people, from the subgroups.
    """
    calibration, decision = metrics.calibration(y, risk), metrics.confusion(y, risk, threshold)
    ranking = concordance.measure(y, risk)
    figures = {
        "roc_auc": metrics.roc_auc(y, risk),
        "expected_roc_auc": ranking.expected,
        "gap_stderr": ranking.stderr,
        "average_precision": metrics.average_precision(y, risk),
        "brier": metrics.brier(y, risk),
        "calibration_slope": calibration.slope,
        "calibration_intercept": calibration.intercept,
        "observed_expected": metrics.observed_expected(y, risk),
        "recall": float(decision.recall),
        "precision": float(decision.precision),
        "flagged": float(decision.flagged),
    }
    error = concordance.error_on_other_people(y, risk, groups)
    return {
        "rows": len(y),
        "positives": int(np.sum(y)),
        **{name: _plain(value) for name, value in figures.items()},
        **({} if error is None else {"people_error": error}),
    }


def _plain(value: Any) -> Any:
    """A cell as a JSON value: None for NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value
