"""The time of a fully reused chain, compared with an MLflow Project whose main and promote do nothing.

The second is the lower bound: two processes that import MLflow and open a run. Alternating rounds, medians,
one machine.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.__main__ import MISSED

ROOT = Path(__file__).resolve().parents[1]

IDLE_PROJECT = """
name: idle
entry_points:
  main: {command: "python idle.py main"}
  promote: {command: "python idle.py promote"}
"""
IDLE_STEP = """
import sys
import mlflow
with mlflow.start_run():
    if sys.argv[1] == "main":
        mlflow.projects.run(".", entry_point="promote", env_manager="local")
"""


def seconds(folder: Path, *arguments: str) -> float:
    """Wall time of `mlflow run .` in a folder with a store of its own."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
    }
    started = time.perf_counter()
    command = ["mlflow", "run", ".", "--env-manager", "local", *arguments]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> int:
    """Print medians and their ratio, keep them in benchmarks/results/reuse.json; exit code 3 above twice."""
    rounds = 5
    with tempfile.TemporaryDirectory() as scratch:
        idle, chain = Path(scratch) / "idle", Path(scratch) / "chain"
        idle.mkdir()
        (idle / "MLproject").write_text(IDLE_PROJECT, encoding="utf-8")
        (idle / "idle.py").write_text(IDLE_STEP, encoding="utf-8")
        chain.mkdir()
        for name in ("MLProject", "conda.yaml", "requirements.lock"):
            shutil.copy(ROOT / name, chain)
        for name in ("steps", "monitoring", "data"):
            shutil.copytree(ROOT / name, chain / name, ignore=shutil.ignore_patterns("__pycache__"))
        few = ["-P", "max_evals=2", "-P", "families=logistic_regression", "-P", "replicates=100"]
        first = seconds(chain, *few)
        seconds(idle)
        times: dict[str, list[float]] = {"reused chain": [], "idle project": []}
        for _ in range(rounds):
            times["reused chain"].append(seconds(chain, *few))
            times["idle project"].append(seconds(idle))
    medians = {name: statistics.median(rounds_of_project) for name, rounds_of_project in times.items()}
    ratio = medians["reused chain"] / medians["idle project"]
    print(f"a chain from nothing (two trials): {first:.1f} s")
    for name, median in medians.items():
        print(f"{name}: {median:.1f} s (median of {rounds})")
    print(f"ratio: {ratio:.2f} (at most 2)")
    results = ROOT / "benchmarks" / "results" / "reuse.json"
    results.parent.mkdir(exist_ok=True)
    results.write_text(
        json.dumps({"first": first, **medians, "ratio": ratio}, indent=1) + "\n", encoding="utf-8"
    )
    return 0 if ratio <= 2 else MISSED


if __name__ == "__main__":
    sys.exit(main())
