"""Scoring from Parquet to Parquet: a glass box beside boosted trees, and memory over many rows.

    python -m benchmarks.scoring [--rows 2000000] [--many 25000000] [--rounds 5]

Both models are fitted to the bundled cohort as `train` fits them, and saved. Each round scores the same file
with either model in a process of its own, in turn, with everything that `-e score` does after it has the
model: read, check, score, write. Between the two, ratios of rounds with the 95 % interval of their geometric
mean. The trees are also compared with their own `predict_proba` on one array. Memory is the largest resident
size of the process that scores `--many` rows with the glass box.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.__main__ import MISSED
from steps.models.families import GLASS_BOX, Family

ROOT = Path(__file__).resolve().parents[1]
TREES: Family = "histogram_gradient_boosting"
PARAMETERS: dict[Family, dict[str, Any]] = {GLASS_BOX: {}, TREES: {"max_iter": 300}}
WANTED_OF_THE_ARRAY = 0.8
WANTED_TIMES = 3.0
WANTED_MEGABYTES = 1500
STUDENT = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclass(frozen=True)
class Cost:
    """The cost of one scoring: speed, seconds of processor time, and the largest memory in MB."""

    rows_per_second: float
    processor_seconds: float
    megabytes: float


def main() -> int:
    """Print the table; exit code 3 if a target is missed."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--rows", type=int, default=2_000_000, help="rows to time")
    arguments.add_argument(
        "--many", type=int, default=25_000_000, help="rows to measure memory with; 0: none"
    )
    arguments.add_argument("--rounds", type=int, default=5, choices=range(3, 11))
    arguments.add_argument("--worker", nargs=3, metavar=("MODEL", "DATA", "OUT"), help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.worker:
        return score_in_this_process(*map(Path, chosen.worker))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        people = save_models(folder)
        data = folder / "rows.parquet"
        write_rows(people, data, chosen.rows)
        costs: dict[Family, list[Cost]] = {family: [] for family in PARAMETERS}
        bounds = []
        for _ in range(chosen.rounds):
            bounds.append(speed_in_memory(folder / TREES, people, chosen.rows))
            for family, costs_of_family in costs.items():
                costs_of_family.append(scored(folder / family, data))
        missed = print_speed(chosen.rows, costs, statistics.median(bounds))
        if chosen.many:
            data.unlink()
            write_rows(people, data, chosen.many)
            many = scored(folder / GLASS_BOX, data)
            label = f"glass box, {chosen.many:,} rows: largest memory"
            print(f"{label:56}{many.megabytes:12,.0f} MB (wanted: below {WANTED_MEGABYTES})")
            print(f"{'its speed':56}{many.rows_per_second:12,.0f} rows/s")
            missed |= many.megabytes >= WANTED_MEGABYTES
    return MISSED if missed else 0


def print_speed(rows: int, costs: dict[Family, list[Cost]], bound: float) -> bool:
    """Print speeds and ratios, one on each line; returns whether a target is missed."""
    medians = {}
    for family, costs_of_family in costs.items():
        medians[family] = statistics.median(cost.rows_per_second for cost in costs_of_family)
        label = f"{family.replace('_', ' ')}, {rows:,} rows, Parquet to Parquet"
        print(f"{label:56}{medians[family]:12,.0f} rows/s")
    print(f"{'trees on an array in memory, all cores':56}{bound:12,.0f} rows/s")
    share = medians[TREES] / bound
    print(
        f"{'trees, Parquet to Parquet, of that':56}{share:12.2f}   (wanted: at least {WANTED_OF_THE_ARRAY})"
    )
    pairs = list(zip(costs[GLASS_BOX], costs[TREES], strict=True))
    clock = interval([box.rows_per_second / trees.rows_per_second for box, trees in pairs])
    work = interval([trees.processor_seconds / box.processor_seconds for box, trees in pairs])
    for label, (low, mean, high) in (("on the clock", clock), ("by processor time", work)):
        print(f"{f'glass box against trees, {label}':56}{mean:12.2f}   ({low:.2f} to {high:.2f})")
    print(f"{'':56}{'':12}   wanted: at least {WANTED_TIMES:g} times")
    return share < WANTED_OF_THE_ARRAY or clock[1] < WANTED_TIMES


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of ratios between the ends of its 95 % interval (Student's)."""
    logs = np.log(ratios)
    half = STUDENT[len(logs) - 1] * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    middle = float(logs.mean())
    return math.exp(middle - half), math.exp(middle), math.exp(middle + half)


def save_models(folder: Path) -> pd.DataFrame:
    """Fit a model of each family to the cohort and save it in `folder`; returns the cohort's features."""
    from steps.data import validation
    from steps.data.schema_file import load
    from steps.models import fitting, saved

    schema = load(ROOT / "data" / "brfss2015.yaml")
    raw = pd.read_parquet(ROOT / "data" / "cohort.parquet")
    rows = validation.check(raw, schema, schema.target.name, schema.target.positive).valid
    for family, parameters in PARAMETERS.items():
        saved.save(fitting.fit(family, parameters, rows, schema, seed=0), folder / family, schema, {})
    return rows[list(schema.feature_names)]


def write_rows(people: pd.DataFrame, path: Path, count: int) -> None:
    """Write a Parquet file of `count` numbered rows, drawn from the people with replacement."""
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


def speed_in_memory(saved_model: Path, people: pd.DataFrame, count: int) -> float:
    """Rows a second of the estimator alone on one array."""
    from steps.models import saved

    model: Any = saved.load(saved_model)
    matrix = model[:-1].transform(people)
    matrix = np.ascontiguousarray(matrix[np.random.default_rng(1).integers(len(matrix), size=count)])
    started = time.perf_counter()
    model[-1].predict_proba(matrix)
    return count / (time.perf_counter() - started)


def scored(saved_model: Path, data: Path) -> Cost:
    """The cost of scoring a file in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.scoring", "--worker", str(saved_model), str(data)]
    target = data.with_name("out.parquet")
    answer = subprocess.run([*command, str(target)], cwd=ROOT, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(answer.stderr)
    target.unlink()
    return Cost(**json.loads(answer.stdout))


def score_in_this_process(saved_model: Path, data: Path, target: Path) -> int:
    """Score and print the cost as JSON."""
    from steps.data import processors, sources
    from steps.data.schema_file import load
    from steps.models import families, saved, scoring

    schema = load(ROOT / "data" / "brfss2015.yaml")
    model = saved.load(saved_model)
    located = sources.locate(str(data), schema, data.parent, data.parent)
    before = time.process_time()
    done = scoring.score(
        located,
        target,
        lambda frame: families.predict_risk(model, frame),
        schema,
        workers=processors.available(),
    )
    used = time.process_time() - before
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(asdict(Cost(done.rows / done.seconds, used, megabytes))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
