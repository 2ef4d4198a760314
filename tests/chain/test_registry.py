"""The registry: aliases that are never missing, one version a run."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import mlflow
import pytest

from steps.chain import registry
from steps.data.errors import UserError


@pytest.fixture(scope="module")
def registry_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real registry in a file of its own, with three versions of one model and no run."""
    path = tmp_path_factory.mktemp("registry") / "registry.db"
    client = mlflow.MlflowClient(f"sqlite:///{path}")
    client.create_registered_model("m")
    for _ in range(3):
        client.create_model_version("m", str(path.parent))
    return path


@pytest.fixture(scope="module")
def client(registry_file: Path) -> object:
    return mlflow.MlflowClient(f"sqlite:///{registry_file}")


def test_aliases_move_and_come_back(client: object) -> None:
    """Each promotion keeps the last champion as @previous; promoting the champion again changes nothing."""
    assert registry.alias_version(client, "m", "champion") is None
    assert registry.alias_version(client, "no such model", "champion") is None
    registry.move_champion(client, "m", "1")
    assert registry.alias_version(client, "m", "previous") is None
    registry.move_champion(client, "m", "2")
    registry.move_champion(client, "m", "2")
    assert [registry.alias_version(client, "m", alias) for alias in ("champion", "previous")] == ["2", "1"]


def test_a_version_that_is_promoted_again_carries_the_tags_of_now(client: object) -> None:
    """One version a run; which promotion it came from is the latest."""
    run = client.create_run("0").info.run_id
    versions = [
        registry.register(client, "again", run, {"promote_run_id": which}) for which in ("one", "two")
    ]
    assert versions == ["1", "1"]
    assert client.get_model_version("again", "1").tags["promote_run_id"] == "two"


def test_promotions_at_once_never_leave_the_registry_without_a_champion(client: object) -> None:
    """Two promotions that race may refuse each other, but at every moment there is a champion."""
    seen: list[str | None] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.append(registry.alias_version(client, "m", "champion"))
            time.sleep(0.002)

    def promote(version: str) -> None:
        for _ in range(5):
            try:
                registry.move_champion(client, "m", version)
            except UserError as error:
                assert "another process moved the aliases" in str(error)

    registry.move_champion(client, "m", "1")
    watcher = threading.Thread(target=watch)
    promoters = [threading.Thread(target=promote, args=(version,)) for version in ("2", "3")]
    watcher.start()
    for thread in promoters:
        thread.start()
    for thread in promoters:
        thread.join()
    done.set()
    watcher.join()
    assert seen
    assert set(seen) <= {"1", "2", "3"}
    assert registry.alias_version(client, "m", "champion") in {"2", "3"}
