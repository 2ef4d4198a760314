"""The chain: preprocess, train, tune, evaluate (tuned and baseline), promote; each a nested run of this."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from steps.chain import tracking
from steps.chain.context import BESIDE, OTHER, VERDICT, Result
from steps.data.errors import UserError

if TYPE_CHECKING:
    from steps.chain.context import Context, StepRun
    from steps.chain.values import Main, Role


def work(step: Context[Main]) -> Result:
    """Bring every step's result about, reusing what is there; let promote judge; print what came of it."""
    (step.project / VERDICT).unlink(missing_ok=True)  # an earlier chain's: whatever fails now leaves none
    values, chain = step.values, step.chain
    other = OTHER[values.model]
    needs = {name: chain.ensure(name, values) for name in ("preprocess", "train", "tune")}
    compared = {other: chain.ensure("evaluate", replace(values, model=other))}
    compared[values.model] = needs["evaluate"] = chain.ensure("evaluate", values)
    verdict = _promote(step, {**needs, BESIDE: compared[other]})
    told = {name: needs["preprocess"].tags[name] for name in ("synthetic", "data_digest")}
    step.tag({"verdict": verdict["verdict"], **told})
    exit_code = 1 if verdict["verdict"] == "refused" else 0
    return Result(lines=_summary(step, compared, verdict), exit_code=exit_code)


def _promote(step: Context[Main], needs: Mapping[str, StepRun]) -> dict[str, Any]:
    """What promote wrote into `verdict.json`, which alone tells a refusal (its run fails) from a crash."""
    written = step.project / VERDICT
    try:
        step.chain.launch("promote", step.values, needs)
    except UserError:
        if not written.exists():
            raise
    return dict(json.loads(written.read_text(encoding="utf-8")))


def _summary(step: Context[Main], compared: Mapping[Role, StepRun], verdict: Mapping[str, Any]) -> list[str]:
    columns = (
        "roc_auc",
        "average_precision",
        "brier",
        "calibration_slope",
        "observed_expected",
        "recall",
        "flagged",
    )
    lines = ["", f"{'model':10}" + "".join(f"{name.replace('_', ' '):>19}" for name in columns)]
    for role, evaluated in sorted(compared.items(), reverse=True):
        found = step.client.get_run(evaluated.run_id).data.metrics
        lines.append(f"{role:10}" + "".join(f"{found[name]:19.4f}" for name in columns))
    lines.append("")
    if any(run.tags["synthetic"] == "true" for run in compared.values()):
        lines.append("These figures are of synthetic people: they say nothing of anybody's health.")
    report = step.client.get_run(verdict["report_run_id"]).info.artifact_uri
    lines.append(f"verdict: {verdict['verdict']} ({VERDICT})")
    lines.append(
        f"report:  {tracking.shown_location(report, step.project)}/report.html, model card beside it"
    )
    lines.append("look:    `make ui`, then http://127.0.0.1:5000")
    return lines


if __name__ == "__main__":
    from steps.chain import process

    sys.exit(process.execute("main", work))
