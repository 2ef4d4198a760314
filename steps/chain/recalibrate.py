"""Recalibrating the champion on new labels: its intercept and slope, fitted on one half of the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from steps.chain import champion, keep_model, verdict
from steps.chain.verdict import Verdict
from steps.data import prepared
from steps.data.errors import UserError
from steps.models import recalibration

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from steps.chain.champion import Incumbents
    from steps.chain.context import Context, Result, StepRun
    from steps.chain.values import Promote
    from steps.models.recalibration import Recalibrated


def recalibrate(
    step: Context[Promote],
    data: StepRun,
    incumbents: Incumbents,
    judge: Callable[[Recalibrated, StepRun], Result],
) -> Result:
    """Recalibrate the champion, keep the model in this run, and judge it on the other half of the rows.

    `judge` takes the model and its fit, and decides whether it replaces the champion. The verdict is
    "unchanged" where the champion needs no recalibration. Raises UserError where it cannot be recalibrated.
    """
    name, version = incumbents.name, incumbents.champion
    if version is None:
        raise UserError(f"{name} has no champion to recalibrate: train one first (mlflow run .)")
    if version.tags.get("schema_data_digest") != step.schema.data_digest:
        raise UserError(
            f"version {version.version} of {name} was trained on other columns, kinds or missing codes: "
            "it cannot be recalibrated on these rows, so train (mlflow run .)"
        )
    tags = champion.run_tags(step, version) or {}
    if tags.get("recalibrated_on") == data.result_digest:
        return _unchanged(step, incumbents, version, "was recalibrated on these rows already")
    recalibrated = _on_new_labels(step, version, data)
    if not recalibrated.changes_something:
        reason = f"has the right risks for {recalibrated.fitted_rows:,} new labels"
        return _unchanged(step, incumbents, version, reason)
    return judge(recalibrated, keep_model.package_recalibrated(step, recalibrated, version, data))


def _on_new_labels(step: Context[Promote], version: ModelVersion, data: StepRun) -> Recalibrated:
    """The champion's model, recalibrated on the rows that it was not trained on.

    Its training rows are recognised only if they are in the cache of this machine.
    """
    import pandas as pd

    rival = champion.load(step, "champion", version)
    assert rival.reference is not None
    trained_on = str(rival.reference.data["digest"])
    recalibrated = recalibration.on_new_labels(
        rival.model,
        pd.concat(list(prepared.load(step.cache, data.result_digest).values()), ignore_index=True),
        step.schema,
        rival.reference.score.threshold,
        prepared.load(step.cache, trained_on, ("train",))["train"]
        if prepared.is_complete(step.cache, trained_on)
        else None,
    )
    step.log.info(
        "promote: intercept %.3f and slope %.3f from %s labels; %s others judge; %s were left out, since the "
        "model was trained on them",
        *(recalibrated.by.intercept, recalibrated.by.slope),
        *(
            f"{rows:,}"
            for rows in (recalibrated.fitted_rows, len(recalibrated.judge), recalibrated.known_rows)
        ),
    )
    return recalibrated


def _unchanged(step: Context[Promote], incumbents: Incumbents, version: ModelVersion, reason: str) -> Result:
    """Conclude that the champion needs no recalibration."""
    number = str(version.version)
    decision = Verdict(
        "unchanged",
        incumbents.name,
        step.run_id,
        number,
        number,
        anchor=incumbents.anchor_number,
        evaluate_run_id=version.tags.get("evaluate_run_id"),
        report_run_id=version.tags.get("promote_run_id"),
    )
    line = f"promote: version {number} of {incumbents.name} {reason}; nothing to change"
    return verdict.conclude(step, decision, [line])
