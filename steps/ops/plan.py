"""`make plan`: the steps that the chain would run with these parameters, and why; nothing runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from steps.chain import parameters, pipeline, process, tracking
from steps.chain.context import OTHER, StepRun
from steps.chain.values import Main
from steps.data.schema_file import load


def plan(words: Sequence[str]) -> list[str]:
    """One line for each step: reused, or run and why, or run if the steps before it change their result."""
    values = parameters.given(Main, pipeline.PROJECT, parameters.from_words(words))
    schema = load(pipeline.PROJECT / values.schema)
    chain = pipeline.Chain(tracking.connect(), schema, values.schema, pipeline.cache_folder())
    other_values = replace(values, model=OTHER[values.model])
    lines: list[str] = []
    results: dict[str, StepRun] = {}
    for step, step_values in (
        ("preprocess", values),
        ("train", values),
        ("tune", values),
        ("evaluate", other_values),
        ("evaluate", values),
    ):
        reusable, action = _step(chain, step, step_values, results)
        lines.append(f"{pipeline.label(step, step_values):18} {action}")
        if reusable is not None:
            results[step] = reusable
    return [*lines, f"{'promote':18} run     always; it changes nothing if nothing is new"]


def _step(
    chain: pipeline.Chain, step: str, values: Main, results: dict[str, StepRun]
) -> tuple[StepRun | None, str]:
    """The run that would be reused for a step, and its line; `results` are the reused ones before it."""
    needs = pipeline.upstream_of(step, values)
    unknown = [name for name in needs if name not in results]
    if values.fresh:
        return None, "run     fresh=true"
    if unknown:
        changes = chain.own_changes(step, values)
        perhaps = f"perhaps if {' or '.join(unknown)} comes to another result"
        return None, f"run     {', '.join(changes)}" if changes else perhaps
    decision = chain.decide(step, values, {name: results[name] for name in needs})
    if decision.same_fit is not None:
        return None, f"pack    the model of run {decision.same_fit.run_id[:8]}: {', '.join(decision.reasons)}"
    if decision.reusable is None:
        return None, f"run     {', '.join(decision.reasons)}"
    return decision.reusable, f"reuse   run {decision.reusable.run_id[:8]}"


def main() -> int:
    """Print the plan; exit code 1 with the reason if it cannot be made."""

    def work() -> int:
        print("\n".join(plan(sys.argv[1:])))
        return 0

    return process.command("plan", work)


if __name__ == "__main__":
    sys.exit(main())
