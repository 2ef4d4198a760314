"""The model registry: versions of a model, and the aliases that say which one is the champion."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from steps.chain.tracking import ABSENT, quoted
from steps.data.addresses import without_credentials
from steps.data.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, PREVIOUS, ANCHOR = "champion", "previous", "anchor"


def alias_version(client: MlflowClient, name: str, alias: str) -> str | None:
    """The version that an alias points to, or None where the model or the alias is not there."""
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(name, alias).version)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


def model_version(client: MlflowClient, name: str, version: str) -> ModelVersion | None:
    """A version of a model, or None where the registry does not have it."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code in ABSENT:
            return None
        raise


def require_registry(client: MlflowClient, name: str) -> None:
    """Check, before hours of training, that a server keeps registered models and their aliases.

    Raises:
        UserError: it does not, or this user has no rights to them.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.search_registered_models(max_results=1)
        alias_version(client, name, CHAMPION)
    except MlflowException as error:
        raise UserError(_no_registry(str(error))) from error


def _no_registry(reason: str) -> str:
    return (
        "the tracking server keeps no registered models with aliases, or refuses them to this user, and "
        f"promote needs them: {without_credentials(reason.strip().splitlines()[0][:300])}. Nothing was "
        "trained. Remedy: another server, or rights to the registry; `mlflow run . -e evaluate` works without"
    )


def register(client: MlflowClient, name: str, run_id: str, tags: Mapping[str, str]) -> str:
    """The version of a run's model: an earlier one with its tags updated, or a new one."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    for version in client.search_model_versions(f"name = {quoted(name)}"):
        if version.run_id == run_id and version.status == "READY":
            for tag, value in tags.items():
                client.set_model_version_tag(name, str(version.version), tag, value)
            return str(version.version)
    created = client.create_model_version(name, f"runs:/{run_id}/model", run_id, tags=dict(tags))
    return str(created.version)


def move_champion(client: MlflowClient, name: str, version: str) -> None:
    """Point @previous at the current champion and @champion at a version, then read both back.

    @champion is overwritten and never deleted, so there is always a champion, even if several processes
    promote at once.

    Raises:
        UserError: another process moved an alias in between.
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
            f"another process moved the aliases of {name} meanwhile: @champion is version {after[1]}, "
            f"@previous version {after[0]}; this run wanted {version} and {before}. Look at the registry, "
            "then run promote again"
        )


def wait_ready(client: MlflowClient, name: str, version: str, seconds: float = 60) -> None:
    """Wait until a version is ready: some servers copy its files after creating it."""
    end = time.monotonic() + seconds
    while client.get_model_version(name, version).status != "READY":
        if time.monotonic() > end:
            raise UserError(
                f"version {version} of {name} is not ready after {seconds:g} s; look at the registry's server"
            )
        time.sleep(0.5)
