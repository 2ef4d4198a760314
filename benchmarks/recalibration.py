"""How many labels a recalibration takes: how far observed / expected then is from 1, over many draws.

    python -m benchmarks.recalibration --model FOLDER --folder .cache/datasets/<digest>

The model's risks of the test rows are people; what really happens to them comes 1 log odds more often, or
with 8 tenths of the spread, or as the model says. Each draw labels so many of them, fits intercept and slope
on one half of those labels as `promote -P recalibrate=true` does, and measures observed / expected of all
people by their true risks, so that no sampling error of a test set is in it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from steps.data.schema_file import load
from steps.measures import metrics, recalibration
from steps.models import families, saved

LABELS = (2_000, 5_000, 15_000, 30_000)
TRUTHS = {"1 log odds more often": (1.0, 1.0), "8 tenths of the spread": (0.0, 0.8), "as it says": (0.0, 1.0)}
WITHIN = 0.03


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a saved model")
    parser.add_argument("--folder", type=Path, required=True, help="a prepared data set")
    parser.add_argument("--schema", type=Path, default=Path("data/brfss2015.yaml"))
    parser.add_argument("--draws", type=int, default=1000)
    values = parser.parse_args()
    schema = load(values.schema)
    rows = pd.read_parquet(values.folder / "test.parquet", columns=list(schema.feature_names))
    risk = families.predict_risk(saved.load(values.model), rows)
    print(
        f"{len(risk):,} people, {values.draws:,} draws; share with observed / expected within {WITHIN} of 1"
    )
    print(f"{'truth':26}{'before':>8}" + "".join(f"{labels:>10,}" for labels in LABELS))
    for name, (intercept, slope) in TRUTHS.items():
        truth = recalibration.Recalibration(intercept, slope).apply(risk)
        shares = []
        for labels in LABELS:
            generator = np.random.default_rng(labels)
            ratios = [_after(risk, truth, labels // 2, generator) for _ in range(values.draws)]
            shares.append(float(np.mean(np.abs(np.array(ratios) - 1) <= WITHIN)))
        before = truth.sum() / risk.sum()
        print(f"{name:26}{before:8.2f}" + "".join(f"{share:10.3f}" for share in shares), flush=True)
    return 0


def _after(risk: metrics.Floats, truth: metrics.Floats, labels: int, generator: np.random.Generator) -> float:
    """Observed / expected of everybody after a recalibration on so many labels."""
    people = generator.integers(len(risk), size=labels)
    outcome = generator.random(labels) < truth[people]
    return float(truth.sum() / recalibration.fit(outcome, risk[people]).apply(risk).sum())


if __name__ == "__main__":
    sys.exit(main())
