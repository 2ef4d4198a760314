"""`monitoring/deploy/compose.yaml`: valid by the specification, pinned, confined, quiet without secrets.

`compose-spec.schema.json` is the specification's own (from compose-go 2.9.1, Apache License 2.0), unchanged.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from monitoring.sidecar import settings
from tests.conftest import require

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "monitoring" / "deploy" / "compose.yaml"
STACK: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = STACK["services"]
every_service = pytest.mark.parametrize("name", SERVICES)


def expand(text: str, variables: dict[str, str]) -> str:
    """Compose's interpolation: ${N}, ${N:-default}, ${N:+if set}, ${N:?error}."""

    def replace(found: re.Match[str]) -> str:
        name, operator, argument = found.groups()
        value = variables.get(name, "")
        if operator == ":-":
            return value or argument
        if operator == ":+":
            return argument if value else ""
        if operator == ":?" and not value:
            raise KeyError(name)
        return value

    return re.sub(r"\$\{(\w+)(?:(:[-+?])([^}]*))?\}", replace, text)


def environment(service: str, **variables: str) -> dict[str, str]:
    return {
        name: expand(str(value), {"VERSION": "1", **variables})
        for name, value in SERVICES[service]["environment"].items()
    }


def grafana(**variables: str) -> dict[str, str]:
    return environment("grafana", **variables)


def test_the_file_follows_the_compose_specification() -> None:
    """Unknown keys and wrong types are found by the specification's schema."""
    schema = json.loads((Path(__file__).parent / "compose-spec.schema.json").read_text(encoding="utf-8"))
    problems = [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(STACK)]
    assert problems == []


def test_the_schema_notices_a_misspelt_key() -> None:
    """The check above can fail."""
    schema = json.loads((Path(__file__).parent / "compose-spec.schema.json").read_text(encoding="utf-8"))
    broken = {"services": {"model": {"image": "x", "mem_limt": "1g"}}}
    assert any(jsonschema.Draft7Validator(schema).iter_errors(broken))


def test_only_version_must_be_given() -> None:
    """Every other variable has a default or is meant to be empty."""
    required = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text(encoding="utf-8")))
    assert required == {"VERSION"}
    bare = re.findall(r"(?<!\$)\$\{(\w+)\}", COMPOSE.read_text(encoding="utf-8"))
    assert bare == [], "a variable without a default would warn and be empty"


@every_service
def test_images_are_pinned(name: str) -> None:
    """A tag with a full version, or the model's own version, which model and exporter share."""
    tag = SERVICES[name]["image"].rpartition(":")[2] if "${" not in SERVICES[name]["image"] else "VERSION"
    if tag != "VERSION":
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", tag)
    else:
        assert expand(SERVICES[name]["image"], {"VERSION": "7"}).endswith(":7")


def test_cadvisor_tells_a_restart() -> None:
    """Up to 0.56.2 `container_start_time_seconds` is the time of creation, and no restart changes it."""
    version = SERVICES["cadvisor"]["image"].rpartition(":")[2].lstrip("v")
    assert tuple(int(part) for part in version.split(".")) >= (0, 57, 0)


def test_one_variable_gives_the_model_workers_and_the_sidecar_as_many_calls() -> None:
    """uvicorn, which the image starts, reads WEB_CONCURRENCY; one of each is the default."""
    for variables, count in (({}, "1"), ({"WORKERS": "3"}, "3")):
        found = {name: environment(name, **variables) for name in ("model", "exporter")}
        assert found["model"]["WEB_CONCURRENCY"] == found["exporter"]["MODEL_EXPORTER_BATCH_CALLS"] == count
    dockerfile = (ROOT / "monitoring" / "deploy" / "images" / "model.Dockerfile").read_text(encoding="utf-8")
    assert "WEB_CONCURRENCY=1" in dockerfile
    assert '"uvicorn"' in dockerfile
    assert "--workers" not in dockerfile


def test_settings_of_the_sidecar_pass_through_and_empty_ones_are_its_defaults() -> None:
    """Every variable that reaches it is a setting."""
    bare = settings.read(environment("exporter"))
    assert (bare.batch_rows, bare.observer_items, bare.guard) == (
        settings.Settings.batch_rows,
        settings.Settings.observer_items,
        "observe",
    )
    set_so = settings.read(
        environment("exporter", BATCH_ROWS="256", OBSERVER_ITEMS="50000", GUARD="reject", WORKERS="2")
    )
    assert (set_so.batch_rows, set_so.observer_items, set_so.guard) == (256, 50_000, "reject")
    assert set_so.batch_calls == 2


@every_service
def test_services_are_confined(name: str) -> None:
    """Read-only root, no capability, no new privileges, limits on memory, processor and processes."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert {"mem_limit", "cpus", "pids_limit"} <= service.keys()


def test_only_cadvisor_runs_as_root() -> None:
    """It reads the engine's socket; every other service has a numeric user of its own."""
    root = [name for name, service in SERVICES.items() if service["user"].startswith("0")]
    assert root == ["cadvisor"]


def test_only_the_traffic_port_and_grafana_are_published_on_loopback() -> None:
    """Nothing else can be reached from outside the stack, and these only from this machine by default."""
    published = {
        name: [expand(port, {}) for port in service["ports"]]
        for name, service in SERVICES.items()
        if "ports" in service
    }
    assert set(published) == {"exporter", "grafana"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_the_model_is_reached_through_the_exporter_only() -> None:
    """Its one network is internal and holds nobody but the exporter."""
    (network,) = SERVICES["model"]["networks"]
    assert STACK["networks"][network]["internal"] is True
    members = {name for name, service in SERVICES.items() if network in service["networks"]}
    assert members == {"model", "exporter"}


@every_service
def test_every_service_says_whether_it_is_well(name: str) -> None:
    """Each has a health check, and starts after those that it needs are healthy."""
    assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        assert needed in SERVICES
        assert how == {"condition": "service_healthy"}


def test_the_stack_starts_in_the_order_of_its_data() -> None:
    """Model, exporter, Prometheus, Grafana."""
    chain = ["model", "exporter", "prometheus", "grafana"]
    for earlier, later in itertools.pairwise(chain):
        assert list(SERVICES[later]["depends_on"]) == [earlier]


def test_retention_covers_the_longest_label_window() -> None:
    """Windows of late labels reach back 90 days."""
    (flag,) = [f for f in SERVICES["prometheus"]["command"] if "retention.time" in f]
    days = re.search(r"=(\d+)d$", expand(flag, {}))
    assert days is not None
    assert int(days[1]) > 90


def test_without_a_secret_no_channel_hears_anything() -> None:
    """Receivers stay valid (Grafana would not start otherwise) and no alert is routed to them."""
    environment = grafana()
    for name in ("ALERT_EMAIL", "ALERT_SLACK_URL", "ALERT_WEBHOOK_URL", "RETRAIN_URL", "RETRAIN_TOKEN"):
        assert environment[name], f"{name} must not be empty"
    assert environment["ALERT_EMAIL_SEVERITIES"] == environment["ALERT_SLACK_SEVERITIES"] == ""
    assert environment["ALERT_WEBHOOK_URL"] == environment["RETRAIN_URL"] == "grafana://noop"


@pytest.mark.parametrize(
    ("variable", "value", "turns_on"),
    [
        (
            "ALERT_EMAIL",
            "a@example.org",
            {"ALERT_EMAIL_SEVERITIES": "critical|warning", "GF_SMTP_ENABLED": "true"},
        ),
        ("ALERT_SLACK_URL", "https://hooks.example.org/x", {"ALERT_SLACK_SEVERITIES": "critical|warning"}),
        ("ALERT_WEBHOOK_URL", "http://pager.example.org", {"ALERT_WEBHOOK_URL": "http://pager.example.org"}),
        ("RETRAIN_URL", "https://api.example.org", {"RETRAIN_URL": "https://api.example.org"}),
    ],
)
def test_a_channel_is_on_by_its_own_variable(variable: str, value: str, turns_on: dict[str, str]) -> None:
    """And no other channel changes."""
    before, after = grafana(), grafana(**{variable: value})
    changed = {name: after[name] for name in after if after[name] != before[name]}
    assert changed == {variable: value, **turns_on}


def test_nothing_calls_home() -> None:
    """Reports, update checks, plugin downloads and the news feed are off."""
    environment = grafana()
    for name in (
        "GF_ANALYTICS_REPORTING_ENABLED",
        "GF_ANALYTICS_CHECK_FOR_UPDATES",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
        "GF_NEWS_NEWS_FEED_ENABLED",
        "GF_PLUGINS_PLUGIN_ADMIN_ENABLED",
    ):
        assert environment[name] == "false"
    assert environment["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    assert environment["GF_PLUGINS_PUBLIC_KEY_RETRIEVAL_DISABLED"] == "true"


def run_arguments(name: str, variables: dict[str, str]) -> list[str]:
    """What `docker run` needs to confine a container as its service says; without networks."""
    service = SERVICES[name]
    arguments = [
        "--user",
        service["user"],
        "--memory",
        str(service["mem_limit"]),
        "--cpus",
        str(service["cpus"]),
    ]
    arguments += [
        "--pids-limit",
        str(service["pids_limit"]),
        *(["--read-only"] if service["read_only"] else []),
    ]
    for flag, key in (("--cap-drop", "cap_drop"), ("--security-opt", "security_opt"), ("--tmpfs", "tmpfs")):
        for value in service[key]:
            arguments += [flag, value]
    for key, value in service["environment"].items():
        arguments += ["--env", f"{key}={expand(str(value), variables)}"]
    return arguments


@pytest.fixture
def engine() -> Iterator[Callable[..., str]]:
    """Runs docker commands; what it started and made is removed afterwards."""
    require("docker")
    made: list[tuple[str, ...]] = []

    def docker(*arguments: str) -> str:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
        if arguments[0] == "run":
            made.append(("rm", "--force", arguments[arguments.index("--name") + 1]))
        if arguments[:2] == ("network", "create"):
            made.append(("network", "rm", arguments[-1]))
        return done.stdout.strip()

    yield docker
    for arguments in reversed(made):
        subprocess.run(["docker", *arguments], capture_output=True, check=False)


@pytest.mark.real
def test_model_and_exporter_really_start_as_the_file_says(engine: Callable[..., str]) -> None:
    """Confined as their services say, on the same kinds of network, and a prediction comes through the port.

    Needs the images of `make image`; STACK_VERSION names theirs (default: the newest here).
    """
    images = engine("images", "--format", "{{.Repository}}:{{.Tag}}").splitlines()
    exporters = [i for i in images if i.rpartition(":")[0].endswith("-exporter") and "/" not in i]
    version = os.environ.get("STACK_VERSION") or next((i.rpartition(":")[2] for i in exporters), "")
    pair = [(i.replace("-exporter:", ":"), i) for i in exporters if i.endswith(f":{version}")]
    if not version or not pair or pair[0][0] not in images:
        pytest.skip("there are no images of model and exporter on this engine: make image")
    mark = f"compose-test-{os.getpid()}"
    serving, front = f"{mark}-serving", f"{mark}-front"
    engine("network", "create", "--internal", serving)
    engine("network", "create", front)
    variables = {"VERSION": version}
    model, exporter = f"{mark}-model", f"{mark}-exporter"
    alias = expand(SERVICES["model"]["networks"]["serving"]["aliases"][0], variables)
    place = ["--network", serving, "--network-alias", alias]
    engine("run", "--detach", "--name", model, *place, *run_arguments("model", variables), pair[0][0])
    wait_healthy(engine, model)
    port = expand(SERVICES["exporter"]["ports"][0], {"PORT": "0"}).replace(":0:", "::")
    engine(
        *("run", "--detach", "--name", exporter, "--network", front, "--publish", port),
        *run_arguments("exporter", variables),
        pair[0][1],
    )
    engine("network", "connect", serving, exporter)
    wait_healthy(engine, exporter)
    address = engine("port", exporter, "8000/tcp").splitlines()[0]
    reference = json.loads(engine("exec", exporter, "sh", "-c", 'cat "$MODEL_EXPORTER_REFERENCE"'))
    golden = reference["golden"]
    body = {"dataframe_split": {"columns": golden["columns"], "data": golden["rows"]}}
    request = urllib.request.Request(
        f"http://{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        risks = [row[1] for row in json.load(answer)["predictions"]]
    assert risks == pytest.approx(golden["scores"], abs=1e-9)


def wait_healthy(engine: Callable[..., str], name: str) -> None:
    """Until the container's own health check says so; it has as long as a slow machine may need."""
    until = time.monotonic() + 240
    while engine("inspect", "--format", "{{.State.Health.Status}}", name) != "healthy":
        assert time.monotonic() < until, engine("logs", name)
        time.sleep(0.5)
