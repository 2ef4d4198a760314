"""Is this new data still what the champion knows? Drift, separability, expected and realised performance.

The verdict (quiet, watch, retrain) and its reasons stand in `verdict.json`, beside MLProject and in the
run, and in the run's tags; `drift.html` shows them with pictures. It is never reused, because that file is
its result. Aggregates only: no row leaves this machine.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from monitoring import reference as references
from steps.chain import chosen_model
from steps.chain.context import VERDICT, Result
from steps.data import atomic, prepared, sources, validation
from steps.data.errors import UserError
from steps.data.files import TARGET_COLUMN
from steps.measures import drift as drifting
from steps.models import families, saved
from steps.reports import drift

if TYPE_CHECKING:
    import pandas as pd

    from monitoring.reference import Reference
    from steps.chain.context import Context
    from steps.chain.values import Drift


def work(step: Context[Drift]) -> Result:
    """Compare the data with the model's reference and write down what came of it."""
    (step.project / VERDICT).unlink(missing_ok=True)
    located = step.located
    chosen = chosen_model.choose(step, step.values.model, located.kind)
    try:
        reference = references.parse(chosen_model.fetch_reference(step, chosen))
    except references.ReferenceError as error:
        raise UserError(f"{chosen.label}: {error}") from error
    folder = chosen_model.fetch(step, chosen)
    chosen_model.check_columns(folder, chosen, step.schema.feature_names)
    raw = sources.read(located, step.schema)
    checked = validation.check(
        raw, step.schema, located.target_column, located.positive, require_target=False, ignore=located.ignore
    )
    if checked.valid.empty:
        why = validation.described(checked.problems, step.schema)
        raise UserError(f"none of {len(raw):,} rows fits the schema, so nothing can be compared:\n{why}")
    risk = families.predict_risk(saved.load(folder), checked.valid[list(step.schema.feature_names)])
    outcome = drifting.outcome_of(checked.valid, TARGET_COLUMN)
    found = drifting.compare(
        reference,
        drifting.Incoming(checked.valid, risk, outcome, len(raw), checked.problems),
        step.schema,
        drifting.Limits(**{name: getattr(step.values, name) for name in drifting.LIMITS}),
        trained_on=_training_rows(step, reference),
        seed=step.values.seed,
    )
    found["model"] |= {"label": chosen.label, "version": chosen.version}
    found["data"] = {"kind": located.kind, "digest": located.digest}
    return _conclude(step, found)


def _training_rows(step: Context[Drift], reference: Reference) -> pd.DataFrame | None:
    """The rows that the model was trained on, if this machine's cache has them."""
    data = str(reference.data["digest"])
    if not prepared.is_complete(step.cache, data):
        step.log.info(
            "drift: the training rows are not in this machine's cache; the joint comparison is left out"
        )
        return None
    return prepared.load(step.cache, data, ("train",))["train"]


def _conclude(step: Context[Drift], found: dict[str, Any]) -> Result:
    told = {"step": "drift", "drift_run_id": step.run_id, **drifting.told(found)}
    text = json.dumps(told, indent=1) + "\n"
    step.log_json("drift.json", found)
    step.log_text("drift.html", drift.render(found, step.schema, run=step.run_id))
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
    atomic.write_text(step.project / VERDICT, text)
    lines = [f"drift: {line}" for line in drift.summary(found)]
    return Result(lines=[*lines, f"drift: verdict in {VERDICT}, pictures in drift.html of run {step.run_id}"])


if __name__ == "__main__":
    from steps.chain import process

    sys.exit(process.execute("drift", work))
