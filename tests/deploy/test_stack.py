"""Bringing the stack up: what cannot be had is left out and said; secrets are files of their owner."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from monitoring.deploy import docker as engine_module
from monitoring.deploy import secret_files, stack
from monitoring.deploy.docker import Service
from steps.data.errors import UserError

SERVICES = [
    Service("model", "diabetes-risk:1", ()),
    Service("exporter", "diabetes-risk-exporter:1", ()),
    Service("prometheus", "prom/prometheus:v3", ()),
    Service("grafana", "grafana/grafana:12", ()),
    Service("node-exporter", "prom/node-exporter:v1", ("host",)),
]
Fails = Callable[[str], bool]


class Engine:
    """An engine on which some images, mounts and health checks fail; remembers what it started."""

    def __init__(self, pull: Fails, up: Fails, health: Fails) -> None:
        self.pull, self.up, self.health = pull, up, health
        self.started: list[str] = []

    def docker(self, *arguments: str, environment: object = None, also_errors: bool = False) -> str:
        if "up" in arguments:
            if self.up(arguments[-1]):
                raise UserError("docker compose failed:\npath / is not a shared or slave mount")
            self.started.append(arguments[-1])
        return ""

    def have_image(self, image: str) -> None:
        if self.pull(image):
            raise UserError("docker pull failed:\nno route to host")

    def seconds_to_health(self, container: str, limit: float) -> float:
        if self.health(container):
            raise UserError("a container is not healthy")
        return 0.0


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Engine]:
    """Puts an engine in the place of Docker's command line."""

    def make(
        pull: Fails = lambda image: False,
        up: Fails = lambda service: False,
        health: Fails = lambda container: False,
    ) -> Engine:
        made = Engine(pull, up, health)
        for name in ("docker", "have_image", "seconds_to_health"):
            monkeypatch.setattr(stack, name, getattr(made, name))
        monkeypatch.setattr(stack, "services", lambda environment: SERVICES)
        monkeypatch.setattr(stack, "containers", lambda service, environment: {service})
        return made

    return make


def test_everything_starts_where_everything_can_be_had(engine: Callable[..., Engine]) -> None:
    """Without a word of warning."""
    made = engine()
    assert stack.bring_up({}) == []
    assert made.started == [service.name for service in SERVICES]


@pytest.mark.parametrize("lacking", ["node-exporter", "grafana", "prometheus"])
def test_an_image_that_cannot_be_pulled_stops_nothing_else(
    engine: Callable[..., Engine], lacking: str
) -> None:
    """The warning names the image, what does not work without it, and the registry's answer."""
    made = engine(pull=lambda image: f"/{lacking}:" in image)
    (warning,) = stack.bring_up({})
    assert made.started == [service.name for service in SERVICES if service.name != lacking]
    for part in (lacking, stack.WITHOUT[lacking], "no route to host"):
        assert part in warning


def test_where_the_root_is_not_shared_only_the_machine_is_not_watched(engine: Callable[..., Engine]) -> None:
    """Docker Desktop refuses the mount; a service that is no option fails loudly instead."""
    made = engine(up=lambda service: service == "node-exporter")
    (warning,) = stack.bring_up({})
    assert "memory and disks of this machine are not watched" in warning
    assert "not a shared or slave mount" in warning
    assert made.started == ["model", "exporter", "prometheus", "grafana"]
    engine(up=lambda service: service == "prometheus")
    with pytest.raises(UserError, match="shared or slave"):
        stack.bring_up({})


def test_alerting_starts_although_the_model_does_not(engine: Callable[..., Engine]) -> None:
    """The error names what is unwell; Prometheus and Grafana run by then."""
    made = engine(health=lambda container: container == "model")
    with pytest.raises(UserError, match=r"(?s)model: a container is not healthy.*alerts about it"):
        stack.bring_up({})
    assert {"prometheus", "grafana"} <= set(made.started)


def test_a_missing_compose_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2 is a plugin that Docker's own package does not bring along."""

    def docker(*arguments: str) -> str:
        raise UserError("docker compose version failed:\ndocker: 'compose' is not a docker command.")

    monkeypatch.setattr(engine_module, "docker", docker)
    with pytest.raises(UserError, match="apt-get install docker-compose-plugin"):
        engine_module.require_compose()


def test_secrets_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    """Grafana's password is made up once; the rest are harmless placeholders; nothing written is lost."""
    folder = tmp_path / "secrets"
    assert secret_files.make_missing(folder) == ["grafana_admin_password"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    password = (folder / "grafana_admin_password").read_text().strip()
    assert len(password) >= 20
    (folder / "bearer_token").write_text("written-by-a-person\n")
    assert secret_files.make_missing(folder) == []
    assert (folder / "grafana_admin_password").read_text().strip() == password
    assert (folder / "bearer_token").read_text() == "written-by-a-person\n"
    assert {path.name for path in folder.iterdir()} == set(secret_files.PLACEHOLDERS)


def test_a_secret_in_a_variable_is_refused_by_name(tmp_path: Path) -> None:
    """Nothing would read it; the message says where it belongs and does not repeat it."""
    with pytest.raises(UserError, match=r"FEEDBACK_KEYS into .*secrets/feedback_keys") as raised:
        secret_files.refuse_variables({"FEEDBACK_KEYS": "canary-of-a-test"}, tmp_path / "secrets")
    assert "canary" not in str(raised.value)


def test_secrets_of_an_earlier_settings_file_are_moved(tmp_path: Path) -> None:
    """Tokens given out before must stay readable, and a channel that was on stays on."""
    settings = "PORT=9000\nFEEDBACK_KEYS='a-key-of-many-letters'\nALERT_SLACK_URL=https://example.org/x\n"
    remaining = secret_files.move_from_settings(settings, tmp_path)
    assert remaining == "PORT=9000\nALERT_SLACK=on\n"
    assert (tmp_path / "feedback_keys").read_text() == "a-key-of-many-letters\n"
    assert (tmp_path / "alert_slack_url").read_text() == "https://example.org/x\n"
    assert secret_files.move_from_settings(remaining, tmp_path) == remaining
