"""Is this new data still what the champion knows? Drift, separability, expected and realised performance.

The verdict (quiet, watch, retrain) and its reasons stand in `verdict.json`, beside MLProject and in the
run, and in the run's tags; `drift.html` shows them with pictures. It is never reused, because that file is
its result. Aggregates only: no row leaves this machine.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from monitoring.exporter import reference as references
from steps import drift_report, drifting, models, preparation, registered, sources, validate
from steps.errors import UserError
from steps.files import TARGET_COLUMN
from steps.step import VERDICT, Result

if TYPE_CHECKING:
    import pandas as pd

    from monitoring.exporter.reference import Reference
    from steps.step import Active


def work(step: Active) -> Result:
    """Compare the data with the model's reference and write down what came of it."""
    (step.project / VERDICT).unlink(missing_ok=True)
    located = step.chain.located
    chosen = registered.choose(step, step.values["model"], located.kind)
    try:
        reference = references.parse(registered.fetch_reference(step, chosen))
    except references.ReferenceError as error:
        raise UserError(f"{chosen.label}: {error}") from error
    folder = registered.fetch(step, chosen)
    registered.check_columns(folder, chosen, step.schema.feature_names)
    raw = sources.read(located, step.schema)
    checked = validate.check(
        raw, step.schema, located.target_column, located.positive, require_target=False, ignore=located.ignore
    )
    if checked.valid.empty:
        why = validate.described(checked.problems, step.schema)
        raise UserError(f"none of {len(raw):,} rows fits the schema, so nothing can be compared:\n{why}")
    risk = models.predict_risk(models.load(folder), checked.valid[list(step.schema.feature_names)])
    outcome = drifting.outcome_of(checked.valid, TARGET_COLUMN)
    found = drifting.compare(
        reference,
        drifting.Incoming(checked.valid, risk, outcome, len(raw), checked.problems),
        step.schema,
        drifting.Limits(**{name: step.values[name] for name in drifting.LIMITS}),
        trained_on=_training_rows(step, reference),
        seed=step.values["seed"],
    )
    found["model"] |= {"label": chosen.label, "version": chosen.version}
    found["data"] = {"kind": located.kind, "digest": located.digest}
    return _conclude(step, found)


def _training_rows(step: Active, reference: Reference) -> pd.DataFrame | None:
    """The rows that the model was trained on, if this machine's cache has them."""
    data = str(reference.data["digest"])
    if not preparation.is_complete(step.cache, data):
        step.say("drift: the training rows are not in this machine's cache; the joint comparison is left out")
        return None
    return preparation.load(step.cache, data, ("train",))["train"]


def _conclude(step: Active, found: dict[str, Any]) -> Result:
    told = {"step": "drift", "drift_run_id": step.run_id, **drifting.told(found)}
    text = json.dumps(told, indent=1) + "\n"
    step.log_json("drift.json", found)
    step.log_text("drift.html", drift_report.render(found, step.schema, run=step.run_id))
    step.log_text(VERDICT, text)
    step.log_metrics(drifting.flat(found))
    step.tag(
        {
            "verdict": found["verdict"],
            "drifted": ",".join(found["drifted"])[:500],
            "broken": ",".join(found["broken"])[:500],
            "reasons": "; ".join(reason["text"] for reason in found["reasons"])[:2000],
            "data_kind": found["data"]["kind"],
            "synthetic": str(
                bool(found["model"]["synthetic"]) or found["data"]["kind"] == "synthetic"
            ).lower(),
        }
    )
    partial = step.project / f".{VERDICT}.partial"
    partial.write_text(text, encoding="utf-8")
    partial.replace(step.project / VERDICT)
    lines = [f"drift: {line}" for line in drift_report.summary(found)]
    return Result(lines=[*lines, f"drift: verdict in {VERDICT}, pictures in drift.html of run {step.run_id}"])


if __name__ == "__main__":
    from steps import chain

    sys.exit(chain.execute("drift", work))
