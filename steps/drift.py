"""Compare new data with the champion's training data, and say what to do about the differences.

The verdict (quiet, too_few, watch, mend, recalibrate or retrain), its reasons and all figures are in
`drift.json`, beside MLProject and in the run, and in the run's tags; `drift.html` shows them with pictures.
The step is never reused, because that file is its result. Aggregates only: no row leaves this machine.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from monitoring import reference as references
from steps.chain import chosen_model
from steps.chain.context import DRIFT, Result
from steps.data import atomic, documents, prepared, sources, validation
from steps.data.errors import UserError
from steps.data.files import PERSON_COLUMN, TARGET_COLUMN
from steps.measures import drift as drifting
from steps.measures import evaluation_document
from steps.measures.drift_performance import Standard
from steps.models import families, saved
from steps.reports import drift

if TYPE_CHECKING:
    import pandas as pd

    from monitoring.reference import Reference
    from steps.chain.chosen_model import Chosen
    from steps.chain.context import Context
    from steps.chain.values import Drift
    from steps.data.sources import Located
    from steps.measures.drift_document import DriftReport


def work(step: Context[Drift]) -> Result:
    """Compare the data with the model's reference, and write verdict and report."""
    (step.project / DRIFT).unlink(missing_ok=True)
    located = step.located
    chosen = chosen_model.choose(step, step.values.model, located.kind)
    try:
        reference = references.parse(chosen_model.fetch_reference(step, chosen))
    except references.ReferenceError as error:
        raise UserError(f"{chosen.label}: {error}") from error
    baseline = drifting.Baseline(
        reference=reference,
        label=chosen.label,
        version=chosen.version,
        tested=_tested(step, chosen),
        trained_on=_training_rows(step, reference),
    )
    incoming = _incoming(step, located, chosen)
    report = drifting.compare(baseline, incoming, step.schema, seed=step.values.seed)
    return _conclude(step, replace(report, run_id=step.run_id))


def _incoming(step: Context[Drift], located: Located, chosen: Chosen) -> drifting.Incoming:
    """The new data: every value read on its own, and the risks of the valid rows."""
    schema = step.schema
    folder = chosen_model.fetch(step, chosen)
    chosen_model.check_columns(folder, chosen, schema.feature_names)
    note = chosen_model.made_up_note(folder, chosen, located.kind)
    if note:
        step.log.warning(note)
    raw = sources.read(located, schema)
    checked = validation.check(
        raw, schema, located.target_column, located.positive, require_target=False, ignore=located.ignore
    )
    risk = np.empty(0)
    if not checked.valid.empty:
        risk = families.predict_risk(saved.load(folder), checked.valid[list(schema.feature_names)])
    return drifting.Incoming(
        cells=validation.read_cells(raw, schema),
        valid=checked.valid,
        risk=risk,
        outcome=drifting.outcome_of(checked.valid, TARGET_COLUMN),
        problems=checked.problems,
        person=_people(raw),
        kind=located.kind,
        digest=located.digest,
    )


def _tested(step: Context[Drift], chosen: Chosen) -> Standard | None:
    """The model's figures on the test split; None where its evaluation has none."""
    if chosen.evaluate_run_id is None:
        return None
    try:
        document = step.fetch_json(chosen.evaluate_run_id, "evaluation.json")
        concordance = evaluation_document.from_json(document).concordance
    except UserError:
        return None
    return None if concordance is None else Standard("the test split", concordance)


def _training_rows(step: Context[Drift], reference: Reference) -> pd.DataFrame | None:
    """The rows that the model was trained on, if this machine's cache has them."""
    data = str(reference.data["digest"])
    if not prepared.is_complete(step.cache, data):
        step.log.info(
            "drift: the training rows are not in this machine's cache; the joint comparison is left out"
        )
        return None
    return prepared.load(step.cache, data, ("train",))["train"]


def _conclude(step: Context[Drift], report: DriftReport) -> Result:
    content = documents.to_json(report)
    step.log_json(DRIFT, content)
    step.log_text("drift.html", drift.render(report, step.schema))
    step.log_metrics(drifting.flat(report))
    step.tag(
        {
            "verdict": report.verdict,
            "drifted": ",".join(report.moved)[:500],
            "broken": ",".join(report.broken)[:500],
            "reasons": "; ".join(reason.text for reason in report.reasons)[:2000],
            "data_kind": report.data.kind,
            "synthetic": str(report.model.synthetic or report.data.kind == "synthetic").lower(),
        }
    )
    atomic.write_text(step.project / DRIFT, json.dumps(content, indent=1) + "\n")
    lines = [f"drift: {line}" for line in drift.summary(report)]
    return Result(lines=[*lines, f"drift: verdict in {DRIFT}, pictures in drift.html of run {step.run_id}"])


def _people(raw: pd.DataFrame) -> pd.Series[Any] | None:
    """A number for the person of each row, null where none is named; None if the schema names no column."""
    if PERSON_COLUMN not in raw:
        return None
    people: pd.Series[Any] = raw[PERSON_COLUMN].astype("UInt64")
    return people.mask(people == 0)


if __name__ == "__main__":
    from steps.chain import process

    sys.exit(process.execute("drift", work))
