"""A fitted model as a run keeps it: the MLflow model, its `reference.json`, figures of validation rows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from steps.chain.context import Result
from steps.chain.fingerprint import digest
from steps.data.schema import registered_name
from steps.models import saved
from steps.models.monitor_reference import build_reference

if TYPE_CHECKING:
    import pandas as pd

    from steps.chain.context import Context
    from steps.chain.values import Fit
    from steps.models.fitting import Fitted


def package(step: Context[Fit], fitted: Fitted, train: pd.DataFrame, validation: pd.DataFrame) -> Result:
    """Save and upload a model with its reference.

    Its tag `behaviour_digest` stands for its answers, threshold and data. The result is the digest of that
    and of the packages and the code that serve it: otherwise an update of one for safety's sake, which
    changes no answer, would count as the champion that there is and never reach a container.

    It works on servers that know nothing of MLflow 3's logged models: the folder is saved here and uploaded
    as artifacts of the run.
    """
    data = step.upstream["preprocess"]
    synthetic = data.tags["synthetic"] == "true"
    reference = build_reference(
        fitted.model,
        train,
        validation,
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
        },
    )
    behaviour = digest([reference["model"]["digest"], fitted.threshold, data.result_digest])
    model_digest = digest([behaviour, saved.pip_requirements(fitted.model), saved.serving_code()])
    folder = step.scratch / "model"
    metadata = {"synthetic": synthetic, "digest": model_digest, "disclaimer": step.schema.disclaimer}
    saved.save(fitted.model, folder, step.schema, metadata)
    step.client.log_artifacts(step.run_id, str(folder), "model")
    step.log_json("reference.json", reference)
    validated = {f"validation_{name}": value for name, value in reference["validation"].items()}
    step.log_metrics({**validated, "threshold": fitted.threshold, "fit_seconds": fitted.fit_seconds})
    step.log_datasets(
        {"train": (data.result_digest, len(train)), "validation": (data.result_digest, len(validation))}
    )
    line = (
        f"{step.name}: {fitted.family.replace('_', ' ')}, fitted in {fitted.fit_seconds:.1f} s, calibration "
        f"{fitted.calibration}, threshold {fitted.threshold:.4f} for a recall of {step.values.recall:g}, "
        f"validation ROC AUC {reference['validation']['roc_auc']:.4f}"
    )
    tags = {
        "synthetic": data.tags["synthetic"],
        "data_kind": data.tags["data_kind"],
        "family": fitted.family,
        "calibration": fitted.calibration,
        "behaviour_digest": behaviour,
    }
    return Result(model_digest, tags, [line])
