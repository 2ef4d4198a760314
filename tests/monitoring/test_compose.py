"""`monitoring/compose.yaml`: valid by the compose specification, pinned, confined, quiet without secrets.

`compose-spec.schema.json` is the specification's own (from compose-go 2.9.1, Apache License 2.0), unchanged.
"""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "monitoring" / "compose.yaml"
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


def grafana(**variables: str) -> dict[str, str]:
    return {
        name: expand(str(value), {"VERSION": "1", **variables})
        for name, value in SERVICES["grafana"]["environment"].items()
    }


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
