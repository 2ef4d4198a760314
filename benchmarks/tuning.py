"""Trials per minute of the search at parallelism 1 and 2, on one data set.

    python -m benchmarks.tuning --train train.parquet --schema data/brfss2015.yaml

The time counts from the moment when each worker has finished a trial to the last trial, without the start of
processes. The first nine trials are the same in both searches; TPE chooses later ones from earlier results.
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
    """Trials per minute of one search, and its workers' mean time of a fit."""
    objective = partial(cross_validation.make_objective, train, schema, fold_count=3, rows=rows, seed=0)
    ends: list[float] = []
    trials_done: list[Trial] = []

    def note(trial: Trial) -> None:
        ends.append(time.monotonic())
        trials_done.append(trial)

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
        "mean_fit_seconds_a_fold": sum(t.metrics.get("fit_seconds", 0.0) for t in trials_done)
        / len(trials_done),
    }


def main() -> int:
    """Exit code 3 if two parallel trials miss the target ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="a prepared train.parquet")
    parser.add_argument("--schema", type=Path, default=Path("data/brfss2015.yaml"))
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--rows", type=int, default=30_000, help="rows a trial sees")
    values = parser.parse_args()
    serial, parallel = (measure(values.train, values.schema, p, values.trials, values.rows) for p in (1, 2))
    ratio = parallel["trials_per_minute"] / serial["trials_per_minute"]
    print(json.dumps({"searches": [serial, parallel], "ratio": ratio, "wanted": WANTED_RATIO}, indent=1))
    return 0 if ratio >= WANTED_RATIO else MISSED


if __name__ == "__main__":
    sys.exit(main())
