"""Seconds and peak memory of preparing a data set, from a file to three stored parts, at several sizes.

    python -m benchmarks.preprocess [--rows 250000 1000000 5000000] [--format parquet]

Each size is prepared in a process of its own, as the step does it but without MLflow; the seconds include its
imports. The people are made by monitoring/simulation/people.py.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.__main__ import MISSED

PROJECT = Path(__file__).resolve().parents[1]
# Rows -> most seconds and MB on two cores.
LIMITS = {250_000: (5.0, 1_500.0), 5_000_000: (120.0, 6_000.0)}


def measure(data: Path, schema_path: Path, cache: Path) -> dict[str, float]:
    """Prepare one file: seconds by stage, and the peak memory of this process in MB."""
    started_at = time.perf_counter()
    from steps.data import prepared as preparation
    from steps.data import sources
    from steps.data.schema_file import load

    schema = load(schema_path)
    located = sources.locate(str(data), schema, cache, PROJECT)
    located_at = time.perf_counter()
    prepared = preparation.prepare(sources.chunks(located, schema), schema, located, max_rejected=0.01)
    prepared_at = time.perf_counter()
    preparation.store(prepared, cache)
    stored_at = time.perf_counter()
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rows": sum(len(table) for table in prepared.tables.values()),
        "find": located_at - started_at,
        "prepare": prepared_at - located_at,
        "store": stored_at - prepared_at,
        "total": stored_at - started_at,
        "peak_mb": kilobytes / 1024,
    }


def run(*arguments: str) -> str:
    """The output of a Python process of the project."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> int:
    """Exit code 3 if a size takes more time or memory than its limits."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.preprocess", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000, 5_000_000])
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    parser.add_argument("--schema", type=Path, default=PROJECT / "data" / "brfss2015.yaml")
    parser.add_argument("--measure", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        cache = options.measure.parent / "cache"
        print(json.dumps(measure(options.measure, options.schema, cache)))
        return 0
    within_limits = True
    print("      rows   format  find s  prepare s  store s  total s  peak MB")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / f"people.{options.format}"
            run(
                "monitoring.simulation.people",
                "--rows",
                str(rows),
                "--out",
                str(data),
                "--schema",
                str(options.schema),
            )
            answer = run("benchmarks.preprocess", "--schema", str(options.schema), "--measure", str(data))
            measured = json.loads(answer)
        print(
            f"{measured['rows']:>10,.0f} {options.format:>8} {measured['find']:>7.1f} "
            f"{measured['prepare']:>10.1f} {measured['store']:>8.1f} {measured['total']:>8.1f} "
            f"{measured['peak_mb']:>8,.0f}"
        )
        seconds, megabytes = LIMITS.get(rows, (float("inf"), float("inf")))
        within_limits = within_limits and measured["total"] <= seconds and measured["peak_mb"] <= megabytes
    return 0 if within_limits else MISSED


if __name__ == "__main__":
    sys.exit(main())
