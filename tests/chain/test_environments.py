"""What a person types: `mlflow run . -e ...` with conda, with uv, and the message where neither is there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import Checkout, check_out

# A conda that keeps the one environment that it is told to create: this interpreter's.
CONDA = """#!/usr/bin/env bash
case "$1 $2" in
  "--help ") ;;
  "env list") echo "{\\"envs\\": [$(sed 's/.*/"&"/' "%(home)s/envs" 2>/dev/null)]}" ;;
  "env create") while [ $# -gt 0 ]; do [ "$1" = -n ] && echo "%(home)s/$2" >"%(home)s/envs"; shift; done ;;
  *) echo "the stand-in was called with: $*" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return check_out(tmp_path / "project")


def test_plain_mlflow_run_works_where_conda_is_on_the_path(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mlflow run . -e preprocess` asks conda for the environment of conda.yaml and runs inside it."""
    home = tmp_path / "conda"
    home.mkdir()
    (home / "conda").write_text(CONDA % {"home": home})
    (home / "conda").chmod(0o755)
    (home / "activate").write_text(f'export STOOD_IN="$1" PATH="{Path(sys.executable).parent}:$PATH"\n')
    monkeypatch.setenv("PATH", f"{home}:/usr/bin:/bin")
    monkeypatch.delenv("CONDA_EXE", raising=False)
    code, output = checkout.run("mlflow", "run", ".", "-e", "preprocess")
    assert code == 0, output
    assert "Creating conda environment mlflow-" in output
    assert "rows of synthetic data" in output
    assert (home / "envs").exists()


def test_without_conda_the_message_says_what_to_do(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own message names conda; the README names the two ways without it."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("CONDA_EXE", raising=False)
    code, output = checkout.run("mlflow", "run", ".", "-e", "preprocess")
    assert code != 0
    assert "Could not find Conda executable" in output


@pytest.mark.real
def test_uv_makes_the_environment_from_conda_yaml(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--env-manager uv` builds an environment of exactly the pins and runs the step in it."""
    monkeypatch.setenv("MLFLOW_ENV_ROOT", str(tmp_path / "envs"))
    code, output = checkout.run("mlflow", "run", ".", "-e", "preprocess", "--env-manager", "uv")
    assert code == 0, output
    assert "rows of synthetic data" in output
