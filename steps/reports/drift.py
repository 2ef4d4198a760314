"""The report of a drift comparison: one HTML file that loads nothing from anywhere, the verdict first.

It says nothing that is not in the document of `steps.measures.drift`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from steps.measures import drift
from steps.reports import html, svg

if TYPE_CHECKING:
    from steps.data.schema import Schema

READS = ("templates/drift.html", "templates/report.css")

MEANING = {
    "quiet": "The data are what the model knows.",
    "watch": "Something has moved or arrives broken; nothing says yet that the model is worse for it.",
    "retrain": "The model is, or is expected to be, worse; or these are other people than it was trained on.",
}


def render(found: Mapping[str, Any], schema: Schema, *, run: str = "") -> str:
    """The report as one HTML document."""
    return (
        html.environment()
        .get_template("drift.html")
        .render(
            d=found,
            title=schema.title,
            meaning=MEANING[found["verdict"]],
            advice=drift.advice(found),
            columns={column.name: column for column in schema.columns},
            features=sorted(found["features"], key=lambda feature: -feature["psi"]),
            moved=[f for f in sorted(found["features"], key=lambda f: -f["psi"]) if f["drifted"]],
            pictures=_pictures(found),
            synthetic=bool(found["model"]["synthetic"]) or found["data"]["kind"] == "synthetic",
            run=run,
            worse={reason["about"] for reason in found["reasons"]},
        )
    )


def summary(found: Mapping[str, Any]) -> list[str]:
    """Lines for whoever waits at the terminal: the verdict, its reasons, what to do."""
    reasons = [reason["text"] for reason in found["reasons"]]
    shown = reasons[:6] + ([f"and {len(reasons) - 6} more"] if len(reasons) > 6 else [])
    return [
        f"{found['verdict']}. {MEANING[found['verdict']]}",
        *(f"  because {reason}" if i == 0 else f"          {reason}" for i, reason in enumerate(shown)),
        *(f"  {line}" for line in drift.advice(found)),
    ]


def _pictures(found: Mapping[str, Any]) -> dict[str, Any]:
    moved = sorted((f for f in found["features"] if f["drifted"]), key=lambda f: -f["psi"])
    pictures: dict[str, Any] = {
        "psi": svg.intervals(
            [
                {
                    "label": feature["name"],
                    "value": feature["psi"],
                    "low": feature["low"],
                    "high": feature["high"],
                    "strong": feature["drifted"],
                }
                for feature in [
                    *sorted(found["features"], key=lambda f: -f["psi"]),
                    {**found["score"], "name": "predicted risk"},
                ]
            ],
            0.0,
            max(0.06, 1.1 * max([found["score"]["high"], *(f["high"] for f in found["features"])])),
            "PSI of each feature and of the predicted risk",
            found["limits"]["psi_watch"],
        ),
        "moved": {
            feature["name"]: svg.levels(
                _sides(feature["labels"], feature["then"], feature["now"], feature["missing"]),
                1.0,
                [],
                f"{feature['name']} in training and now",
            )
            for feature in moved[:8]
        },
        "score": svg.steps(
            found["score"]["then"], found["score"]["now"], found["score"]["bins"], "Predicted risks"
        ),
    }
    if found["domain"]:
        parts = [part for part in found["domain"]["columns"] if part["lost"] > 0.0005]
        pictures["domain"] = svg.bars(
            [(part["name"], part["lost"]) for part in parts], "ROC AUC lost when a column is shuffled"
        )
    return pictures


def _sides(labels: Any, then: Any, now: Any, missing: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Shares in training and now as columns that `drawing.levels` takes."""

    def level(label: str, share: float | None) -> dict[str, Any]:
        return {"label": label, "hidden": share is None, "rows": None, "share": share, "rate": None}

    return [
        {
            "levels": [level(label, share) for label, share in zip(labels, shares, strict=True)],
            "missing": level("missing", lacking),
        }
        for shares, lacking in ((then, missing["then"]), (now, missing["now"]))
    ]
