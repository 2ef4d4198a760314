"""The images, on a real Docker engine: built from a release, started as people start them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitoring.deploy import build, check_images
from monitoring.deploy.docker import docker
from steps.data import release_facts
from steps.data.errors import UserError
from steps.models import saved
from steps.models.served_model import Terms
from steps.ops import release
from tests.conftest import require
from tests.made_up import glass_box, reasons

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def built(champion: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of the shared champion; the folder of its release."""
    require("docker")
    import mlflow

    folder = tmp_path_factory.mktemp("image") / "release"
    client = mlflow.MlflowClient(champion.checkout.tracking_uri, champion.checkout.tracking_uri)
    release.export(client, champion.name, champion.version, folder, champion.schema)
    build.build(folder)
    return folder


def test_the_image_test_passes(built: Path) -> None:
    """Predictions, health, user, labels, read-only root, times, memory, metrics, golden rows."""
    results = list(check_images.check(built, check_images.Limits()))
    assert [result for result in results if not result.passed] == []
    assert len(results) >= 15


@pytest.fixture
def model_image(built: Path) -> str:
    """Name of the model's image."""
    return build.names(release_facts.read_facts(built))[0]


@pytest.fixture
def started() -> Iterator[list[str]]:
    """Containers that a test starts; gone afterwards."""
    containers: list[str] = []
    yield containers
    for container in containers:
        docker("rm", "--force", container)


def _row(built: Path) -> bytes:
    known = json.loads((built / "reference.json").read_text())
    return check_images.body(check_images.made_rows(known, 1, seed=3))


@pytest.mark.parametrize(
    "options",
    [(), ("--user", "12345"), ("--read-only",), ("--user", "12345", "--read-only", "--cap-drop", "ALL")],
)
def test_it_runs_as_people_run_it(
    built: Path, model_image: str, started: list[str], options: tuple[str, ...]
) -> None:
    """Any user, with or without a writable root; a second one beside it on another port; a clean stop."""
    for _ in range(2):
        started.append(docker("run", "--detach", *options, "--publish", "127.0.0.1::8080", model_image))
    for container in started:
        url = check_images.address(container, 8080)
        check_images.seconds_to_answer(container, url, check_images.Limits().start_seconds)
        assert len(json.loads(check_images.ask(f"{url}/invocations", _row(built)))["predictions"]) == 1
    for container in started:
        docker("stop", container)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"


def test_reasons_of_ten_thousand_rows_are_those_of_the_document(
    built: Path, model_image: str, started: list[str], champion: Any
) -> None:
    """Missing, never seen, out of range: the container's reasons are what `terms.json` says, within 1e-9."""
    model = saved.load(built / "model")
    assert isinstance(model, Terms)
    frame = glass_box.people(champion.schema, 10_000, seed=4)
    started.append(docker("run", "--detach", "--publish", "127.0.0.1::8080", model_image))
    url = check_images.address(started[0], 8080)
    check_images.seconds_to_answer(started[0], url, check_images.Limits().start_seconds)
    for first in range(0, len(frame), 500):
        rows = frame.iloc[first : first + 500]
        answer = json.loads(check_images.ask(f"{url}/invocations", reasons.body(rows, 3).encode()))
        reasons.assert_same(answer["predictions"], model.answers(rows, 3))


def test_it_answers_without_any_network(built: Path, model_image: str, started: list[str]) -> None:
    """Nothing is fetched at the start or for a prediction."""
    started.append(docker("run", "--detach", "--network", "none", model_image))
    asking = (
        "import sys, urllib.request as u\n"
        "r = u.Request('http://127.0.0.1:8080/invocations', sys.argv[1].encode())\n"
        "r.add_header('Content-Type', 'application/json')\n"
        "print(u.urlopen(r).read().decode())"
    )
    end = time.monotonic() + check_images.Limits().start_seconds
    ping = "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/ping')"
    while time.monotonic() < end:
        try:
            docker("exec", started[0], "python", "-c", ping)
            break
        except UserError:
            time.sleep(0.5)
    answer = docker("exec", started[0], "python", "-c", asking, _row(built).decode())
    assert len(json.loads(answer)["predictions"][0]) == 2


def test_no_secret_and_no_row_is_in_the_image(model_image: str) -> None:
    """The model's folder and its server are all that came from this project; history and environment hold no
    credential."""
    files = docker("run", "--rm", "--entrypoint", "find", model_image, "/opt/ml", "-type", "f").splitlines()
    assert [file for file in files if not file.startswith("/opt/ml/model/")] == ["/opt/ml/model_server.py"]
    assert not any(file.endswith((".parquet", ".csv")) for file in files)
    told = docker("history", "--no-trunc", model_image) + docker("inspect", model_image)
    assert "MLFLOW_TRACKING_PASSWORD" not in told
