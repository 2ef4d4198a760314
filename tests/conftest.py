"""What all tests share: the real components they may need, and one trained model."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# How to get each component, for the reason of a skip.
_REMEDY = {
    "promtool": "apt-get install prometheus",
    "prometheus": "apt-get install prometheus",
    "chromium": "apt-get install chromium",
    "docker": "start a Docker engine",
    "java": "apt-get install openjdk-17-jre-headless",
}


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
