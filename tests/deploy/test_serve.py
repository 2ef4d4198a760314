"""`make serve`: the champion behind its sidecar, without Docker."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from monitoring.deploy import check_images, local
from steps.data.errors import UserError
from steps.ops import release
from tests.made_up.ports import free_port


def test_the_champion_is_served_with_its_version_and_stops(champion: Any, tmp_path: Path) -> None:
    """Answers equal the registered model's, metrics name its version, both processes end."""
    import mlflow

    client = mlflow.MlflowClient(champion.checkout.tracking_uri, champion.checkout.tracking_uri)
    folder = tmp_path / "release"
    release.export(client, champion.name, champion.version, folder, champion.schema)
    known = json.loads((folder / "reference.json").read_text())
    rows = check_images.made_rows(known, 5, seed=2)
    ports = free_port(), free_port(), free_port()
    with local.serving(folder, *ports) as processes:
        answer = check_images.ask(f"http://127.0.0.1:{ports[0]}/invocations", check_images.body(rows))
        assert (
            check_images.largest_difference(answer, check_images.expected(folder / "model", rows, known))
            <= check_images.TOLERANCE
        )
        assert "<h1>How common is diabetes" in check_images.ask(f"http://127.0.0.1:{ports[0]}/")
        assert f'version="{champion.version}"' in check_images.ask(f"http://127.0.0.1:{ports[2]}/metrics")
    assert all(process.poll() is not None for process in processes)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """Somebody else's server must not be taken for the champion's."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is taken"), local.serving(tmp_path, port, 1, 2):
            pass


def test_a_port_that_is_none_is_named() -> None:
    """A default, another, and an error with the variable's name."""
    assert local.port({}, "PORT", 8080) == 8080
    assert local.port({"PORT": "9000"}, "PORT", 8080) == 9000
    with pytest.raises(UserError, match="PORT must be a port"):
        local.port({"PORT": "eighty"}, "PORT", 8080)
