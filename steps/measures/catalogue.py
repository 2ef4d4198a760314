"""Every measure of an evaluation: its name, label, digits and meaning, in the order of the reports.

Van Calster and colleagues (2025, Lancet Digital Health 7:100916) recommend ROC AUC, calibration, net benefit
and the risks' distribution. Those lead. Sensitivity and specificity describe one threshold; Brier score and
log loss compare models on the same rows. Average precision, accuracy and F1 stand last, each with the reason.
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
        "observed_expected",
        "Observed / expected",
        2,
        "people with the outcome over the sum of risks; 1 is ideal, below 1 risks are high",
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
        "net_benefit",
        "Net benefit at the threshold",
        4,
        "people found per person, less false alarms at the price that the threshold sets",
    ),
    Measure("recall", "Recall (sensitivity)", 1, "of people with the outcome, how many are flagged", True),
    Measure("specificity", "Specificity", 1, "of the people without it, how many are not flagged", True),
    Measure("precision", "Positive predictive value", 1, "of the flagged, how many have the outcome", True),
    Measure(
        "negative_predictive_value",
        "Negative predictive value",
        1,
        "of those not flagged, how many do not have it",
        True,
    ),
    Measure("flagged", "Share flagged", 1, "of all people", True),
    Measure("brier", "Brier score", 4, "mean squared error of the risk; lower is better on the same rows"),
    Measure("log_loss", "Log loss", 4, "mean surprise in nats; lower is better on the same rows"),
    Measure(
        "average_precision",
        "Average precision",
        3,
        "moves with the prevalence, and values people who are rightly left alone at nothing",
        leads=False,
    ),
    Measure("accuracy", "Accuracy", 1, "counts a missed person and a false alarm alike", True, leads=False),
    Measure("f1", "F1", 3, "values people who are rightly left alone at nothing", leads=False),
)

BY_NAME = {measure.name: measure for measure in MEASURES}

# The measures that a terminal and a workflow's page have room for.
HEADLINES = (
    "roc_auc",
    "observed_expected",
    "calibration_slope",
    "net_benefit",
    "recall",
    "specificity",
    "precision",
    "negative_predictive_value",
    "flagged",
    "brier",
)
