"""The glass box against the other families, fitted alike, and the effect of missing answers on each.

    python -m benchmarks.glass_box --folder .cache/datasets/<digest> --schema data/brfss2015.yaml

Every family is fitted with its defaults on the training rows as `train` does it (each row twice, the copy
with answers hidden) and scored on the test rows: ROC AUC with the paired difference to the glass box
(DeLong), log loss, calibration; then with each column missing for everybody: ROC AUC and observed / expected.
With `--plain` the fit without hidden copies is measured beside it. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from steps.data import processors
from steps.data.files import TARGET_COLUMN
from steps.data.schema import Schema
from steps.data.schema_file import load
from steps.measures import delong, metrics
from steps.models import estimators, families, fitting, missing_answers
from steps.models.families import FAMILIES, GLASS_BOX, Family, Model


def figures(y: NDArray[np.int8], risk: NDArray[np.float64]) -> dict[str, float]:
    """The figures of predicted risks."""
    return {
        "roc_auc": metrics.roc_auc(y, risk),
        "average_precision": metrics.average_precision(y, risk),
        "log_loss": metrics.log_loss(y, risk),
        "brier": metrics.brier(y, risk),
        "calibration_slope": metrics.calibration(y, risk).slope,
        "observed_expected": metrics.observed_expected(y, risk),
    }


def without(model: Model, test: pd.DataFrame, names: Sequence[str], schema: Schema) -> dict[str, float]:
    """ROC AUC and observed / expected where these answers are missing for everybody."""
    frame = test[list(schema.feature_names)].copy()
    for name in names:
        frame[name] = None if schema.column(name).is_text else np.nan
    risk = families.predict_risk(model, frame)
    y = test[TARGET_COLUMN].to_numpy()
    return {"roc_auc": metrics.roc_auc(y, risk), "observed_expected": metrics.observed_expected(y, risk)}


def difference(
    y: NDArray[np.int8], risk: NDArray[np.float64], other_risk: NDArray[np.float64]
) -> dict[str, float]:
    """Paired difference of the ROC AUCs (ours minus theirs) with its 95 % interval."""
    first, second = delong.placements(y, risk), delong.placements(y, other_risk)
    mean = metrics.roc_auc(y, risk) - metrics.roc_auc(y, other_risk)
    error = 1.96 * delong.difference_error(first, second)
    return {"difference": mean, "low": mean - error, "high": mean + error}


def plain(family: Family, train: pd.DataFrame, schema: Schema) -> Model:
    """The family fitted on the rows alone."""
    X, y = train[list(schema.feature_names)].reset_index(drop=True), train[TARGET_COLUMN].to_numpy()
    rows = missing_answers.as_they_are(X, y)
    return estimators.fit(family, {}, rows, schema, seed=0, bags=4, threads=processors.available())


def main() -> int:
    """Exit code 1 if a missing answer makes the risks of a family 10 % wrong on average."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="a prepared data set")
    parser.add_argument("--schema", type=Path, default=Path("data/brfss2015.yaml"))
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--pair", default="GenHlth,Income", help="columns that are missing together")
    parser.add_argument("--plain", action="store_true", help="fit without hidden copies too")
    values = parser.parse_args()
    schema = load(values.schema)
    tables = {
        part: pd.read_parquet(values.folder / f"{part}.parquet") for part in ("train", "validation", "test")
    }
    test = tables["test"]
    y = test[TARGET_COLUMN].to_numpy()
    pair = [name for name in values.pair.split(",") if name in schema.feature_names]
    risks: dict[str, NDArray[np.float64]] = {}
    result: dict[str, Any] = {}
    for family in (name for name in FAMILIES if name in values.families.split(",")):
        started, used = time.perf_counter(), time.process_time()
        fitted = fitting.fit_model(
            family, {}, fitting.Parts(tables["train"], tables["validation"]), schema, recall=0.8, seed=0
        )
        cost = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - used}
        risks[family] = families.predict_risk(fitted.model, test[list(schema.feature_names)])
        missing = {name: without(fitted.model, test, [name], schema) for name in schema.feature_names}
        if pair:
            missing[" and ".join(pair)] = without(fitted.model, test, pair, schema)
        result[family] = {
            **cost,
            "calibration": fitted.calibration,
            "complete": figures(y, risks[family]),
            "missing": missing,
            "observed_expected_range": [
                min(without_answer["observed_expected"] for without_answer in missing.values()),
                max(without_answer["observed_expected"] for without_answer in missing.values()),
            ],
        }
        if values.plain:
            plain_risk = families.predict_risk(
                plain(family, tables["train"], schema), test[list(schema.feature_names)]
            )
            result[family]["plain"] = figures(y, plain_risk)
            result[family]["hidden_minus_plain"] = difference(y, risks[family], plain_risk)
        print(f"{family}: done", file=sys.stderr, flush=True)
    for family in risks:
        if family != GLASS_BOX and GLASS_BOX in risks:
            result[family]["glass_box_minus_this"] = difference(y, risks[GLASS_BOX], risks[family])
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {"rows": {p: len(t) for p, t in tables.items()}, "megabytes": megabytes, **result}, indent=1
        )
    )
    ranges = [of_family["observed_expected_range"] for of_family in result.values()]
    return int(any(low < 0.9 or high > 1.1 for low, high in ranges))


if __name__ == "__main__":
    sys.exit(main())
