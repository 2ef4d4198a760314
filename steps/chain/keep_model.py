"""A fitted model as a run keeps it: the MLflow model, its `reference.json`, figures of validation rows.

A run's result is a digest of the model's behaviour and of the packages and the code that serve it. Otherwise
a security update of a package, which changes no answer, would count as the current champion and never reach a
container. Such an update packs the model of an earlier run again and fits nothing.

It works on servers without MLflow 3's logged models: the folder is saved here and uploaded as artifacts of
the run.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from monitoring import reference as references
from steps.chain.context import Result, StepRun
from steps.chain.fingerprint import digest
from steps.data import documents
from steps.data.profile import Profile
from steps.data.schema import registered_name
from steps.models import saved
from steps.models.fitting import at_odds
from steps.models.monitor_reference import build_reference, recalibrated_reference

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from steps.chain.context import Context
    from steps.chain.values import Fit
    from steps.models.families import Model
    from steps.models.fitting import Fitted, Parts
    from steps.models.recalibration import Recalibrated

# Hyperparameters and calibration of a fit.
FITTED_FILE = "fitted.json"
# Tags of a run about its model, which packing it again does not change.
_KEPT_TAGS = (
    *("synthetic", "data_kind", "family", "calibration", "behaviour_digest"),
    *("best_trial", "stopped_by", "reproducible", "preference"),
)


def package(step: Context[Fit], fitted: Fitted, parts: Parts) -> Result:
    """Save and upload a model with its reference; the tag `behaviour_digest` stands for answers, threshold
    and data.
    """
    data, odds = step.upstream["preprocess"], step.values.threshold_odds
    synthetic = data.tags["synthetic"] == "true"
    fitted = at_odds(fitted, odds)
    reference = build_reference(
        fitted.model,
        parts.train,
        parts.validation,
        step.schema,
        threshold=fitted.threshold,
        info={
            "name": registered_name(step.schema, data.tags["data_kind"]),
            "version": None,
            "run_id": step.run_id,
            "family": fitted.family,
            "trained_at": int(time.time()),
            "synthetic": synthetic,
            "kind": data.tags["data_kind"],
            "data_digest": data.result_digest,
            **_rejected(
                documents.from_json(Profile, step.fetch_json(data.run_id, "profile.json"), "profile.json")
            ),
        },
        risk=fitted.validation_risk,
    )
    behaviour = digest([reference.model.digest, fitted.threshold, data.result_digest])
    model_digest = _upload(step, fitted.model, behaviour, synthetic=synthetic)
    step.log_json("reference.json", references.document(reference))
    step.log_json(FITTED_FILE, {"hyperparameters": fitted.params, "calibration": fitted.calibration})
    validated = {f"validation_{name}": value for name, value in reference.validation.items()}
    step.log_metrics({**validated, "threshold": fitted.threshold, "fit_seconds": fitted.fit_seconds})
    step.log_datasets(
        {
            "train": (data.result_digest, len(parts.train)),
            "validation": (data.result_digest, len(parts.validation)),
        }
    )
    chosen = f"for a recall of {step.values.recall:g}" if odds is None else f"at odds of {odds:g}"
    summary = (
        f"{fitted.family.replace('_', ' ')}, calibration {fitted.calibration}, threshold "
        f"{fitted.threshold:.4f} {chosen}; ROC AUC {reference.validation['roc_auc']:.4f} on validation rows"
    )
    tags = {
        "synthetic": data.tags["synthetic"],
        "data_kind": data.tags["data_kind"],
        "family": fitted.family,
        "calibration": fitted.calibration,
        "behaviour_digest": behaviour,
    }
    return Result(model_digest, tags, summary=summary)


def pack_again(step: Context[Fit], earlier: StepRun) -> Result:
    """Save and upload the model of an earlier run, to be served by the current packages; nothing is fitted.

    The artifacts and metrics of the earlier run are copied, and its tags become the result's.
    """
    model = saved.load(step.fetch(earlier.run_id, "model"))
    tags = {name: earlier.tags[name] for name in _KEPT_TAGS if name in earlier.tags}
    model_digest = _upload(
        step, model, earlier.tags["behaviour_digest"], synthetic=earlier.tags["synthetic"] == "true"
    )
    for item in step.client.list_artifacts(earlier.run_id):
        if item.path not in ("model", "reference.json"):
            path = step.fetch(earlier.run_id, item.path)
            upload = step.client.log_artifacts if item.is_dir else step.client.log_artifact
            upload(step.run_id, str(path), item.path if item.is_dir else None)
    reference = references.parse(step.fetch_json(earlier.run_id, "reference.json"))
    packed = replace(reference, model=replace(reference.model, run_id=step.run_id))
    step.log_json("reference.json", references.document(packed))
    step.log_metrics(step.client.get_run(earlier.run_id).data.metrics)
    summary = f"the model of run {earlier.run_id[:8]} packed again; nothing was fitted"
    return Result(model_digest, {**tags, "packed_from": earlier.run_id}, summary=summary)


def _upload(step: Context[Fit], model: Model, behaviour: str, *, synthetic: bool) -> str:
    """Keep the model as artifacts of the run; its digest."""
    model_digest = digest([behaviour, saved.pip_requirements(model), saved.serving_code()])
    folder = step.scratch / "packed"
    metadata = {"synthetic": synthetic, "digest": model_digest, "disclaimer": step.schema.disclaimer}
    saved.save(model, folder, step.schema, metadata)
    step.client.log_artifacts(step.run_id, str(folder), "model")
    return model_digest


def package_recalibrated(
    step: Context[Fit], recalibrated: Recalibrated, version: ModelVersion, data: StepRun
) -> StepRun:
    """Keep a recalibrated version in this run, as a fit keeps its model; `data` are the new labelled rows."""
    run_id = str(version.run_id)
    before = references.parse(step.fetch_json(run_id, "reference.json"))
    reference = recalibrated_reference(
        before,
        recalibrated.model,
        recalibrated.judge,
        step.schema,
        threshold=recalibrated.threshold,
        run_id=step.run_id,
        trained_at=int(time.time()),
    )
    tags = step.client.get_run(run_id).data.tags
    synthetic = data.tags["synthetic"] == "true" or tags["synthetic"] == "true"
    behaviour = digest([reference.model.digest, recalibrated.threshold, data.result_digest])
    model_digest = _upload(step, recalibrated.model, behaviour, synthetic=synthetic)
    step.log_json("reference.json", references.document(reference))
    if any(item.path == FITTED_FILE for item in step.client.list_artifacts(run_id)):  # older versions lack it
        step.log_json(FITTED_FILE, step.fetch_json(run_id, FITTED_FILE))
    kept_tags = {name: tags[name] for name in _KEPT_TAGS if name in tags}
    kept_tags |= {
        "behaviour_digest": behaviour,
        "recalibrated_from": str(version.version),
        "recalibrated_on": data.result_digest,
        "recalibration": f"intercept {recalibrated.by.intercept:.4f}, slope {recalibrated.by.slope:.4f}",
    }
    step.tag(kept_tags)
    return StepRun("recalibrate", step.run_id, model_digest, kept_tags)


def _rejected(profile: Profile) -> dict[str, Any]:
    """Rows that preprocess read, and how many were invalid in each column; counts too small to show are 0."""
    invalid: dict[str, int] = {}
    for problem in profile.problems:
        invalid[problem.column] = invalid.get(problem.column, 0) + (problem.rows or 0)
    return {"read": profile.rows.read or profile.rows.valid, "invalid": invalid}
