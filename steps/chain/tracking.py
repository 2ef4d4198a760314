"""The tracking store: reaching it, what to say where it is away, finding runs and their artifacts.

`MLFLOW_TRACKING_URI` (with `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`) names any MLflow
server or DagsHub; without it the store is `mlflow.db`, an SQLite file in the folder where `mlflow run` was
called.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from steps.chain import locks
from steps.data.addresses import without_credentials
from steps.data.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# A store that is away should be noticed in seconds, not in MLflow's default quarter of an hour; and a bar
# for each small artifact is noise.
_MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


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
        with locks.initialised(uri):
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
    shown = without_credentials(uri)
    first = reason.strip().splitlines()[0][:300] if reason.strip() else "no reason given"
    if re.search(r"error code 40[13]\b", first) or "Unauthorized" in reason:  # not a 401 of an address or run
        remedy = (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (for DagsHub: user name and token)"
        )
    elif is_remote(uri):
        remedy = "check MLFLOW_TRACKING_URI and the server; what finished is kept, the same command goes on"
    else:
        remedy = "check MLFLOW_TRACKING_URI; an older store is brought up to date by `mlflow db upgrade`"
    return f"the tracking store {shown} does not answer: {without_credentials(first)}. Remedy: {remedy}"


def is_remote(uri: str) -> bool:
    """Whether the store is behind a network, rather than a file of this machine."""
    return uri.startswith(("http://", "https://", "postgresql", "mysql", "mssql", "databricks"))


def shown_location(uri: str, project: Path) -> str:
    """An artifact location as a person types it: relative to the project where it is a file in it."""
    path = Path(uri.removeprefix("file://"))
    return os.path.relpath(path, project) if path.is_absolute() and path.is_relative_to(project) else uri


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
