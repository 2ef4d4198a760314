"""The whole compose file on a real engine (`make stack-test`): up, watched, looked into, scaled, down again.

Needs the images of `make image`, and those of the compose file here or in a registry. The stack gets a
project and ports of its own, and secrets that are looked for everywhere afterwards.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from monitoring.deploy import docker, rollout, secret_files
from tests.conftest import ROOT, check_out, require
from tests.made_up.mlflow_servers import free_port

pytestmark = [pytest.mark.real, pytest.mark.stack]

CANARIES = {name: f"canary-of-{name.replace('_', '-')}" for name in secret_files.PLACEHOLDERS}
CANARIES |= {"alert_slack_url": "http://127.0.0.1:9/canary-of-slack", "alert_webhook_url": "grafana://noop"}
CANARIES |= {"alert_watchdog_url": "grafana://noop"}
GIVE_UP_SECONDS = 300.0


@dataclass(frozen=True)
class Stack:
    """A stack that runs: its folder, its environment, and how to ask Docker and Grafana."""

    folder: Path
    environment: dict[str, str]

    def compose(self, *arguments: str) -> str:
        """Output of a `docker compose` command of this stack."""
        done = subprocess.run(
            ["docker", *docker.COMPOSE, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def execute(self, service: str, *command: str) -> tuple[int, str]:
        """Exit code and output of a command in a service's container."""
        done = subprocess.run(
            ["docker", *docker.COMPOSE, "exec", "-T", service, *command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def grafana(self, path: str) -> Any:
        """A document of Grafana's API."""
        user = f"admin:{CANARIES['grafana_admin_password']}"
        headers = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()}
        url = f"http://127.0.0.1:{self.environment['GRAFANA_PORT']}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
            return json.load(answer)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What Prometheus answers, asked through Grafana's data source."""
        path = "/api/datasources/proxy/uid/prometheus/api/v1/query?query="
        found: list[dict[str, Any]] = self.grafana(path + urllib.parse.quote(expression))["data"]["result"]
        return found


def until(condition: Callable[[], bool]) -> None:
    """Wait until something is true; the limit only guards against hanging."""
    end = time.monotonic() + GIVE_UP_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(1)


def newest_version() -> str:
    """The newest version of which this engine has both images; skips where there is none."""
    listed = docker.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    versions = [
        int(image.rpartition(":")[2])
        for image in listed
        if image.startswith("diabetes-risk-synthetic:") and image.rpartition(":")[2].isdigit()
    ]
    if not versions:
        pytest.skip("there are no images of model and sidecar on this engine: make image")
    return str(max(versions))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack of `make stack`, up; taken down with its volumes afterwards."""
    require("docker")
    version = newest_version()
    folder = check_out(tmp_path_factory.mktemp("stack") / "project").folder
    shutil.copy(ROOT / "CHANGELOG.md", folder)
    secret_files.make_missing(folder / secret_files.FOLDER)
    for name, secret in CANARIES.items():
        (folder / secret_files.FOLDER / name).write_text(secret)
    environment = {
        **os.environ,
        **rollout.pair("diabetes-risk-synthetic", version),
        "COMPOSE_PROJECT_NAME": f"stack-test-{os.getpid()}",
        "PORT": str(free_port()),
        "GRAFANA_PORT": str(free_port()),
    }
    rollout.remember(folder / rollout.SETTINGS, rollout.with_pair("", rollout.pair("x", version)))
    running = Stack(folder, environment)
    command = [sys.executable, "-c", BRING_UP]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        left_out = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("warning:")]
        if {"prometheus", "grafana"} & set(left_out):
            message = f"images that this engine neither has nor can pull: {done.stdout}"
            if os.environ.get("REQUIRE_REAL") == "1":
                pytest.fail(message)
            pytest.skip(message)
        yield running
    finally:
        running.compose("--profile", "*", "down", "--volumes", "--timeout", "5")


BRING_UP = """
import os, sys
from monitoring.deploy import docker, stack
from steps.data.errors import UserError
try:
    docker.require_compose()
    print("\\n".join(stack.bring_up(os.environ)))
except UserError as error:
    sys.exit(str(error))
"""


def test_every_target_is_scraped(stack: Stack) -> None:
    """Sidecar, Prometheus, Grafana, and the machine where it is watched."""
    wanted = {"exporter", "prometheus", "grafana"}
    until(lambda: {r["metric"]["job"] for r in stack.query("up == 1")} >= wanted)


def test_a_prediction_is_answered_and_counted(stack: Stack) -> None:
    """Through the traffic port, into Prometheus, to be seen in Grafana."""
    _, text = stack.execute("exporter", "sh", "-c", 'cat "$MODEL_EXPORTER_REFERENCE"')
    golden = json.loads(text)["golden"]
    body = json.dumps({"dataframe_split": {"columns": golden["columns"], "data": golden["rows"]}})
    url = f"http://127.0.0.1:{stack.environment['PORT']}/invocations"
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {CANARIES['bearer_token']}",
    }
    request = urllib.request.Request(url, body.encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        risks = [row[1] for row in json.load(answer)["predictions"]]
        assert answer.headers["Model-Feedback-Token"]
    assert risks == pytest.approx(golden["scores"], abs=1e-9)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(
            urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
        )
    counted = 'sum(sidecar_requests_total{endpoint="invocations",status="2xx"})'
    until(lambda: any(float(r["value"][1]) >= 1 for r in stack.query(counted)))


def test_what_faces_callers_reaches_no_watcher(stack: Stack) -> None:
    """The sidecar knows the names of model and nobody else."""
    look_up = "import socket, sys; socket.gethostbyname(sys.argv[1])"
    for name in ("grafana", "node-exporter"):
        code, output = stack.execute("exporter", "python", "-c", look_up, name)
        assert code != 0, f"{name}: {output}"
    version = stack.environment["VERSION"]
    code, output = stack.execute("exporter", "python", "-c", look_up, f"model-{version}")
    assert code == 0, output


def test_no_planted_secret_can_be_read(stack: Stack) -> None:
    """Not in what the engine tells of a container, in a log, in Prometheus or in Grafana's API."""
    places: dict[str, str] = {}
    for container in stack.compose("--profile", "*", "ps", "--all", "--quiet").split():
        places[f"inspect {container}"] = docker.docker("inspect", container)
        places[f"logs {container}"] = docker.docker("logs", container, also_errors=True)
    places["configuration"] = stack.compose("--profile", "*", "config")
    places["metrics"] = json.dumps(stack.query('{__name__=~".+"}'))
    places["contact points"] = json.dumps(stack.grafana("/api/v1/provisioning/contact-points"))
    for place, text in places.items():
        assert "canary-of" not in text, place


def test_no_container_can_talk_to_the_engine(stack: Stack) -> None:
    """Its socket is in none of them, wherever it lies on this machine."""
    for service in stack.compose("ps", "--services").split():
        code, output = stack.execute(
            service, "sh", "-c", "ls /var/run/docker.sock /run/docker.sock /host/run/docker.sock"
        )
        assert code != 0, f"{service}: {output}"


def test_the_live_tests_pass_in_this_grafana(stack: Stack) -> None:
    """Dashboards, rules, channels and messages, as tests/monitoring/test_grafana_live.py says.

    Grafana uses its templates from a minute after its start.
    """
    until(lambda: bool(stack.query('time() - process_start_time_seconds{job="grafana"} > 90')))
    networks = json.loads(
        docker.docker("network", "inspect", f"{stack.environment['COMPOSE_PROJECT_NAME']}_people")
    )
    environment = {
        **os.environ,
        "GRAFANA_URL": f"http://127.0.0.1:{stack.environment['GRAFANA_PORT']}",
        "GRAFANA_USER": f"admin:{CANARIES['grafana_admin_password']}",
        "GRAFANA_REACHES": networks[0]["IPAM"]["Config"][0]["Gateway"],
        "REQUIRE_REAL": "",
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/monitoring/test_grafana_live.py",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_replicas_are_discovered_and_add_up(stack: Stack) -> None:
    """A second sidecar is scraped beside the first; each has a port of the range."""
    first = int(stack.environment["PORT"])
    two = {**stack.environment, "REPLICAS": "2", "PORT": f"{first}-{first + 20}"}
    scaled = Stack(stack.folder, two)
    scaled.compose("up", "--detach", "--no-deps", "exporter")
    until(lambda: len(stack.query('up{job="exporter"} == 1')) == 2)
    ports = {
        docker.docker("port", container, "8000/tcp").splitlines()[0]
        for container in scaled.compose("ps", "--quiet", "exporter").split()
    }
    assert len(ports) == 2


def test_alerting_is_up_although_the_model_does_not_start(stack: Stack) -> None:
    """With a setting that the model ends at, bringing up fails and names it; Grafana answers all the same."""
    stack.compose("rm", "--force", "--stop", "model", "grafana")
    broken = {**stack.environment, "WORKERS": "none"}
    done = subprocess.run(
        [sys.executable, "-c", BRING_UP],
        cwd=stack.folder,
        env=broken,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "model: a container is not healthy" in done.stderr
    assert stack.grafana("/api/health")["database"] == "ok"
