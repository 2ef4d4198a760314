"""Reaching a store: errors that a person can act on, and runs that were cut off."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE

from steps.chain import tracking
from steps.data.addresses import without_credentials
from steps.data.errors import UserError


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


def test_a_run_that_was_cut_off_before_it_said_its_step_is_closed_too(tmp_path: Path) -> None:
    """`mlflow run` makes it and was killed; runs of other projects and the one at work are left alone."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri, uri)
    whose = (str(tmp_path), "/somewhere/else", str(tmp_path))
    cut_off, other, own = (
        client.create_run("0", tags={"mlflow.source.name": name}).info.run_id for name in whose
    )
    assert tracking.close_abandoned(client, tmp_path, keep={own}) == 1
    states = [client.get_run(run).info.status for run in (cut_off, other, own)]
    assert states == ["KILLED", "RUNNING", "RUNNING"]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://user:p@ss@host.example/x", "https://***@host.example/x"),
        (
            "http://user:secret@h:5000 and postgresql://u:p@db/name",
            "http://***@h:5000 and postgresql://***@db/name",
        ),
        ("https://host.example/a@b", "https://host.example/a@b"),
    ],
)
def test_an_address_is_shown_without_any_part_of_its_password(address: str, shown: str) -> None:
    """Also where the password holds an @; an @ in the path stays."""
    assert without_credentials(address) == shown


def test_a_database_without_its_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a traceback of an import, and no password."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mysql://someone:secret@127.0.0.1/db")
    with pytest.raises(UserError, match="database whose driver is not installed") as caught:
        tracking.connect()
    assert "secret" not in str(caught.value)


def test_a_server_that_refuses_the_host_name_is_not_said_to_want_a_password() -> None:
    """403 has two reasons, and two remedies."""
    reason = (
        "API request to endpoint /api failed with error code 403 != 200. Response body: 'Invalid Host header'"
    )
    said = tracking.unreachable("http://h:5000", reason)
    assert "--allowed-hosts" in said
    assert "PASSWORD" not in said


class _Answers:
    """A client whose artifacts cannot be listed, for a reason."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def list_artifacts(self, run_id: str, path: str | None) -> list[object]:
        raise self.error


def test_a_server_that_is_busy_has_not_lost_its_artifacts(monkeypatch: pytest.MonkeyPatch) -> None:
    """503 says nothing of what is there: nothing is made again, a person is told that the store is away."""
    busy = MlflowException(
        "API request failed with error code 503 != 200", error_code=TEMPORARILY_UNAVAILABLE
    )
    with pytest.raises(MlflowException):
        tracking.has_artifacts(_Answers(busy), "r", ("model/MLmodel",))  # type: ignore[arg-type]
    response = requests.Response()
    response.status_code = 503
    shed = requests.HTTPError("503 Server Error", response=response)
    with pytest.raises(requests.HTTPError):
        tracking.has_artifacts(_Answers(shed), "r", ("model/MLmodel",))  # type: ignore[arg-type]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    for error in (busy, shed):
        assert "does not answer" in str(tracking.as_user_error(error))
    gone = MlflowException("no such run", error_code=RESOURCE_DOES_NOT_EXIST)
    assert not tracking.has_artifacts(_Answers(gone), "r", ("model/MLmodel",))  # type: ignore[arg-type]


def test_a_deleted_experiment_is_said_with_the_command_that_brings_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that should start in it, and whoever asks before."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri, uri)
    client.delete_experiment(client.create_experiment("mine"))
    assert "mlflow experiments restore --experiment-id 1" in str(tracking.deleted_experiment(client, "mine"))
    assert tracking.deleted_experiment(client, "Default") is None
    with pytest.raises(MlflowException) as caught:
        client.create_run("1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert "mlflow experiments restore" in str(tracking.as_user_error(caught.value))


def test_runs_are_found_by_values_with_an_apostrophe(tmp_path: Path) -> None:
    """A path or a name may hold one."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri, uri)
    run = client.create_run("0", tags={"schema": "l'hôpital"}).info.run_id
    assert [one.info.run_id for one in tracking.tagged_runs(client, {"schema": "l'hôpital"})] == [run]
    with pytest.raises(UserError, match="both kinds of quotation marks"):
        tracking.tagged_runs(client, {"schema": '"it\'s"'})


def test_a_moved_project_is_said_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store remembers full paths: where its files are gone, one sentence says what to do."""
    import shutil

    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.create_experiment("moved", artifact_location=(tmp_path / "mlruns").as_uri())
    run = client.create_run(experiment)
    client.log_text(run.info.run_id, "x", "model/MLmodel")
    shutil.move(tmp_path / "mlruns", tmp_path / "elsewhere")
    with pytest.raises(Exception) as caught:
        client.download_artifacts(run.info.run_id, "model", str(tmp_path))
    told = tracking.as_user_error(caught.value)
    assert told is not None and "ln -s NEW OLD" in str(told)
