"""Export a registered model version, ready to be packed: `make release` puts it into `build/release`.

The folder holds the MLflow model, `reference.json` with version and floors filled in, report, model card,
evaluation, one person's page (`risk.html`), and the facts of the version in `release.json`. Images are built
from this folder alone, so building and pushing them needs no access to the tracking store, and the tested
files are the pushed ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from monitoring import reference as references
from steps.chain import parameters, pipeline, process, registry, tracking
from steps.chain.context import VERDICT
from steps.chain.values import Main
from steps.data import atomic
from steps.data.errors import UserError
from steps.data.release_facts import PAGE, RELEASE, TERMS_FILES, ReleaseFacts, read_facts, write_facts
from steps.data.schema import Schema, registered_names
from steps.data.schema_file import load
from steps.measures import evaluation_document
from steps.models import saved
from steps.models.served_model import TERMS_FILE
from steps.reports.person_page import PageFacts, render_page

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger("steps.ops")

_COMMIT_TAG = "mlflow.source.git.commit"


def chosen_name(client: MlflowClient, schema: Schema, project: Path) -> str:
    """The registered model to export when none is named.

    It is the model of the last verdict; without one, the model of real data if it has a champion, else that
    of synthetic people.
    """
    written = project / VERDICT
    names = list(registered_names(schema))
    if written.exists():
        names.insert(0, str(json.loads(written.read_text(encoding="utf-8")).get("model")))
    for name in names:
        if name.startswith(schema.name) and registry.alias_version(client, name, registry.CHAMPION):
            return name
    raise UserError(f"no champion of {' or '.join(dict.fromkeys(names))} in this store: `make run` makes one")


def facts(
    name: str,
    version: str,
    tags: Mapping[str, str],
    run_tags: Mapping[str, str],
    metrics: Mapping[str, float],
) -> ReleaseFacts:
    """The facts of a version, from its own tags, its run's tags and its evaluation's metrics."""
    return ReleaseFacts(
        name=name,
        version=version,
        run_id=tags["run_id"],
        git_commit=run_tags.get(_COMMIT_TAG, ""),
        schema=tags["schema"],
        data_kind=tags["data_kind"],
        data_digest=tags["data_digest"],
        dataset_digest=tags["dataset_digest"],
        model_digest=tags["model_digest"],
        synthetic=tags["synthetic"] == "true",
        family=run_tags.get("family", ""),
        metrics={key: round(float(metrics[key]), 4) for key in _METRICS if key in metrics},
    )


_METRICS = (
    "roc_auc",
    "average_precision",
    "brier",
    "calibration_slope",
    "observed_expected",
    "recall",
    "precision",
    "flagged",
)


def export(client: MlflowClient, name: str, version: str, folder: Path, schema: Schema) -> ReleaseFacts:
    """Write a version's release into `folder`, whole or not at all; returns its facts.

    Where one person's page cannot be made, as for a version of an older release, a warning says why.

    Raises:
        UserError: there is no such version, promote did not register it, or this project did not write its
            model.
    """
    registered = registry.model_version(client, name, version)
    if registered is None:
        raise UserError(f"{name} has no version {version}: see the registry (`make ui`)")
    if not {"evaluate_run_id", "promote_run_id"} <= registered.tags.keys():
        raise UserError(f"version {version} of {name} was not registered by this project's promote")
    with atomic.filling(folder) as fresh:
        release_facts = _fill(client, registered, fresh)
        try:
            write_page(fresh, schema)
        except UserError as error:
            log.warning("release: no page for one person (%s): %s", PAGE, error)
        return release_facts


def _fill(client: MlflowClient, registered: ModelVersion, folder: Path) -> ReleaseFacts:
    """Write all files of a version into an empty folder."""
    run_id = str(registered.run_id)
    for path in ("model", "reference.json"):
        client.download_artifacts(run_id, path, str(folder))
    saved.check(folder / "model")
    client.download_artifacts(registered.tags["evaluate_run_id"], "evaluation.json", str(folder))
    for path in ("report.html", "model_card.md"):  # those of promote, which show the gates
        client.download_artifacts(registered.tags["promote_run_id"], path, str(folder))
    if tracking.has_artifacts(client, registered.tags["promote_run_id"], TERMS_FILES):
        for path in TERMS_FILES:
            client.download_artifacts(registered.tags["promote_run_id"], path, str(folder))
    release_facts = facts(
        str(registered.name),
        str(registered.version),
        {**registered.tags, "run_id": run_id},
        client.get_run(run_id).data.tags,
        client.get_run(registered.tags["evaluate_run_id"]).data.metrics,
    )
    _complete_reference(folder / "reference.json", registered)
    write_facts(folder, release_facts)
    return release_facts


def _complete_reference(path: Path, registered: ModelVersion) -> None:
    """Fill in what is known since the version was registered: its number, and the current floor."""
    reference = references.load(path)
    floors = dict(reference.floors)
    if "roc_auc_min" in registered.tags:  # the gate may have changed since the model was trained
        floors["roc_auc"] = float(registered.tags["roc_auc_min"])
    model = dataclasses.replace(reference.model, version=str(registered.version))
    complete = references.document(dataclasses.replace(reference, model=model, floors=floors))
    path.write_text(json.dumps(complete, indent=1) + "\n", encoding="utf-8")


def write_page(folder: Path, schema: Schema) -> None:
    """Write one person's page of the release in a folder.

    Raises:
        UserError: the evaluation has a form that this version cannot read, or the model was trained on other
            columns than the schema has.
    """
    release_facts = read_facts(folder)
    evaluation = evaluation_document.from_json(
        json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    )
    if sorted(feature.name for feature in evaluation.features) != sorted(schema.feature_names):
        raise UserError(
            f"version {release_facts.version} of {release_facts.name} asks for other columns than the schema "
            f"{schema.name} has: name the schema that it was trained with (--schema)"
        )
    model = saved.check(folder / "model")
    is_additive = model.name == TERMS_FILE
    page_facts = PageFacts(
        name=release_facts.name,
        version=release_facts.version,
        synthetic=release_facts.synthetic,
        terms=json.loads(model.read_text(encoding="utf-8")) if is_additive else None,
        made=datetime.now(UTC),
    )
    atomic.write_text(folder / PAGE, render_page(schema, evaluation, page_facts))


def main(argv: Sequence[str] | None = None) -> int:
    """Export the champion, or the version that is named; exit code 1 with the reason if that fails."""
    parser = argparse.ArgumentParser(prog="release", description=__doc__)
    parser.add_argument("--schema", help="the schema's file (default: MLProject's)")
    parser.add_argument("--name", default="", help="a registered model (default: that of the last verdict)")
    parser.add_argument("--version", default="", help="a version of it (default: the champion)")
    parser.add_argument("--open", action="store_true", help="open one person's page in a browser")
    arguments = parser.parse_args(argv)

    def work() -> int:
        path = arguments.schema or parameters.given(Main, pipeline.PROJECT, {}).schema
        client = tracking.connect()
        schema = load(pipeline.PROJECT / path)
        name = arguments.name or chosen_name(client, schema, pipeline.PROJECT)
        version = arguments.version or registry.alias_version(client, name, registry.CHAMPION)
        if version is None:
            raise UserError(f"{name} has no champion: `make run` makes one")
        exported = export(client, name, version, pipeline.PROJECT / RELEASE, schema)
        version_in_words = f"version {exported.version} of {exported.name} in {RELEASE}"
        log.info("release: %s, %s", version_in_words, exported.roc_auc_in_words)
        if arguments.open:
            _open_page(pipeline.PROJECT / RELEASE / PAGE)
        return 0

    return process.command("release", work)


def _open_page(page: Path) -> None:
    is_open = page.exists() and webbrowser.open(page.as_uri())
    if page.exists():
        print(f"page:    {RELEASE / PAGE}" + ("" if is_open else "; open it in a browser"))


if __name__ == "__main__":
    sys.exit(main())
