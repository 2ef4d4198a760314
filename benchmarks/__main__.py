"""Run all benchmarks, one after the other: `make bench`, or `python -m benchmarks reuse tuning` for some.

The output of each goes to benchmarks/results/<name>.txt with the date, the commit and the machine. Figures
are ratios of measurements of one run on one machine: seconds of different machines cannot be compared.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from monitoring.deploy.docker import has_image
from steps.data.errors import UserError
from steps.data.release_facts import read_facts

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RELEASE = ROOT / "build" / "release"
# Exit code of a benchmark that completed but missed its target; its result is kept.
MISSED = 3
SURVEY = ROOT.parent / "shared" / "data" / "brfss2015.parquet"


def prepared(cache: Path) -> Path:
    """Prepare the real survey if it exists, else the cohort; returns the folder of its three tables."""
    from steps.data import prepared as preparation
    from steps.data import sources
    from steps.data.schema_file import load

    schema = load(ROOT / "data" / "brfss2015.yaml")
    data = str(SURVEY) if SURVEY.exists() else "cohort"
    located = sources.locate(data, schema, cache, ROOT)
    return preparation.store(
        preparation.prepare(sources.chunks(located, schema), schema, located, 0.01), cache
    )


def images() -> list[str]:
    """Arguments for the exported version's images and MLServer, if Docker has the images; else none."""
    try:
        facts = read_facts(RELEASE)
        stock, packed = f"{facts.name}-stock:{facts.version}", f"{facts.name}:{facts.version}"
        if has_image(stock) and has_image(packed):
            return ["--image", stock, "--packed", packed, "--mlserver"]
        print("no images of the exported version (`make image` builds them): processes are measured")
    except UserError as error:
        print(f"no images, processes are measured: {error}")
    return []


# Name -> arguments, given the folder of a prepared data set.
BENCHMARKS: dict[str, Callable[[Path], list[str]]] = {
    "coverage": lambda folder: [],
    "reuse": lambda folder: [],
    "survey": lambda folder: [],
    "preprocess": lambda folder: [],
    "tuning": lambda folder: ["--train", str(folder / "train.parquet")],
    "against_optuna": lambda folder: ["--folder", str(folder)],
    "splits": lambda folder: ["--folder", str(folder)],
    "scoring": lambda folder: [],
    "alarm_quality": lambda folder: [],
    "serving": lambda folder: [
        "--model",
        str(RELEASE / "model"),
        "--reference",
        str(RELEASE / "reference.json"),
        *images(),
    ],
}


def heading() -> str:
    """Date, commit and machine of a result."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    where = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    return f"{today}, commit {commit.stdout.strip() or 'unknown'}, {where}"


def measure(name: str, arguments: Sequence[str]) -> int:
    """Run one benchmark in a process of its own, show its output and keep it."""
    print(f"\n== {name} {' '.join(arguments)}", flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    code = process.wait()
    if code in (0, MISSED):
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.txt").write_text(f"{heading()}\n\n{''.join(lines)}", encoding="utf-8")
    return code


def main() -> int:
    """Exit code 1 if a benchmark failed or missed its target."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    possible = [name for name in BENCHMARKS if name != "survey" or SURVEY.exists()]
    parser.add_argument("names", nargs="*", default=possible, help=f"of {', '.join(BENCHMARKS)}")
    chosen = parser.parse_args().names
    unknown = sorted(set(chosen) - set(BENCHMARKS))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    with tempfile.TemporaryDirectory() as scratch:
        needs_data = {"tuning", "against_optuna", "splits"} & set(chosen)
        folder = prepared(Path(scratch)) if needs_data else Path(scratch)
        failed = [name for name in chosen if measure(name, BENCHMARKS[name](folder)) != 0]
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
