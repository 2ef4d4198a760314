"""The influence of the split on the figures: one model under other hashes of the same rows.

    python -m benchmarks.splits --folder .cache/datasets/<digest> [--splits 20]

Split 0 is the project's own. Gradient boosting with its defaults is fitted to the training rows of each split
and measured on its test rows. The result shows how far a figure on one set of test rows lies from the
method's mean; it selects nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from steps.data import split
from steps.data.files import TARGET_COLUMN
from steps.data.schema_file import load
from steps.measures import metrics
from steps.models import families, fitting


def main() -> int:
    """Print a line for each split, and last the spread and the rank of the project's own split."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.splits", description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="a prepared data set")
    parser.add_argument("--schema", type=Path, default=Path("data/brfss2015.yaml"))
    parser.add_argument("--splits", type=int, default=20)
    chosen = parser.parse_args()
    schema = load(chosen.schema)
    rows = pd.concat([pd.read_parquet(chosen.folder / f"{part}.parquet") for part in split.PARTS])
    keys = split.row_keys(rows, schema)
    figures = []
    print(f"{'split':>6}{'test rows':>11}{'positive':>10}{'roc auc':>9}{'average precision':>19}")
    for number in range(chosen.splits):
        part = split.part(split.mix(keys ^ np.uint64(number)) if number else keys)
        model = fitting.fit("histogram_gradient_boosting", {}, rows[part == 0], schema, seed=0)
        test = rows[part == 2]
        y, risk = (
            test[TARGET_COLUMN].to_numpy(),
            families.predict_risk(model, test[list(schema.feature_names)]),
        )
        area, precision = metrics.roc_auc(y, risk), metrics.average_precision(y, risk)
        figures.append((area, precision))
        print(f"{number:6}{len(y):11,}{y.mean():10.4f}{area:9.4f}{precision:19.4f}", flush=True)
    for name, values in zip(("roc auc", "average precision"), np.array(figures).T, strict=True):
        below = int((values[1:] < values[0]).sum())
        print(
            f"{name}: mean {values.mean():.4f}, standard deviation {values.std(ddof=1):.4f}, from "
            f"{values.min():.4f} to {values.max():.4f}; {below} of {len(values) - 1} others are below split 0"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
