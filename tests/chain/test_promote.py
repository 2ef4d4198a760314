"""Promotion and going back, on a real registry with models that were trained elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steps import promote
from steps.chain import parameters, registry
from steps.chain.context import Context, Result, StepRun
from steps.chain.values import Promote
from steps.data.errors import UserError
from steps.data.schema import Schema
from tests.conftest import ROOT
from tests.made_up.clinic import clinic_schema

DIGESTS = {"1": "aaa", "2": "bbb"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A registry in a file of its own."""
    import mlflow

    folder = tmp_path_factory.mktemp("registry")
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'registry.db'}")
    client.create_experiment("promotions", artifact_location=f"file://{folder}/artifacts")
    return client


@pytest.fixture(autouse=True)
def registered(client: Any, tmp_path: Path) -> None:
    """Version 2 of `readmission` is @champion, version 1 @previous."""
    for name in ("readmission", "readmission-synthetic"):
        if client.search_registered_models(f"name = '{name}'"):
            client.delete_registered_model(name)
    _register(client, "readmission", tmp_path)


def _register(client: Any, name: str, folder: Path) -> None:
    client.create_registered_model(name)
    for version, digest in DIGESTS.items():
        tags = {"model_digest": digest, "behaviour_digest": f"{digest} behaves", "promote_run_id": "p"}
        client.create_model_version(name, str(folder), tags=tags)
        registry.move_champion(client, name, version)


def run(
    client: Any,
    folder: Path,
    schema: Schema | None = None,
    digest: str = "",
    like: str | None = None,
    **values: str,
) -> Result:
    """What promote comes to, given a model of this digest that behaves like another; without one there is no
    data at all."""
    tags = {"data_kind": "private", "behaviour_digest": f"{like or digest} behaves"}
    runs = {name: StepRun(name, f"{name}-run", digest, tags) for name in ("preprocess", "tune", "evaluate")}
    chain = SimpleNamespace(results_above=lambda step, values: runs) if digest else None
    step = Context(
        "promote",
        parameters.given(Promote, ROOT, values),
        schema or clinic_schema(folder),
        client,
        client.create_run("1").info.run_id,
        folder,
        folder,
        folder,
        chain,  # type: ignore[arg-type]
    )
    return promote.work(step)


def verdict(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
    return document


def test_a_model_that_was_rolled_back_is_not_promoted_again(client: Any, tmp_path: Path) -> None:
    """The same command that promoted it is refused with the reason, until a person goes back to it."""
    assert run(client, tmp_path, rollback="true").exit_code == 0
    assert verdict(tmp_path)["champion"] == "1"
    refused = run(client, tmp_path, digest=DIGESTS["2"])
    assert refused.exit_code == 1
    told = verdict(tmp_path)
    assert (told["verdict"], told["champion"], told["report_run_id"]) == ("refused", "1", "p")
    assert "version 2 of readmission is this model, and somebody rolled it back" in told["explanation"]
    assert "tag rolled_back" in told["explanation"]
    assert registry.alias_version(client, "readmission", "champion") == "1"

    updated = run(client, tmp_path, digest="served by newer packages", like=DIGESTS["2"])
    assert updated.exit_code == 1
    assert "version 2 of readmission is this model" in verdict(tmp_path)["explanation"]

    run(client, tmp_path, rollback="true")
    assert verdict(tmp_path)["champion"] == "2"
    assert run(client, tmp_path, digest=DIGESTS["2"]).exit_code == 0
    assert verdict(tmp_path)["verdict"] == "unchanged"
    assert run(client, tmp_path, digest=DIGESTS["1"]).exit_code == 1


def test_going_back_is_asked_of_one_model(client: Any, tmp_path: Path) -> None:
    """Where models of real and of synthetic people could both go back, a name decides; the other stays."""
    _register(client, "readmission-synthetic", tmp_path)
    with pytest.raises(UserError, match="rollback=readmission or -P rollback=readmission-synthetic"):
        run(client, tmp_path, rollback="true")
    run(client, tmp_path, rollback="readmission")
    assert verdict(tmp_path)["model"] == "readmission"
    assert registry.alias_version(client, "readmission-synthetic", "champion") == "2"
    with pytest.raises(UserError, match="no @previous version of nobody"):
        run(client, tmp_path, rollback="nobody")


def test_a_changed_floor_reaches_the_champion_without_training(client: Any, tmp_path: Path) -> None:
    """The gates are in no fingerprint: the same model stays champion, and what it is judged by is renewed."""
    schema = clinic_schema(tmp_path, ("roc_auc_min: 0.5", "roc_auc_min: 0.625"))
    run(client, tmp_path, schema, digest=DIGESTS["2"])
    assert verdict(tmp_path)["verdict"] == "unchanged"
    assert client.get_model_version("readmission", "2").tags["roc_auc_min"] == "0.625"
