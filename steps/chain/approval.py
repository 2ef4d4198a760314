"""Approving an undecided candidate: a person decides where the figures cannot."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from steps.chain import attempts, champion, registry, verdict
from steps.chain.verdict import Approval, Verdict
from steps.data.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from steps.chain.attempts import Attempt
    from steps.chain.context import Context, Result
    from steps.chain.values import Promote


def approve(step: Context[Promote], describe: Callable[[Attempt], None]) -> Result:
    """Promote the undecided candidate that `approve` names; its record holds everything that this needs.

    `describe` writes report and model card of an attempt. Raises UserError where the candidate is not
    undecided, or was compared with another champion than the one of today.
    """
    record = _undecided(step)
    approval = Approval(user(step), step.values.why.strip())
    approved = replace(
        record,
        at=attempts.now(),
        run_id=step.run_id,
        verdict="promoted",
        approval=approval,
    )
    attempts.keep(step, approved)
    describe(approved)
    version = champion.install(step, approved)
    line = champion.promoted_line(version, record.champion, approved)
    decision = Verdict(
        "promoted",
        record.model,
        step.run_id,
        version,
        record.champion,
        anchor=version if approved.moves_anchor else record.anchor,
        reason=record.reason,
        explanation=record.explanation,
        candidate_run_id=record.candidate_run_id,
        evaluate_run_id=record.evaluate_run_id,
        report_run_id=step.run_id,
        attempt=record.number,
        requirements=record.requirements,
        approval=approval,
    )
    return verdict.conclude(step, decision, [f"{line}. {approval.user} approved it: {approval.why}"])


def user(step: Context[Promote]) -> str:
    """The name of the person who started this run, as GitHub or MLflow give it; neither proves it."""
    tags: Mapping[str, str] = step.client.get_run(step.run_id).data.tags
    return os.environ.get("GITHUB_ACTOR") or tags.get("mlflow.user") or "somebody"


def _undecided(step: Context[Promote]) -> Attempt:
    """The attempt of the candidate that `approve` names, if it can be approved now. Raises UserError."""
    run = attempts.of_candidate(step.client, step.values.approve)
    if run is None:
        raise UserError(f"no attempt with the candidate {step.values.approve}: `make changes` lists them")
    record = attempts.read(step.client, run.info.run_id, step.scratch)
    current = registry.alias_version(step.client, record.model, registry.CHAMPION)
    version = current and step.client.get_model_version(record.model, current)
    if record.verdict == "promoted" and version and version.run_id == record.candidate_run_id:
        raise UserError(f"this candidate is version {current} of {record.model}, the champion, already")
    if record.verdict != "undecided" and not (record.verdict == "promoted" and record.approval):
        raise UserError(
            f"this candidate was {record.verdict}, not undecided: only an undecided candidate can be approved"
        )
    if current != record.champion:
        raise UserError(
            f"this candidate was judged against {_version_or_none(record.champion)}, and the champion is "
            f"{_version_or_none(current)} now: run promote on it again, and approve that attempt if it is "
            "undecided"
        )
    return record


def _version_or_none(number: str | None) -> str:
    return "no champion" if number is None else f"version {number}"
