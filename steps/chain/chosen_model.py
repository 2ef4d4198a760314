"""Choose the model that scores rows or is compared with new rows: the champion, or a named one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.chain import registry, tracking
from steps.data import files
from steps.data.errors import UserError
from steps.data.schema import registered_name

if TYPE_CHECKING:
    from steps.chain.context import Context
    from steps.chain.values import Values


@dataclass(frozen=True)
class Chosen:
    """A model of a run (`run_id`) or in a folder (`folder`); `digest` changes with its content.

    `evaluate_run_id`: the run with the figures of a registered version on the test split.
    """

    label: str
    digest: str
    run_id: str | None
    folder: Path | None
    version: str | None = None
    evaluate_run_id: str | None = None


def choose(step: Context[Values], name: str, kind: str) -> Chosen:
    """The model that `-P model=` names: champion, models:/name/version, models:/name@alias, runs:/id or a
    folder.

    `champion` is the champion of the schema's registered model for this kind of data. A model of made-up
    people scores real ones only if it is named. Data of made-up people use the champion of real people where
    they have none; where there is none at all, the chain trains one with its defaults. Raises UserError.
    """
    if name == registry.CHAMPION:
        return _champion(step, kind)
    if name.startswith("models:/"):
        return _registered(step, name.removeprefix("models:/"), name)
    if name.startswith("runs:/"):
        run_id = name.removeprefix("runs:/").partition("/")[0]
        if not tracking.has_artifacts(step.client, run_id, ("model/MLmodel",)):
            raise UserError(f"{name}: this store has no such run with a model in it")
        return Chosen(f"the model of run {run_id[:8]}", run_id, run_id, None)
    folder = files.path_of(name, step.project)
    if (folder / "MLmodel").is_file():
        return Chosen(f"the model in {folder.name}", _content(folder), None, folder)
    raise UserError(
        f"there is no model {name!r}: name champion, models:/<name>/<version>, runs:/<run id> or a folder "
        "with an MLmodel file in it"
    )


def fetch(step: Context[Values], chosen: Chosen) -> Path:
    """The model's folder on this machine."""
    if chosen.folder is not None:
        return chosen.folder
    assert chosen.run_id is not None
    return step.fetch(chosen.run_id, "model")


def fetch_reference(step: Context[Values], chosen: Chosen) -> Any:
    """The `reference.json` document that was made with the model.

    Raises UserError if there is none: only models of this project's train and tune carry one.
    """
    document = find_reference(step, chosen)
    if document is None:
        raise UserError(
            f"{chosen.label} has no reference.json beside it, so there is nothing to compare with"
        )
    return document


def find_reference(step: Context[Values], chosen: Chosen) -> Any:
    """The `reference.json` document that was made with the model, or None."""
    if chosen.folder is not None:
        import json

        for path in (chosen.folder / "reference.json", chosen.folder.parent / "reference.json"):
            if path.is_file():
                return json.loads(path.read_text(encoding="utf-8"))
    elif tracking.has_artifacts(step.client, str(chosen.run_id), ("reference.json",)):
        return step.fetch_json(str(chosen.run_id), "reference.json")
    return None


def check_columns(folder: Path, chosen: Chosen, names: tuple[str, ...]) -> None:
    """Raise UserError unless the model takes exactly the schema's columns."""
    import yaml

    document = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    inputs = yaml.safe_load((document.get("signature") or {}).get("inputs") or "[]")
    inputs_taken = {str(column.get("name")) for column in inputs}
    if inputs_taken and inputs_taken != set(names):
        missing, superfluous = sorted(set(names) - inputs_taken), sorted(inputs_taken - set(names))
        raise UserError(
            f"{chosen.label} was trained on other columns than the schema has: it does not know "
            f"{', '.join(missing) or 'none'}, and needs {', '.join(superfluous) or 'none'} more. Name the "
            "schema that it was trained with (-P schema=)"
        )


def is_made_up(folder: Path) -> bool:
    """Whether the model in a folder was trained on synthetic people, as its MLmodel file says."""
    import yaml

    document = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
    return bool((document.get("metadata") or {}).get("synthetic"))


def made_up_note(folder: Path, chosen: Chosen, kind: str) -> str:
    """The note on every output where a model of made-up people scores real ones; empty otherwise."""
    if kind == "synthetic" or not is_made_up(folder):
        return ""
    return (
        f"{chosen.label} was trained on people who do not exist: what it says of these {kind} data says "
        "nothing of anybody's health"
    )


def _champion(step: Context[Values], kind: str) -> Chosen:
    expected = registered_name(step.schema, kind)
    for name in dict.fromkeys((expected, step.schema.name)):
        version = registry.alias_version(step.client, name, registry.CHAMPION)
        if version is not None:
            if name != expected:
                step.log.info("note: %s has no champion; %s is used instead", expected, name)
            return _version(step, name, version)
    if kind == "synthetic":
        return _new_champion(step)
    made_up = registered_name(step.schema, "synthetic")
    remedy = "train one on labelled rows (mlflow run . -P data=...), or name a model with -P model="
    if registry.alias_version(step.client, made_up, registry.CHAMPION) is not None:
        remedy += f". models:/{made_up}@champion is of people who do not exist: it answers only if named"
    raise UserError(f"{expected} has no champion, and these data are {kind}: {remedy}")


def _new_champion(step: Context[Values]) -> Chosen:
    """Train a champion: run the chain with its defaults, on the data that they name."""
    step.log.info("there is no champion yet: the chain trains one with its defaults")
    name = registered_name(step.schema, step.chain.make_champion().tags["data_kind"])
    version = registry.alias_version(step.client, name, registry.CHAMPION)
    if version is None:
        raise UserError(
            "the chain with its defaults promoted no model: run `mlflow run .` and look at its verdict"
        )
    return _version(step, name, version)


def _version(step: Context[Values], name: str, version: str) -> Chosen:
    registered = registry.model_version(step.client, name, version)
    if registered is None:
        raise UserError(f"models:/{name}/{version}: this registry has no such model")
    digest = registered.tags.get("model_digest") or str(registered.run_id)
    evaluated = registered.tags.get("evaluate_run_id")
    return Chosen(f"{name} version {version}", digest, registered.run_id, None, version, evaluated)


def _registered(step: Context[Values], reference: str, address: str) -> Chosen:
    name, at, alias = reference.partition("@")
    version: str | None
    if at:
        version = registry.alias_version(step.client, name, alias)
    else:
        name, _, version = reference.rpartition("/")
    if not name or not version:
        raise UserError(f"{address}: this registry has no such model")
    return _version(step, name, version)


def _content(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
