"""The whole chain on the real survey, from nothing: figures on its test rows, minutes, and memory.

    python -m benchmarks.survey --data SURVEY.parquet

Prints each figure of the tuned model and of the baseline with its 95 % interval and what is wanted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.__main__ import MISSED, ROOT, SURVEY

# Metric -> smallest and largest value of the tuned model.
WANTED = {
    "roc_auc": (0.825, 1.0),
    "average_precision": (0.43, 1.0),
    "calibration_slope": (0.95, 1.05),
    "observed_expected": (0.97, 1.03),
}
WANTED_MINUTES, WANTED_MEGABYTES = 12, 1500


def run(project: Path, data: Path) -> tuple[float, float]:
    """Minutes of the chain, and the resident memory of its largest process in MB (seen twice a second)."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}",
    }
    started, largest = time.perf_counter(), 0
    command = ["mlflow", "run", ".", "--env-manager", "local", "-P", f"data={data}"]
    process = subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.DEVNULL)
    leader = psutil.Process(process.pid)
    while process.poll() is None:
        for member in [leader, *leader.children(recursive=True)]:
            try:
                largest = max(largest, member.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.5)
    return (time.perf_counter() - started) / 60, largest / 2**20


def evaluations(project: Path) -> dict[str, Any]:
    """`evaluation.json` of the tuned model and of the baseline."""
    import mlflow

    uri = f"sqlite:///{project / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri, uri)
    runs = client.search_runs(["0"], "tags.step = 'evaluate'")
    return {
        run.data.tags["model"]: json.loads(
            Path(client.download_artifacts(run.info.run_id, "evaluation.json", str(project))).read_text()
        )
        for run in runs
    }


def main() -> int:
    """Exit code 3 where a figure, the time or the memory misses what is wanted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.survey", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=SURVEY)
    data = parser.parse_args().data.resolve()
    if not data.exists():
        print(f"there is no {data.name}: name the survey with --data (data/README.md says where it is)")
        return 1
    with tempfile.TemporaryDirectory() as place:
        project = Path(place) / "project"
        project.mkdir()
        for name in ("MLProject", "conda.yaml", "requirements.lock"):
            shutil.copy(ROOT / name, project)
        for name in ("steps", "monitoring", "data"):
            shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        minutes, megabytes = run(project, data)
        found = evaluations(project)
    missed = [minutes > WANTED_MINUTES, megabytes > WANTED_MEGABYTES]
    print(f"{'on the test rows':22}{'wanted':>16}{'tuned':>26}{'baseline':>26}")
    for name, (low, high) in WANTED.items():
        measured = [found[role]["metrics"][name] for role in ("tuned", "baseline")]
        told = [f"{m['value']:.4f} ({m['low']:.4f} to {m['high']:.4f})" for m in measured]
        cells = "".join(f"{text:>26}" for text in told)
        wanted = f">= {low:g}" if high == 1.0 else f"{low:g} to {high:g}"
        print(f"{name.replace('_', ' '):22}{wanted:>16}{cells}")
        missed.append(not low <= measured[0]["value"] <= high)
    print(f"{'minutes':22}{f'<= {WANTED_MINUTES}':>16}{minutes:26.1f}")
    print(f"{'largest process, MB':22}{f'<= {WANTED_MEGABYTES}':>16}{megabytes:26.0f}")
    return MISSED if any(missed) else 0


if __name__ == "__main__":
    sys.exit(main())
