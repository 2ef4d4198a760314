"""`monitoring/deploy/compose.yaml`: valid by the specification, pinned, confined, quiet without secrets.

`compose-spec.schema.json` is the specification's own (from compose-go 2.9.1, Apache License 2.0), unchanged.
"""

from __future__ import annotations

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

from monitoring.deploy import secret_files
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
    """A tag with a full version and perhaps its digest, or the version that both images share."""
    image = SERVICES[name]["image"]
    if "${" in image:
        assert expand(image, {"VERSION": "7"}).endswith(":7")
    else:
        assert re.fullmatch(r"[a-z-]+/[a-z-]+:v?\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?", image)


def test_engines_before_25_understand_the_file() -> None:
    """They refuse `start_interval`, and everything with it."""
    assert "start_interval:" not in COMPOSE.read_text(encoding="utf-8")


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
    secrets = [name for name in environment("exporter") if name.endswith("_FILE")]
    assert secrets

    def read(**variables: str) -> settings.Settings:
        given = environment("exporter", **variables)
        return settings.read({name: given[name] for name in given if name not in secrets})

    bare = read()
    assert (bare.batch_rows, bare.observer_items, bare.guard) == (
        settings.Settings.batch_rows,
        settings.Settings.observer_items,
        "observe",
    )
    set_so = read(BATCH_ROWS="256", OBSERVER_ITEMS="50000", GUARD="reject", WORKERS="2")
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


def test_nobody_runs_as_root() -> None:
    """Every service has a numeric user of its own."""
    assert [name for name, service in SERVICES.items() if service["user"].startswith("0")] == []


def test_no_service_has_the_engine_socket() -> None:
    """It lies in /run; who mounts `/` gets an empty one in its place, and nobody mounts a part of it."""
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source, target, *_ = volume.split(":")
            assert not re.match(r"/(var/)?run", source), f"{name} mounts {source}"
            if source == "/":
                assert any(mount.startswith(f"{target}/run:") for mount in service["tmpfs"])


def test_each_network_is_a_pair_that_talks() -> None:
    """What faces callers cannot reach what watches the machine; two networks lead outside."""
    members = {
        network: sorted(name for name, service in SERVICES.items() if network in service["networks"])
        for network in STACK["networks"]
    }
    assert members == {
        "serving": ["exporter", "model"],
        "counts": ["exporter", "prometheus"],
        "machine": ["node-exporter", "prometheus"],
        "queries": ["grafana", "prometheus"],
        "callers": ["exporter"],
        "people": ["grafana"],
    }
    external = {name for name, network in STACK["networks"].items() if not (network or {}).get("internal")}
    assert external == {"callers", "people"}


def test_only_the_traffic_port_and_grafana_are_published_on_loopback() -> None:
    """Nothing else can be reached from outside the stack; each has a setting of its own that opens it."""
    published = {
        name: (service["ports"], [expand(port, {}) for port in service["ports"]])
        for name, service in SERVICES.items()
        if "ports" in service
    }
    assert published == {
        "exporter": (["${BIND:-127.0.0.1}:${PORT:-8080}:8000"], ["127.0.0.1:8080:8000"]),
        "grafana": (["${GRAFANA_BIND:-127.0.0.1}:${GRAFANA_PORT:-3000}:3000"], ["127.0.0.1:3000:3000"]),
    }


@every_service
def test_every_service_says_whether_it_is_well_and_waits_for_nobody(name: str) -> None:
    """Each has a health check; alerting starts although the model does not."""
    assert SERVICES[name]["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert "depends_on" not in SERVICES[name]


def test_prometheus_discovers_every_replica() -> None:
    """A static target would scrape one replica at a time and count a share of the requests."""
    text = (ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    for name in ("exporter", "node-exporter", "grafana"):
        (discovery,) = jobs[name]["dns_sd_configs"]
        assert discovery["names"] == [name]
        assert name in SERVICES


def test_secrets_are_files_and_no_variable_holds_one() -> None:
    """Each declared secret is mounted somewhere and has a placeholder; no variable interpolates one."""
    mounted = {secret for service in SERVICES.values() for secret in service.get("secrets", [])}
    assert mounted == set(STACK["secrets"]) == set(secret_files.PLACEHOLDERS)
    for name, source in STACK["secrets"].items():
        assert source == {"file": f"secrets/{name}"}
        assert f"${{{secret_files.variable(name)}" not in COMPOSE.read_text(encoding="utf-8")


def test_prometheus_can_be_reloaded_or_ended_by_nobody() -> None:
    """Its lifecycle API has no password."""
    assert not [flag for flag in SERVICES["prometheus"]["command"] if "lifecycle" in flag]


def test_the_disk_of_prometheus_is_bounded() -> None:
    """By size as well as by time."""
    assert [flag for flag in SERVICES["prometheus"]["command"] if "retention.size" in flag]


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
    assert environment["RETRAIN_URL"] == secret_files.PLACEHOLDERS["alert_webhook_url"] == "grafana://noop"


@pytest.mark.parametrize(
    ("variable", "value", "turns_on"),
    [
        (
            "ALERT_EMAIL",
            "a@example.org",
            {"ALERT_EMAIL_SEVERITIES": "critical|warning", "GF_SMTP_ENABLED": "true"},
        ),
        ("ALERT_SLACK", "on", {"ALERT_SLACK_SEVERITIES": "critical|warning"}),
        ("RETRAIN_URL", "https://api.example.org", {"RETRAIN_URL": "https://api.example.org"}),
    ],
)
def test_a_channel_is_on_by_its_own_variable(variable: str, value: str, turns_on: dict[str, str]) -> None:
    """And no other channel changes."""
    before, after = grafana(), grafana(**{variable: value})
    changed = {name: after[name] for name in after if after[name] != before[name]}
    changed.pop(variable, None)
    turns_on.pop(variable, None)
    assert changed == turns_on


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
        for value in service.get(key, ()):
            arguments += [flag, value]
    for key, value in service["environment"].items():
        arguments += ["--env", f"{key}={expand(str(value), variables)}"]
    for secret in service.get("secrets", []):
        arguments += ["--volume", f"/dev/null:/run/secrets/{secret}:ro"]
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
