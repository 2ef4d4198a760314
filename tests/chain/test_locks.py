"""One chain at a time, wherever the store lies, and a store that is created by one process."""

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
from pathlib import Path

import mlflow
import pytest

from steps.chain import locks
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


@pytest.fixture(scope="module")
def registry_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real registry in a file of its own, with three versions of one model and no run."""
    path = tmp_path_factory.mktemp("registry") / "registry.db"
    client = mlflow.MlflowClient(f"sqlite:///{path}")
    client.create_registered_model("m")
    for _ in range(3):
        client.create_model_version("m", str(path.parent))
    return path


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


@pytest.mark.parametrize("name", ["a b", "a#b%20c", "it's für"])
def test_a_store_and_its_locks_stand_in_a_folder_whatever_it_is_called(name: str, tmp_path: Path) -> None:
    """MLflow quotes the address of its default store, and makes the folder of the quoted name beside it."""
    folder = tmp_path / name
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    script = (
        "import mlflow; from pathlib import Path; from steps.chain import console, locks, tracking\n"
        "before = locks.lock_path(mlflow.get_tracking_uri(), Path('cache'))\n"
        "tracking.connect()\n"
        "assert locks.lock_path(mlflow.get_tracking_uri(), Path('cache')) == before\n"
        "with locks.chain_lock(before, 'main'): pass\n"
    )
    subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env={**environment, "PYTHONPATH": str(ROOT)}, check=True
    )
    made = {path.name for path in folder.iterdir()}
    assert made >= {"mlflow.db", "mlflow.db.init.lock", "mlflow.db.lock"}
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_stands_behind_an_address_is_no_part_of_the_files_name(tmp_path: Path) -> None:
    """Options after a question mark, a driver in the scheme, a quoted name: one file, one lock."""
    expected = tmp_path / "a b.db.lock"
    for address in (
        f"sqlite:///{tmp_path}/a b.db",
        f"sqlite:///{tmp_path}/a%20b.db?timeout=30",
        f"sqlite+pysqlite:///{tmp_path}/a b.db?mode=rw&cache=shared",
    ):
        assert locks.lock_path(address, tmp_path / "cache") == expected
    for address in ("sqlite://", "sqlite:///:memory:", "http://127.0.0.1:5000", "postgresql://u:p@h/db"):
        assert locks.lock_path(address, tmp_path / "cache").parent == tmp_path / "cache" / "locks"
