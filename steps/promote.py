"""Compare a model with the champion, judge it by the schema's gates, move @champion; or go back to @previous.

The only step that reads or moves an alias. It is never reused, and doing it twice changes nothing. What
came of it is in `verdict.json` (beside MLProject and in the run) and in the run's tag `verdict`: promoted,
unchanged, refused or rolled_back, with the `reason` of a refusal. A crash leaves no `verdict.json`. A model
that was judged gets its report and card here as well, with gates and comparisons in them; `report_run_id`
says which run has the fullest. Going back needs no data. The version that was left carries the tag
`rolled_back`, and no run promotes that model again until a person goes back to it or removes the tag.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from steps.chain import registry, tracking
from steps.chain.context import BESIDE, FITTED_BY, VERDICT, Result
from steps.data import atomic, documents, prepared
from steps.data.errors import UserError
from steps.data.files import TARGET_COLUMN
from steps.data.schema import registered_name, registered_names
from steps.measures import evaluation, gates
from steps.measures.evaluation_document import Comparison, Evaluation, from_json, scalars
from steps.models import families, saved
from steps.reports import evaluation as report

if TYPE_CHECKING:
    from steps.chain.context import Context, StepRun
    from steps.chain.values import Promote

ROLLED_BACK = "rolled_back"


def work(step: Context[Promote]) -> Result:
    """Promote, refuse, find nothing new, or roll back."""
    (step.project / VERDICT).unlink(missing_ok=True)
    if step.values.rollback != "false":
        return _roll_back(step)
    above = step.chain.results_above("promote", step.values)
    data, evaluated = above["preprocess"], above["evaluate"]
    fitted = above[FITTED_BY[step.values.model]]
    name = registered_name(step.schema, data.tags["data_kind"])
    champion = registry.alias_version(step.client, name, registry.CHAMPION)
    tags = step.client.get_model_version(name, champion).tags if champion else {}
    told: dict[str, Any] = {
        "model": name,
        "champion": champion,
        "champion_before": champion,
        "candidate_run_id": fitted.run_id,
        "evaluate_run_id": evaluated.run_id,
        "report_run_id": step.run_id,
    }
    if tags.get("model_digest") == fitted.result_digest:
        line = f"promote: version {champion} of {name} is @champion already; nothing to change"
        told["report_run_id"] = tags.get("promote_run_id", evaluated.run_id)
        for tag, floor in _floors(step).items():
            step.client.set_model_version_tag(name, champion, tag, floor)
        return _conclude(step, "unchanged", told, [line])
    left = _left(step, name, fitted.tags["behaviour_digest"])
    if left is not None:
        told["report_run_id"] = left.tags.get("promote_run_id", evaluated.run_id)
        told["reason"] = (
            f"version {left.version} of {name} is this model, and somebody rolled it back; to promote it "
            f"nevertheless, remove that version's tag {ROLLED_BACK} in the registry (`make ui`)"
        )
        return _conclude(step, "refused", told, [f"promote: refused. {told['reason']}"])

    measured = from_json(step.fetch_json(evaluated.run_id, "evaluation.json"))
    comparison, why_not = _compare(step, name, champion, tags, data, fitted)
    judged = gates.judge(measured, comparison, step.schema, not_compared=why_not)
    _describe(step, measured, judged, comparison)
    told |= {"gates": [asdict(gate) for gate in judged], "comparison": documents.to_json(comparison)}
    lines = ["promote: gates", gates.format_table(judged)]
    if not gates.passed(judged):
        keeps = f"version {champion} stays @champion" if champion else "there is no champion yet"
        told["reason"] = gates.failures(judged)
        lines.append(f"promote: refused. {told['reason']}. {keeps} of {name}")
        return _conclude(step, "refused", told, lines)

    version = registry.register(
        step.client, name, fitted.run_id, _version_tags(step, data, fitted, evaluated, measured)
    )
    registry.wait_ready(step.client, name, version)
    registry.move_champion(step.client, name, version)
    lines.append(
        f"promote: version {version} of {name} is @champion now"
        + (f", version {champion} @previous" if champion else "")
    )
    return _conclude(step, "promoted", {**told, "champion": version}, lines)


def _roll_back(step: Context[Promote]) -> Result:
    """@champion and @previous change places. Tags first: a crash in between is mended by the same command."""
    wanted = step.values.rollback
    names = registered_names(step.schema) if wanted == "true" else (wanted,)
    found = {name: previous for name in names if (previous := _previous(step, name)) is not None}
    if not found:
        raise UserError(f"there is no @previous version of {' or '.join(names)} to go back to")
    if len(found) > 1:
        raise UserError(f"say which model goes back: {' or '.join(f'-P rollback={name}' for name in found)}")
    ((name, previous),) = found.items()
    champion = registry.alias_version(step.client, name, registry.CHAMPION)
    if champion is not None:
        step.client.set_model_version_tag(name, champion, ROLLED_BACK, f"to version {previous}")
    if ROLLED_BACK in step.client.get_model_version(name, previous).tags:
        step.client.delete_model_version_tag(name, previous, ROLLED_BACK)
    registry.move_champion(step.client, name, previous)
    line = f"promote: version {previous} of {name} is @champion again, version {champion} @previous"
    told = {"model": name, "champion": previous, "champion_before": champion}
    return _conclude(step, "rolled_back", told, [line])


def _previous(step: Context[Promote], name: str) -> str | None:
    """The version that a model can go back to."""
    previous = registry.alias_version(step.client, name, registry.PREVIOUS)
    return None if previous == registry.alias_version(step.client, name, registry.CHAMPION) else previous


def _left(step: Context[Promote], name: str, behaviour: str) -> Any:
    """The version that behaves like this model, whatever serves it, and was rolled back, or None."""
    versions = step.client.search_model_versions(f"name = {tracking.quoted(name)}")
    left = (one for one in versions if ROLLED_BACK in one.tags)
    return next((one for one in left if one.tags.get("behaviour_digest") == behaviour), None)


def _floors(step: Context[Promote]) -> dict[str, str]:
    """What this promotion judges by and a monitor must know: the release takes it into `reference.json`."""
    floor = step.schema.gates.roc_auc_min
    return {} if floor is None else {"roc_auc_min": str(floor)}


def _compare(
    step: Context[Promote],
    name: str,
    champion: str | None,
    tags: Mapping[str, str],
    data: StepRun,
    fitted: StepRun,
) -> tuple[Comparison | None, str]:
    """The new model against the champion on the same test rows, or why they cannot be compared."""
    if champion is None:
        return None, gates.NO_CHAMPION
    if tags.get("schema_data_digest") != step.schema.data_digest:
        return None, f"version {champion} was trained on other columns, kinds or missing codes"
    test = prepared.load(step.cache, data.result_digest, ("test",))["test"]
    features = test[list(step.schema.feature_names)]
    run_id = str(step.client.get_model_version(name, champion).run_id)
    if not tracking.has_artifacts(step.client, run_id, ("model/MLmodel",)):
        raise UserError(
            f"the model of version {champion} of {name}, the champion, is gone from run {run_id[:8]}; none "
            f"can be compared with it. Bring its artifacts back, or go back with -P rollback={name}"
        )
    new, old = (
        families.predict_risk(saved.load(step.fetch(run, "model")), features)
        for run in (fitted.run_id, run_id)
    )
    outcome = test[TARGET_COLUMN].to_numpy()
    compared = evaluation.compare(outcome, new, old, step.values.seed, replicates=step.values.replicates)
    return compared, ""


def _describe(
    step: Context[Promote],
    measured: Evaluation,
    judged: Sequence[gates.Gate],
    comparison: Comparison | None,
) -> None:
    """Report and card again, with what only promotion knows: gates, champion, in a chain the baseline."""
    other = step.chain.handed_over().get(BESIDE)
    beside = [from_json(step.fetch_json(other, "evaluation.json"))] if other else []
    page = report.render_report([measured, *beside], comparison=comparison, gates=judged)
    step.log_text("report.html", page)
    step.log_text("model_card.md", report.render_card(measured, gates=judged))


def _version_tags(
    step: Context[Promote], data: StepRun, fitted: StepRun, evaluated: StepRun, measured: Evaluation
) -> dict[str, str]:
    return {
        "model_digest": fitted.result_digest,
        "behaviour_digest": fitted.tags["behaviour_digest"],
        "schema_data_digest": step.schema.data_digest,
        "data_digest": data.tags["data_digest"],
        "dataset_digest": data.result_digest,
        "data_kind": data.tags["data_kind"],
        "synthetic": data.tags["synthetic"],
        "evaluate_run_id": evaluated.run_id,
        "promote_run_id": step.run_id,
        "schema": step.schema.name,
        "roc_auc": f"{scalars(measured)['roc_auc']:.4f}",
        **_floors(step),
    }


def _conclude(step: Context[Promote], verdict: str, told: Mapping[str, Any], lines: Sequence[str]) -> Result:
    """Leave the verdict where callers look for it; what is not told does not apply to it."""
    document = {
        "verdict": verdict,
        "reason": None,
        "model": None,
        "champion": None,
        "champion_before": None,
        "candidate_run_id": None,
        "evaluate_run_id": None,
        "promote_run_id": step.run_id,
        "report_run_id": None,
        "gates": [],
        "comparison": None,
        **told,
    }
    text = json.dumps(document, indent=1) + "\n"
    step.log_text(VERDICT, text)
    step.tag({"verdict": verdict})
    atomic.write_text(step.project / VERDICT, text)
    return Result(lines=lines, exit_code=1 if verdict == "refused" else 0)


if __name__ == "__main__":
    from steps.chain import process

    sys.exit(process.execute("promote", work))
