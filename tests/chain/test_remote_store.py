"""Tracking on a server: the same results as in a file, and clear words where the server fails."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from steps.chain import registry, tracking
from steps.data.errors import UserError
from tests.conftest import QUICK, Checkout, check_out
from tests.made_up.mlflow_servers import ADMIN, DAGSHUB, PASSWORD, Proxy, mlflow_server, proxy
from tests.made_up.ports import free_port


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No retries: these servers stay as they are."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD", raising=False)


def _connect(monkeypatch: pytest.MonkeyPatch, address: str) -> Any:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    return tracking.connect()


def test_a_server_that_is_down_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens: the address, without the password in it, and what to look at."""
    port = free_port()
    with pytest.raises(UserError) as caught:
        _connect(monkeypatch, f"http://somebody:secret@127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "check MLFLOW_TRACKING_URI" in str(caught.value)


def test_a_refused_password_says_which_variables_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """401 becomes the two variables, and DagsHub's way of filling them."""
    with (
        proxy(Proxy("http://127.0.0.1:1", password=PASSWORD)) as server,
        pytest.raises(UserError, match=r"MLFLOW_TRACKING_USERNAME.*DagsHub"),
    ):
        _connect(monkeypatch, server.address)


@pytest.mark.parametrize("closed", ["registered-models/search", "registered-models/alias"])
def test_a_server_without_registry_or_aliases_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    """Each call that promote needs is tried before anything is trained."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://unused")
    with proxy(Proxy("http://127.0.0.1:1", allowed=lambda method, path: False)) as server:
        import mlflow

        client = mlflow.MlflowClient(server.address, server.address)
        if closed.endswith("alias"):
            monkeypatch.setattr(client, "search_registered_models", lambda max_results: [])
        with pytest.raises(UserError, match=r"keeps no registered models with aliases.*Nothing was trained"):
            registry.require_registry(client, "diabetes-risk")
        assert any(closed in path for path in server.refused)


def test_only_a_remote_store_can_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing call to a server becomes advice; any other error stays what it is."""
    from mlflow.exceptions import MlflowException

    away = MlflowException("API request to http://h/api failed with exception: Connection refused")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert "the same command continues" in str(tracking.as_user_error(away))
    assert tracking.as_user_error(MlflowException("a metric has no name")) is None
    assert tracking.as_user_error(ValueError("failed with exception")) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert tracking.as_user_error(away) is None


def test_only_a_refusal_is_taken_for_a_refused_password() -> None:
    """Not an address, or the name of a run, that happens to hold the digits of one."""
    reason = "API request to http://127.0.0.1:44011/api/runs/e403 failed with exception Connection aborted."
    assert "the same command continues" in tracking.unreachable("http://127.0.0.1:44011", reason)
    refused = "API request to endpoint /api failed with error code 401 != 200. Response body: ''"
    assert "MLFLOW_TRACKING_PASSWORD" in tracking.unreachable("http://127.0.0.1:44011", refused)


# ---------------------------------------------------------------- the chain on real servers


@dataclasses.dataclass(frozen=True)
class RemoteCheckout(Checkout):
    """A checkout whose store is a server."""

    address: str = ""

    @property
    def environment(self) -> dict[str, str]:
        return {
            **super().environment,
            "MLFLOW_TRACKING_URI": self.address,
            "MLFLOW_TRACKING_USERNAME": ADMIN,
            "MLFLOW_TRACKING_PASSWORD": PASSWORD,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        }


def _outcome(tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a chain came to: the champion's digest and every metric of its evaluation."""
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    client = mlflow.MlflowClient(tracking_uri, tracking_uri)
    version = client.get_model_version_by_alias("diabetes-risk-synthetic", "champion")
    metrics = client.get_run(version.tags["evaluate_run_id"]).data.metrics
    return {"digest": version.tags["model_digest"], "metrics": metrics}


def _like(champion: Any, folder: Path) -> Checkout:
    """A fresh checkout of the very files that the champion was made with."""
    made = champion.checkout.folder
    shutil.copytree(
        made, folder, ignore=shutil.ignore_patterns("mlflow.db*", "mlruns", ".cache", "verdict.json")
    )
    return Checkout(folder)


CANARY = "37.4241"


def _plant(value: str, folder: Path) -> None:
    """The cohort as private data, `canary.csv`, with a value in one row that stands nowhere else."""
    import pandas as pd

    frame = pd.read_parquet(folder / "data" / "cohort.parquet").head(4000)
    frame["BMI"] = frame["BMI"].astype(str)
    frame.loc[frame.index[0], "BMI"] = value
    frame.to_csv(folder / "canary.csv", index=False)


@pytest.mark.real
def test_the_chain_on_dagshub_s_surface_gives_the_same_champion(
    champion: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 404 for everything else and a password: one warning, the same model and metrics, no row sent."""
    checkout = _like(champion, tmp_path / "project")
    _plant(CANARY, checkout.folder)
    with mlflow_server(tmp_path / "server") as real:
        surface = Proxy(
            real, allowed=lambda method, path: DAGSHUB.fullmatch(path) is not None, password=PASSWORD
        )
        with proxy(surface) as server:
            remote = RemoteCheckout(checkout.folder, server.address)
            code, output = remote.mlflow_run(**QUICK)
            assert code == 0, output
            assert output.count("warning: this tracking server keeps no data set records") == 1
            assert "Traceback" not in output
            assert _outcome(server.address, monkeypatch) == _outcome(
                champion.checkout.tracking_uri, monkeypatch
            )
            code, output = remote.mlflow_run("train", data="canary.csv")
            assert code == 0, output
            assert not any(CANARY.encode() in body for body in surface.bodies)


@pytest.mark.real
def test_a_server_that_dies_in_mid_chain_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes while tune logs: a message, no traceback; the next call goes on after what had finished."""
    checkout = check_out(tmp_path / "project")
    with mlflow_server(tmp_path / "server") as real, proxy(Proxy(real, dies_at='"tune"')) as server:
        remote = RemoteCheckout(checkout.folder, server.address)
        code, output = remote.mlflow_run(**QUICK)
        assert code == 1
        assert "does not answer" in output
        assert "what finished is kept, the same command continues" in output
        server.dies_at, server.dead = None, False
        code, output = remote.mlflow_run(**QUICK)
        assert code == 0, output
        assert "preprocess        reused  " in output
        assert "train             reused  " in output
        assert json.loads((checkout.folder / "verdict.json").read_text())["verdict"] == "promoted"


@pytest.mark.real
def test_the_chain_on_a_server_with_basic_authentication(
    champion: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own authentication: refused without the password, the same champion with it."""
    if importlib.util.find_spec("flask_wtf") is None:
        pytest.skip("flask-wtf, which `mlflow server --app-name basic-auth` needs, is not installed")
    checkout = _like(champion, tmp_path / "project")
    with mlflow_server(tmp_path / "server", basic_auth=True) as server:
        with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD"):
            _connect(monkeypatch, server)
        remote = RemoteCheckout(checkout.folder, server)
        code, output = remote.mlflow_run(**QUICK)
        assert code == 0, output
        assert "warning: this tracking server" not in output
        assert _outcome(server, monkeypatch) == _outcome(champion.checkout.tracking_uri, monkeypatch)
