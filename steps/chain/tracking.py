"""The tracking store: connecting to it, messages for when it is unreachable, finding runs and artifacts.

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
from urllib.request import url2pathname

from steps.chain import locks
from steps.data.addresses import without_credentials
from steps.data.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

# MLflow's own defaults do not suit a chain: it should notice an unreachable store in seconds instead of in a
# quarter of an hour, and show neither a bar for each small artifact nor a line for each command.
_MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}

# The error codes of a server for a name that does not exist.
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND")

# MLflow's messages where the files of a run are not at the address that the store holds.
_GONE = re.compile(r"Failed to download artifacts from path|No such artifact|artifact_uri .* does not exist")
_AWAY = re.compile(
    r"failed with exception|error code (401|403|429|5\d\d)|Permission denied|not authenticated|"
    r"failed to connect|too many 5\d\d|5\d\d (Server Error|error responses)"
)


def set_defaults() -> None:
    """Set MLflow's environment variables that are not set yet; call this before MLflow is imported."""
    for name, value in _MLFLOW_DEFAULTS.items():
        os.environ.setdefault(name, value)


def connect() -> MlflowClient:
    """A client of the store that the environment names, after a first request to it.

    Raises:
        UserError: the store cannot be reached, refuses the credentials or cannot be opened.
    """
    set_defaults()
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    uri = mlflow.get_tracking_uri()
    plain = locks.plain_address(uri)
    if plain != uri:
        mlflow.set_tracking_uri(plain)
    try:
        with locks.initialised(uri):
            client = mlflow.MlflowClient()
            client.search_experiments(max_results=1)
    except ImportError as error:
        raise UserError(
            f"the tracking store {without_credentials(uri)} is a database whose driver is not installed "
            f"here: {error}. Remedy: install it beside this project's packages, or name an MLflow server"
        ) from error
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise UserError(unreachable(uri, str(error))) from error
    return client


def deleted_experiment(client: MlflowClient, name: str) -> str | None:
    """The message if the experiment of this name was deleted, else None: no run can start in it."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "deleted":
        return None
    return (
        f"the experiment {name} was deleted, so no run can start in it. Remedy: `mlflow experiments restore "
        f"--experiment-id {experiment.experiment_id}`, or another one with --experiment-name"
    )


def as_user_error(error: Exception) -> UserError | None:
    """A UserError for an error in mid-chain that the store caused, else None."""
    import mlflow
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    if not isinstance(error, MlflowException | RequestException):
        return None
    uri, text = mlflow.get_tracking_uri(), str(error)
    if "must be in the 'active' state" in text:
        return UserError(
            f"{text} Remedy: `mlflow experiments restore --experiment-id ...`, or another experiment with "
            "--experiment-name"
        )
    if _GONE.search(text):
        return UserError(
            f"the store {without_credentials(uri)} names files of a run that are not there. It remembers "
            "full paths: the project was moved, or its artifacts (mlruns) were deleted. Remedy: move it "
            "back, or link its old place to the new one (ln -s NEW OLD); what was deleted is made again "
            'with `make run ARGS="-P fresh=true"`'
        )
    if is_remote(uri) and (_AWAY.search(text) or isinstance(error, RequestException)):
        return UserError(unreachable(uri, text))
    return None


def unreachable(uri: str, reason: str) -> str:
    """The message that a tracking store does not answer; it never shows the password in its address."""
    address = without_credentials(uri)
    first = reason.strip().splitlines()[0][:300] if reason.strip() else "no reason given"
    if "Invalid Host header" in reason:
        remedy = (
            "the server answers only to the host names of its settings: start it with --allowed-hosts naming "
            "the one in the address (MLFLOW_SERVER_ALLOWED_HOSTS)"
        )
    elif re.search(r"error code 40[13]\b", first) or "Unauthorized" in reason:
        remedy = (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (for DagsHub: user name and token)"
        )
    elif is_remote(uri):
        remedy = "check MLFLOW_TRACKING_URI and the server; what finished is kept, the same command continues"
    else:
        remedy = "check MLFLOW_TRACKING_URI; an older store is brought up to date by `mlflow db upgrade`"
    return f"the tracking store {address} does not answer: {without_credentials(first)}. Remedy: {remedy}"


def is_remote(uri: str) -> bool:
    """Whether the store is behind a network, rather than a file of this machine."""
    return uri.startswith(("http://", "https://", "postgresql", "mysql", "mssql", "databricks"))


def shown_location(uri: str, project: Path) -> str:
    """An artifact location for a message: a path inside the project is relative to it."""
    path = Path(url2pathname(uri.removeprefix("file://")) if uri.startswith("file://") else uri)
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
    return [f"tags.`{name}` = {quoted(value)}" for name, value in tags.items()]


def quoted(value: str) -> str:
    """A text as MLflow's filters take it. Raises UserError where it holds both kinds of quotes."""
    for mark in ("'", '"'):
        if mark not in value:
            return f"{mark}{value}{mark}"
    raise UserError(f"{value} holds both kinds of quotation marks, which MLflow cannot search for: rename it")


def _search_runs(client: MlflowClient, clauses: Sequence[str], limit: int) -> list[Run]:
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            all_experiments(client),
            " and ".join(clauses),
            max_results=min(limit, 1000),
            order_by=["attributes.start_time DESC"],
            page_token=token,
        )
        runs.extend(page)
        token = page.token
        if not token or len(runs) >= limit:
            return runs[:limit]


def close_abandoned(client: MlflowClient, project: Path, keep: set[str]) -> int:
    """Mark as KILLED the abandoned runs: those of steps whose status is still RUNNING, except `keep`.

    A run of this project without the tag `step` ended before it could set it. Call this only as the holder of
    a local store's lock. A run whose process waits for the lock sets its status to RUNNING when it starts.
    """
    abandoned = {
        run.info.run_id
        for run in _search_runs(client, ["attributes.status = 'RUNNING'"], limit=100_000)
        if run.data.tags.get("step") or run.data.tags.get("mlflow.source.name") == str(project)
    }
    for run_id in abandoned - keep:
        client.set_terminated(run_id, "KILLED")
    return len(abandoned - keep)


def has_artifacts(client: MlflowClient, run_id: str, paths: tuple[str, ...]) -> bool:
    """Whether all these artifacts of a run exist. Any other error of the store is raised."""
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    for path in paths:
        folder, _, _ = path.rpartition("/")
        try:
            listed = {item.path for item in client.list_artifacts(run_id, folder or None)}
        except MlflowException as error:
            if error.error_code in ABSENT:
                return False
            raise
        except HTTPError as error:  # raised by the server's own artifact store
            if error.response is not None and error.response.status_code == 404:
                return False
            raise
        if path not in listed:
            return False
    return True


def keeps_datasets(client: MlflowClient, run_id: str) -> bool:
    """Whether the server can record the data sets of a run; DagsHub cannot."""
    from mlflow.exceptions import MlflowException

    try:
        client.log_inputs(run_id, [])
    except MlflowException as error:
        if "unsupported endpoint" in str(error) or error.error_code == "ENDPOINT_NOT_FOUND":
            return False
        raise
    return True
