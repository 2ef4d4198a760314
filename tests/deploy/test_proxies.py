"""Nothing on this machine is asked through a proxy that the environment names."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
import yaml

from monitoring.deploy import check_images, local
from monitoring.predict import opener
from monitoring.simulation import history
from tests.conftest import ROOT
from tests.made_up.sidecars import Scripted

DEPLOY = ROOT / "monitoring" / "deploy"
# Nobody listens there.
PROXY = dict.fromkeys(
    ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"), "http://127.0.0.1:9"
)


@pytest.fixture
def behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PROXY.items():
        monkeypatch.setenv(name, value)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def health_checks() -> dict[str, list[str]]:
    """The commands by which engines look after the containers."""
    commands = {
        file.name: json.loads(re.search(r"CMD (\[.*\])", file.read_text(encoding="utf-8"))[1])  # type: ignore[index]
        for file in (DEPLOY / "images").glob("*.Dockerfile")
        if "HEALTHCHECK" in file.read_text(encoding="utf-8")
    }
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for name, service in services.items():
        test = service.get("healthcheck", {}).get("test", [])
        if "python" in test:
            commands[name] = test[1:]
    return commands


@pytest.mark.parametrize("name", health_checks())
def test_health_checks_of_containers_go_straight(name: str, scripted: Callable[..., Scripted]) -> None:
    """0 from a healthy container, whatever proxy the engine puts into its environment."""
    container = scripted()
    command = [re.sub(r", (\d{4}|os\.environ\[[^]]*\]), timeout", f", {container.port}, timeout", part)
               for part in health_checks()[name]]  # fmt: skip
    done = subprocess.run(
        [sys.executable, *command[1:]], env={**os.environ, **PROXY}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(container.requests) == 1


@pytest.mark.usefixtures("behind_a_proxy")
def test_our_own_programs_go_straight(scripted: Callable[..., Scripted]) -> None:
    """`make serve`, `make image-test`, the simulation's Prometheus, `monitoring.predict` on loopback."""
    url = f"http://127.0.0.1:{scripted().port}/ping"
    for direct in (local.DIRECT, history.DIRECT, opener(url)):
        with direct.open(url, timeout=60) as answer:
            assert answer.status == 200
    assert check_images.ask(url) == "\n"
    with pytest.raises(OSError, match="refused"):
        opener("http://model.example").open("http://model.example", timeout=60)
