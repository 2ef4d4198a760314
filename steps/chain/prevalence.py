"""Compare the share of outcomes in new data with that in the champion's data, before anything is trained.

A model of a balanced file, or of other people, learns another share of outcomes, which moves every risk. So a
person has to confirm that a change is intended.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from steps.chain import attempts, registry, tracking, verdict
from steps.chain.verdict import Verdict
from steps.data import prepared
from steps.data.files import TARGET_COLUMN
from steps.data.schema import registered_name

if TYPE_CHECKING:
    from steps.chain.context import Context, Result, StepRun
    from steps.chain.values import Judged
    from steps.chain.verdict import Requirement

_REMEDY = 'the same command with -P accept_prevalence=true -P why="..."'


@dataclass(frozen=True)
class Counts:
    """Rows with the outcome and all rows, of the new data and of the champion's validation rows."""

    events: int
    rows: int
    champion_events: int
    champion_rows: int


def count(step: Context[Judged], data: StepRun) -> Counts | None:
    """Counts for the rows that preprocess prepared; None without a champion with a reference."""
    name = registered_name(step.schema, data.tags["data_kind"])
    champion = registry.alias_version(step.client, name, registry.CHAMPION)
    if champion is None:
        return None
    run_id = str(step.client.get_model_version(name, champion).run_id)
    if not tracking.has_artifacts(step.client, run_id, ("reference.json",)):
        return None
    validation = step.fetch_json(run_id, "reference.json")["validation"]
    outcomes = [table[TARGET_COLUMN] for table in prepared.load(step.cache, data.result_digest).values()]
    return Counts(
        sum(int(outcome.sum()) for outcome in outcomes),
        sum(len(outcome) for outcome in outcomes),
        int(validation["positives"]),
        int(validation["rows"]),
    )


def stop(step: Context[Judged], data: StepRun, requirement: Requirement) -> Result:
    """End undecided, before a model is trained; the attempt is recorded with the number 0."""
    name = registered_name(step.schema, data.tags["data_kind"])
    champion = registry.alias_version(step.client, name, registry.CHAMPION)
    anchor = registry.alias_version(step.client, name, registry.ANCHOR)
    explanation = (
        f"the outcome is not as frequent as in the data of version {champion} of {name}, the champion: "
        f"{requirement.detail}. A model of these rows would move everybody's risk"
    )
    attempts.keep(
        step,
        attempts.Attempt(
            at=attempts.now(),
            run_id=step.run_id,
            model=name,
            verdict="undecided",
            reason="prevalence",
            explanation=explanation,
            number=0,
            kinds=("data",),
            champion=champion,
            anchor=anchor,
            test_rows=data.result_digest,
            limits=asdict(step.schema.gates),
            requirements=(requirement,),
        ),
    )
    decision = Verdict(
        "undecided",
        name,
        step.run_id,
        champion,
        champion,
        anchor=anchor,
        reason="prevalence",
        explanation=explanation,
        remedy=_REMEDY,
        requirements=(requirement,),
    )
    lines = [f"{step.name}: undecided, nothing was trained: {explanation}.", f"If it is meant: {_REMEDY}"]
    return verdict.conclude(step, decision, lines)
