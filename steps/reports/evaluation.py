"""The report for a reader and the card of a model, rendered from evaluations alone.

Both templates lie in `steps/reports/templates/`. The report is one HTML file that loads nothing from
anywhere; the card is Markdown.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steps.reports import plots

if TYPE_CHECKING:
    from jinja2 import Environment

    from steps.measures.gates import Gate

READS = ("templates/report.html", "templates/report.css", "templates/model_card.md")

TEMPLATES = Path(__file__).parent / "templates"

# Every metric in the order of the report: name, label, digits, in percent.
METRICS: tuple[tuple[str, str, int, bool], ...] = (
    ("roc_auc", "ROC AUC", 3, False),
    ("calibration_slope", "Calibration slope", 2, False),
    ("calibration_intercept", "Calibration intercept", 2, False),
    ("observed_expected", "Observed / expected", 2, False),
    ("average_precision", "Average precision", 3, False),
    ("brier", "Brier score", 4, False),
    ("log_loss", "Log loss", 4, False),
    ("recall", "Recall (sensitivity)", 1, True),
    ("specificity", "Specificity", 1, True),
    ("precision", "Precision (positive predictive value)", 1, True),
    ("flagged", "Share flagged", 1, True),
    ("accuracy", "Accuracy", 1, True),
    ("f1", "F1", 3, False),
)
MEANINGS = {
    "roc_auc": "chance that somebody with the outcome gets a higher risk than somebody without; a coin: 0.5",
    "calibration_slope": "1 is ideal; below 1 the risks are too extreme, above 1 too timid",
    "calibration_intercept": "0 is ideal; above 0 the risks are too low on the whole",
    "observed_expected": "people with the outcome over the sum of risks; 1 is ideal, below 1 risks are high",
    "average_precision": "precision averaged over recall; guessing gives the prevalence",
    "brier": "mean squared error of the risk; lower is better",
    "log_loss": "mean surprise in nats; lower is better",
    "recall": "of the people with the outcome, how many are flagged",
    "specificity": "of the people without it, how many are not flagged",
    "precision": "of the flagged, how many have the outcome",
    "flagged": "of all people",
    "accuracy": "does not lead: see the note",
    "f1": "does not lead: see the note",
}
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


def render_report(
    evaluations: Sequence[Mapping[str, Any]],
    *,
    comparison: Mapping[str, Any] | None = None,
    gates: Sequence["Gate"] = (),
) -> str:
    """The report as one HTML document.

    The first evaluation is the subject; others on the same rows (the baseline, say) stand beside it.
    `comparison` (from `evaluation.compare`) and `gates` are shown where given. Raises ValueError without any
    evaluation.
    """
    if not evaluations:
        raise ValueError("a report needs at least one evaluation")
    subject = evaluations[0]
    subgroups = [group for group in subject["subgroups"] if not group["suppressed"]]
    whole = subject["metrics"]["roc_auc"]
    axis = plots.whisker_axis([whole, *(group["roc_auc"] for group in subgroups)], whole["value"])
    return (
        _environment()
        .get_template("report.html")
        .render(
            **_shared(subject),
            others=evaluations[1:],
            comparison=comparison,
            gates=gates,
            axis=axis,
            figures={
                "calibration": plots.calibration(subject),
                "decision": plots.decision_curve(subject),
                "distribution": plots.distribution(subject, "with the outcome", "without the outcome"),
                "roc": plots.roc(subject),
                "icons": plots.icon_array(subject["per_1000"], GROUPS),
            },
            whisker=plots.whisker,
        )
    )


def render_card(evaluation: Mapping[str, Any], *, gates: Sequence["Gate"] = ()) -> str:
    """The model card (Mitchell et al. 2019) as Markdown."""
    return _environment().get_template("model_card.md").render(**_shared(evaluation), gates=gates)


def _shared(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    shown = [group for group in evaluation["subgroups"] if not group["suppressed"]]
    gaps = sorted(shown, key=lambda group: group["roc_auc_difference"]["value"] or 0.0, reverse=True)
    return {
        "e": evaluation,
        "metrics": METRICS,
        "meanings": MEANINGS,
        "groups": GROUPS,
        "origin": KINDS.get(evaluation["data"].get("kind", "private"), "private data"),
        "always_no": 1 - evaluation["data"]["prevalence"],
        "headline_groups": [group for group in shown if group["headline"]],
        "widest_gaps": gaps[:3],
        "suppressed": [group["name"] for group in evaluation["subgroups"] if group["suppressed"]],
        "facts": {"Model": _facts(evaluation["model"]), "Test rows": _facts(evaluation["data"])},
    }


def _facts(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was handed along, as words; times are seconds since 1970 in UTC."""
    facts = []
    for key, value in about.items():
        if value is None or isinstance(value, Mapping | list | tuple):
            continue
        if key.endswith("_at") and isinstance(value, int | float):
            text = datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M UTC")
        elif isinstance(value, bool):
            text = "yes" if value else "no"
        elif isinstance(value, float):
            text = _number(value, 4)
        else:
            text = f"{value:,}" if isinstance(value, int) else str(value)
        facts.append((key.removesuffix("_at").replace("_", " "), text))
    return facts


def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        number=_number,
        percent=_percent,
        estimate=_estimate,
        spread=_spread,
        words=lambda name: str(name).replace("_", " "),
        cell=lambda text: str(text).replace("|", "\\|"),
        sentence=_sentence,
    )
    return environment


def _number(value: float | None, digits: int = 0, signed: bool = False) -> str:
    """A number for a reader, with a real minus sign; a dash where it is undefined."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:{'+' if signed else ''},.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{_number(100 * value, digits)} %"


def _estimate(estimate: Mapping[str, Any], digits: int, percent: bool = False) -> str:
    """Value and interval: 0.827 (0.823 to 0.832)."""
    value = _percent(estimate["value"], digits) if percent else _number(estimate["value"], digits)
    return f"{value} ({_spread(estimate, digits, percent)})"


def _spread(estimate: Mapping[str, Any], digits: int, percent: bool = False) -> str:
    """The interval alone: 0.823 to 0.832."""
    factor = 100 if percent else 1
    low, high = (None if estimate[key] is None else factor * estimate[key] for key in ("low", "high"))
    return f"{_number(low, digits)} to {_number(high, digits)}"


def _sentence(text: str) -> str:
    """The text with one full stop at its end and a capital at its start."""
    stripped = text.strip().rstrip(".")
    return f"{stripped[:1].upper()}{stripped[1:]}."
