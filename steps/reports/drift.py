"""The report of a drift comparison: one self-contained HTML file, the verdict first.

All its content comes from the document of `steps.measures.drift_document`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steps.measures import drift, drift_verdict
from steps.reports import html, svg

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from steps.data.schema import Schema
    from steps.measures.drift_document import DriftReport, FeatureDrift, Realised, ShareChange, Shift, Verdict

READS = ("templates/drift.html", "templates/report.css")

MEANING: Mapping[Verdict, str] = {
    "too_few": "There are too few rows to tell whether the data have changed since the training.",
    "quiet": "The data are like the training data.",
    "watch": "Something has moved; there is no sign that the model is worse for it.",
    "mend": "The data are broken. Nothing should be trained on them.",
    "recalibrate": "The model still ranks people as well as before, but its risks are off.",
    "retrain": "The model ranks people worse than a change of people explains.",
}
_TITLES: Mapping[Verdict, str] = {
    "too_few": "Too few rows",
    "quiet": "Quiet",
    "watch": "Watch",
    "mend": "Mend the data",
    "recalibrate": "Recalibrate",
    "retrain": "Retrain",
}
INDEPENDENCE = (
    "The evidence assumes that every row is another person. People who come repeatedly, a fixed list of "
    "patients, or a mix that changes with the weekday raise more false alarms than stated."
)
SELECTION = (
    "Labels are weighted by the labelled share of their band of risk. That is right only if labelling "
    "depends on the predicted risk alone."
)
_SHOWN_REASONS, _SHOWN_FEATURES = 6, 8
_SMALLEST_BAR = 0.0005


@dataclass(frozen=True)
class _Pictures:
    """SVG texts; `moved` by feature; `bands` and `columns` are empty where there is nothing to show."""

    psi: str
    score: str
    moved: Mapping[str, str]
    columns: str
    bands: str


def render(report: DriftReport, schema: Schema) -> str:
    """The report as one HTML document."""
    features = sorted(report.features, key=lambda feature: -feature.shift.psi)
    return (
        html.environment()
        .get_template("drift.html")
        .render(
            d=report,
            title=schema.title,
            word=_TITLES[report.verdict],
            meaning=MEANING[report.verdict],
            advice=drift_verdict.advice(report),
            notes=notes(report),
            columns={column.name: column for column in schema.columns},
            features=features,
            moved=[feature for feature in features if feature.shift.counts],
            pictures=_pictures(report, features),
            synthetic=report.model.synthetic or report.data.kind == "synthetic",
            worse={reason.kind for reason in report.reasons},
            independence=INDEPENDENCE,
            selection=SELECTION,
        )
    )


def summary(report: DriftReport) -> list[str]:
    """Lines for the terminal: the verdict, its reasons, advice and notes."""
    reasons = [reason.text for reason in report.reasons]
    hidden_count = len(reasons) - _SHOWN_REASONS
    shown = reasons[:_SHOWN_REASONS] + ([f"and {hidden_count} more"] if hidden_count > 0 else [])
    return [
        f"{report.verdict}. {MEANING[report.verdict]}",
        *(f"  because {reason}" if i == 0 else f"          {reason}" for i, reason in enumerate(shown)),
        *(f"  {line}" for line in drift_verdict.advice(report)),
        *(f"  note: {line}" for line in notes(report)),
    ]


def notes(report: DriftReport) -> list[str]:
    """Notes on the rows that change how the figures should be read."""
    sentences = []
    if drift.has_many_known_rows(report):
        assert report.known_rows is not None
        sentences.append(
            f"{html.percent(report.known_rows.share)} of the rows are in the training data too, "
            f"{html.percent(report.known_rows.by_chance)} would be by chance: figures with labels flatter "
            "the model"
        )
    if report.data.people_known and report.data.design_effect > 1:
        sentences.append(
            f"people come several times: {html.number(report.rows.read)} rows are worth "
            f"{html.number(report.rows.read / report.data.design_effect)} independent ones"
        )
    unseen = [feature.name for feature in report.features if feature.unseen.rises]
    if unseen:
        sentences.append(f"levels that no training row had: in {', '.join(unseen)}")
    return sentences


def _pictures(report: DriftReport, features: Sequence[FeatureDrift]) -> _Pictures:
    moved = [feature for feature in features if feature.shift.counts][:_SHOWN_FEATURES]
    highest = max([report.score.shift.high, *(feature.shift.high for feature in features)])
    parts = report.separability.columns if report.separability else ()
    return _Pictures(
        psi=svg.intervals(
            [
                *(_psi(feature.name, feature.shift) for feature in features),
                _psi("predicted risk", report.score.shift),
            ],
            0.0,
            max(0.06, 1.1 * highest),
            "PSI of each feature and of the predicted risk",
            report.limits.psi,
        ),
        score=svg.steps(
            report.score.then,
            [share or 0.0 for share in report.score.now],
            report.score.bins,
            "Predicted risks",
        ),
        moved={
            feature.name: svg.levels(_sides(feature), 1.0, [], f"{feature.name} in training and now")
            for feature in moved
        },
        columns=svg.bars(
            [(part.name, part.lost) for part in parts if part.lost > _SMALLEST_BAR],
            "ROC AUC lost when a column is shuffled",
        ),
        bands=_bands(report.realised) if report.realised else "",
    )


def _psi(label: str, shift: Shift) -> dict[str, Any]:
    return {
        "label": label,
        "value": shift.psi,
        "low": shift.low,
        "high": shift.high,
        "strong": shift.counts,
    }


def _bands(realised: Realised) -> str:
    """Observed share of each band of risk with its interval; the label has the band's mean risk."""
    rows = [
        {
            "label": f"{band.bin}, mean risk {html.percent(band.risk)}",
            "value": band.observed.value,
            "low": band.observed.low,
            "high": band.observed.high,
            "strong": band.risk is not None and not _covers(band.observed.low, band.observed.high, band.risk),
            "note": "not shown",
        }
        for band in realised.by_bin
        if band.labels != 0
    ]
    highest = max([band.observed.high or 0.0 for band in realised.by_bin])
    return svg.intervals(
        rows, 0.0, max(0.01, highest), "Observed share by band of predicted risk", as_percent=True
    )


def _covers(low: float | None, high: float | None, value: float) -> bool:
    return low is None or high is None or low <= value <= high


def _sides(feature: FeatureDrift) -> list[dict[str, Any]]:
    """Shares in training and now, as columns for `svg.levels`."""

    def level(label: str, share: float | None) -> dict[str, Any]:
        return {"label": label, "hidden": share is None, "rows": None, "share": share, "rate": None}

    def side(shares: Sequence[float | None], missing: float | None) -> dict[str, Any]:
        levels = [level(label, share) for label, share in zip(feature.labels, shares, strict=True)]
        return {"levels": levels, "missing": level("missing", missing)}

    change: ShareChange = feature.missing
    return [side(feature.then, change.then), side(feature.now, change.now)]
