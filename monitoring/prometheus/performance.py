"""Performance of the model: expected without labels, and realised by late labels.

Labels arrive for a selection of people. Realised figures weight each label by the inverse of the labelled
share of its score bin; `steps/measures/selection.py` has the formulas, their sources and standard errors.
That is right only if, among people of one score bin, labelling depends on nothing but the risk. A figure
exists only with 50 effective positives and negatives and no populated bin without a label.

Calibration needs no weights: it is judged within bins, or of labelled rows against their own risks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from monitoring.prometheus import drift
from monitoring.prometheus.promql import (
    DAY_HOLDS,
    LN_10,
    LOG_GAMMA_CONSTANT,
    MODEL,
    Counted,
    Rule,
    below,
    block,
    day_windows,
    log_gamma,
    rule,
    short_windows,
)

LABEL_WINDOWS = ("1d", "7d", "30d", "90d")
# A newer window of labels and the longer ones that it can overrule.
NEWER = tuple((newer, longer) for i, newer in enumerate(LABEL_WINDOWS) for longer in LABEL_WINDOWS[i + 1 :])

# As in steps/measures/evidence.py and steps/measures/selection.py, which say why.
CALIBRATION_CONCENTRATION = 100
CALIBRATION_FLOOR = 0.015
SMALLEST_PRIOR = 1e-9
POPULATED_ROWS = 10
FEWEST_EFFECTIVE = 50
# Fewest rows for an expected figure.
FEWEST_ROWS = 300

SCORES = drift.Signal(
    "model_scores",
    "model_scores_total",
    "model_score_reference_rows",
    "",
    (*drift.DAYS, *LABEL_WINDOWS[1:]),
)
ROWS = SCORES.counted.name
SUMS = Counted(
    "bin_window:model_score_sum:increase",
    "bin:model_score_sum:increase1d",
    "model_score_sum_total",
    f"bin, {MODEL}",
)
BY_CLASS = {
    name: Counted(
        f"predicted_window:{name}:increase",
        f"predicted:{name}:increase1d",
        f"{name}_total",
        f"predicted, {MODEL}",
    )
    for name in ("model_predictions", "model_prediction_risk_sum", "model_prediction_variance_sum")
}
LABELS, RISKS, SQUARES = (
    Counted(
        f"bin_outcome_window:{name}:increase",
        f"bin_outcome:{name}:increase1d",
        f'{name}_total{{model_version!="other"}}',  # which mixes versions whose bins differ
        f"bin, outcome, {MODEL}",
    )
    for name in ("model_feedback", "model_feedback_risk_sum", "model_feedback_squared_risk_sum")
)

DELAYS = Counted(
    "",
    "le:model_feedback_delay_seconds:increase1d",
    "model_feedback_delay_seconds_bucket",
    f"le, {MODEL}",
)

_BY_WINDOW, _BY_BIN = f"sum by (window, {MODEL})", f"sum by (bin, window, {MODEL})"
_AT_WINDOW, _AT_BIN = f"on (window, {MODEL})", f"on (bin, window, {MODEL})"
FLAGGED = "bin:model_scores:flagged"
EFFECTIVE = "window:model_feedback:effective_labels"


def counted() -> list[Counted]:
    """Counters of scores, predictions and labels, in windows."""
    return [SCORES.counted, SUMS, *BY_CLASS.values(), LABELS, RISKS, SQUARES, DELAYS]


def score_day_rules() -> list[Rule]:
    """Scores and predictions in windows of days."""
    return [
        *drift.day_rules(SCORES),
        *day_windows(SUMS, SCORES.days),
        *(day_rule for counted in BY_CLASS.values() for day_rule in day_windows(counted, drift.DAYS)),
    ]


def roc_auc(rows: str, lower: str, total: str) -> str:
    """PromQL for ROC AUC by window from `rows` and `lower` by bin and outcome and `total` by outcome.

    A pair in the right order counts 1, one within a bin 1/2 (Mann and Whitney).
    """
    negatives_below = f'({lower}{{outcome="0"}} + 0.5 * {rows}{{outcome="0"}})'
    pairs = f'({total}{{outcome="1"}} * ignoring (outcome) {total}{{outcome="0"}} > 0)'
    return f'{_BY_WINDOW} ({rows}{{outcome="1"}} * {_AT_BIN} {negatives_below})\n/ {pairs}'


def _hanley_mcneil(auc: str, total: str) -> str:
    """PromQL for the standard error of a ROC AUC of independent rows (Hanley and McNeil, 1982)."""
    positives, negatives = f'{total}{{outcome="1"}}', f'{total}{{outcome="0"}}'
    variance = (
        f"{auc} * (1 - {auc})\n"
        f"+ ({auc} / (2 - {auc}) - {auc} ^ 2) * {_AT_WINDOW} ({positives} - 1)\n"
        f"+ (2 * {auc} ^ 2 / (1 + {auc}) - {auc} ^ 2) * {_AT_WINDOW} ({negatives} - 1)"
    )
    return f"sqrt(clamp_min({block(variance)} / {_AT_WINDOW} {positives} / {_AT_WINDOW} {negatives}, 0))"


def score_rules() -> list[Rule]:
    """Drift of the score, positive rate, and expected performance without labels (CBPE)."""
    rows, total = "bin_outcome_window:model_expected:rows", "outcome_window:model_expected:rows"
    lower = "bin_outcome_window:model_expected:rows_below"
    predictions, risks, variances = (counted.name for counted in BY_CLASS.values())
    auc = "window:model_expected:roc_auc"
    flagged = f'{predictions}{{predicted="1"}}'
    true_positives, false_negatives = f'{risks}{{predicted="1"}}', f'{risks}{{predicted="0"}}'
    everyone = f"(sum by (window, {MODEL}) ({predictions}) > 0)"
    enough = f"and {_AT_WINDOW} {_BY_WINDOW} ({predictions}) >= {FEWEST_ROWS}"
    unlabelled = "ignoring (predicted)"
    return [
        *drift.rules(SCORES),
        *short_windows(SUMS, drift.SHORT),
        *(short_rule for counted in BY_CLASS.values() for short_rule in short_windows(counted, drift.SHORT)),
        rule("window:model_predictions:positive_ratio", f"{_BY_WINDOW} ({flagged}) / {everyone}"),
        # A calibrated model's n rows with risks summing to s hold s positives.
        rule(rows, SUMS.name, outcome="1"),
        rule(rows, f"clamp_min({ROWS} - {SUMS.name}, 0)", outcome="0"),
        rule(total, f"sum by (outcome, window, {MODEL}) ({rows})"),
        rule(lower, below(rows, f"outcome, window, {MODEL}")),
        rule(auc, f"{roc_auc(rows, lower, total)}\n{enough}"),
        rule(f"{auc}_stderr", _hanley_mcneil(auc, total)),
        rule(
            "window:model_expected:accuracy",
            f'({true_positives} + {unlabelled} {predictions}{{predicted="0"}}\n'
            f" - {unlabelled} {false_negatives})\n"
            f"/ {_AT_WINDOW} {everyone}\n{enough}",
        ),
        rule(
            "window:model_expected:accuracy_stderr",
            f"sqrt({_BY_WINDOW} ({variances})) / {everyone}\n{enough}",
        ),
        rule(
            "window:model_expected:recall",
            f"{_BY_WINDOW} ({true_positives}) / ({_BY_WINDOW} ({risks}) > 0)\n{enough}",
        ),
        rule(
            "window:model_expected:precision",
            f"{_BY_WINDOW} ({true_positives}) / ({_BY_WINDOW} ({flagged}) > 0)\n{enough}",
        ),
    ]


def label_rules() -> list[Rule]:
    """Realised performance and calibration from late labels, and how late they are."""
    return [
        *(
            day_rule
            for counted in (LABELS, RISKS, SQUARES)
            for day_rule in day_windows(counted, LABEL_WINDOWS)
        ),
        rule(
            FLAGGED,
            f"max by (bin, {MODEL}) (last_over_time(model_score_bin_lower_edge[1h]))\n"
            f">= bool on ({MODEL}) group_left () "
            f"(max by ({MODEL}) (last_over_time(model_decision_threshold[1h])) - 1e-9)",
        ),
        *realised_rules(),
        *calibration_rules(),
        *(
            rule(
                "quantile:model_feedback_delay_seconds:increase1d",
                f"histogram_quantile({quantile}, last_over_time({DELAYS.days}[{DAY_HOLDS}]))",
                quantile=quantile,
            )
            for quantile in ("0.5", "0.9")
        ),
    ]


def realised_rules() -> list[Rule]:
    """Figures of everybody, from labels weighted by the inverse of the labelled share of their score bin."""
    labels, risks, squares = LABELS.name, RISKS.name, SQUARES.name
    weighted, total = "bin_outcome_window:model_feedback:weighted", "outcome_window:model_feedback:weighted"
    lower, influence = f"{weighted}_below", "bin_outcome_window:model_feedback:influence"
    auc, recall = "window:model_feedback:roc_auc", "window:model_feedback:recall"
    ratio = "window:model_feedback:observed_expected_ratio"
    by_bin, everyone = f"({_BY_BIN} ({labels}) > 0)", "window:model_feedback:labels"
    weight = f"({ROWS} / {_AT_BIN} {by_bin})"
    positives, negatives = f'{total}{{outcome="1"}}', f'{total}{{outcome="0"}}'
    known_rows = f"({_BY_WINDOW} ({ROWS} and {_AT_BIN} {by_bin}) > 0)"
    expected = f"({_BY_WINDOW} ({SUMS.name} and {_AT_BIN} {by_bin}) > 0)"
    enough = f"and {_AT_WINDOW} ({EFFECTIVE} >= {FEWEST_EFFECTIVE})"
    per_window = f"{_AT_WINDOW} group_left ()"
    flagged = f"on (bin, {MODEL}) group_left () {FLAGGED}"
    flagged_positives = f'{_BY_WINDOW} ({weighted}{{outcome="1"}} * {flagged})'
    # Squared errors: (outcome - risk)^2 summed is squares - 2 risks of positives + positives.
    squared = (
        f'{_BY_BIN} ({squares}) - {_AT_BIN} 2 * {_BY_BIN} ({risks}{{outcome="1"}})'
        f' + {_AT_BIN} {_BY_BIN} ({labels}{{outcome="1"}})'
    )
    distance = f'abs({_BY_BIN} ({labels}{{outcome="1"}}) - {_AT_BIN} {_BY_BIN} ({risks}))'
    negatives_below = f'{lower}{{outcome="0"}} + {weighted}{{outcome="0"}} / 2'
    positives_above = f'{lower}{{outcome="1"}} + {weighted}{{outcome="1"}} / 2'
    risk_share = f"({SUMS.name} / {_AT_BIN} ({ROWS} > 0) * {per_window} {ratio} / {per_window} {expected})"

    def figure(name: str, influences: Sequence[tuple[str, str]]) -> list[Rule]:
        """Influences of a positive and a negative by bin, and the standard error that follows from them."""
        chosen = f'{influence}{{figure="{name}"}}'
        return [
            *(rule(influence, expr, figure=name, outcome=outcome) for outcome, expr in influences),
            rule(f"window:model_feedback:{name}_stderr", _weighted_stderr(chosen, labels)),
        ]

    return [
        rule(everyone, f"{_BY_WINDOW} ({labels})"),
        rule(weighted, f"{labels} * {_AT_BIN} group_left () {weight}"),
        rule(total, f"sum by (outcome, window, {MODEL}) ({weighted})"),
        # Kish 1965; absent where a populated bin has no label, since nobody knows of those people.
        rule(
            EFFECTIVE,
            f"min by (window, {MODEL}) (\n  {total} ^ 2\n"
            f"  / (sum by (outcome, window, {MODEL}) ({weighted} ^ 2 / ({labels} > 0)) > 0)\n)\n"
            f"unless {_AT_WINDOW} ({ROWS} >= {POPULATED_ROWS} unless {_AT_BIN} {by_bin})",
        ),
        rule(lower, below(weighted, f"outcome, window, {MODEL}")),
        rule(auc, f"{roc_auc(weighted, lower, total)}\n{enough}"),
        *figure(
            "roc_auc",
            [
                (
                    "1",
                    (
                        f"(({negatives_below}) / {per_window} {negatives} - {per_window} {auc})\n"
                        f"/ {per_window} {positives}"
                    ),
                ),
                (
                    "0",
                    (
                        f"(1 - ({positives_above}) / {per_window} {positives} - {per_window} {auc})\n"
                        f"/ {per_window} {negatives}"
                    ),
                ),
            ],
        ),
        rule(recall, f"{flagged_positives} / {_AT_WINDOW} ({positives} > 0)\n{enough}"),
        *figure(
            "recall",
            [
                (
                    "1",
                    (
                        f'(0 * {weighted}{{outcome="1"}} + {flagged} - {per_window} {recall})\n'
                        f"/ {per_window} {positives}"
                    ),
                ),
                ("0", f'0 * {weighted}{{outcome="0"}}'),
            ],
        ),
        rule(
            "window:model_feedback:precision",
            f"{flagged_positives} / ({_BY_WINDOW} ({weighted} * {flagged}) > 0)\n{enough}",
        ),
        rule(ratio, f"({positives} / ignoring (outcome) {expected})\n{enough}"),
        *figure(
            "observed_expected_ratio",
            [
                (
                    "1",
                    f'0 * {weighted}{{outcome="1"}} - {_AT_BIN} {risk_share} + {per_window} (1 / {expected})',
                ),
                ("0", f'0 * {weighted}{{outcome="0"}} - {_AT_BIN} {risk_share}'),
            ],
        ),
        rule(
            "window:model_feedback:positive_ratio", f"{positives} / ignoring (outcome) {known_rows}\n{enough}"
        ),
        rule(
            "window:model_feedback:brier",
            f"{_BY_WINDOW} (({squared}) * {_AT_BIN} {weight}) / {known_rows}\n{enough}",
        ),
        # Weighted too; it is the effect that a calibration alarm asks for, and is shown from 100 labels on.
        rule(
            "window:model_feedback:calibration_error",
            f"{_BY_WINDOW} ({distance} * {_AT_BIN} {weight}) / {known_rows}",
        ),
    ]


def _weighted_stderr(influence: str, labels: str) -> str:
    """PromQL for the standard error of a weighted figure: see steps/measures/selection.py."""
    labelled, positives = f"({_BY_BIN} ({labels}) > 0)", f'{_BY_BIN} ({labels}{{outcome="1"}})'
    smooth = f"(({positives} + 0.5) / {_AT_BIN} ({labelled} + 1))"
    a, c = (influence.replace("}", f',outcome="{outcome}"}}') for outcome in "10")
    rate = f"({positives} / {_AT_BIN} {labelled})"
    mean = f"({rate} * {_AT_BIN} ({a}) + {_AT_BIN} (1 - {rate}) * {_AT_BIN} ({c}))"
    spread = f"({smooth} * {_AT_BIN} (1 - {smooth}))"
    by_labels = f"{ROWS} ^ 2 * {_AT_BIN} {spread} * {_AT_BIN} ({a} - {_AT_BIN} {c}) ^ 2"
    return (
        f"sqrt(\n  {_BY_WINDOW} ({by_labels} / {_AT_BIN} {labelled})\n"
        f"  + {_BY_WINDOW} ({ROWS} * {_AT_BIN} {mean} ^ 2)\n)"
    )


def calibration_rules() -> list[Rule]:
    """Evidence that outcomes do not follow the risks, bin by bin and for all labels together (bin="all")."""
    observed, expected = (
        "bin_outcome_window:model_calibration:observed",
        "bin_outcome_window:model_calibration:expected",
    )
    rows, risk_sums = "bin_window:model_calibration:labels", "bin_window:model_calibration:risk_sum"
    by_bin, evidence = "bin_window:model_calibration:evidence", "window:model_calibration:evidence"
    mended, error = (
        "newer_window:model_calibration:mended_evidence",
        "window:model_feedback:calibration_error",
    )
    per_bin, everyone = f"{_AT_BIN} group_left ()", "window:model_feedback:labels"
    prior = block(
        f"clamp_min({CALIBRATION_CONCENTRATION} * {expected}\n/ {per_bin} ({rows} > 0), {SMALLEST_PRIOR})"
    )

    concentration = CALIBRATION_CONCENTRATION
    log_gamma_of_all = math.lgamma(concentration) + concentration + LOG_GAMMA_CONSTANT

    def with_all(series: str, by: str) -> str:
        pooled = f'label_replace(sum by ({by}) ({series}), "bin", "all", "", "")'
        return f"sum by (bin, {by}) ({series})\nor {pooled}"

    def rates(newer: str, longer: str) -> tuple[str, str]:
        """Risks of the newer window's labels, and rates of the outcomes before, drawn to their risks."""
        now, all_ = (f'{{window="{window}",bin!="all"}}' for window in (newer, longer))

        def before(series: str, labels: str) -> str:
            return f"({series}{all_} - on ({labels}) {series}{now})"

        outcomes, before_rows = f"bin, outcome, {MODEL}", before(rows, f"bin, {MODEL}")
        per_label = f"on (bin, {MODEL}) group_left ()"
        risk = f"({before(expected, outcomes)} / {per_label} ({before_rows} > 0))"
        rate = f"(({before(observed, outcomes)} + {risk}) / {per_label} ({before_rows} + 1))"
        return f"({expected}{now} / {per_bin} ({rows}{now} > 0))", rate

    def said(newer: str, longer: str) -> str:
        """Evidence that outcomes follow the risks again, where the longer window rings: as for drift."""
        well, ill = rates(newer, longer)
        return (
            f'sum by ({MODEL}) ({observed}{{window="{newer}",bin!="all"}} * on (bin, outcome, {MODEL})\n'
            f"  ln(clamp_min({well}, {SMALLEST_PRIOR})"
            f" / on (bin, outcome, {MODEL}) clamp_min({ill}, {SMALLEST_PRIOR})))\n"
            f"/ {LN_10} >= {drift.MENDED_LOG10}\n"
            f'and on ({MODEL}) ({error}{{window="{longer}"}} >= {CALIBRATION_FLOOR})\n'
            f'and on ({MODEL}) ({evidence}{{window="{longer}"}} >= on ({MODEL}) {drift.LIMIT})'
        )

    return [
        rule(observed, with_all(LABELS.name, f"outcome, window, {MODEL}")),
        rule(rows, f"sum by (bin, window, {MODEL}) ({observed})"),
        rule(risk_sums, with_all(RISKS.name, f"window, {MODEL}")),
        rule(expected, risk_sums, outcome="1"),
        rule(expected, f"clamp_min({rows} - {risk_sums}, 0)", outcome="0"),
        # log10 of P(outcomes | rate drawn from Beta around the mean risk) / P(outcomes | mean risk).
        rule(
            by_bin,
            block(
                f"sum by (bin, window, {MODEL}) "
                + block(
                    f"{block(log_gamma(f'({prior} + {observed})'))}\n- {block(log_gamma(prior))}\n"
                    f"- {observed} * ln({prior} / {CALIBRATION_CONCENTRATION})"
                )
                + f"\n- {block(log_gamma(f'({CALIBRATION_CONCENTRATION} + {rows})'))}\n"
                + f"+ {log_gamma_of_all}"
            )
            + f" / {LN_10}",
        ),
        # The larger of two costs a factor of 2; 0 without labels.
        rule(
            evidence,
            f'max by (window, {MODEL}) (\n  {_BY_WINDOW} ({by_bin}{{bin!="all"}})\n'
            f'  or label_replace({_BY_WINDOW} ({by_bin}{{bin="all"}}), "aspect", "pooled", "", "")\n'
            f") - {math.log10(2)}\nor 0 * {everyone}",
        ),
        *(rule(mended, said(newer, longer), newer=newer, window=longer) for newer, longer in NEWER),
        rule(
            "version:model_calibration:alarm",
            f"max by ({MODEL}) (\n"
            f"  {evidence} * ({error} >= bool {CALIBRATION_FLOOR})\n"
            f"  unless {_AT_WINDOW} {drift.silenced(mended, NEWER)}\n"
            f"  or 0 * {everyone}\n)",
        ),
    ]
