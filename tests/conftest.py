"""What all tests share: the real components they may need, and one trained model."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from steps.data.schema import Schema

ROOT = Path(__file__).resolve().parents[1]

pytest_plugins = ("tests.made_up.sidecars",)

# OpenMP's threads spin while they wait: with other processes on the cores, two take longer than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts `make test &` ignores SIGINT, and children inherit that: they get their Ctrl-C back.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How to get each component, for the reason of a skip.
_REMEDY = {
    "promtool": "apt-get install prometheus",
    "prometheus": "apt-get install prometheus",
    "chromium": "apt-get install chromium",
    "docker": "start a Docker engine",
    "java": "apt-get install openjdk-17-jre-headless",
}


# Of two workers, one has all tests of these files: they build, start and remove containers and images.
_DOCKER = ("tests/deploy", "tests/sidecar/test_image.py", "tests/monitoring/test_runbook.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests run in one worker, where they share what the file sets up."""
    for item in items:
        file = item.path.relative_to(ROOT).as_posix()
        item.add_marker(pytest.mark.xdist_group("docker" if file.startswith(_DOCKER) else file))


def _missing(component: str) -> str | None:
    if shutil.which(component) is None:
        return f"{component} is not installed: {_REMEDY.get(component, 'install it')}"
    if component == "docker":
        answer = subprocess.run(["docker", "info"], capture_output=True, check=False)
        if answer.returncode != 0:
            return "no Docker engine answers: start one"
    return None


def require(component: str) -> str:
    """Path of a real component; without it the test is skipped, or fails where REQUIRE_REAL=1."""
    reason = _missing(component)
    if reason is not None:
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail(f"REQUIRE_REAL=1, and {reason}")
        pytest.skip(reason)
    path = shutil.which(component)
    assert path is not None
    return path


@pytest.fixture(scope="session")
def survey_path() -> Path:
    """The real BRFSS 2015 survey, which is never part of this repository."""
    path = ROOT.parent / "shared" / "data" / "brfss2015.parquet"
    if not path.exists():
        pytest.skip("the real BRFSS 2015 survey is not on this machine (see data/README.md for its source)")
    return path


@dataclass(frozen=True)
class Checkout:
    """A copy of the project with a store and a cache of its own, in which the real commands are run."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        dropped = ("MLFLOW_", "CHAIN_", "ROWS_CACHE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        return {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def start(self, *command: str) -> subprocess.Popen[str]:
        """A command at work in a process group of its own, output and errors in one stream."""
        return subprocess.Popen(
            list(command),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str) -> tuple[int, str]:
        """Exit code and output of a command."""
        process = self.start(*command)
        output, _ = process.communicate(timeout=900)
        return process.returncode, output

    def mlflow_run(self, entry: str = "main", **values: object) -> tuple[int, str]:
        """`mlflow run . -e entry -P name=value ...` as a person types it, without conda."""
        given = [part for name, value in values.items() for part in ("-P", f"{name}={value}")]
        return self.run("mlflow", "run", ".", "-e", entry, "--env-manager", "local", *given)


def check_out(folder: Path) -> Checkout:
    """A copy of what the commands need of this repository, at `folder`."""
    for name in ("MLProject", "conda.yaml", "requirements.lock"):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder)
    for name in ("steps", "monitoring", "data"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return Checkout(folder)


# A chain that takes a minute: few trials, and a glass box among them.
QUICK: dict[str, Any] = {
    "max_evals": 4,
    "parallelism": 2,
    "families": "logistic_regression,explainable_boosting",
    "replicates": 200,
}


@dataclass(frozen=True)
class Champion:
    """The model that a quick chain on the bundled cohort promoted, and where everything of it is."""

    checkout: Checkout
    output: str
    name: str
    version: str
    run_id: str
    model: Path
    reference: Path

    @property
    def schema(self) -> Schema:
        """The schema that it was trained with."""
        from steps.data.schema_file import load

        return load(ROOT / "data" / "brfss2015.yaml")


@pytest.fixture(scope="session")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Champion:
    """One real chain for all tests that need a trained model. Tests leave its store as they found it.

    Workers that run side by side share it: the first to come trains it, the others wait for that.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / "champion.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        output_file = folder / "champion" / "output.txt"
        if not output_file.exists():
            shutil.rmtree(folder / "champion", ignore_errors=True)
            code, output = check_out(folder / "champion" / "project").mlflow_run(**QUICK)
            assert code == 0, output
            output_file.write_text(output, encoding="utf-8")
    return _champion_of(Checkout(folder / "champion" / "project"), output_file.read_text(encoding="utf-8"))


def _champion_of(checkout: Checkout, output: str) -> Champion:
    import mlflow

    client = mlflow.MlflowClient(checkout.tracking_uri, checkout.tracking_uri)
    version = client.get_model_version_by_alias("diabetes-risk-synthetic", "champion")
    artifacts = Path(client.get_run(version.run_id).info.artifact_uri.removeprefix("file://"))
    return Champion(
        checkout,
        output,
        version.name,
        str(version.version),
        version.run_id,
        artifacts / "model",
        artifacts / "reference.json",
    )
