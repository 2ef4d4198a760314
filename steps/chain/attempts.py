"""The record of change: one document in the store for every attempt to replace a champion.

An attempt is a pair of candidate and test rows that was not judged before. Its document is the artifact
`attempt.json` of promote's run; tags of that run let the store find it without reading artifacts. An approval
writes a document of its own, with the figures that were approved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from steps.chain import tracking
from steps.chain.fingerprint import Fingerprint, digest
from steps.chain.verdict import Approval, Reason, Requirement
from steps.data import documents

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from steps.chain.context import Context
    from steps.chain.values import Values

DOCUMENT = "attempt.json"
YEAR = timedelta(days=365)

# What differs from the champion; "first" where there is no champion.
Kind = Literal["first", "data", "code", "pins", "hyperparameters", "recalibration", "none"]

_MODEL, _PAIR, _DIGEST, _CANDIDATE = "attempt.model", "attempt.pair", "attempt.judged", "attempt.candidate"


@dataclass(frozen=True)
class Attempt:
    """One attempt, as the record of change keeps it.

    `at`: ISO 8601, UTC. `number`: of the last 365 days, 0 where nothing was compared. `kinds`: what differs
    from the champion. `candidate` and `test_rows` are the digests that make the pair, None where the attempt
    ended before a model was fitted. `limits`: the gates of the schema. `moves_anchor`: a promotion moves the
    anchor to the candidate. `anchor_change`: ROC AUC minus the anchor's. `version_tags`: the tags of the
    registered version, so that an approval needs this document alone.
    """

    at: str
    run_id: str
    model: str
    verdict: Literal["promoted", "refused", "undecided"]
    reason: Reason | None
    explanation: str
    number: int
    kinds: tuple[Kind, ...]
    champion: str | None
    anchor: str | None
    candidate: str | None = None
    test_rows: str | None = None
    candidate_run_id: str | None = None
    evaluate_run_id: str | None = None
    moves_anchor: bool = False
    anchor_change: float | None = None
    events: int | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    requirements: tuple[Requirement, ...] = ()
    version_tags: Mapping[str, str] = field(default_factory=dict)
    accepted_prevalence: Approval | None = None
    approval: Approval | None = None

    @property
    def pair(self) -> str:
        """Digest of candidate and test rows; empty where nothing was compared."""
        return pair_of(self.candidate, self.test_rows) if self.candidate and self.test_rows else ""

    @property
    def judged(self) -> str:
        """Digest of the pair, the models that it was compared with, and the limits."""
        return judged_by(self.pair, self.champion, self.anchor, self.limits)


def pair_of(candidate: str, test_rows: str) -> str:
    """Digest of candidate and test rows, by which attempts are counted."""
    return digest([candidate, test_rows])


def judged_by(pair: str, champion: str | None, anchor: str | None, limits: Mapping[str, Any]) -> str:
    """Digest of a pair, the models that it was compared with, and the limits: these decide the verdict."""
    return digest([pair, champion, anchor, limits])


def keep(step: Context[Values], attempt: Attempt) -> None:
    """Write an attempt into this run: the document first, then the tags by which it is found."""
    step.log_json(DOCUMENT, documents.to_json(attempt))
    step.tag(
        {
            _MODEL: attempt.model,
            _PAIR: attempt.pair if attempt.number else "",
            _DIGEST: attempt.judged,
            _CANDIDATE: attempt.candidate_run_id or "",
        }
    )


def read(client: MlflowClient, run_id: str, folder: Path) -> Attempt:
    """The attempt of a run; `folder` takes the downloaded file."""
    target = folder / f"attempt-{run_id}"
    target.mkdir(exist_ok=True)
    document = Path(client.download_artifacts(run_id, DOCUMENT, str(target)))
    return documents.from_json(Attempt, json.loads(document.read_text(encoding="utf-8")), DOCUMENT)


def history(client: MlflowClient, model: str, folder: Path) -> list[Attempt]:
    """Every attempt of a registered model, oldest first."""
    runs = tracking.tagged_runs(client, {_MODEL: model})
    return [read(client, run.info.run_id, folder) for run in reversed(runs)]


def number_of(client: MlflowClient, model: str, pair: str, moment: datetime) -> int:
    """The number of an attempt among those of the last 365 days, itself included; a pair counts once."""
    since = int((moment - YEAR).timestamp() * 1000)
    runs = tracking.tagged_runs(client, {_MODEL: model})
    pairs = {run.data.tags[_PAIR] for run in runs if run.info.start_time >= since}
    return len((pairs | {pair}) - {""})


def same(client: MlflowClient, judged: str) -> Run | None:
    """The newest run whose attempt has this digest (`Attempt.judged`), or None."""
    runs = tracking.tagged_runs(client, {_DIGEST: judged}, limit=1)
    return runs[0] if runs else None


def of_candidate(client: MlflowClient, run_id: str) -> Run | None:
    """The newest run with an attempt of this candidate, or None."""
    runs = tracking.tagged_runs(client, {_CANDIDATE: run_id}, limit=1)
    return runs[0] if runs else None


def kinds_of(candidate: Mapping[str, str], champion: Mapping[str, str] | None) -> tuple[Kind, ...]:
    """The differences between two fitted models, from the tags of their runs."""
    if champion is None:
        return ("first",)
    if "recalibrated_from" in candidate:
        return ("recalibration",)
    if not all("fingerprint.code" in tags for tags in (candidate, champion)):
        return ("data", "code")
    new, old = Fingerprint.from_tags(candidate), Fingerprint.from_tags(champion)
    return tuple(_differences(new, old)) or ("none",)


def _differences(new: Fingerprint, old: Fingerprint) -> Iterator[Kind]:
    if new.inputs != old.inputs:
        yield "data"
    if new.code != old.code:
        yield "code"
    if new.versions != old.versions:
        yield "pins"
    if new.parameters != old.parameters:
        yield "hyperparameters"


def now() -> str:
    """The current time in UTC, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Words:
    """An attempt in the words of a predetermined change control plan (FDA, 2024)."""

    when: str
    modification: str
    protocol: str
    impact: str
    decision: str


def in_words(attempt: Attempt) -> Words:
    """An attempt as a line of the record of change."""
    lines = {line.name: line for line in attempt.requirements}
    changes = [line for line in attempt.requirements if line.name.startswith("change of ROC AUC")]
    impact = "; ".join(
        f"{line.name.removeprefix('change of ')} {line.value:+.4f} ({line.low:+.4f} to {line.high:+.4f})"
        for line in changes
        if line.value is not None and line.low is not None and line.high is not None
    )
    alone = lines.get("ROC AUC")
    if not impact and alone is not None and alone.value is not None:
        impact = f"ROC AUC {alone.value:.4f} (first model)"
    decision: str = attempt.verdict
    if attempt.approval is not None:
        decision += f", approved by {attempt.approval.user}: {attempt.approval.why}"
    elif attempt.verdict != "promoted":
        decision += f" ({attempt.reason}): {attempt.explanation}"
    if attempt.accepted_prevalence is not None:
        decision += f"; share of outcomes accepted by {attempt.accepted_prevalence.user}: "
        decision += attempt.accepted_prevalence.why
    candidate = f"candidate {attempt.candidate_run_id}" if attempt.candidate_run_id else "no candidate"
    protocol = f"attempt {attempt.number} of 365 days, " if attempt.number else ""
    protocol += "not compared" if not attempt.requirements else f"{len(attempt.requirements)} requirements"
    if attempt.champion is not None:
        protocol += f", champion version {attempt.champion}, anchor version {attempt.anchor}"
    return Words(
        attempt.at.replace("T", " ")[:16],
        f"{', '.join(attempt.kinds)}; {candidate}",
        protocol,
        impact or "–",
        decision,
    )
