"""The store: one chain at a time, aliases that are never missing, errors that a person can act on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from steps.chain import locks, registry, tracking
from steps.data.errors import UserError
from tests.conftest import ROOT

HOLD = """
import sys, time
from pathlib import Path
from steps.chain import console
from steps.chain.locks import chain_lock
console.configure()
with chain_lock(Path(sys.argv[1]), sys.argv[2]) as depth:
    print("holds", depth, flush=True)
    sys.stdin.read()
"""


class Holder:
    """A process that takes the lock, says so, and keeps it until its standard input is closed."""

    def __init__(self, lock: Path, name: str, depth: int | None = None) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "CHAIN_DEPTH"}
        if depth is not None:
            environment["CHAIN_DEPTH"] = str(depth)
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(lock), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.communicate(timeout=60)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)


def test_the_second_chain_waits_and_says_for_whom(tmp_path: Path) -> None:
    """Who comes second is told who holds the store, and goes on when that one ends."""
    lock = tmp_path / "mlflow.db.lock"
    first = Holder(lock, "main")
    assert first.line() == "holds 0"
    second = Holder(lock, "tune")
    waiting = second.line()
    assert waiting.startswith("waiting for another chain in this store: main (process ")
    first.end()
    assert second.line() == "holds 0"
    second.end()


def test_a_killed_holder_gives_the_lock_back(tmp_path: Path) -> None:
    """kill -9 leaves no lock behind."""
    lock = tmp_path / "mlflow.db.lock"
    first = Holder(lock, "main")
    assert first.line() == "holds 0"
    first.kill()
    second = Holder(lock, "main")
    assert second.line() == "holds 0"
    second.end()


def test_a_step_that_outlives_its_killed_leader_is_waited_for(tmp_path: Path) -> None:
    """The leader is gone, its step works on: a new leader waits for that step before it looks."""
    lock = tmp_path / "mlflow.db.lock"
    orphan = Holder(lock, "tune", depth=0)
    assert orphan.line() == "holds 1"
    leader = Holder(lock, "main")
    assert "tune (process" in leader.line()
    orphan.end()
    assert leader.line() == "holds 0"
    leader.end()


def test_many_processes_that_open_a_new_store_at_once_all_find_it_usable(tmp_path: Path) -> None:
    """Creating an SQLite store is done by one process while the others wait."""
    command = [sys.executable, "-m", "steps.ops.init_store"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'new.db'}"}
    started = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    ends = [(process.communicate(timeout=180)[1], process.returncode) for process in started]
    assert [code for _, code in ends] == [0, 0, 0], ends


def test_a_store_that_somebody_is_creating_is_waited_for(tmp_path: Path) -> None:
    """Also when its file has something in it already."""
    (tmp_path / "half.db").write_bytes(b"half")
    entered = threading.Event()

    def enter() -> None:
        with locks.initialised(f"sqlite:///{tmp_path / 'half.db'}"):
            entered.set()

    with (tmp_path / "half.db.init.lock").open("w") as creator:
        fcntl.flock(creator, fcntl.LOCK_EX)
        second = threading.Thread(target=enter)
        second.start()
        assert not entered.wait(0.3)
    second.join(30)
    assert entered.is_set()


def test_an_unreachable_server_is_named_with_a_remedy_and_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One clear sentence for a server that refuses; credentials in its address stay out of it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match="does not answer") as caught:
        tracking.connect()
    assert "MLFLOW_TRACKING_URI" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.fixture(scope="module")
def registry_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real registry in a file of its own, with three versions of one model and no run."""
    import mlflow

    path = tmp_path_factory.mktemp("registry") / "registry.db"
    client = mlflow.MlflowClient(f"sqlite:///{path}")
    client.create_registered_model("m")
    for _ in range(3):
        client.create_model_version("m", str(path.parent))
    return path


@pytest.fixture(scope="module")
def client(registry_file: Path) -> object:
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{registry_file}")


@pytest.mark.parametrize(
    "damage", ["UPDATE alembic_version SET version_num = '451aebb31d03'", "DELETE FROM alembic_version"]
)
def test_a_store_that_was_only_half_created_is_set_aside_unless_it_holds_runs(
    damage: str, registry_file: Path, tmp_path: Path
) -> None:
    """As a kill leaves it: tables, and some of MLflow's migrations. One with runs is nobody's to move."""
    for name, statements, expected in (
        ("empty.db", [damage], tmp_path / "empty.db.half"),
        ("full.db", ["INSERT INTO runs (run_uuid) VALUES ('r')", damage], None),
        ("whole.db", [], None),
    ):
        path = tmp_path / name
        shutil.copy(registry_file, path)
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)
        assert locks.set_half_store_aside(f"sqlite:///{path}") == expected
        assert path.exists() == (expected is None)
    assert locks.set_half_store_aside(f"sqlite:///{tmp_path / 'none.db'}") is None


def test_a_run_that_was_cut_off_before_it_said_its_step_is_closed_too(
    registry_file: Path, tmp_path: Path
) -> None:
    """`mlflow run` makes it and was killed; runs of other projects and the one at work are left alone."""
    import mlflow

    shutil.copy(registry_file, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri, uri)
    whose = (str(tmp_path), "/somewhere/else", str(tmp_path))
    cut_off, other, own = (
        client.create_run("0", tags={"mlflow.source.name": name}).info.run_id for name in whose
    )
    assert tracking.close_abandoned(client, tmp_path, keep={own}) == 1
    states = [client.get_run(run).info.status for run in (cut_off, other, own)]
    assert states == ["KILLED", "RUNNING", "RUNNING"]


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
                assert "somebody else moved the aliases" in str(error)

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
