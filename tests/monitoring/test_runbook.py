"""Commands of docs/operating.md do what it says, on a real store; what runbook and it name exists."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from monitoring.grafana.boards import runbook
from monitoring.sidecar import feedback_tokens, settings
from monitoring.simulation import history
from tests.conftest import ROOT, require
from tests.contracts.test_metrics import runbook_queries

OPERATE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
BOTH = OPERATE + runbook.RUNBOOK.read_text(encoding="utf-8")


def commands(heading: str) -> list[str]:
    """The indented lines under a heading of the second level."""
    part = re.split(r"^## ", OPERATE, flags=re.MULTILINE)
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


# `docker run --rm -v volume:/data ... busybox command` without an engine: the command, on folders here.
# Nothing has to be stopped or started.
ENGINE = """
STACK() { :; }
docker() {
  local places=()
  shift 2
  while [ "$1" = -v ]; do places+=(-e "s#^${2#*:}#${2%%:*}#"); shift 2; done
  shift
  local words=()
  for word in "$@"; do words+=("$(sed "${places[@]}" <<<"$word")"); done
  "${words[@]}"
}
"""


@pytest.mark.real
def test_samples_of_prometheus_survive_backup_and_loss(tmp_path: Path) -> None:
    """The volume goes into one archive and comes back in place of what is there; Prometheus serves it."""
    require("prometheus")
    require("promtool")
    end, volume = 1_790_000_000.0, tmp_path / "diabetes-risk_prometheus"
    history.add_blocks(history.openmetrics([end - 60, end], {"kept{}": [1.0, 2.0]}), volume)
    lines = commands("Back up and restore")[3:]
    assert [line for line in lines if "STACK" in line] == [
        "STACK stop prometheus",
        "STACK start prometheus",
    ] * 2
    back_up, restore = lines[:3], lines[3:]
    sh(tmp_path, ENGINE + "\n".join(back_up))
    shutil.rmtree(volume)
    history.add_blocks(history.openmetrics([end - 60, end], {"other{}": [3.0, 4.0]}), volume)
    sh(tmp_path, ENGINE + "\n".join(restore))
    with history.Server(volume) as server:
        assert server.query("kept", end)[0]["value"][1] == "2"
        assert server.query("other", end) == []


def test_a_key_is_rotated_as_the_page_says(tmp_path: Path) -> None:
    """New and old in the secret's file; then the old one goes."""
    old, new = "an-old-key-of-the-test", "a-new-key-of-the-test"
    (told,) = re.findall(
        r"write `(\S+)` into `monitoring/deploy/secrets/feedback_keys`", " ".join(OPERATE.split())
    )

    def keys(content: str) -> tuple[str, ...]:
        (tmp_path / "feedback_keys").write_text(content)
        return settings.read(
            {"MODEL_EXPORTER_FEEDBACK_KEYS_FILE": str(tmp_path / "feedback_keys")}
        ).feedback_keys

    def signed(by: tuple[str, ...]) -> str:
        return feedback_tokens.issue(
            by, "risk", "1", [feedback_tokens.Row(0, 0.1)], now=0.0, random=os.urandom
        )

    def accepted(token: str, by: tuple[str, ...]) -> bool:
        try:
            return feedback_tokens.read(by, "risk", token, now=0.0, lifetime=1.0).version == "1"
        except feedback_tokens.TokenError:
            return False

    before, both, after = keys(old), keys(told.replace("<new>", new).replace("<old>", old)), keys(new)
    assert accepted(signed(before), both)
    assert accepted(signed(both), after)
    assert not accepted(signed(before), after)
    assert "STACK up -d --force-recreate exporter" in OPERATE


@pytest.mark.real
def test_queries_to_paste_are_promql(tmp_path: Path) -> None:
    """Each one of the alerts' chapters."""
    require("promtool")
    queries = list(runbook_queries())
    rules = [{"record": "pasted", "expr": query, "labels": {"n": str(n)}} for n, query in enumerate(queries)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "runbook", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(queries)} rules found" in done.stdout


def test_the_environment_that_commands_need_is_told_once() -> None:
    """`python` and `mlflow` are not those of the machine."""
    assert BOTH.count("`source .venv/bin/activate`") == 1


def test_make_words_of_the_runbook_exist() -> None:
    """Each `make word` is a target of the Makefile."""
    makefile = (runbook.RUNBOOK.parents[1] / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    used = set(re.findall(r"(?:`|^    )make ([a-z-]+)", BOTH, re.MULTILINE))
    assert used >= {"stack", "deploy", "rollback", "plan"}
    assert used <= targets


def test_modules_of_the_runbook_exist() -> None:
    """Each `python -m module` can be imported."""
    root = runbook.RUNBOOK.parents[1]
    modules = re.findall(r"python -m ([\w.]+)", BOTH)
    assert modules
    assert all((root / f"{module.replace('.', '/')}.py").exists() for module in modules)


def test_services_of_the_runbook_exist() -> None:
    """Each `docker compose` command has a file, an act and services that there are."""
    services = yaml.safe_load((ROOT / "monitoring/deploy/compose.yaml").read_text(encoding="utf-8"))[
        "services"
    ]
    lines = re.findall(
        r"^    docker compose (.+)$", runbook.RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(lines) > 20
    for line in lines:
        file, act, *words = line.partition(" | ")[0].removeprefix("-f ").split()
        assert (ROOT / file).exists()
        assert act in {"ps", "logs", "restart", "up"}
        named = [word for word in words if not word.startswith("-") and not word.isdigit()]
        assert set(named) <= set(services), line
