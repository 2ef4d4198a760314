"""Trials per minute of the search at parallelism 1 and 2, on one data set.

    python -m benchmarks.tuning --train train.parquet --schema data/brfss2015.yaml

The clock runs from when each worker has finished a trial to the last trial, so that starting processes does
not count. The first nine trials are the same in both searches, later ones are what TPE makes of each.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks.__main__ import MISSED
from steps.models import cross_validation, families
from steps.models.search import Limits, search
from steps.models.trials import Trial

WANTED_RATIO = 1.7


def measure(train: Path, schema: Path, parallelism: int, trials: int, rows: int) -> dict[str, float]:
    """Trials per minute of one search, and what its workers spent fitting."""
    objective = partial(cross_validation.make_objective, train, schema, fold_count=3, rows=rows, seed=0)
    ends: list[float] = []
    found: list[Trial] = []

    def note(trial: Trial) -> None:
        ends.append(time.monotonic())
        found.append(trial)

    search(
        objective,
        families.SPACE,
        Limits(max_evals=trials, parallelism=parallelism, seed=0),
        on_trial=note,
        progress=True,
    )
    counted = len(ends) - parallelism
    return {
        "parallelism": parallelism,
        "trials": len(ends),
        "trials_per_minute": 60 * counted / (ends[-1] - ends[parallelism - 1]),
        "mean_fit_seconds_a_fold": sum(t.metrics.get("fit_seconds", 0.0) for t in found) / len(found),
    }


def main() -> int:
    """Exit code 3 where two trials at once are not worth what is promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="a prepared train.parquet")
    parser.add_argument("--schema", type=Path, default=Path("data/brfss2015.yaml"))
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--rows", type=int, default=30_000, help="rows a trial sees")
    values = parser.parse_args()
    one, two = (measure(values.train, values.schema, p, values.trials, values.rows) for p in (1, 2))
    ratio = two["trials_per_minute"] / one["trials_per_minute"]
    print(json.dumps({"searches": [one, two], "ratio": ratio, "wanted": WANTED_RATIO}, indent=1))
    return 0 if ratio >= WANTED_RATIO else MISSED


if __name__ == "__main__":
    sys.exit(main())
