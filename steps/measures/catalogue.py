"""Every measure of an evaluation: its name, its label, its digits and what it says, in the order shown.

The order follows what Van Calster and colleagues (2025, Lancet Digital Health 7:100916) recommend:
discrimination, calibration, overall performance of the risks, then clinical utility. Measures that a
decision threshold alone decides and that mislead where few people have the outcome stand last.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One measure: `name` is its field in `Performance`, `percent` whether it is shown as a percentage."""

    name: str
    label: str
    digits: int
    meaning: str
    percent: bool = False
    leads: bool = True


MEASURES: tuple[Measure, ...] = (
    Measure(
        "roc_auc",
        "ROC AUC",
        3,
        "chance that somebody with the outcome gets a higher risk than somebody without; a coin: 0.5",
    ),
    Measure(
        "calibration_slope",
        "Calibration slope",
        2,
        "1 is ideal; below 1 the risks are too extreme, above 1 too timid",
    ),
    Measure(
        "calibration_intercept",
        "Calibration intercept",
        2,
        "0 is ideal; above 0 the risks are too low on the whole",
    ),
    Measure(
        "observed_expected",
        "Observed / expected",
        2,
        "people with the outcome over the sum of risks; 1 is ideal, below 1 risks are high",
    ),
    Measure(
        "average_precision",
        "Average precision",
        3,
        "precision averaged over recall; guessing gives the prevalence",
    ),
    Measure("brier", "Brier score", 4, "mean squared error of the risk; lower is better"),
    Measure("log_loss", "Log loss", 4, "mean surprise in nats; lower is better"),
    Measure(
        "recall", "Recall (sensitivity)", 1, "of the people with the outcome, how many are flagged", True
    ),
    Measure("specificity", "Specificity", 1, "of the people without it, how many are not flagged", True),
    Measure(
        "precision",
        "Precision (positive predictive value)",
        1,
        "of the flagged, how many have the outcome",
        True,
    ),
    Measure("flagged", "Share flagged", 1, "of all people", True),
    Measure("accuracy", "Accuracy", 1, "does not lead: see the note", True, leads=False),
    Measure("f1", "F1", 3, "does not lead: see the note", leads=False),
)

BY_NAME = {measure.name: measure for measure in MEASURES}

# What a terminal and a workflow's page have room for.
HEADLINES = (
    "roc_auc",
    "average_precision",
    "brier",
    "calibration_slope",
    "observed_expected",
    "recall",
    "precision",
    "flagged",
)
