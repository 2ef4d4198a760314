"""The chain: preprocess, train, tune, evaluate (tuned and baseline), promote; each a nested run of this."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from steps import store
from steps.errors import UserError
from steps.step import VERDICT, Result

if TYPE_CHECKING:
    from steps.step import Active, StepRun


def work(step: Active) -> Result:
    """Bring every step's result about, reusing what is there, then let promote judge; print what came of
    it.
    """
    values = dict(step.values)
    other = "baseline" if values["model"] == "tuned" else "tuned"
    chain = step.chain
    needs = {name: chain.ensure(name, values) for name in ("preprocess", "train", "tune")}
    compared = {other: chain.ensure("evaluate", {**values, "model": other})}
    compared[values["model"]] = needs["evaluate"] = chain.ensure("evaluate", values)
    verdict = _promote(step, values, needs)
    told = {name: needs["preprocess"].tags[name] for name in ("synthetic", "data_digest")}
    step.tag({"verdict": verdict, **told})
    return Result(lines=_summary(step, compared, verdict), exit_code=1 if verdict == "refused" else 0)


def _promote(step: Active, values: Mapping[str, Any], needs: Mapping[str, StepRun]) -> str:
    """The verdict of a promotion. A refusal fails its run as a crash does; only `verdict.json` tells them
    apart.
    """
    written = step.project / VERDICT
    written.unlink(missing_ok=True)
    try:
        step.chain.launch("promote", values, needs)
    except UserError:
        if not written.exists():
            raise
    return str(json.loads(written.read_text(encoding="utf-8"))["verdict"])


def _summary(step: Active, compared: Mapping[str, StepRun], verdict: str) -> list[str]:
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
    report = step.client.get_run(compared[step.values["model"]].run_id).info.artifact_uri
    lines.append(f"verdict: {verdict} ({VERDICT})")
    lines.append(f"report:  {store.shown_location(report, step.project)}/report.html, model card beside it")
    lines.append("look:    `make ui`, then http://127.0.0.1:5000")
    return lines


if __name__ == "__main__":
    from steps import chain

    sys.exit(chain.execute("main", work))
