"""Locks: one chain at a time uses a store, and one process creates it.

The operating system releases a lock when its holder ends, even if it is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import logging
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from steps.data.addresses import without_credentials

log = logging.getLogger("steps.chain")

_DEPTH = "CHAIN_DEPTH"


@contextlib.contextmanager
def initialised(uri: str) -> Iterator[None]:
    """Hold the lock for the creation of a local store: two processes that create it at once destroy it.

    A file that is not empty may be a store that is only half created, so it does not show that the creation
    is complete.
    """
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    with _flock(path.with_name(path.name + ".init.lock")):
        yield


def set_half_store_aside(uri: str) -> Path | None:
    """Rename a local store whose creation was interrupted before a run was recorded; the new path, or None.

    MLflow cannot continue its creation and fails with an SQL error. Call this only from `init_store`; another
    process may still be creating the file.
    """
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    path = sqlite_path(uri)
    if path is None or not path.exists() or path.stat().st_size == 0:
        return None
    with initialised(uri):
        try:
            mlflow.MlflowClient(uri, uri).search_experiments(max_results=1)
        except (MlflowException, SQLAlchemyError):
            if _holds_runs(path):
                return None
            new_path = path.with_name(path.name + ".half")
            path.replace(new_path)
            for leftover in ("-journal", "-wal", "-shm"):
                path.with_name(path.name + leftover).unlink(missing_ok=True)
            return new_path
    return None


def _holds_runs(path: Path) -> bool:
    """Whether an SQLite file holds runs; True for a file that cannot be read."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            return (
                "runs" in tables and connection.execute("SELECT 1 FROM runs LIMIT 1").fetchone() is not None
            )
    except sqlite3.Error:
        return True


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite store, as SQLAlchemy reads its address, or None for any other store."""
    if not uri.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        name = make_url(uri).database
    except ArgumentError:
        return None
    return None if name in (None, "", ":memory:") else Path(name).resolve()


def plain_address(uri: str) -> str:
    """The address of the same store, quoted as little as possible.

    MLflow creates the folder of an SQLite address without decoding it: for a store in `a b` it creates an
    empty `a%20b`, and fails where it may not. An address relative to the working folder avoids the characters
    that must be quoted (`%`, `?`).
    """
    path = sqlite_path(uri)
    if path is None or "%" not in uri:
        return uri
    if path.parent == Path.cwd():
        path = Path(path.name)
    _, mark, options = uri.partition("?")
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}{mark}{options}"


def lock_path(uri: str, cache: Path) -> Path:
    """The path of a store's chain lock: beside a local store, in the cache for a remote one."""
    path = sqlite_path(uri)
    if path is not None:
        return path.with_name(path.name + ".lock")
    name = hashlib.sha256(without_credentials(uri).encode()).hexdigest()[:16]
    return cache / "locks" / f"{name}.lock"


@contextlib.contextmanager
def chain_lock(path: Path, step: str) -> Iterator[int]:
    """Hold a store's chain lock while the block runs; yields the depth of this process in its chain.

    The first process of a chain holds lock 0, and each process that it starts holds the lock of its depth. So
    the next chain also waits for a step that outlives a killed first process.
    """
    depth = int(os.environ.get(_DEPTH, "-1")) + 1
    holder = f"{step} (process {os.getpid()} on {socket.gethostname()})"
    with _flock(path.with_name(f"{path.name}.{depth}") if depth else path, holder, _log_waiting):
        if depth == 0:
            for orphan in sorted(path.parent.glob(glob.escape(path.name) + ".*")):
                if orphan.suffix.removeprefix(".").isdigit():
                    with _flock(orphan, waiting=_log_waiting):
                        pass
        os.environ[_DEPTH] = str(depth)
        try:
            yield depth
        finally:
            os.environ.pop(_DEPTH)
            if depth:
                os.environ[_DEPTH] = str(depth - 1)


def _log_waiting(holder: str) -> None:
    log.info("waiting for another chain in this store: %s", holder or "its holder gave no name")


@contextlib.contextmanager
def _flock(path: Path, holder: str = "", waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold a file's lock; `waiting` is called with the name of another holder before waiting for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            if waiting is not None:
                waiting(file.read().strip())
            fcntl.flock(file, fcntl.LOCK_EX)
        if holder:
            file.truncate(0)
            file.write(holder + "\n")
            file.flush()
        yield
