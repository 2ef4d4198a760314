"""`verdict.json`: the outcome of a promotion, for the person or program that acts on it.

It is written beside MLProject and into promote's run, whose tag `verdict` holds the decision in one word,
because exit codes do not survive `mlflow run`. A crash leaves no such file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from steps.chain.context import VERDICT, Result
from steps.data import atomic, documents

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from steps.chain.context import Context
    from steps.chain.values import Values

Decision = Literal["promoted", "unchanged", "refused", "undecided", "rolled_back"]
Outcome = Literal["passed", "refused", "undecided", "shown"]

# Why a model did not become champion: a requirement, too few people with the outcome, another share of
# outcomes, a champion or an anchor that cannot score these rows, or an earlier rollback of this model.
Reason = Literal["limits", "events", "prevalence", "champion", "anchor", "rolled_back"]

_FAILURES = ("refused", "undecided")


@dataclass(frozen=True)
class Requirement:
    """One requirement of a promotion: the figure with its interval, the limit in words, and the outcome.

    `events`: how many test rows with the outcome would decide it, where it is undecided.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    limit: str
    outcome: Outcome
    detail: str = ""
    events: int | None = None


@dataclass(frozen=True)
class Approval:
    """A person's decision where figures cannot decide. `user`: the name in MLflow or GitHub, not verified."""

    user: str
    why: str


@dataclass(frozen=True)
class Verdict:
    """The outcome of promote, or of main before it; None where a field does not apply.

    `champion` is the version after the decision, `champion_before` the version before it; `attempt` counts
    the attempts of the last 365 days. `explanation` is for a person, `remedy` a command that continues from
    here. `events`: how many test rows with the outcome a decision would take.
    """

    verdict: Decision
    model: str
    promote_run_id: str | None
    champion: str | None
    champion_before: str | None
    anchor: str | None = None
    reason: Reason | None = None
    explanation: str = ""
    remedy: str | None = None
    candidate_run_id: str | None = None
    evaluate_run_id: str | None = None
    report_run_id: str | None = None
    attempt: int | None = None
    events: int | None = None
    requirements: tuple[Requirement, ...] = ()
    approval: Approval | None = None

    @property
    def exit_code(self) -> int:
        """0 where the model is champion, 1 where it is not: refused and undecided."""
        return int(self.verdict in _FAILURES)


def conclude(step: Context[Values], verdict: Verdict, lines: Sequence[str]) -> Result:
    """End a step with a verdict: write it into the run, into its tag and, last, beside MLProject."""
    text = json.dumps(documents.to_json(verdict), indent=1) + "\n"
    step.log_text(VERDICT, text)
    step.tag({"verdict": verdict.verdict})
    atomic.write_text(step.project / VERDICT, text)
    return Result(lines=lines, exit_code=verdict.exit_code)


def read(project: Path) -> Verdict | None:
    """The verdict beside MLProject, or None where the last command wrote none.

    Raises UserError for a file that is not a promotion's verdict.
    """
    try:
        text = (project / VERDICT).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return documents.from_json(Verdict, json.loads(text), VERDICT)
