"""The report of an evaluation and the model card, rendered from evaluations alone.

Both templates are in `steps/reports/templates/`. The report is one self-contained HTML file; the card is
Markdown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from steps.measures.catalogue import BY_NAME, MEASURES
from steps.measures.evaluation_document import (
    FEW_EVENTS,
    Cell,
    DataFacts,
    Evaluation,
    ModelFacts,
    threshold_odds,
)
from steps.measures.intervals import Z
from steps.reports import plots, svg
from steps.reports.checklists import PROBAST_AI, TRIPOD_AI
from steps.reports.html import environment, number, percent, words

if TYPE_CHECKING:
    from steps.measures.comparison import Change
    from steps.measures.promotion import Finding

_TERMS = 15  # of an additive model; terms.html has all
READS = (
    "templates/report.html",
    "templates/report.css",
    "templates/promotion.html",
    "templates/model_card.md",
    "templates/missing_answers.html",
    "templates/missing_answers.md",
)

GROUPS = {
    "true_positives": "flagged, have the outcome",
    "false_positives": "flagged, do not have it",
    "false_negatives": "not flagged, have the outcome",
    "true_negatives": "not flagged, do not have it",
}
KINDS = {
    "synthetic": "synthetic people, who do not exist",
    "public": "a public data set, known by its checksum",
    "private": "private data",
}


USES = {
    "train": "the model is fitted to these",
    "validation": "calibration, threshold and score bins are chosen on these",
    "test": "every figure of this report",
}
DECLARATIONS = {
    "ethics": "Ethics",
    "funding": "Funding",
    "conflicts": "Conflicts of interest",
    "protocol": "Protocol",
    "registration": "Registration",
    "involvement": "Patients and public",
}
CHECKLISTS = (
    ("tripod", "TRIPOD+AI: where each item is answered", TRIPOD_AI),
    ("probast", "PROBAST+AI: where a judgement finds what it needs", PROBAST_AI),
)


def render_report(
    evaluations: Sequence[Evaluation],
    *,
    requirements: Sequence[Finding] = (),
    paired: Change | None = None,
) -> str:
    """The report as one HTML document.

    The first evaluation is the subject; others on the same rows, such as a baseline, are shown beside it.
    `requirements` of a promotion, and `paired`, the comparison of the subject with the second model, are
    shown where given. Raises ValueError without an evaluation.
    """
    if not evaluations:
        raise ValueError("a report needs at least one evaluation")
    subject = evaluations[0]
    overall = subject.metrics.roc_auc
    axis = svg.whisker_axis([overall, *(group.roc_auc for group in subject.subgroups)], overall.value or 0.5)
    return (
        environment()
        .get_template("report.html")
        .render(
            **_shared(subject),
            others=evaluations[1:],
            requirements=requirements,
            paired=_paired_lines(paired),
            checklists=CHECKLISTS,
            any_few=any(group.few for group in subject.subgroups),
            axis=axis,
            figures={
                "calibration": plots.calibration(subject),
                "decision": plots.decision_curve(subject),
                "distribution": plots.distribution(subject, "with the outcome", "without the outcome"),
                "roc": plots.roc(subject),
                "icons": svg.icon_array(vars(subject.per_1000), GROUPS),
            },
            whisker=svg.whisker,
        )
    )


def render_card(
    evaluation: Evaluation, *, requirements: Sequence[Finding] = (), history: Sequence[Sequence[str]] = ()
) -> str:
    """The model card (Mitchell et al. 2019) as Markdown.

    `requirements` of a promotion, and `history`: date, modification, verification protocol, impact and
    decision of each attempt to replace a champion.
    """
    card = environment().get_template("model_card.md")
    return card.render(**_shared(evaluation), requirements=requirements, history=history)


def wrong_cells(evaluation: Evaluation) -> list[Cell]:
    """Cells whose interval of observed / expected excludes 1, the furthest from it first."""

    def distance(cell: Cell) -> float:
        ratio = cell.observed_expected.value
        return abs(math.log(ratio)) if ratio else math.inf

    wrong = [
        cell
        for cell in evaluation.cells
        if cell.observed_expected.low is not None
        and cell.observed_expected.high is not None
        and not cell.observed_expected.low <= 1 <= cell.observed_expected.high
    ]
    return sorted(wrong, key=distance, reverse=True)


def _paired_lines(change: Change | None) -> list[str]:
    """Differences of two models on the same rows, with paired 95 % intervals."""
    if change is None:
        return []
    lines = []
    for label, figure, factor, digits in (
        ("ROC AUC", change.roc_auc_change, 1, 4),
        ("log loss", change.log_loss_change, 1, 5),
        ("net benefit of 1,000 people", change.net_benefit_change, 1000, 1),
    ):
        ends = [number(factor * end, digits, signed=True) for end in figure.interval(Z)]
        lines.append(f"{label} {number(factor * figure.value, digits, signed=True)} ({' to '.join(ends)})")
    return lines


def _threshold_rule(model: ModelFacts) -> str:
    """A sentence about the choice of the threshold."""
    if model.role == "recalibrated":
        return "That threshold is the earlier one, moved as the risks were: the same people are flagged."
    if model.threshold_odds is not None:
        odds = number(model.threshold_odds, 1)
        return f"That threshold follows from the decision that one person found is worth {odds} false alarms."
    if model.recall_target is not None:
        share = percent(model.recall_target, 0)
        return f"It was chosen on other rows so as to find {share} of the people with the outcome."
    return ""


def _shared(evaluation: Evaluation) -> dict[str, Any]:
    gaps = sorted(evaluation.subgroups, key=lambda group: group.roc_auc_difference.value or 0.0, reverse=True)
    return {
        "e": evaluation,
        "card": evaluation.schema.card,
        "smooth": evaluation.curves.smooth_calibration,
        "odds": threshold_odds(evaluation),
        "threshold_rule": _threshold_rule(evaluation.model),
        "uses": USES,
        "meaning_of": {feature.name: feature.meaning for feature in evaluation.features},
        "shown_terms": evaluation.terms[:_TERMS],
        "declarations": DECLARATIONS,
        "wrong_cells": wrong_cells(evaluation),
        "few": FEW_EVENTS,
        "measures": MEASURES,
        "meanings": {name: measure.meaning for name, measure in BY_NAME.items()},
        "groups": GROUPS,
        "origin": KINDS.get(evaluation.data.kind, "private data"),
        "always_no": 1 - evaluation.data.prevalence,
        "headline_groups": [group for group in evaluation.subgroups if group.headline],
        "widest_gaps": gaps[:3],
        "facts": {"Model": _facts(evaluation.model), "Test rows": _facts(evaluation.data)},
    }


def _facts(about: ModelFacts | DataFacts) -> list[tuple[str, str]]:
    """The known facts as text; times are seconds since 1970 in UTC."""
    facts = []
    for key, value in vars(about).items():
        if value is None or value is False or isinstance(value, tuple) or value == "" or value == {}:
            continue
        if key in ("family", "role"):
            text = words(value)
        elif key == "recall_target":
            text = percent(value, 0)
        elif key.endswith("_at"):
            text = datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M UTC")
        elif isinstance(value, bool):
            text = "yes"
        elif isinstance(value, float):
            text = number(value, 4)
        elif isinstance(value, Mapping):
            text = ", ".join(f"{words(name)} {_plain(part)}" for name, part in value.items())
        else:
            text = f"{value:,}" if isinstance(value, int) else str(value)
        facts.append((words(key.removesuffix("_at")), text))
    return facts


def _plain(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
