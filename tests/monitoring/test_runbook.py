"""Commands of *Operate and upgrade* do what the runbook says, on a real store."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from monitoring.grafana import runbook

OPERATE = runbook.chapters(runbook.RUNBOOK.read_text(encoding="utf-8"))["Operate and upgrade"]


def commands(heading: str) -> list[str]:
    """The indented lines under a heading of the third level."""
    part = re.split(r"^### ", OPERATE, flags=re.MULTILINE)
    (text,) = [body for body in part if body.startswith(heading)]
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


def sh(folder: Path, command: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        ["bash", "-euc", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


MAKE = """
import mlflow, pathlib
mlflow.set_tracking_uri("sqlite:///mlflow.db")
client = mlflow.MlflowClient()
experiment = client.create_experiment("e")
for name in ("kept", "old"):
    run = client.create_run(experiment, run_name=name)
    client.log_text(run.info.run_id, name, "note.txt")
    client.set_terminated(run.info.run_id)
client.delete_run(run.info.run_id)
"""
SHOW = """
import mlflow
from mlflow.entities import ViewType
mlflow.set_tracking_uri("sqlite:///mlflow.db")
client = mlflow.MlflowClient()
ids = [e.experiment_id for e in client.search_experiments()]
for run in client.search_runs(ids, run_view_type=ViewType.ALL):
    text = mlflow.artifacts.load_text(run.info.artifact_uri + "/note.txt")
    print(run.info.run_name, run.info.lifecycle_stage, text)
"""


def shown(folder: Path) -> list[str]:
    (folder / "show.py").write_text(SHOW)
    return sorted(sh(folder, "python show.py").split("\n"))[1:]


@pytest.mark.real
def test_a_store_survives_backup_loss_upgrade_and_cleaning(tmp_path: Path) -> None:
    """One store through all four: what is restored is what was there, and only what was deleted goes."""
    (tmp_path / "make.py").write_text(MAKE)
    sh(tmp_path, "python make.py")
    before = shown(tmp_path)
    assert before == ["kept active kept", "old deleted old"]
    back_up, pack, restore, *_ = commands("Back up and restore")
    sh(tmp_path, back_up)
    sh(tmp_path, pack)
    sh(tmp_path, "rm -r mlflow.db mlruns")
    sh(tmp_path, restore)
    assert shown(tmp_path) == before
    for command in commands("Upgrade the store after a version bump"):
        sh(tmp_path, command)
    assert shown(tmp_path) == before
    (clean,) = commands("Clean up old runs")
    sh(tmp_path, clean)
    assert shown(tmp_path) == before, "deleted less than 90 days ago"
    sh(tmp_path, clean.replace("90d", "0d0h0m0s"))
    assert shown(tmp_path) == ["kept active kept"]


def test_make_words_of_the_runbook_exist() -> None:
    """Each `make word` is a target of the Makefile."""
    makefile = (runbook.RUNBOOK.parents[1] / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    used = set(
        re.findall(r"(?:`|^    )make ([a-z-]+)", runbook.RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert used >= {"stack", "deploy", "rollback", "plan"}
    assert used <= targets


def test_modules_of_the_runbook_exist() -> None:
    """Each `python -m module` can be imported."""
    root = runbook.RUNBOOK.parents[1]
    modules = re.findall(r"python -m ([\w.]+)", runbook.RUNBOOK.read_text(encoding="utf-8"))
    assert modules
    assert all((root / f"{module.replace('.', '/')}.py").exists() for module in modules)
