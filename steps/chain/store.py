"""The tracking store and the registry: reaching them, one chain at a time, finding runs, moving aliases.

`MLFLOW_TRACKING_URI` (with `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`) names any MLflow
server or DagsHub; without it the store is `mlflow.db`, an SQLite file in the folder where `mlflow run` was
called.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from steps.data.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CHAMPION, PREVIOUS = "champion", "previous"

# A store that is away should be noticed in seconds, not in MLflow's default quarter of an hour; and a bar
# for each small artifact is noise.
_MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

_LEADER = "CHAIN_DEPTH"

# With these a registry says that it does not have what was named.
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")


def connect() -> MlflowClient:
    """A client of the store that the environment names, known to answer.

    Raises:
        UserError: the store cannot be reached, refuses the credentials or cannot be opened.
    """
    for name, value in _MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    uri = mlflow.get_tracking_uri()
    try:
        with initialised(uri):
            client = mlflow.MlflowClient()
            client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError) as error:
        raise UserError(unreachable(uri, str(error))) from error
    return client


def lost(error: Exception) -> UserError | None:
    """What to tell a person if an error in mid-chain means that a remote store is away, else None."""
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = mlflow.get_tracking_uri()
    away = re.compile(
        r"failed with exception|error code (401|403|429|5\d\d)|Permission denied|not authenticated"
    )
    if is_remote(uri) and isinstance(error, MlflowException) and away.search(str(error)):
        return UserError(unreachable(uri, str(error)))
    return None


def unreachable(uri: str, reason: str) -> str:
    """What to tell somebody whose tracking store does not answer; never the password in its address."""
    shown = _without_credentials(uri)
    first = reason.strip().splitlines()[0][:300] if reason.strip() else "no reason given"
    if re.search(r"error code 40[13]\b", first) or "Unauthorized" in reason:  # not a 401 of an address or run
        remedy = (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (for DagsHub: user name and token)"
        )
    elif is_remote(uri):
        remedy = "check MLFLOW_TRACKING_URI and the server; what finished is kept, the same command goes on"
    else:
        remedy = "check MLFLOW_TRACKING_URI; an older store is brought up to date by `mlflow db upgrade`"
    return f"the tracking store {shown} does not answer: {_without_credentials(first)}. Remedy: {remedy}"


def is_remote(uri: str) -> bool:
    """Whether the store is behind a network, rather than a file of this machine."""
    return uri.startswith(("http://", "https://", "postgresql", "mysql", "mssql", "databricks"))


def shown_location(uri: str, project: Path) -> str:
    """An artifact location as a person types it: relative to the project where it is a file in it."""
    path = Path(uri.removeprefix("file://"))
    return os.path.relpath(path, project) if path.is_absolute() and path.is_relative_to(project) else uri


def _without_credentials(text: str) -> str:
    return re.sub(r"://[^/@\s]+@", "://***@", text)


# ---------------------------------------------------------------- one chain at a time


@contextlib.contextmanager
def initialised(uri: str) -> Iterator[None]:
    """Hold back others while a local store may be under creation: two creators at once destroy it.

    A file with something in it may be half a store, so it is no sign that creation is over.
    """
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    with _flock(path.with_name(path.name + ".init.lock"), lambda holder: None):
        yield


def set_half_store_aside(uri: str) -> Path | None:
    """Rename a local store whose creation was cut off before anything was recorded in it; where it is then.

    MLflow cannot go on creating it, and says so in SQL. Only for who creates stores: to others it may be one
    that is being created.
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
            aside = path.with_name(path.name + ".half")
            path.replace(aside)
            for leftover in ("-journal", "-wal", "-shm"):
                path.with_name(path.name + leftover).unlink(missing_ok=True)
            return aside
    return None


def _holds_runs(path: Path) -> bool:
    """Whether an SQLite file holds runs, or is none that can be read."""
    import sqlite3

    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            return (
                "runs" in tables and connection.execute("SELECT 1 FROM runs LIMIT 1").fetchone() is not None
            )
    except sqlite3.Error:
        return True


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite store, or None for any other."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


def lock_path(uri: str, cache: Path) -> Path:
    """Where the chain's lock of a store is: beside a local store, in the cache for a remote one."""
    path = sqlite_path(uri)
    if path is not None:
        return path.with_name(path.name + ".lock")
    name = hashlib.sha256(_without_credentials(uri).encode()).hexdigest()[:16]
    return cache / "locks" / f"{name}.lock"


@contextlib.contextmanager
def chain_lock(path: Path, what: str, say: Callable[[str], None]) -> Iterator[int]:
    """Be the only chain of a store while the block runs; yields this process' depth in its chain.

    The operating system gives the lock back however its holder ends. A chain's leader holds lock 0 and each
    process that it starts the lock of its own depth, so that a step which outlives a killed leader is
    waited for as well.
    """
    depth = int(os.environ.get(_LEADER, "-1")) + 1
    path.parent.mkdir(parents=True, exist_ok=True)

    def waiting(holder: str) -> None:
        say(f"waiting for another chain in this store: {holder or 'its holder gave no name'}")

    with _flock(_at(path, depth), waiting, f"{what} (process {os.getpid()} on {socket.gethostname()})"):
        if depth == 0:
            for orphan in sorted(path.parent.glob(path.name + ".*")):
                if orphan.suffix.removeprefix(".").isdigit():
                    with _flock(orphan, waiting):
                        pass
        os.environ[_LEADER] = str(depth)
        try:
            yield depth
        finally:
            os.environ.pop(_LEADER)
            if depth:
                os.environ[_LEADER] = str(depth - 1)


def _at(path: Path, depth: int) -> Path:
    return path.with_name(f"{path.name}.{depth}") if depth else path


@contextlib.contextmanager
def _flock(path: Path, waiting: Callable[[str], None], holder: str = "") -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            waiting(file.read().strip())
            fcntl.flock(file, fcntl.LOCK_EX)
        if holder:
            file.truncate(0)
            file.write(holder + "\n")
            file.flush()
        yield


# ---------------------------------------------------------------- runs


def all_experiments(client: MlflowClient) -> list[str]:
    """Ids of the experiments that are not deleted."""
    return [experiment.experiment_id for experiment in client.search_experiments(max_results=1000)]


def finished_runs(client: MlflowClient, tags: Mapping[str, str], limit: int = 1000) -> list[Run]:
    """Finished runs of any experiment that carry all these tags, newest first."""
    return _search_runs(client, [*_tag_clauses(tags), "attributes.status = 'FINISHED'"], limit)


def tagged_runs(client: MlflowClient, tags: Mapping[str, str], limit: int = 100_000) -> list[Run]:
    """Runs of any experiment and status that carry all these tags, newest first."""
    return _search_runs(client, _tag_clauses(tags), limit)


def _tag_clauses(tags: Mapping[str, str]) -> list[str]:
    return [f"tags.`{name}` = '{value}'" for name, value in tags.items()]


def _search_runs(client: MlflowClient, clauses: Sequence[str], limit: int) -> list[Run]:
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            all_experiments(client),
            " and ".join(clauses),
            max_results=min(limit, 1000),
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        found.extend(page)
        token = page.token
        if not token or len(found) >= limit:
            return found[:limit]


def close_abandoned(client: MlflowClient, project: Path, keep: set[str]) -> int:
    """Mark as KILLED the runs of steps that still say RUNNING, with those that never came to say their step.

    Only for who holds the lock of a local store. One that waits for the lock says RUNNING again as it begins.
    """
    running = "attributes.status = 'RUNNING' and tags."
    abandoned = {
        run.info.run_id
        for whose in ("step != ''", f"`mlflow.source.name` = '{project}'")
        for run in client.search_runs(all_experiments(client), running + whose, max_results=1000)
    }
    for run_id in abandoned - keep:
        client.set_terminated(run_id, "KILLED")
    return len(abandoned - keep)


def has_artifacts(client: MlflowClient, run_id: str, paths: tuple[str, ...]) -> bool:
    """Whether every one of a run's artifacts is there."""
    from mlflow.exceptions import MlflowException

    for path in paths:
        folder, _, _ = path.rpartition("/")
        try:
            listed = {item.path for item in client.list_artifacts(run_id, folder or None)}
        except MlflowException:
            return False
        if path not in listed:
            return False
    return True


# ---------------------------------------------------------------- registry


def alias_version(client: MlflowClient, name: str, alias: str) -> str | None:
    """The version that an alias points to, or None where the model or the alias is not there."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in _ABSENT:
            return None
        raise


def require_registry(client: MlflowClient, name: str) -> None:
    """Find out, before hours of training, that a server keeps registered models and their aliases.

    Aliases are read, and one is set on a version that cannot exist, which every server refuses in words of
    its own if it knows the call.

    Raises:
        UserError: it does not, or this user may not.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.search_registered_models(max_results=1)
        alias_version(client, name, CHAMPION)
    except MlflowException as error:
        raise UserError(_no_registry(str(error))) from error
    try:
        client.set_registered_model_alias(name, "access-check", "2147483647")
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise UserError(_no_registry(str(error))) from error


def _no_registry(reason: str) -> str:
    return (
        "the tracking server keeps no registered models with aliases, or refuses them to this user, and "
        f"promote needs them: {_without_credentials(reason.strip().splitlines()[0][:300])}. Nothing was "
        "trained. Remedy: another server, or rights to the registry; `mlflow run . -e evaluate` works without"
    )


def keeps_datasets(client: MlflowClient, run_id: str) -> bool:
    """Whether the server knows the call that notes data sets of a run; DagsHub does not."""
    from mlflow.exceptions import MlflowException

    try:
        client.log_inputs(run_id, [])
    except MlflowException as error:
        if "unsupported endpoint" in str(error) or error.error_code == "ENDPOINT_NOT_FOUND":
            return False
        raise
    return True


def register(client: MlflowClient, name: str, run_id: str, tags: Mapping[str, str]) -> str:
    """The version of a run's model: the one registered earlier, its tags renewed, or a new one."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.run_id == run_id and version.status == "READY":
            for tag, value in tags.items():
                client.set_model_version_tag(name, str(version.version), tag, value)
            return str(version.version)
    created = client.create_model_version(name, f"runs:/{run_id}/model", run_id, tags=dict(tags))
    return str(created.version)


def move_champion(client: MlflowClient, name: str, version: str) -> None:
    """Point @previous at the champion of now and @champion at a version, then read both back.

    @champion is only ever overwritten, never deleted, so there is one at every moment, however many promote
    at once.

    Raises:
        UserError: somebody else moved an alias in between.
    """
    before = alias_version(client, name, CHAMPION)
    if before == version:
        return
    if before is not None:
        client.set_registered_model_alias(name, PREVIOUS, before)
    client.set_registered_model_alias(name, CHAMPION, version)
    after = (alias_version(client, name, PREVIOUS), alias_version(client, name, CHAMPION))
    if after[1] != version or (before is not None and after[0] != before):
        raise UserError(
            f"somebody else moved the aliases of {name} meanwhile: @champion is version {after[1]}, "
            f"@previous version {after[0]}; this run wanted {version} and {before}. Look at the registry, "
            "then run promote again"
        )


def wait_ready(client: MlflowClient, name: str, version: str, seconds: float = 60) -> None:
    """Wait until a server has copied a version's files, where it does that after creating it."""
    end = time.monotonic() + seconds
    while client.get_model_version(name, version).status != "READY":
        if time.monotonic() > end:
            raise UserError(
                f"version {version} of {name} is not ready after {seconds:g} s; look at the registry's server"
            )
        time.sleep(0.5)
