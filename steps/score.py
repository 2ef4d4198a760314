"""Predict the risk of every row of a file, a folder or a glob, with the champion or a named model.

Its result is the file at `out`, outside the store, so it is never reused. The store gets counts only.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from monitoring import reference as references
from steps.chain import chosen_model
from steps.chain.context import Result
from steps.data import processors, sources, validation
from steps.data.disclosure import is_small
from steps.data.errors import UserError
from steps.models import families, saved, scoring
from steps.models.reasons import Explainer
from steps.models.served_model import Terms

if TYPE_CHECKING:
    from pathlib import Path

    from steps.chain.chosen_model import Chosen
    from steps.chain.context import Context
    from steps.chain.values import Score
    from steps.data.schema import Code
    from steps.data.sources import Located
    from steps.models.families import Model
    from steps.models.scoring import Predict, Scored


def work(step: Context[Score]) -> Result:
    """Score the rows, then report their number, the speed, and the rows that break the schema."""
    values = step.values
    if values.engine == "spark":
        return _with_spark(step)
    target = scoring.check_target(values.out, step.project)
    located = step.located
    scoring.check_target(values.out, step.project, located)
    chosen = chosen_model.choose(step, values.model, located.kind)
    folder = chosen_model.fetch(step, chosen)
    chosen_model.check_columns(folder, chosen, step.schema.feature_names)
    note = _made_up_note(step, folder, chosen, located.kind)
    predict = _scorer(saved.load(folder), values.reasons, chosen.label)
    step.log.info("score: with %s", chosen.label)
    scored = scoring.score(
        located,
        target,
        predict,
        step.schema,
        scoring.Request(values.columns, values.max_rejected, _never_seen(step, chosen)),
        workers=processors.available(),
    )
    return _report(step, scored, located, target, chosen.label, note)


def _made_up_note(step: Context[Score], folder: Path, chosen: Chosen, kind: str) -> str:
    """The note on a model of made-up people that scores real ones, also logged as a warning; tag the run."""
    note = chosen_model.made_up_note(folder, chosen, kind)
    if note:
        step.log.warning(note)
    step.tag({"synthetic": str(chosen_model.is_made_up(folder)).lower()})
    return note


def _never_seen(step: Context[Score], chosen: Chosen) -> dict[str, tuple[Code, ...]]:
    """Levels that no training row of the model had, by column; none where its reference is absent."""
    try:
        document = chosen_model.find_reference(step, chosen)
        return {} if document is None else scoring.levels_never_seen(references.parse(document), step.schema)
    except ValueError:  # invalid JSON, or a ReferenceError
        step.log.warning(
            "%s: its reference.json cannot be read, so levels never seen in training are not counted",
            chosen.label,
        )
        return {}


def _scorer(model: Model, reasons: int, label: str) -> Predict | Explainer:
    """A function that predicts risks, with `reasons` reasons. Raises UserError if the model has none."""
    if not reasons:
        return partial(families.predict_risk, model)
    if isinstance(model, Terms):
        return Explainer(model, reasons)
    raise UserError(
        f"{label} is not additive, so its risks have no exact reasons: leave reasons out, or name a glass "
        "box with -P model="
    )


def _with_spark(step: Context[Score]) -> Result:
    from steps.models import spark_scoring
    from steps.models.spark_session import session

    if step.values.reasons:
        raise UserError("engine=spark gives no reasons: leave reasons out, or use engine=local")
    if step.values.max_rejected < 1:
        raise UserError("engine=spark writes every row: leave max_rejected out, or use engine=local")
    target = spark_scoring.check_target(step.values.out, step.project)
    located = step.located
    chosen = chosen_model.choose(step, step.values.model, located.kind)
    folder = chosen_model.fetch(step, chosen)
    chosen_model.check_columns(folder, chosen, step.schema.feature_names)
    note = _made_up_note(step, folder, chosen, located.kind)
    with session(step.values.master, "score", step.project) as cluster:
        scored = spark_scoring.score(
            cluster, located, target, folder, step.schema, beside=step.values.columns
        )
    return _report(step, scored, located, target, chosen.label, note)


def _report(
    step: Context[Score], scored: Scored, located: Located, target: Path, label: str, note: str
) -> Result:
    speed = scored.rows / max(scored.seconds, 1e-9)
    risks = scored.rows - scored.broken
    mean = scored.risk_sum / risks if risks else float("nan")
    metrics = {"rows": float(scored.rows), "seconds": scored.seconds, "rows_per_second": speed}
    if not (is_small(scored.broken) or is_small(risks)):  # the mean of a few rows reveals their risks
        metrics |= {"broken_rows": float(scored.broken), "mean_risk": mean}
    step.log_metrics(metrics)
    step.tag({"data_kind": located.kind, "data_digest": located.digest, "scored_with": label})
    lines = [f"score: {note}" for note in sources.notes(located, step.schema)]
    lines.append(
        f"score: {scored.rows:,} rows in {scored.seconds:.1f} s, {speed:,.0f} rows a second, in {target}"
    )
    if risks:
        lines.append(f"score: mean risk {100 * mean:.1f} %")
    if scored.broken:
        problems = validation.described(scored.problems, step.schema, exact=True)
        has = "row has" if scored.broken == 1 else "rows have"
        lines.append(f"score: {scored.broken:,} {has} no risk but a reason:\n{problems}")
    unseen = [f"{name} in {rows:,} row{'s' * (rows != 1)}" for name, rows in scored.unseen.items() if rows]
    if unseen:
        lines.append(f"score: levels that no training row had: {', '.join(unseen)}")
    if note:
        lines.append(f"score: {note}")
    return Result(lines=[*lines, f"score: {step.schema.disclaimer}"])


if __name__ == "__main__":
    from steps.chain import process

    sys.exit(process.execute("score", work))
