"""The whole chain on the real survey, with an empty store: figures on its test rows, minutes, and memory.

    python -m benchmarks.survey --data SURVEY.parquet [--project FOLDER]

Prints each figure of the tuned model and of the baseline with its 95 % interval and what is wanted, the
family that became champion, minutes on the clock and of processor time, and the memory of the largest
process. With `--project` the chain's store stays in that (new) folder.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.__main__ import MISSED, ROOT, SURVEY
from steps.models.families import GLASS_BOX

# Metric -> smallest and largest value of the tuned model.
WANTED = {
    "roc_auc": (0.825, 1.0),
    "average_precision": (0.43, 1.0),
    "calibration_slope": (0.95, 1.05),
    "observed_expected": (0.97, 1.03),
}
WANTED_MINUTES, WANTED_MEGABYTES = 12, 1500


@dataclass(frozen=True)
class Cost:
    """The cost of a chain: minutes, minutes of processor time, and MB of its largest process."""

    minutes: float
    processor_minutes: float
    megabytes: float


def run(project: Path, data: Path) -> Cost:
    """Run the chain; memory is resident memory, seen twice a second."""
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
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost((time.perf_counter() - started) / 60, (used.ru_utime + used.ru_stime) / 60, largest / 2**20)


def evaluations(project: Path) -> dict[str, Any]:
    """`evaluation.json` of the tuned model and of the baseline."""
    client = _client(project)
    runs = client.search_runs(["0"], "tags.step = 'evaluate'")
    return {
        run.data.tags["model"]: json.loads(
            Path(client.download_artifacts(run.info.run_id, "evaluation.json", str(project))).read_text()
        )
        for run in runs
    }


def champion_family(project: Path) -> str:
    """The family of the registered model that is @champion, or "none"."""
    client = _client(project)
    for model in client.search_registered_models():
        if "champion" in model.aliases:
            version = client.get_model_version_by_alias(model.name, "champion")
            return str(client.get_run(version.run_id).data.tags["family"])
    return "none"


def _with_interval(figure: dict[str, float]) -> str:
    return f"{figure['value']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})"


def _client(project: Path) -> Any:
    import mlflow

    uri = f"sqlite:///{project / 'mlflow.db'}"
    return mlflow.MlflowClient(uri, uri)


def main() -> int:
    """Exit code 3 if a figure, the time or the memory misses its target."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.survey", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=SURVEY)
    parser.add_argument("--project", type=Path, help="a new folder to run in and keep; else a temporary one")
    values = parser.parse_args()
    data = values.data.resolve()
    if not data.exists():
        print(f"there is no {data.name}: name the survey with --data (data/README.md says where it is)")
        return 1
    with ExitStack() as stack:
        if values.project is None:
            project = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "project"
        else:
            project = values.project.resolve()
        project.mkdir(parents=True)
        for name in ("MLProject", "conda.yaml", "requirements.lock"):
            shutil.copy(ROOT / name, project)
        for name in ("steps", "monitoring", "data"):
            shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        cost = run(project, data)
        measured, family = evaluations(project), champion_family(project)
    missed = [cost.minutes > WANTED_MINUTES, cost.megabytes > WANTED_MEGABYTES, family != GLASS_BOX]
    print(f"{'on the test rows':22}{'wanted':>16}{'tuned':>26}{'baseline':>26}")
    for name, (low, high) in WANTED.items():
        figures = [measured[role]["metrics"][name] for role in ("tuned", "baseline")]
        cells = "".join(f"{_with_interval(figure):>26}" for figure in figures)
        target = f">= {low:g}" if high == 1.0 else f"{low:g} to {high:g}"
        print(f"{name.replace('_', ' '):22}{target:>16}{cells}")
        missed.append(not low <= figures[0]["value"] <= high)
    print(f"{'champion':22}{GLASS_BOX[:16]:>16}{family:>26}")
    print(f"{'minutes':22}{f'<= {WANTED_MINUTES}':>16}{cost.minutes:26.1f}")
    print(f"{'of processor time':22}{'':16}{cost.processor_minutes:26.1f}")
    print(f"{'largest process, MB':22}{f'<= {WANTED_MEGABYTES}':>16}{cost.megabytes:26.0f}")
    return MISSED if any(missed) else 0


if __name__ == "__main__":
    sys.exit(main())
