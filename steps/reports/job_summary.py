"""A run as a workflow's page shows it: Markdown with tables, and charts in Mermaid, which GitHub draws.

Job summaries show neither data URIs nor inline SVG, so they cannot have the figures of the report.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steps.measures.catalogue import BY_NAME, HEADLINES
from steps.measures.evaluation_document import Evaluation
from steps.measures.promotion import Finding
from steps.reports.html import number, spread
from steps.reports.promotion import Outcome

if TYPE_CHECKING:
    from steps.data.profile import Profile
    from steps.measures.drift_document import DriftReport

_ANYWAY = "Training goes on: new labels are reason enough."
_NO_TRAINING = (
    "Nothing is trained: that would teach the fault. Mend the data and start again, or start the chain by "
    "hand (mlflow run .)."
)
_RECALIBRATION = (
    "The champion is recalibrated first, by two numbers; it is trained again if that is not enough."
)
SYNTHETIC = "> These figures are of synthetic people: they say nothing of anybody's health.\n"


@dataclass(frozen=True)
class Out:
    """The destination of a summary and of outputs: files that GitHub names, or the terminal."""

    summary: str | None
    outputs: str | None

    def add(self, text: str) -> None:
        """Append Markdown to the summary."""
        if not self.summary:
            print(text, flush=True)
        elif text:
            with Path(self.summary).open("a", encoding="utf-8") as file:
                file.write(text + "\n")

    def set(self, **values: str) -> None:
        """Set outputs of a workflow's step; the last value wins. Raises ValueError for several lines."""
        lines = [f"{name}={value}" for name, value in values.items()]
        if any("\n" in line for line in lines):
            raise ValueError("an output has one line")
        if not self.outputs:
            print("\n".join(f"output: {line}" for line in lines), flush=True)
        else:
            with Path(self.outputs).open("a", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")


def occasion(event: str, reason: str, action: str, digest: str, last: str | None) -> str:
    """The start of the workflow, and the action that follows. `reason` is foreign text, so shown as code."""
    rows = [
        ("started by", event),
        ("reason given", f"`{_harmless(reason)}`" if reason else "–"),
        ("data", f"`{digest[:16]}`"),
        ("data of the last training", f"`{last[:16]}`" if last else "none"),
    ]
    return f"## Retraining: {action}\n\n{_table(('what', 'value'), rows)}"


def drift(report: DriftReport | None) -> str:
    """The drift of the new data and its consequence; None where it could not be measured."""
    if report is None:
        return f"## Drift\n\nIt could not be measured; the log says why. {_ANYWAY}\n"
    listed = "\n".join(f"* {_harmless(reason.text)}" for reason in report.reasons[:10])
    act = {"mend": _NO_TRAINING, "recalibrate": _RECALIBRATION}.get(report.verdict, _ANYWAY)
    verdict = report.verdict.replace("_", " ")
    return f"## Drift of the new data: {verdict}\n\n{listed or '* nothing stands out'}\n\n{act}\n"


def recalibrated(promoted: bool) -> str:
    """The result of the recalibration."""
    if promoted:
        return "## Recalibrated\n\nTwo numbers of the champion were enough: nothing is trained.\n"
    return (
        "## Recalibration was not enough\n\nThe recalibrated model was not promoted, so training goes on.\n"
    )


def trained(outcome: Outcome, evaluation: Evaluation | None) -> str:
    """Verdict, requirements, measures and pictures of a chain; no evaluation where nothing was trained."""
    parts = [f"## {outcome.verdict.capitalize()}: {_harmless(outcome.sentence)}\n"]
    if outcome.remedy is not None:
        parts.append(f"A person can decide: `{_harmless(outcome.remedy)}`\n")
    if evaluation is not None and evaluation.synthetic:
        parts.append(SYNTHETIC)
    if outcome.requirements:
        parts.append(_requirements(outcome.requirements))
    if evaluation is not None:
        parts += [_measures(evaluation), _calibration(evaluation), _roc(evaluation)]
    return "\n".join(parts)


def checked(profile: Profile, kind: str, digest: str, published: bool) -> str:
    """Rows and broken rules of a data set after preprocessing: counts only."""
    rows = [(name, _count(count)) for name, count in asdict(profile.rows).items()]
    where = (
        "uploaded: every row comes from a source listed as synthetic or public"
        if published
        else "not uploaded: these rows are private"
    )
    problems = [
        (f"`{_harmless(problem.column)}`", _harmless(problem.rule), _count(problem.rows))
        for problem in profile.problems
    ]
    return (
        f"## Data: {kind}, `{digest[:16]}`\n\n{_table(('part', 'rows'), rows)}\n"
        + (
            _table(("column", "rule broken", "rows"), problems) + "\n"
            if problems
            else "No row breaks the schema.\n\n"
        )
        + f"The processed data set is {where}.\n"
    )


def _requirements(findings: Sequence[Finding]) -> str:
    rows = [
        (
            finding.name,
            number(finding.value, 4),
            "–" if finding.low is None else spread(finding, 4),
            finding.limit or "–",
            finding.outcome if finding.outcome in ("passed", "shown") else f"**{finding.outcome}**",
            _harmless(finding.detail),
        )
        for finding in findings
    ]
    return _table(("requirement", "value", "interval", "limit", "outcome", "detail"), rows)


def _measures(evaluation: Evaluation) -> str:
    rows = []
    for name in HEADLINES:
        estimate = getattr(evaluation.metrics, name)
        rows.append((BY_NAME[name].label, number(estimate.value, 4), spread(estimate, 4)))
    return _table((f"on {evaluation.data.rows:,} test rows", "value", "95 % interval"), rows)


def _calibration(evaluation: Evaluation) -> str:
    groups = evaluation.curves.calibration
    highest = max([0.1, *(max(group.predicted, group.observed) for group in groups)])
    return _chart(
        "Calibration: observed share (bars) and predicted risk (line), groups by rising risk",
        [str(i + 1) for i in range(len(groups))],
        "risk",
        highest,
        bars=[group.observed for group in groups],
        line=[group.predicted for group in groups],
    )


def _roc(evaluation: Evaluation) -> str:
    curve = evaluation.curves.roc
    steps = [i / 20 for i in range(21)]
    recall = [_interpolated(curve.false_positive_rate, curve.recall, x) for x in steps]
    return _chart(
        "ROC curve: recall by false positive rate", [f"{x:.2f}" for x in steps], "recall", 1.0, line=recall
    )


def _interpolated(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    for i in range(1, len(xs)):
        if xs[i] >= x:
            width = xs[i] - xs[i - 1]
            return ys[i] if width == 0 else ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / width
    return ys[-1]


def _chart(
    title: str,
    labels: Sequence[str],
    axis: str,
    top: float,
    bars: Sequence[float] = (),
    line: Sequence[float] = (),
) -> str:
    labels_text = ", ".join(f'"{label}"' for label in labels)
    series = [
        f"  {kind} [{', '.join(f'{value:.4f}' for value in values)}]"
        for kind, values in (("bar", bars), ("line", line))
        if len(values)
    ]
    top = math.ceil(top * 20) / 20
    head = [f'  title "{title}"', f"  x-axis [{labels_text}]", f'  y-axis "{axis}" 0 --> {top:g}']
    return "\n".join(["```mermaid", "xychart-beta", *head, *series, "```", ""])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return (
        "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in lines)
        + "\n"
    )


def _count(rows: object) -> str:
    """A count with a thousands separator; a profile hides small counts."""
    return f"{rows:,}" if isinstance(rows, int) else "few"


def _harmless(text: str) -> str:
    """Foreign text on one line, without characters that Markdown or HTML would interpret."""
    plain = "".join(" " if c in "`<>[]|\\" or not c.isprintable() else c for c in text)
    return " ".join(plain.split())[:500]
