"""Judge a model against champion and anchor and move @champion; approve a model; or go back to @previous.

The only step that reads or moves an alias. It is never reused, and doing it twice changes nothing. What came
of it is in `verdict.json` (beside MLProject and in the run) and in the run's tag `verdict`: promoted,
unchanged, refused, undecided or rolled_back (`steps.chain.verdict`). Each attempt is kept as a document in
the store (`steps.chain.attempts`). A model that was judged gets its report and card here as well;
`report_run_id` says which run has the fullest. Going back needs no data. The version that was left carries
the tag `rolled_back`, and no run promotes that model again until a person goes back to it or removes the tag.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from monitoring import reference as references
from steps.chain import attempts, keep_model, prevalence, registry, tracking, verdict
from steps.chain.attempts import Attempt
from steps.chain.context import BESIDE, FITTED_BY, VERDICT, Result, StepRun
from steps.chain.verdict import Approval, Reason, Requirement, Verdict
from steps.data import prepared
from steps.data.errors import UserError
from steps.data.files import TARGET_COLUMN
from steps.data.release_facts import TERMS_FILES
from steps.data.schema import registered_name, registered_names
from steps.measures import evaluation, evaluation_document, promotion
from steps.measures.comparison import Change, compare
from steps.measures.evaluation_document import Evaluation
from steps.measures.promotion import Finding, Judgement
from steps.measures.scored_rows import scored_rows
from steps.models import candidate, families, recalibration, saved
from steps.models.candidate import Rival
from steps.reports import evaluation as report
from steps.reports import promotion as table

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

    from steps.chain.context import Context
    from steps.chain.values import Promote
    from steps.models.recalibration import Recalibrated

ROLLED_BACK = "rolled_back"


@dataclass(frozen=True)
class Case:
    """A candidate, what it was made of, and the versions that it is judged against.

    `judging_rows`: features and outcome of the rows that judge it; None for the test part of `data`.
    """

    name: str
    data: StepRun
    fitted: StepRun
    evaluated: StepRun
    champion: ModelVersion | None
    anchor: ModelVersion | None
    accepted_prevalence: Approval | None
    judging_rows: pd.DataFrame | None = None

    @property
    def rivals(self) -> list[tuple[candidate.Role, ModelVersion]]:
        """The versions to compare with, by role."""
        found: list[tuple[candidate.Role, ModelVersion]] = []
        if self.champion is not None:
            found.append(("champion", self.champion))
        if self.anchor is not None:
            found.append(("anchor", self.anchor))
        return found

    @property
    def behaves_like_champion(self) -> bool:
        """Whether answers, threshold and data are the champion's, whatever packages serve it."""
        behaviour = self.fitted.tags["behaviour_digest"]
        return self.champion is not None and self.champion.tags.get("behaviour_digest") == behaviour

    @property
    def champion_number(self) -> str | None:
        return None if self.champion is None else str(self.champion.version)

    @property
    def anchor_number(self) -> str | None:
        return None if self.anchor is None else str(self.anchor.version)

    def verdict(self, word: verdict.Decision, step: Context[Promote], **more: Any) -> Verdict:
        """A verdict on this candidate; the champion stays unless `more` names another."""
        told = {
            "champion": self.champion_number,
            "anchor": self.anchor_number,
            "candidate_run_id": self.fitted.run_id,
            "evaluate_run_id": self.evaluated.run_id,
            "report_run_id": step.run_id,
            **more,
        }
        return Verdict(word, self.name, step.run_id, champion_before=self.champion_number, **told)


def work(step: Context[Promote]) -> Result:
    """Promote, refuse, leave undecided, find nothing new, approve, or roll back."""
    (step.project / VERDICT).unlink(missing_ok=True)
    values = step.values
    if bool(values.why.strip()) != bool(values.approve or values.accept_prevalence):
        raise UserError("a decision has a reason: approve or accept_prevalence=true, and why, together")
    if values.rollback != "false":
        return _roll_back(step)
    if values.approve:
        return _approve(step)
    for sentence in step.schema.gates.ignored:
        step.log.warning(sentence)
    data = step.chain.results_above("train", values)["preprocess"]
    if values.recalibrate:
        return _recalibrate(step, data)
    share = _prevalence(step, data)
    if share is not None and share.outcome == "undecided" and not values.accept_prevalence:
        return prevalence.stop(step, data, _requirement(share))
    return _settle(step, _case(step, data, share), share)


def _settle(step: Context[Promote], case: Case, share: Finding | None) -> Result:
    """What comes of a candidate: nothing new, refused before, judged before, or judged now."""
    champion_tags = case.champion.tags if case.champion is not None else {}
    if champion_tags.get("model_digest") == case.fitted.result_digest:
        return _unchanged(step, case, champion_tags)
    left = _left(step, case.name, case.fitted.tags["behaviour_digest"])
    if left is not None:
        return _stays_left(step, case, left)
    earlier = _judged_before(step, case)
    if earlier is not None:
        return _conclude(step, case, earlier, [f"promote: judged before, in run {earlier.run_id[:8]}"])
    attempt, lines = _judge(step, case, share)
    attempts.keep(step, attempt)
    _describe(step, attempt)
    return _conclude(step, case, attempt, lines)


# ---------------------------------------------------------------- what is there


def _prevalence(step: Context[Promote], data: StepRun) -> Finding | None:
    counts = prevalence.count(step, data)
    if counts is None:
        return None
    return promotion.prevalence_finding(**asdict(counts), limits=step.schema.gates)


def _recalibrate(step: Context[Promote], data: StepRun) -> Result:
    """The champion with intercept and slope fitted on one half of the data; the other half judges it.

    Another share of outcomes is what it is for, so that is no reason to stop.
    """
    name, champion, anchor = _versions(step, data)
    if champion is None:
        raise UserError(f"{name} has no champion to recalibrate: train one first (mlflow run .)")
    if champion.tags.get("schema_data_digest") != step.schema.data_digest:
        raise UserError(
            f"version {champion.version} of {name} was trained on other columns, kinds or missing codes: "
            "it cannot be recalibrated on these rows, so train (mlflow run .)"
        )
    kept = _fitted_tags(step, champion) or {}
    if kept.get("recalibrated_on") == data.result_digest:
        return _stays(step, name, champion, anchor, "was recalibrated on these rows already")
    made = _recalibrated(step, champion, data)
    if not made.changes_something:
        return _stays(
            step, name, champion, anchor, f"has the right risks for {made.fitted_rows:,} new labels"
        )
    fitted = keep_model.package_recalibrated(step, made, champion, data)
    _measure(step, made, fitted, data)
    evaluated = StepRun("evaluate", step.run_id, fitted.result_digest, {})
    return _settle(step, Case(name, data, fitted, evaluated, champion, anchor, None, made.judge), None)


def _stays(
    step: Context[Promote], name: str, champion: ModelVersion, anchor: ModelVersion | None, why: str
) -> Result:
    """There is nothing to recalibrate."""
    number = str(champion.version)
    report_run = champion.tags.get("promote_run_id")
    told = Verdict(
        "unchanged",
        name,
        step.run_id,
        number,
        number,
        anchor=None if anchor is None else str(anchor.version),
        evaluate_run_id=champion.tags.get("evaluate_run_id"),
        report_run_id=report_run,
    )
    return _end(step, told, [f"promote: version {number} of {name} {why}; nothing to change"])


def _recalibrated(step: Context[Promote], champion: ModelVersion, data: StepRun) -> Recalibrated:
    """The champion's model recalibrated on rows that it was not trained on, as far as this machine knows."""
    import pandas as pd

    rival = _rival(step, "champion", champion)
    assert rival.reference is not None
    trained_on = str(rival.reference.data["digest"])
    made = recalibration.on_new_labels(
        rival.model,
        pd.concat(list(prepared.load(step.cache, data.result_digest).values()), ignore_index=True),
        step.schema,
        rival.reference.score.threshold,
        prepared.load(step.cache, trained_on, ("train",))["train"]
        if prepared.is_complete(step.cache, trained_on)
        else None,
    )
    step.log.info(
        "promote: intercept %.3f and slope %.3f from %s labels; %s others judge; %s were left out, since the "
        "model was trained on them",
        *(made.by.intercept, made.by.slope),
        *(f"{count:,}" for count in (made.fitted_rows, len(made.judge), made.known_rows)),
    )
    return made


def _measure(step: Context[Promote], made: Recalibrated, fitted: StepRun, data: StepRun) -> None:
    """`evaluation.json` of a recalibrated model on the rows that judge it."""
    features = made.judge[list(step.schema.feature_names)]
    outcome, risk = made.judge[TARGET_COLUMN].to_numpy(), families.predict_risk(made.model, features)
    kind = data.tags["data_kind"]
    positives = int(outcome.sum())
    measured = evaluation.evaluate(
        scored_rows(outcome, risk, made.judge),
        step.schema,
        made.threshold,
        evaluation.Bootstrap(step.values.seed, step.values.replicates),
        about=evaluation.About(
            evaluation_document.ModelFacts(
                name=registered_name(step.schema, kind),
                family=fitted.tags["family"],
                role="recalibrated",
                run_id=step.run_id,
                digest=fitted.result_digest,
                recall_target=step.values.recall,
                calibration=fitted.tags["recalibration"],
                synthetic=fitted.tags["synthetic"] == "true",
            ),
            evaluation_document.DataFacts(
                len(outcome), positives, positives / max(1, len(outcome)), kind, data.result_digest
            ),
        ),
        predict=lambda frame: families.predict_risk(made.model, frame),
    )
    step.log_json("evaluation.json", evaluation_document.to_json(measured))


def _case(step: Context[Promote], data: StepRun, share: Finding | None) -> Case:
    """The candidate, trained now if need be."""
    above = step.chain.results_above("promote", step.values)
    name, champion, anchor = _versions(step, data)
    fitted = above[FITTED_BY[step.values.model]]
    accepted = None
    if share is not None and share.outcome == "undecided":
        accepted = Approval(_person(step), step.values.why)
    return Case(name, data, fitted, above["evaluate"], champion, anchor, accepted)


def _versions(step: Context[Promote], data: StepRun) -> tuple[str, ModelVersion | None, ModelVersion | None]:
    """The registered model of these data, its champion and its anchor.

    A store that has a champion and no anchor gets one. An anchor without a champion is left from a promotion
    that was cut off: the next one sets it anew.
    """
    name = registered_name(step.schema, data.tags["data_kind"])
    versions = [registry.alias_version(step.client, name, a) for a in (registry.CHAMPION, registry.ANCHOR)]
    if versions[0] is not None and versions[1] is None:
        step.client.set_registered_model_alias(name, registry.ANCHOR, versions[0])
        step.log.info("no anchor yet: version %s of %s, the champion, is it from now on", versions[0], name)
        versions[1] = versions[0]
    champion, anchor = (None if v is None else step.client.get_model_version(name, v) for v in versions)
    return name, champion, anchor if champion is not None else None


def _person(step: Context[Promote]) -> str:
    """Who calls, as GitHub or MLflow say; neither proves it."""
    known: Mapping[str, str] = step.client.get_run(step.run_id).data.tags
    return os.environ.get("GITHUB_ACTOR") or known.get("mlflow.user") or "somebody"


def _left(step: Context[Promote], name: str, behaviour: str) -> ModelVersion | None:
    """The version that behaves like this model, whatever serves it, and was rolled back, or None."""
    versions = step.client.search_model_versions(f"name = {tracking.quoted(name)}")
    left = (version for version in versions if ROLLED_BACK in version.tags)
    return next((version for version in left if version.tags.get("behaviour_digest") == behaviour), None)


def _judged_before(step: Context[Promote], case: Case) -> Attempt | None:
    """The attempt that judged this candidate by the same champion, anchor and limits."""
    pair = attempts.pair_of(case.fitted.result_digest, case.data.result_digest)
    limits = asdict(step.schema.gates)
    judged = attempts.judged_by(pair, case.champion_number, case.anchor_number, limits)
    run = attempts.same(step.client, judged)
    return None if run is None else attempts.read(step.client, run.info.run_id, step.scratch)


# ---------------------------------------------------------------- judging


def _judge(step: Context[Promote], case: Case, share: Finding | None) -> tuple[Attempt, list[str]]:
    """What the figures say of a candidate, as an attempt that is not written yet, and lines for a person."""
    measured = _evaluation(step, case.evaluated.run_id)
    pair = attempts.pair_of(case.fitted.result_digest, case.data.result_digest)
    compared = case.champion is not None and not case.behaves_like_champion
    number = attempts.number_of(step.client, case.name, pair, datetime.now(UTC)) if compared else 0
    decision = _decide(step, case, measured, number)
    findings = [*decision.findings, *_share_line(share, case.accepted_prevalence)]
    attempt = Attempt(
        at=attempts.now(),
        run_id=step.run_id,
        model=case.name,
        verdict=decision.verdict,
        reason=decision.reason,
        explanation=decision.explanation,
        number=number,
        kinds=attempts.kinds_of(case.fitted.tags, _fitted_tags(step, case.champion)),
        champion=case.champion_number,
        anchor=case.anchor_number,
        candidate=case.fitted.result_digest,
        test_rows=case.data.result_digest,
        candidate_run_id=case.fitted.run_id,
        evaluate_run_id=case.evaluated.run_id,
        moves_anchor=case.champion is None or decision.moves_anchor,
        anchor_change=_value(findings, "change of ROC AUC against the anchor"),
        events=decision.events,
        limits=asdict(step.schema.gates),
        requirements=tuple(_requirement(finding) for finding in findings),
        version_tags=_version_tags(step, case, measured),
        accepted_prevalence=case.accepted_prevalence,
    )
    return attempt, _table(findings)


@dataclass(frozen=True)
class Decision:
    """A verdict on a candidate with its reason in a word and in a sentence.

    `moves_anchor`: once it is champion the anchor moves to it, which is proven better or cannot take the
    rows.
    """

    verdict: Literal["promoted", "refused", "undecided"]
    reason: Reason | None
    explanation: str
    findings: tuple[Finding, ...] = ()
    events: int | None = None
    moves_anchor: bool = False


def _decide(step: Context[Promote], case: Case, measured: Evaluation, number: int) -> Decision:
    """Judge by figures; a model that answers as the champion does needs none."""
    if case.behaves_like_champion:
        same = f"it answers as version {case.champion_number} does, only packages changed"
        return Decision("promoted", None, same)
    rows = prepared.load(step.cache, case.data.result_digest)
    if case.judging_rows is not None:
        rows = {"test": case.judging_rows}
    judged = candidate.judge(
        saved.load(step.fetch(case.fitted.run_id, "model")),
        [_rival(step, role, version) for role, version in case.rivals],
        rows["test"],
        step.schema,
        {group.name for group in measured.subgroups},
        number,
    )
    found = judged.judgement
    findings = found.findings
    if case.champion is None and found.reason == "events":
        findings = (*findings, _cross_validated(step, case, rows))
    moves_anchor = found.beats_anchor or "anchor" in judged.not_compared
    if judged.not_compared and found.verdict != "refused":
        role, why = next(iter(judged.not_compared.items()))
        return Decision("undecided", role, why, findings, moves_anchor=moves_anchor)
    explanation = "" if found.verdict == "promoted" else _explained(found)
    return Decision(found.verdict, found.reason, explanation, findings, found.events, moves_anchor)


def _rival(step: Context[Promote], role: candidate.Role, version: ModelVersion) -> Rival:
    """A registered version, loaded. Raises UserError where the champion's model is gone."""
    run_id = str(version.run_id)
    if tracking.has_artifacts(step.client, run_id, ("model/MLmodel", "reference.json")):
        model = saved.load(step.fetch(run_id, "model"))
        reference = references.parse(step.fetch_json(run_id, "reference.json"))
        return Rival(role, str(version.version), model, reference)
    if role == "champion":
        raise UserError(
            f"the model of version {version.version} of {version.name}, the champion, is gone from run "
            f"{run_id[:8]}; none can be compared with it. Bring its artifacts back, or go back with -P "
            f"rollback={version.name}"
        )
    return Rival(role, str(version.version), None, None)


def _cross_validated(step: Context[Promote], case: Case, rows: Mapping[str, pd.DataFrame]) -> Finding:
    """The figure to look at where the test part is too small."""
    import pandas as pd

    settings = dict(step.values.hyperparameters)
    if step.values.model == "tuned":
        settings = step.fetch_json(case.fitted.run_id, "best.json")["hyperparameters"]
    everybody = pd.concat(list(rows.values()), ignore_index=True)
    family = case.fitted.tags["family"]
    return candidate.cross_validated(family, settings, everybody, step.schema, step.values.seed)


def _table(findings: Sequence[Finding]) -> list[str]:
    """The requirements that do not hold as a table; all of them with GATES=all in the environment."""
    shown = [one for one in findings if one.outcome in ("refused", "undecided")]
    if os.environ.get("GATES") == "all":
        shown = list(findings)
    return [table.terminal_table(shown)] if shown else []


def _explained(judged: Judgement) -> str:
    """Why it is refused or undecided, in one line."""
    found = [finding for finding in judged.findings if finding.outcome == judged.verdict]
    text = "; ".join(f"{finding.name}: {finding.detail} (limit {finding.limit})" for finding in found)
    if judged.events is not None:
        text += f". It would take about {judged.events:,} people with the outcome in the test part"
    return text


def _share_line(share: Finding | None, approval: Approval | None) -> list[Finding]:
    """The share of outcomes as a line; one that a person accepted decides nothing any more."""
    if share is None or approval is None:
        return [] if share is None else [share]
    detail = f"{share.detail}; accepted by {approval.user}: {approval.why}"
    return [replace(share, outcome="shown", detail=detail)]


def _value(findings: Sequence[Finding], name: str) -> float | None:
    return next((finding.value for finding in findings if finding.name == name), None)


def _requirement(finding: Finding) -> Requirement:
    return Requirement(**asdict(finding))


def _fitted_tags(step: Context[Promote], version: ModelVersion | None) -> Mapping[str, str] | None:
    if version is None:
        return None
    tags: Mapping[str, str] = step.client.get_run(str(version.run_id)).data.tags
    return tags


def _version_tags(step: Context[Promote], case: Case, measured: Evaluation) -> dict[str, str]:
    return {
        "model_digest": case.fitted.result_digest,
        "behaviour_digest": case.fitted.tags["behaviour_digest"],
        "schema_data_digest": step.schema.data_digest,
        "data_digest": case.data.tags["data_digest"],
        "dataset_digest": case.data.result_digest,
        "data_kind": case.data.tags["data_kind"],
        "synthetic": case.data.tags["synthetic"],
        "evaluate_run_id": case.evaluated.run_id,
        "schema": step.schema.name,
        "roc_auc": f"{evaluation_document.scalars(measured)['roc_auc']:.4f}",
        **_floors(step),
    }


def _floors(step: Context[Promote]) -> dict[str, str]:
    """What this promotion judges by and a monitor must know: the release takes it into `reference.json`."""
    floor = step.schema.gates.roc_auc_min
    return {} if floor is None else {"roc_auc_min": str(floor)}


# ---------------------------------------------------------------- concluding


def _unchanged(step: Context[Promote], case: Case, tags: Mapping[str, str]) -> Result:
    """The champion is this model already; its floors are renewed."""
    for tag, floor in _floors(step).items():
        step.client.set_model_version_tag(case.name, case.champion_number, tag, floor)
    told = case.verdict("unchanged", step, report_run_id=tags.get("promote_run_id", case.evaluated.run_id))
    line = f"promote: version {case.champion_number} of {case.name} is @champion already; nothing to change"
    return _end(step, told, [line])


def _stays_left(step: Context[Promote], case: Case, left: ModelVersion) -> Result:
    """A model that was rolled back stays so."""
    explanation = (
        f"version {left.version} of {case.name} is this model, and somebody rolled it back; to promote it "
        f"nevertheless, remove that version's tag {ROLLED_BACK} in the registry (`make ui`)"
    )
    told = case.verdict(
        "refused",
        step,
        reason="rolled_back",
        explanation=explanation,
        report_run_id=left.tags.get("promote_run_id", case.evaluated.run_id),
    )
    return _end(step, told, [f"promote: refused. {explanation}"])


def _conclude(step: Context[Promote], case: Case, attempt: Attempt, lines: Sequence[str]) -> Result:
    """Do what an attempt came to. One that was cut off after its record was written is completed here."""
    more: dict[str, Any] = {
        "reason": attempt.reason,
        "explanation": attempt.explanation,
        "attempt": attempt.number,
        "events": attempt.events,
        "requirements": attempt.requirements,
        "approval": attempt.approval,
        "report_run_id": attempt.run_id,
    }
    if attempt.verdict != "promoted":
        keeps = (
            f"version {case.champion_number} stays @champion of {case.name}"
            if case.champion
            else f"{case.name} has no champion yet"
        )
        remedy = None
        if attempt.verdict == "undecided":
            remedy = f'mlflow run . -e promote -P approve={attempt.candidate_run_id} -P why="..."'
            keeps += f". A person can decide: {remedy}"
        told = case.verdict(attempt.verdict, step, remedy=remedy, **more)
        return _end(step, told, [*lines, f"promote: {attempt.verdict}. {attempt.explanation}. {keeps}"])
    version = _promote(step, attempt)
    told = case.verdict("promoted", step, champion=version, **more)
    if attempt.moves_anchor:
        told = replace(told, anchor=version)
    return _end(step, told, [*lines, _promoted_line(case.name, version, case.champion_number, attempt)])


def _promote(step: Context[Promote], attempt: Attempt) -> str:
    """Register the candidate, move the anchor where it should move, then the champion; the version.

    In this order: a process that is killed in between leaves a champion, and the same command goes on.
    """
    tags = {**attempt.version_tags, "promote_run_id": attempt.run_id}
    if attempt.approval is not None:
        tags |= {"approved_by": attempt.approval.user, "approved_because": attempt.approval.why[:500]}
    version = registry.register(step.client, attempt.model, str(attempt.candidate_run_id), tags)
    registry.wait_ready(step.client, attempt.model, version)
    if attempt.moves_anchor:
        step.client.set_registered_model_alias(attempt.model, registry.ANCHOR, version)
    registry.move_champion(step.client, attempt.model, version)
    return version


def _promoted_line(name: str, version: str, before: str | None, attempt: Attempt) -> str:
    return (
        f"promote: version {version} of {name} is @champion now"
        + (f", version {before} @previous" if before else "")
        + (", and the @anchor of later comparisons" if attempt.moves_anchor else "")
    )


def _describe(step: Context[Promote], attempt: Attempt) -> None:
    """Report and card again, with requirements, record of change and, in a chain, the baseline."""
    measured = _evaluation(step, str(attempt.evaluate_run_id))
    other = step.chain.handed_over().get(BESIDE)
    beside = [_evaluation(step, other)] if other else []
    paired = _paired(step, attempt, beside[0]) if beside else None
    findings = [Finding(**asdict(line)) for line in attempt.requirements]
    record = attempts.history(step.client, attempt.model, step.scratch)
    history = [tuple(asdict(attempts.in_words(one)).values()) for one in record]
    step.log_text(
        "report.html", report.render_report([measured, *beside], requirements=findings, paired=paired)
    )
    step.log_text("model_card.md", report.render_card(measured, requirements=findings, history=history))
    evaluated = str(attempt.evaluate_run_id)
    if tracking.has_artifacts(step.client, evaluated, TERMS_FILES):  # the report links them
        for name in TERMS_FILES:
            step.log_text(name, step.fetch(evaluated, name).read_text(encoding="utf-8"))


def _paired(step: Context[Promote], attempt: Attempt, other: Evaluation) -> Change:
    """The candidate against the other model of its chain, on the same test rows."""
    test = prepared.load(step.cache, str(attempt.test_rows), ("test",))["test"]
    features = test[list(step.schema.feature_names)]
    new, old = (
        families.predict_risk(saved.load(step.fetch(str(run_id), "model")), features)
        for run_id in (attempt.candidate_run_id, other.model.run_id)
    )
    return compare(test[TARGET_COLUMN].to_numpy(), new, old, other.threshold, {})


def _evaluation(step: Context[Promote], run_id: str) -> Evaluation:
    return evaluation_document.from_json(step.fetch_json(run_id, "evaluation.json"))


def _end(step: Context[Promote], told: Verdict, lines: Sequence[str]) -> Result:
    verdict.write(step, told)
    return Result(lines=lines, exit_code=told.exit_code)


# ---------------------------------------------------------------- a person decides


def _approve(step: Context[Promote]) -> Result:
    """Promote one undecided candidate on a person's word; all else is read from its record."""
    run = attempts.of_candidate(step.client, step.values.approve)
    if run is None:
        raise UserError(f"no attempt with the candidate {step.values.approve}: `make changes` lists them")
    record = attempts.read(step.client, run.info.run_id, step.scratch)
    champion = registry.alias_version(step.client, record.model, registry.CHAMPION)
    version = champion and step.client.get_model_version(record.model, champion)
    if record.verdict == "promoted" and version and version.run_id == record.candidate_run_id:
        raise UserError(f"this candidate is version {champion} of {record.model}, the champion, already")
    if record.verdict != "undecided" and not (record.verdict == "promoted" and record.approval):
        raise UserError(
            f"this candidate was {record.verdict}, not undecided: a person decides only what figures cannot"
        )
    if champion != record.champion:
        raise UserError(
            f"this candidate was judged against {_version_or_none(record.champion)}, and the champion is "
            f"{_version_or_none(champion)} now: run promote on it again, then approve what that comes to"
        )
    approval = Approval(_person(step), step.values.why.strip())
    approved = replace(
        record,
        at=attempts.now(),
        run_id=step.run_id,
        verdict="promoted",
        approval=approval,
    )
    attempts.keep(step, approved)
    _describe(step, approved)
    number = _promote(step, approved)
    told = Verdict(
        "promoted",
        record.model,
        step.run_id,
        number,
        champion,
        anchor=number if approved.moves_anchor else record.anchor,
        reason=record.reason,
        explanation=record.explanation,
        candidate_run_id=record.candidate_run_id,
        evaluate_run_id=record.evaluate_run_id,
        report_run_id=step.run_id,
        attempt=record.number,
        requirements=record.requirements,
        approval=approval,
    )
    line = _promoted_line(record.model, number, champion, approved)
    return _end(step, told, [f"{line}. {approval.user} approved it: {approval.why}"])


def _version_or_none(number: str | None) -> str:
    return "no champion" if number is None else f"version {number}"


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
    anchor = registry.alias_version(step.client, name, registry.ANCHOR)
    return _end(step, Verdict("rolled_back", name, step.run_id, previous, champion, anchor=anchor), [line])


def _previous(step: Context[Promote], name: str) -> str | None:
    """The version that a model can go back to."""
    previous = registry.alias_version(step.client, name, registry.PREVIOUS)
    return None if previous == registry.alias_version(step.client, name, registry.CHAMPION) else previous


if __name__ == "__main__":
    from steps.chain import process

    sys.exit(process.execute("promote", work))
