"""People flagged, found and missed, by the groups of people in the schema (`monitor_by`).

Labels arrive for a selection of people. Each label is weighted by the inverse of the labelled share of its
group and class, flagged or not; that is right only if, within these, labelling depends on nothing else. A
figure exists only with 50 effective positives and negatives of the group (Kish, 1965) and with labels of each
class of ten people or more; a share of flagged people exists only from 50 people on. So a small group has no
figures.
"""

from __future__ import annotations

from monitoring.prometheus.performance import FEWEST_EFFECTIVE, LABEL_WINDOWS, POPULATED_ROWS
from monitoring.prometheus.promql import MODEL, Counted, Rule, day_windows, rule

ROWS = Counted(
    "group_predicted_window:model_group_rows:increase",
    "group_predicted:model_group_rows:increase1d",
    "model_group_rows_total",
    f"group, predicted, {MODEL}",
)
# `other` mixes versions of which nobody knows how many rows they had.
LABELS, RISKS = (
    Counted(
        f"{by}_window:{name}:increase",
        f"{by}:{name}:increase1d",
        f'{name}_total{{model_version!="other"}}',
        f"{labels}, {MODEL}",
    )
    for name, by, labels in (
        ("model_group_feedback", "group_outcome_predicted", "group, outcome, predicted"),
        ("model_group_feedback_risk_sum", "group_predicted", "group, predicted"),
    )
)
COUNTED = (ROWS, LABELS, RISKS)


def rules() -> list[Rule]:
    """Figures by group in the windows of labels."""
    group, classes = f"group, window, {MODEL}", f"group, predicted, window, {MODEL}"
    weighted = "group_outcome_predicted_window:model_group_feedback:weighted"
    effective = "group_window:model_group_feedback:effective_labels"
    labels, risks, rows = LABELS.name, RISKS.name, ROWS.name
    labelled = f"(sum by ({classes}) ({labels}) > 0)"
    weight = f"({rows} / on ({classes}) {labelled})"
    positives = f'sum by ({group}) ({weighted}{{outcome="1"}})'
    found_people = f'sum by ({group}) ({weighted}{{outcome="1",predicted="1"}})'
    people = f"sum by ({group}) ({rows})"
    enough = f"and on ({group}) {effective} >= {FEWEST_EFFECTIVE}"
    return [
        *(day_rule for counted in COUNTED for day_rule in day_windows(counted, LABEL_WINDOWS)),
        rule(
            "group_window:model_group_rows:flagged_ratio",
            f'sum by ({group}) ({rows}{{predicted="1"}}) / ({people} >= {FEWEST_EFFECTIVE})',
        ),
        rule(weighted, f"{labels} * on ({classes}) group_left () {weight}"),
        rule(
            effective,
            f"min by ({group}) (\n"
            f"  sum by (outcome, {group}) ({weighted}) ^ 2\n"
            f"  / (sum by (outcome, {group}) ({weighted} ^ 2 / ({labels} > 0)) > 0)\n)\n"
            f"unless on ({group}) ({rows} >= {POPULATED_ROWS} unless on ({classes}) {labelled})",
        ),
        rule("group_window:model_group_feedback:recall", f"{found_people} / ({positives} > 0)\n{enough}"),
        rule("group_window:model_group_feedback:positive_ratio", f"{positives} / ({people} > 0)\n{enough}"),
        rule(
            "group_window:model_group_feedback:expected_ratio",
            f"sum by ({group}) ({risks} * on ({classes}) {weight}) / ({people} > 0)\n{enough}",
        ),
    ]
