"""Scoring from Parquet to Parquet against the model's own speed on arrays in memory, and its memory.

    python -m benchmarks.scoring [--rows 2000000] [--many 25000000] [--rounds 3]

The bound is `predict_proba` of the estimator (histogram gradient boosting, 300 trees) on one array, all
cores. End to end is everything that `-e score` does after it has the model: read, check, score, write.
Rounds alternate between the two; the table holds medians. Memory is the largest resident size of a process
that scores `--many` rows.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
TREES = 300
WANTED_RATIO = 0.8
WANTED_MEGABYTES = 1500


def main() -> int:
    """Print the table; exit code 1 if a target is missed."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--rows", type=int, default=2_000_000, help="rows to time")
    arguments.add_argument(
        "--many", type=int, default=25_000_000, help="rows to measure memory with; 0: none"
    )
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--worker", nargs=3, metavar=("MODEL", "DATA", "OUT"), help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.worker:
        return score_in_this_process(*map(Path, given.worker))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        people, model = fitted_model()
        (folder / "model.pkl").write_bytes(pickle.dumps(model))
        data = folder / "rows.parquet"
        write_rows(people, data, given.rows)
        bounds, rates = [], []
        for _ in range(given.rounds):
            bounds.append(speed_in_memory(model, people, given.rows))
            rates.append(scored(folder, data)["rows_per_second"])
        bound, rate = statistics.median(bounds), statistics.median(rates)
        ratio = rate / bound
        print(f"{'predict_proba on an array, all cores':44}{bound:14,.0f} rows/s")
        print(f"{f'score, {given.rows:,} rows, Parquet to Parquet':44}{rate:14,.0f} rows/s")
        print(f"{'ratio':44}{ratio:14.2f}   (wanted: at least {WANTED_RATIO})")
        largest = 0.0
        if given.many:
            data.unlink()
            write_rows(people, data, given.many)
            largest = scored(folder, data)["megabytes"]
            print(
                f"{f'largest memory, {given.many:,} rows':44}{largest:14,.0f} MB (wanted: below "
                f"{WANTED_MEGABYTES})"
            )
    return int(ratio < WANTED_RATIO or largest >= WANTED_MEGABYTES)


def fitted_model() -> tuple[pd.DataFrame, Any]:
    """The cohort's features, and boosted trees fitted to them."""
    from steps.data import validation
    from steps.data.schema_file import load
    from steps.models import estimators, missing_answers

    schema = load(ROOT / "data" / "brfss2015.yaml")
    raw = pd.read_parquet(ROOT / "data" / "cohort.parquet")
    rows = validation.check(raw, schema, schema.target.name, schema.target.positive).valid
    features = rows[list(schema.feature_names)]
    people = missing_answers.as_they_are(features, rows["__target__"].to_numpy())
    return features, estimators.fit(
        "histogram_gradient_boosting", {"max_iter": TREES}, people, schema, seed=0
    )


def write_rows(people: pd.DataFrame, path: Path, count: int) -> None:
    """A Parquet file of so many rows, the people over and over in random order, with a number each."""
    import pyarrow as pa
    from pyarrow import parquet

    generator = np.random.default_rng(0)
    writer = None
    for first in range(0, count, 500_000):
        size = min(500_000, count - first)
        frame = people.iloc[generator.integers(len(people), size=size)].assign(
            ID=np.arange(first, first + size)
        )
        table = pa.Table.from_pandas(frame, preserve_index=False)
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def speed_in_memory(model: Any, people: pd.DataFrame, count: int) -> float:
    """Rows a second of the estimator alone on one array."""
    matrix = model[:-1].transform(people)
    matrix = np.ascontiguousarray(matrix[np.random.default_rng(1).integers(len(matrix), size=count)])
    started = time.perf_counter()
    model[-1].predict_proba(matrix)
    return count / (time.perf_counter() - started)


def scored(folder: Path, data: Path) -> dict[str, float]:
    """What a fresh process says of scoring a file."""
    command = [sys.executable, "-m", "benchmarks.scoring", "--worker", str(folder / "model.pkl"), str(data)]
    answer = subprocess.run(
        [*command, str(folder / "out.parquet")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise RuntimeError(answer.stderr)
    result: dict[str, float] = json.loads(answer.stdout)
    return result


def score_in_this_process(model_file: Path, data: Path, out: Path) -> int:
    """Score and print speed and memory as JSON."""
    from steps.data import processors, sources
    from steps.data.schema_file import load
    from steps.models import families, scoring

    schema = load(ROOT / "data" / "brfss2015.yaml")
    model = pickle.loads(model_file.read_bytes())
    located = sources.locate(str(data), schema, data.parent, data.parent)
    done = scoring.score(
        located,
        out,
        lambda frame: families.predict_risk(model, frame),
        schema,
        workers=processors.available(),
    )
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows_per_second": done.rows / done.seconds, "megabytes": megabytes}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
