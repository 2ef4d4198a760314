"""Judge a model against champion and anchor and move @champion; approve a model; or go back to @previous.

Only this step moves an alias. It is never reused, and running it twice changes nothing. The verdict is
promoted, unchanged, refused, undecided or rolled_back; it is in `verdict.json`, beside MLProject and in the
run, and in the run's tag `verdict` (`steps.chain.verdict`). Each attempt is a document in the store
(`steps.chain.attempts`).
A judged model gets its report and card here again, with the requirements; `report_run_id` names that run. A
rollback needs no data. It marks the abandoned version with the tag `rolled_back`, and no run promotes that
model again until a person goes back to it or removes the tag (`steps.chain.rollback`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from steps.chain import approval, attempts, champion, prevalence, recalibrate, rollback, tracking, verdict
from steps.chain.attempts import Attempt
from steps.chain.context import BESIDE, FITTED_BY, VERDICT, Result, StepRun
from steps.chain.keep_model import FITTED_FILE
from steps.chain.verdict import Approval, Reason, Requirement, Verdict
from steps.data import prepared
from steps.data.errors import UserError
from steps.data.files import TARGET_COLUMN
from steps.data.release_facts import TERMS_FILES
from steps.data.schema import registered_name
from steps.measures import evaluation, evaluation_document, promotion
from steps.measures.comparison import Change, compare
from steps.measures.evaluation_document import Evaluation
from steps.measures.promotion import Finding, Judgement
from steps.measures.scored_rows import scored_rows
from steps.models import candidate, families, saved, terms
from steps.models.served_model import Terms
from steps.reports import evaluation as report
from steps.reports import model_terms
from steps.reports import promotion as table

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

    from steps.chain.champion import Incumbents
    from steps.chain.context import Context
    from steps.chain.values import Promote
    from steps.models.recalibration import Recalibrated


@dataclass(frozen=True)
class Case:
    """A candidate, the runs that made it, and the versions that it is judged against.

    `judging_rows`: features and outcome of the rows that judge it; None for the test part of `data`.
    """

    data: StepRun
    fitted: StepRun
    evaluated: StepRun
    incumbents: Incumbents
    accepted_prevalence: Approval | None = None
    judging_rows: pd.DataFrame | None = None

    @property
    def name(self) -> str:
        """The registered model."""
        return self.incumbents.name

    @property
    def behaves_like_champion(self) -> bool:
        """Whether answers, threshold and data are the champion's, even if other packages serve it."""
        version = self.incumbents.champion
        behaviour = self.fitted.tags["behaviour_digest"]
        return version is not None and version.tags.get("behaviour_digest") == behaviour

    def verdict(self, word: verdict.Decision, step: Context[Promote], **changes: Any) -> Verdict:
        """A verdict on this candidate; the champion stays unless `more` names another."""
        champion_before = self.incumbents.champion_number
        fields = {
            "champion": champion_before,
            "anchor": self.incumbents.anchor_number,
            "candidate_run_id": self.fitted.run_id,
            "evaluate_run_id": self.evaluated.run_id,
            "report_run_id": step.run_id,
            **changes,
        }
        return Verdict(word, self.name, step.run_id, champion_before=champion_before, **fields)


def work(step: Context[Promote]) -> Result:
    """Judge and promote, approve, recalibrate, or roll back."""
    (step.project / VERDICT).unlink(missing_ok=True)
    values = step.values
    if bool(values.why.strip()) != bool(values.approve or values.accept_prevalence):
        raise UserError("give why together with approve or with accept_prevalence=true, and only then")
    if values.rollback != "false":
        return rollback.roll_back(step)
    if values.approve:
        return approval.approve(step, partial(_describe, step))
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
    """Decide a candidate: it is champion already, was rolled back, was judged before, or is judged now."""
    version = case.incumbents.champion
    champion_tags = version.tags if version is not None else {}
    if champion_tags.get("model_digest") == case.fitted.result_digest:
        return _unchanged(step, case, champion_tags)
    rolled_back = rollback.rolled_back_version(step, case.name, case.fitted.tags["behaviour_digest"])
    if rolled_back is not None:
        return _refuse_rolled_back(step, case, rolled_back)
    earlier = _judged_before(step, case)
    if earlier is not None:
        return _conclude(step, case, earlier, [f"promote: judged before, in run {earlier.run_id[:8]}"])
    attempt, lines = _judge(step, case, share)
    attempts.keep(step, attempt)
    _describe(step, attempt)
    return _conclude(step, case, attempt, lines)


# ---------------------------------------------------------------- the candidate


def _prevalence(step: Context[Promote], data: StepRun) -> Finding | None:
    counts = prevalence.count(step, data)
    if counts is None:
        return None
    return promotion.prevalence_finding(**asdict(counts), limits=step.schema.gates)


def _recalibrate(step: Context[Promote], data: StepRun) -> Result:
    """Judge the recalibrated champion.

    Another share of outcomes is a reason to recalibrate, so it does not stop this as it stops training.
    """
    incumbents = champion.incumbents(step, data)

    def judge(recalibrated: Recalibrated, fitted: StepRun) -> Result:
        _measure(step, recalibrated, fitted, data)
        evaluated = StepRun("evaluate", step.run_id, fitted.result_digest, {})
        case = Case(data, fitted, evaluated, incumbents, judging_rows=recalibrated.judge)
        return _settle(step, case, None)

    return recalibrate.recalibrate(step, data, incumbents, judge)


def _measure(step: Context[Promote], recalibrated: Recalibrated, fitted: StepRun, data: StepRun) -> None:
    """Write the figures of a recalibrated model on the rows that judge it, and the terms of a glass box."""
    model, kind = recalibrated.model, data.tags["data_kind"]
    features = recalibrated.judge[list(step.schema.feature_names)]
    outcome, risk = (
        recalibrated.judge[TARGET_COLUMN].to_numpy(),
        families.predict_risk(model, features),
    )
    has_settings = tracking.has_artifacts(step.client, step.run_id, (FITTED_FILE,))
    settings = step.fetch_json(step.run_id, FITTED_FILE)["hyperparameters"] if has_settings else {}
    positives = int(outcome.sum())
    measured = evaluation.evaluate(
        scored_rows(outcome, risk, recalibrated.judge),
        step.schema,
        recalibrated.threshold,
        evaluation.Bootstrap(step.values.seed, step.values.replicates),
        about=evaluation.About(
            evaluation_document.ModelFacts(
                name=registered_name(step.schema, kind),
                family=fitted.tags["family"],
                role="recalibrated",
                run_id=step.run_id,
                digest=fitted.result_digest,
                calibration=fitted.tags["recalibration"],
                hyperparameters=settings,
                preference=fitted.tags.get("preference"),
                synthetic=fitted.tags["synthetic"] == "true",
            ),
            evaluation_document.DataFacts(
                len(outcome), positives, positives / max(1, len(outcome)), kind, data.result_digest
            ),
            terms=terms.sizes(model) if isinstance(model, Terms) else (),
        ),
        predict=lambda frame: families.predict_risk(model, frame),
    )
    step.log_json("evaluation.json", evaluation_document.to_json(measured))
    if isinstance(model, Terms):
        about = measured.model
        pages = model_terms.pages(model, step.schema, name=about.name or "", synthetic=about.synthetic)
        for file, text in zip(TERMS_FILES, pages, strict=True):
            step.log_text(file, text)


def _case(step: Context[Promote], data: StepRun, share: Finding | None) -> Case:
    """The candidate of this chain, trained now if necessary."""
    above = step.chain.results_above("promote", step.values)
    fitted = above[FITTED_BY[step.values.model]]
    accepted = None
    if share is not None and share.outcome == "undecided":
        accepted = Approval(approval.user(step), step.values.why)
    return Case(data, fitted, above["evaluate"], champion.incumbents(step, data), accepted)


def _judged_before(step: Context[Promote], case: Case) -> Attempt | None:
    """The attempt that judged this candidate against the same champion, anchor and limits, or None."""
    pair = attempts.pair_of(case.fitted.result_digest, case.data.result_digest)
    limits = asdict(step.schema.gates)
    incumbents = case.incumbents
    judged = attempts.judged_by(pair, incumbents.champion_number, incumbents.anchor_number, limits)
    run = attempts.same(step.client, judged)
    return None if run is None else attempts.read(step.client, run.info.run_id, step.scratch)


# ---------------------------------------------------------------- judging


def _judge(step: Context[Promote], case: Case, share: Finding | None) -> tuple[Attempt, list[str]]:
    """Judge a candidate by its figures: an attempt that is not recorded yet, and lines for a person."""
    measured = _evaluation(step, case.evaluated.run_id)
    pair = attempts.pair_of(case.fitted.result_digest, case.data.result_digest)
    compared = case.incumbents.champion is not None and not case.behaves_like_champion
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
        kinds=attempts.kinds_of(case.fitted.tags, champion.run_tags(step, case.incumbents.champion)),
        champion=case.incumbents.champion_number,
        anchor=case.incumbents.anchor_number,
        candidate=case.fitted.result_digest,
        test_rows=case.data.result_digest,
        candidate_run_id=case.fitted.run_id,
        evaluate_run_id=case.evaluated.run_id,
        moves_anchor=case.incumbents.champion is None or decision.moves_anchor,
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

    `moves_anchor`: a promotion also moves the anchor, because the candidate is proven better than the anchor
    or the anchor cannot score these rows.
    """

    verdict: Literal["promoted", "refused", "undecided"]
    reason: Reason | None
    explanation: str
    findings: tuple[Finding, ...] = ()
    events: int | None = None
    moves_anchor: bool = False


def _decide(step: Context[Promote], case: Case, measured: Evaluation, number: int) -> Decision:
    """Judge a candidate by its figures; a model with the champion's behaviour is promoted without."""
    if case.behaves_like_champion:
        explanation = f"it answers as version {case.incumbents.champion_number} does, only packages changed"
        return Decision("promoted", None, explanation)
    rows = prepared.load(step.cache, case.data.result_digest)
    if case.judging_rows is not None:
        rows = {"test": case.judging_rows}
    judged = candidate.judge(
        saved.load(step.fetch(case.fitted.run_id, "model")),
        [champion.load(step, role, version) for role, version in case.incumbents.by_role],
        rows["test"],
        step.schema,
        {group.name for group in measured.subgroups},
        number,
    )
    judgement = judged.judgement
    findings = judgement.findings
    if case.incumbents.champion is None and judgement.reason == "events":
        findings = (*findings, _cross_validated(step, case, rows))
    moves_anchor = judgement.beats_anchor or "anchor" in judged.not_compared
    if judged.not_compared and judgement.verdict != "refused":
        role, reason = next(iter(judged.not_compared.items()))
        return Decision("undecided", role, reason, findings, moves_anchor=moves_anchor)
    explanation = "" if judgement.verdict == "promoted" else _explained(judgement)
    return Decision(
        judgement.verdict, judgement.reason, explanation, findings, judgement.events, moves_anchor
    )


def _cross_validated(step: Context[Promote], case: Case, rows: Mapping[str, pd.DataFrame]) -> Finding:
    """The cross-validated ROC AUC, which is shown where the test part is too small."""
    import pandas as pd

    settings = dict(step.values.hyperparameters)
    if step.values.model == "tuned":
        settings = step.fetch_json(case.fitted.run_id, "best.json")["hyperparameters"]
    all_rows = pd.concat(list(rows.values()), ignore_index=True)
    family = case.fitted.tags["family"]
    return candidate.cross_validated(family, settings, all_rows, step.schema, step.values.seed)


def _table(findings: Sequence[Finding]) -> list[str]:
    """A table of the requirements that do not hold; of all with GATES=all in the environment."""
    rows = [finding for finding in findings if finding.outcome in ("refused", "undecided")]
    if os.environ.get("GATES") == "all":
        rows = list(findings)
    return [table.terminal_table(rows)] if rows else []


def _explained(judged: Judgement) -> str:
    """Why a candidate is refused or undecided, in one line."""
    findings = [finding for finding in judged.findings if finding.outcome == judged.verdict]
    text = "; ".join(f"{finding.name}: {finding.detail} (limit {finding.limit})" for finding in findings)
    if judged.events is not None:
        text += f". It would take about {judged.events:,} people with the outcome in the test part"
    return text


def _share_line(share: Finding | None, acceptance: Approval | None) -> list[Finding]:
    """The share of outcomes as a finding; one that a person accepted is only shown and decides nothing."""
    if share is None or acceptance is None:
        return [] if share is None else [share]
    detail = f"{share.detail}; accepted by {acceptance.user}: {acceptance.why}"
    return [replace(share, outcome="shown", detail=detail)]


def _value(findings: Sequence[Finding], name: str) -> float | None:
    return next((finding.value for finding in findings if finding.name == name), None)


def _requirement(finding: Finding) -> Requirement:
    return Requirement(**asdict(finding))


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
    """Limits that the monitor needs as well, as version tags: the release writes them to `reference.json`."""
    floor = step.schema.gates.roc_auc_min
    return {} if floor is None else {"roc_auc_min": str(floor)}


# ---------------------------------------------------------------- concluding


def _unchanged(step: Context[Promote], case: Case, tags: Mapping[str, str]) -> Result:
    """Conclude that the champion is this model already, and renew the floors that it is monitored by."""
    number = case.incumbents.champion_number
    for tag, floor in _floors(step).items():
        step.client.set_model_version_tag(case.name, number, tag, floor)
    report_run = tags.get("promote_run_id", case.evaluated.run_id)
    line = f"promote: version {number} of {case.name} is @champion already; nothing to change"
    return verdict.conclude(step, case.verdict("unchanged", step, report_run_id=report_run), [line])


def _refuse_rolled_back(step: Context[Promote], case: Case, version: ModelVersion) -> Result:
    """Refuse a model that a person rolled back as this version."""
    explanation = (
        f"version {version.version} of {case.name} is this model, and somebody rolled it back; to promote it "
        f"nevertheless, remove that version's tag {rollback.ROLLED_BACK} in the registry (`make ui`)"
    )
    refusal = case.verdict(
        "refused",
        step,
        reason="rolled_back",
        explanation=explanation,
        report_run_id=version.tags.get("promote_run_id", case.evaluated.run_id),
    )
    return verdict.conclude(step, refusal, [f"promote: refused. {explanation}"])


def _conclude(step: Context[Promote], case: Case, attempt: Attempt, lines: Sequence[str]) -> Result:
    """Carry out the verdict of an attempt, also of one that was recorded and then interrupted."""
    fields: dict[str, Any] = {
        "reason": attempt.reason,
        "explanation": attempt.explanation,
        "attempt": attempt.number,
        "events": attempt.events,
        "requirements": attempt.requirements,
        "approval": attempt.approval,
        "report_run_id": attempt.run_id,
    }
    champion_before = case.incumbents.champion_number
    if attempt.verdict == "promoted":
        version = champion.install(step, attempt)
        anchor = version if attempt.moves_anchor else case.incumbents.anchor_number
        decision = case.verdict("promoted", step, champion=version, anchor=anchor, **fields)
        line = champion.promoted_line(version, champion_before, attempt)
        return verdict.conclude(step, decision, [*lines, line])
    outcome = (
        f"version {champion_before} stays @champion of {case.name}"
        if champion_before
        else f"{case.name} has no champion yet"
    )
    remedy = None
    if attempt.verdict == "undecided":
        remedy = f'mlflow run . -e promote -P approve={attempt.candidate_run_id} -P why="..."'
        outcome += f". A person can decide: {remedy}"
    decision = case.verdict(attempt.verdict, step, remedy=remedy, **fields)
    line = f"promote: {attempt.verdict}. {attempt.explanation}. {outcome}"
    return verdict.conclude(step, decision, [*lines, line])


def _describe(step: Context[Promote], attempt: Attempt) -> None:
    """Write report and card again, with requirements, record of change and, in a chain, the baseline."""
    measured = _evaluation(step, str(attempt.evaluate_run_id))
    other_run_id = step.chain.handed_over().get(BESIDE)
    beside = [_evaluation(step, other_run_id)] if other_run_id else []
    paired = _paired(step, attempt, beside[0]) if beside else None
    findings = [Finding(**asdict(line)) for line in attempt.requirements]
    record = attempts.history(step.client, attempt.model, step.scratch)
    history = [tuple(asdict(attempts.in_words(past)).values()) for past in record]
    step.log_text(
        "report.html", report.render_report([measured, *beside], requirements=findings, paired=paired)
    )
    step.log_text("model_card.md", report.render_card(measured, requirements=findings, history=history))
    evaluated = str(attempt.evaluate_run_id)
    if evaluated != step.run_id and tracking.has_artifacts(step.client, evaluated, TERMS_FILES):  # linked
        for name in TERMS_FILES:
            step.log_text(name, step.fetch(evaluated, name).read_text(encoding="utf-8"))


def _paired(step: Context[Promote], attempt: Attempt, other_evaluation: Evaluation) -> Change:
    """The candidate against the other model of its chain, on the same test rows."""
    test = prepared.load(step.cache, str(attempt.test_rows), ("test",))["test"]
    features = test[list(step.schema.feature_names)]
    new, old = (
        families.predict_risk(saved.load(step.fetch(str(run_id), "model")), features)
        for run_id in (attempt.candidate_run_id, other_evaluation.model.run_id)
    )
    return compare(test[TARGET_COLUMN].to_numpy(), new, old, other_evaluation.threshold, {})


def _evaluation(step: Context[Promote], run_id: str) -> Evaluation:
    return evaluation_document.from_json(step.fetch_json(run_id, "evaluation.json"))


if __name__ == "__main__":
    from steps.chain import process

    sys.exit(process.execute("promote", work))
