"""The chain: preprocess, train, tune, evaluate (tuned and baseline), promote; each a nested run of this."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from steps.chain import prevalence, tracking, verdict
from steps.chain.context import BESIDE, OTHER, VERDICT, Result
from steps.chain.verdict import Requirement, Verdict
from steps.data.errors import UserError
from steps.measures import promotion

if TYPE_CHECKING:
    from steps.chain.context import Context, StepRun
    from steps.chain.values import Main, Role

# Metrics of an evaluation that the chain shows, and their names.
_FIGURES = {
    "roc_auc": "ROC AUC",
    "average_precision": "average precision",
    "brier": "Brier score",
    "calibration_slope": "calibration slope",
    "observed_expected": "observed / expected",
    "recall": "recall at the threshold",
    "flagged": "share flagged",
}


def work(step: Context[Main]) -> Result:
    """Make or reuse the result of every step, let promote judge the candidate, and print the verdict."""
    (step.project / VERDICT).unlink(missing_ok=True)  # the verdict of an earlier chain must not remain
    values, chain = step.values, step.chain
    other_role = OTHER[values.model]
    if bool(values.why.strip()) != values.accept_prevalence:
        raise UserError("accept_prevalence=true and why belong together: give both, or neither")
    needs = {"preprocess": chain.ensure("preprocess", values)}
    counts = prevalence.count(step, needs["preprocess"])
    if counts is not None and not values.accept_prevalence:
        share = promotion.prevalence_finding(**asdict(counts), limits=step.schema.gates)
        if share.outcome == "undecided":
            stopped = prevalence.stop(step, needs["preprocess"], Requirement(**asdict(share)))
            step.tag(_facts(needs["preprocess"]))
            return stopped
    needs |= {name: chain.ensure(name, values) for name in ("train", "tune")}
    compared = {other_role: chain.ensure("evaluate", replace(values, model=other_role))}
    compared[values.model] = needs["evaluate"] = chain.ensure("evaluate", values)
    decision = _promote(step, {**needs, BESIDE: compared[other_role]})
    step.tag({"verdict": decision.verdict, **_facts(needs["preprocess"])})
    return Result(lines=_summary(step, compared, decision), exit_code=decision.exit_code)


def _facts(data: StepRun) -> dict[str, str]:
    return {name: data.tags[name] for name in ("synthetic", "data_digest")}


def _promote(step: Context[Main], needs: Mapping[str, StepRun]) -> Verdict:
    """Run promote and read its verdict.

    Its run fails on a refusal and on a crash; only after a crash there is no `verdict.json`.
    """
    failed: UserError | None = None
    try:
        step.chain.launch("promote", step.values, needs)
    except UserError as error:
        failed = error
    written = verdict.read(step.project)
    if written is None:
        raise failed or UserError(f"promote left no {VERDICT}: its own output says why")
    return written


def _summary(step: Context[Main], compared: Mapping[Role, StepRun], decision: Verdict) -> list[str]:
    roles: tuple[Role, ...] = ("tuned", "baseline")
    figures = {role: step.client.get_run(compared[role].run_id).data.metrics for role in roles}
    lines = ["", *_table(figures), ""]
    if any(run.tags["synthetic"] == "true" for run in compared.values()):
        lines.append("These figures are of synthetic people: they say nothing of anybody's health.")
    report = step.client.get_run(str(decision.report_run_id)).info.artifact_uri
    lines.append(f"verdict: {decision.verdict} ({VERDICT})")
    lines.append(
        f"report:  {tracking.shown_location(report, step.project)}/report.html, model card beside it"
    )
    lines.append("look:    `make ui`, then http://127.0.0.1:5000")
    return lines


def _table(figures: Mapping[Role, Mapping[str, float]]) -> list[str]:
    """A line for each figure, a column for each model; an undefined figure is a dash."""

    def cell(metrics: Mapping[str, float], name: str) -> str:
        value, low, high = (metrics.get(f"{name}{end}") for end in ("", "_low", "_high"))
        interval = "" if low is None or high is None else f" ({low:.4f} to {high:.4f})"
        return "–" if value is None else f"{value:.4f}{interval}"

    lines = [f"{'on the test rows':26}" + "".join(f"{role:28}" for role in figures).rstrip()]
    for name, title in _FIGURES.items():
        cells = "".join(f"{cell(metrics, name):28}" for metrics in figures.values())
        lines.append(f"{title:26}{cells}".rstrip())
    return lines


if __name__ == "__main__":
    from steps.chain import process

    sys.exit(process.execute("main", work))
