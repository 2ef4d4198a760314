"""`make plan`: what the chain would run with these parameters, and why; nothing runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from steps.chain import parameters, pipeline, store
from steps.chain.context import StepRun
from steps.data.errors import UserError
from steps.data.schema_file import load


def plan(argv: Sequence[str]) -> list[str]:
    """One line a step: reused, or run and why, or run if what is above it changes its result."""
    given = argparse.ArgumentParser(prog="plan")
    given.add_argument("-P", action="append", default=[], metavar="name=value", help="as for mlflow run")
    values = parameters.parse("main", pipeline.PROJECT, [f"--{item}" for item in given.parse_args(argv).P])
    schema = load(pipeline.PROJECT / values["schema"])
    seen = pipeline.Chain(store.connect(), values, schema, pipeline.cache_folder())
    other = "baseline" if values["model"] == "tuned" else "tuned"
    lines: list[str] = []
    results: dict[str, StepRun] = {}
    for step, model in (
        ("preprocess", ""),
        ("train", ""),
        ("tune", ""),
        ("evaluate", other),
        ("evaluate", values["model"]),
    ):
        needs = pipeline.upstream_of(step, {**values, "model": model})
        waiting = [name for name in needs if name not in results]
        label = f"{step} {model}".strip()
        if values["fresh"]:
            lines.append(f"{label:18} run     fresh=true")
        elif waiting:
            changes = seen.own_changes(step, {**values, "model": model})
            perhaps = f"perhaps if {' or '.join(waiting)} comes to another result"
            lines.append(f"{label:18} " + (f"run     {', '.join(changes)}" if changes else perhaps))
        else:
            decision = seen.decide(step, {**values, "model": model}, {name: results[name] for name in needs})
            if decision.reusable is None:
                lines.append(f"{label:18} run     {', '.join(decision.reasons)}")
            else:
                lines.append(f"{label:18} reuse   run {decision.reusable.run_id[:8]}")
                results[step] = decision.reusable
    return [*lines, f"{'promote':18} run     always; it changes nothing if nothing is new"]


def main() -> int:
    """Print the plan; exit code 1 with the reason if it cannot be made."""
    try:
        print("\n".join(plan(sys.argv[1:])))
    except UserError as error:
        print(f"plan: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
