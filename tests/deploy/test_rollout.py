"""Deploying: model and sidecar move together; the old pair serves until, and unless, the new one can."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from monitoring.deploy import check_images, rollout, secret_files
from monitoring.deploy.docker import docker
from monitoring.sidecar import feedback_tokens
from steps.chain.context import VERDICT
from steps.data.errors import UserError
from steps.data.release_facts import ReleaseFacts
from steps.ops import keep_store
from tests.conftest import ROOT, check_out, require
from tests.made_up.ports import free_port

OLD, NEW = rollout.pair("diabetes-risk", "1"), rollout.pair("diabetes-risk", "2")
REGISTRY = "ghcr.io/me/"
EXPORTED = ReleaseFacts(
    name="diabetes-risk",
    version="7",
    run_id="r",
    git_commit="c",
    schema="diabetes-risk",
    data_kind="private",
    data_digest="d",
    dataset_digest="d",
    model_digest="d",
    synthetic=False,
    family="logistic_regression",
)


@dataclass
class Engine:
    """Docker's command line with one running model; `up`, `stop` and `rm` fail on what a test says."""

    fails: Callable[[str, str], bool] = lambda service, version: False
    models: list[str] = field(default_factory=lambda: ["old"])
    said: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)

    def __call__(self, *arguments: str, environment: dict[str, str] | None = None) -> str:
        action, service = arguments[3 if arguments[0] == "compose" else 0], arguments[-1]
        version = (environment or {}).get("VERSION", "")
        if action == "ps":
            return "\n".join(self.models)
        if arguments[:2] == ("image", "ls"):
            return "\n".join(self.images)
        if arguments[:2] == ("image", "rm"):
            self.images.remove(arguments[-1])
            return ""
        self.said.append(" ".join(part for part in (action, service, version) if part))
        if action == "up" and service == "model":
            self.models.append("new")
        if self.fails(service, version):
            raise UserError("unhealthy" if action == "up" else "no answer from the engine")
        if action == "rm":
            self.models.remove(service)
        return ""


def use(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    """Put the emulated engine in the place of Docker's command line."""
    for module in (rollout, sys.modules["monitoring.deploy.docker"]):
        monkeypatch.setattr(module, "docker", engine)


@pytest.fixture(autouse=True)
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulated engine's containers are healthy once `up` has worked."""
    monkeypatch.setattr(rollout, "seconds_to_health", lambda container, limit: 0.0)


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The settings file of a stack that runs the old pair; every image is at hand."""
    monkeypatch.setattr(rollout, "fetch", lambda wanted: None)
    rollout.remember(tmp_path / ".env", rollout.with_pair("PORT=9000\n", OLD))
    return tmp_path / ".env"


def test_the_new_model_is_healthy_before_the_sidecar_moves(
    monkeypatch: pytest.MonkeyPatch, settings: Path
) -> None:
    """Then the old model goes."""
    engine = Engine()
    use(monkeypatch, engine)
    rollout.deploy(NEW, settings)
    assert engine.said == ["up model 2", "up exporter 2", "stop old", "rm old"]


def test_a_model_that_does_not_get_healthy_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old pair was never touched."""
    engine = Engine(fails=lambda service, version: service == "model")
    use(monkeypatch, engine)
    with pytest.raises(UserError, match="unhealthy"):
        rollout.switch(NEW, OLD)
    assert engine.models == ["old"]
    assert "up exporter 2" not in engine.said


def test_a_sidecar_that_does_not_get_healthy_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old one comes back beside its own model, which still runs."""
    engine = Engine(fails=lambda service, version: (service, version) == ("exporter", "2"))
    use(monkeypatch, engine)
    with pytest.raises(UserError, match="unhealthy"):
        rollout.switch(NEW, OLD)
    assert engine.models == ["old"]
    assert engine.said[-1] == "up exporter 1"


def test_an_old_pair_that_does_not_come_back_is_not_said_to_serve(
    monkeypatch: pytest.MonkeyPatch, settings: Path
) -> None:
    """At night the difference between a failed deployment and an outage is the first thing to know."""
    use(monkeypatch, Engine(fails=lambda service, version: service == "exporter"))
    with pytest.raises(UserError) as raised:
        rollout.deploy(NEW, settings)
    assert "still serves" not in str(raised.value)
    assert "version 1 could not be brought back: unhealthy" in str(raised.value)
    assert "`make deploy VERSION=1`" in str(raised.value)


def test_the_settings_file_changes_only_after_success(
    monkeypatch: pytest.MonkeyPatch, settings: Path
) -> None:
    """It says what runs, is for its owner's eyes, and the error says what still serves."""
    assert settings.stat().st_mode & 0o077 == 0
    use(monkeypatch, Engine(fails=lambda service, version: version == "2"))
    with pytest.raises(UserError, match=r"version 2 .* did not get healthy; version 1 still serves"):
        rollout.deploy(NEW, settings)
    assert rollout.remembered(settings.read_text()) == OLD
    use(monkeypatch, Engine())
    rollout.deploy(NEW, settings)
    assert rollout.remembered(settings.read_text()) == NEW
    assert "PORT=9000" in settings.read_text()


def test_an_old_model_that_cannot_be_stopped_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, settings: Path
) -> None:
    """The new pair serves: the settings name it, and the message says what is left to take away."""
    use(monkeypatch, Engine(fails=lambda service, version: service == "old"))
    said = rollout.deploy(NEW, settings)
    assert "version 2 of diabetes-risk serves" in said
    assert "warning: version 1 still runs beside it: no answer from the engine" in said
    assert "`docker rm --force old`" in said
    assert rollout.remembered(settings.read_text()) == NEW


@pytest.mark.parametrize("action", ["deploy", "champion"])
@pytest.mark.parametrize(
    ("running", "environment", "prefix"),
    [
        (REGISTRY, {}, REGISTRY),
        ("", {}, ""),
        ("", {"IMAGE_PREFIX": REGISTRY}, REGISTRY),
        (REGISTRY, {"IMAGE_PREFIX": "docker.io/me/"}, "docker.io/me/"),
        (REGISTRY, {"IMAGE_PREFIX": ""}, ""),
        (None, {}, ""),
        (None, {"IMAGE_PREFIX": REGISTRY}, REGISTRY),
    ],
)
def test_images_come_from_where_the_running_ones_did(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    action: str,
    running: str | None,
    environment: dict[str, str],
    prefix: str,
) -> None:
    """By version and back to @champion alike; IMAGE_PREFIX, where it is given, says otherwise."""
    (tmp_path / VERDICT).write_text('{"model": "diabetes-risk", "champion": "2"}')
    monkeypatch.setattr(rollout, "PROJECT", tmp_path)
    monkeypatch.setattr(rollout, "read_facts", lambda folder: EXPORTED)
    settings = tmp_path / ".env"
    if running is not None:
        rollout.remember(settings, rollout.with_pair("", rollout.pair("diabetes-risk", "1", running)))
    version = "2" if action == "deploy" else ""
    found = rollout.chosen(action, version, environment, settings)
    assert found == rollout.pair("diabetes-risk", "2", prefix)


@pytest.mark.parametrize(("running", "version"), [("diabetes-risk", "1"), ("another", "7"), (None, "7")])
def test_coming_up_again_does_not_undo_a_rollback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, running: str | None, version: str
) -> None:
    """Without a version `make stack` brings up the one that runs, unless the export is of another model."""
    monkeypatch.setattr(rollout, "read_facts", lambda folder: EXPORTED)
    settings = tmp_path / ".env"
    if running is not None:
        rollout.remember(settings, rollout.with_pair("", rollout.pair(running, "1")))
    assert rollout.chosen("stack", "", {}, settings) == rollout.pair("diabetes-risk", version)


def test_a_rollback_moves_the_containers_to_the_champion_of_the_verdict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second half of `make rollback`, from the registry that the running pair came from."""
    engine = Engine()
    use(monkeypatch, engine)
    monkeypatch.setattr(rollout, "have_image", lambda reference: engine("pull", reference))
    monkeypatch.setattr(rollout, "require_compose", lambda: None)
    monkeypatch.setattr(rollout, "PROJECT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["deploy", "champion"])
    monkeypatch.delenv("IMAGE_PREFIX", raising=False)
    monkeypatch.chdir(tmp_path)  # main goes to the project and does not come back
    settings = tmp_path / rollout.SETTINGS
    settings.parent.mkdir(parents=True)
    rollout.remember(settings, rollout.with_pair("", rollout.pair("diabetes-risk", "2", REGISTRY)))
    verdict = {"verdict": "rolled_back", "model": "diabetes-risk", "champion": "1", "champion_before": "2"}
    (tmp_path / VERDICT).write_text(json.dumps(verdict))
    assert rollout.main() == 0
    assert engine.said == [
        f"pull {REGISTRY}diabetes-risk:1",
        f"pull {REGISTRY}diabetes-risk-exporter:1",
        "up model 1",
        "up exporter 1",
        "stop old",
        "rm old",
    ]
    assert rollout.remembered(settings.read_text()) == rollout.pair("diabetes-risk", "1", REGISTRY)
    assert f"champion: version 1 of {REGISTRY}diabetes-risk serves" in capsys.readouterr().out


def test_a_rollback_is_asked_of_the_model_that_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever data a person last trained on; promote finds out by itself where nothing runs."""
    monkeypatch.setattr(rollout, "PROJECT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["deploy", "name"])
    assert rollout.main() == 0
    (tmp_path / rollout.SETTINGS).parent.mkdir(parents=True)
    rollout.remember(
        tmp_path / rollout.SETTINGS, rollout.with_pair("", rollout.pair("m", "2", "ghcr.io/me/"))
    )
    assert rollout.main() == 0
    assert capsys.readouterr().out == "true\nm\n"


def test_images_of_older_versions_are_removed(monkeypatch: pytest.MonkeyPatch, settings: Path) -> None:
    """What runs, what ran before it, what is newer, and what is no version of this model stay."""
    stay = ["diabetes-risk:1", "diabetes-risk:2", "diabetes-risk:3", "diabetes-risk-exporter:1", "other:0"]
    go = ["diabetes-risk:0", "diabetes-risk-exporter:0", "diabetes-risk-stock:0", "diabetes-risk-sidecar:0"]
    engine = Engine(images=[*stay, *go, "diabetes-risk:latest"])
    use(monkeypatch, engine)
    assert "removed 4 images of older versions" in rollout.deploy(NEW, settings)
    assert engine.images == [*stay, "diabetes-risk:latest"]


# ---------------------------------------------------------------- on a real engine, under load


def _compose() -> None:
    require("docker")
    try:
        docker("compose", "version")
    except UserError:
        reason = "`docker compose` is not installed: `make components` builds it where there is Go"
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail(f"REQUIRE_REAL=1, and {reason}")
        pytest.skip(reason)


def _token_version(token: str | None) -> str | None:
    if token is None:
        return None
    text = base64.urlsafe_b64decode(token)
    head, _ = feedback_tokens.LAYOUTS[text[0]]
    _, _, _, name, version, *_ = head.unpack_from(text)
    return text[head.size + name : head.size + name + version].decode()


@pytest.mark.real
def test_versions_move_under_load_without_a_wrong_answer(champion: Any, tmp_path: Path) -> None:
    """Forth by version, back by rollback: an answer and its sidecar are one version's; failures counted."""
    _compose()
    import mlflow

    checkout = check_out(tmp_path / "project")
    keep_store.pack(champion.checkout.folder, tmp_path / "store.tar.gz")
    keep_store.unpack(tmp_path / "store.tar.gz", checkout.folder)
    shutil.copytree(champion.checkout.folder / ".cache", checkout.folder / ".cache")
    shutil.copy(ROOT / "CHANGELOG.md", checkout.folder)
    code, output = checkout.mlflow_run(
        "promote", model="baseline", family="explainable_boosting", seed=1, replicates=100
    )
    assert code == 0, output
    client = mlflow.MlflowClient(checkout.tracking_uri, checkout.tracking_uri)
    wanted: dict[str, list[list[float]]] = {}
    for version in ("1", "2"):
        for command in (("steps.ops.release", "--version", version), ("monitoring.deploy.build",)):
            code, output = checkout.run("python", "-m", *command)
            assert code == 0, output
        known = json.loads((checkout.folder / "build" / "release" / "reference.json").read_text())
        rows = check_images.made_rows(known, 1, seed=2)
        client.get_model_version(champion.name, version)
        wanted[version] = check_images.expected(checkout.folder / "build" / "release" / "model", rows, known)
    assert wanted["1"] != wanted["2"]

    port = free_port()
    environment = {
        **checkout.environment,
        "COMPOSE_PROJECT_NAME": f"deploy-test-{os.getpid()}",
        "PORT": str(port),
    }
    secrets = checkout.folder / secret_files.FOLDER
    secrets.mkdir()
    (secrets / "feedback_keys").write_text("a-key-of-a-test-only")

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "monitoring.deploy.rollout", *words]
        return subprocess.run(
            command, cwd=checkout.folder, env=environment, capture_output=True, text=True, check=False
        )

    seen: Counter[tuple[str, str | None]] = Counter()
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                connection.request(
                    "POST", "/invocations", check_images.body(rows), {"Content-Type": "application/json"}
                )
                answer = connection.getresponse()
                text = answer.read().decode()
            except (OSError, http.client.HTTPException):
                seen["no answer", None] += 1
                time.sleep(0.05)
                continue
            finally:
                connection.close()
            if answer.status != 200:
                seen[str(answer.status), None] += 1
                continue
            fitting = [
                v
                for v, risks in wanted.items()
                if check_images.largest_difference(text, risks) <= check_images.TOLERANCE
            ]
            seen[
                fitting[0] if fitting else "wrong", _token_version(answer.headers["Model-Feedback-Token"])
            ] += 1

    threads = [threading.Thread(target=ask) for _ in range(4)]
    try:
        done = call("deploy", "1")
        assert done.returncode == 0, done.stderr
        for thread in threads:
            thread.start()
        done = call("deploy", "2")
        assert done.returncode == 0, done.stderr
        code, output = checkout.mlflow_run("promote", rollback="true")  # `make rollback`, both halves
        assert code == 0, output
        done = call("champion")
        assert done.returncode == 0, done.stderr
        assert "version 1 of" in done.stdout
        missing = call("deploy", "99")
        assert missing.returncode == 1
        assert "there is no image" in missing.stderr
    finally:
        stop.set()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        down = [
            "docker",
            "compose",
            "--file",
            "monitoring/deploy/compose.yaml",
            "down",
            "--volumes",
            "--timeout",
            "5",
        ]
        subprocess.run(down, cwd=checkout.folder, env=environment, capture_output=True, check=False)
    print(dict(seen))
    assert {version for version, _ in seen} >= {"1", "2"}
    assert {pair for pair in seen if pair[0] in ("wrong", "1", "2")} == {("1", "1"), ("2", "2")}
