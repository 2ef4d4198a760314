"""The dashboard *Model*: does it still rank people well, and do outcomes follow its risks?"""

from __future__ import annotations

from dataclasses import replace

from monitoring.grafana.alerts import queries, thresholds
from monitoring.grafana.boards.service import VERSION_CHANGE
from monitoring.grafana.boards.variables import BESIDE, SCORE_BINS, SHOWN, VERSION, beside, happened, shown
from monitoring.grafana.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Look,
    Panel,
    Range,
    Scale,
    Size,
    Words,
    above,
    chart,
    dashboard,
    graph,
    options,
    query,
    reliability,
    row,
    stat,
    style,
    table,
    verdict,
)
from monitoring.prometheus.drift import WINDOWS
from monitoring.prometheus.performance import LABEL_WINDOWS
from monitoring.prometheus.promql import MODEL

UID = "model"
_TRAFFIC = 'window="$window"'
_LABELS = 'window="$labels"'
_AT = f"on ({MODEL})"
_FEWEST_IN_A_BIN = 10
_DAYS = Scale(unit="suffix: days")  # of seconds, Grafana makes weeks such as 1.65
_EVIDENT = 2  # log10: a hundred to one
_OUTCOME = {
    "type": "value",
    "options": {
        "0": {"text": "outcome: no", "index": 0},
        "1": {"text": "outcome: yes", "index": 1},
    },
}


_SELECTION = (
    "Labels are weighted by how completely their score bin is labelled: right if labelling depends on the"
    " risk alone."
)


def _well() -> list[Panel]:
    # 0 is below the floor with certainty, 1 its point estimate alone, 2 above.
    above_floor: list[Range] = [
        (None, 0.5, "BELOW FLOOR", RED),
        (0.5, 1.5, "AT THE FLOOR", ORANGE),
        (1.5, None, "GOOD", GREEN),
    ]
    return [
        verdict(
            "Ranking, expected",
            "ROC AUC that the risks of today's people promise, two standard errors allowed, against "
            "the floor.",
            _floor_state("expected", queries.EXPECTED_BEST, "1d"),
            above_floor,
        ),
        verdict(
            "Ranking, realised",
            "ROC AUC by late labels, two standard errors allowed, against the floor.",
            _floor_state("feedback", queries.REALISED_BEST, "30d"),
            above_floor,
            nothing="too few labels",
        ),
        verdict(
            "Calibrated",
            "Do outcomes follow the risks? Evidence against it, with the limit of one false alarm a year.",
            f"max({queries.CALIBRATION})",
            [
                (None, 0.5, "YES", GREEN),
                (0.5, thresholds.EVIDENCE_ALARM, "WATCH", ORANGE),
                (thresholds.EVIDENCE_ALARM, None, "NO", RED),
            ],
            nothing="no labels",
        ),
        verdict(
            "Drift with harm",
            "Has the data drifted, and ROC AUC dropped by more than its uncertainty and 0.02?",
            f"max(({queries.HARM}) > bool {thresholds.ROC_AUC_DROP})\n"
            f"+ max({queries.WORST_DRIFT} >= bool {thresholds.EVIDENCE_ALARM})",
            [(0, 0.5, "NO DRIFT", GREEN), (0.5, 1.5, "DRIFT, NO HARM", ORANGE), (1.5, None, "HARM", RED)],
        ),
        stat(
            "Age of the model",
            f"Since the training. From {thresholds.OLDEST_MODEL_DAYS} days on an alert asks for a look.",
            shown("version:model_age:seconds"),
            scale=Scale(
                unit="s",
                decimals=0,
                steps=above(
                    0.75 * thresholds.OLDEST_MODEL_DAYS * thresholds.DAY,
                    thresholds.OLDEST_MODEL_DAYS * thresholds.DAY,
                ),
            ),
        ),
        stat(
            "Labels",
            "Late labels of the last 7 days.",
            'sum(window:model_feedback:labels{window="7d"})',
            scale=Scale(unit="locale", decimals=0, steps=((None, ORANGE), (100, BLUE)), nothing="none"),
        ),
    ]


def _floor_state(kind: str, best: str, window: str) -> str:
    """0 below the floor with two standard errors, 1 below it by its point estimate, 2 above."""
    auc = f'window:model_{kind}:roc_auc{{window="{window}"}}'
    at = "on (model_name, model_version)"
    return f"min({best} >= bool {at} {queries.FLOOR})\n+ min({auc} >= bool {at} {queries.FLOOR})"


def _realised(figure: str, errors: int = 0) -> str:
    """A figure of the late labels of the current version, moved by so many of its standard errors."""
    name = f"window:model_feedback:{figure}"
    if errors == 0:
        return shown(f"{name}{{{_LABELS}}}")
    error = f"{name}_stderr"
    sign = "-" if errors < 0 else "+"
    return shown(f"{name}{{{_LABELS}}} {sign} {abs(errors)} * {error}{{{_LABELS}}}")


def _banded(kind: str, window: str) -> list[Panel]:
    auc = f"window:model_{kind}:roc_auc"
    error = f"{thresholds.STANDARD_ERRORS} * {auc}_stderr{{{window}}}"
    return [
        query(shown(f"{auc}{{{window}}} + {error}"), "upper"),
        query(shown(f"{auc}{{{window}}} - {error}"), "lower"),
        query(shown(f"{auc}{{{window}}}"), "ROC AUC"),
        query(shown('model_floor{metric="roc_auc"}'), "floor"),
        query(shown('model_validation{metric="roc_auc"}'), "on validation rows"),
        beside(auc, window),
    ]


# The version beside the one that is served.
_OTHER = style("/^version/", color="purple", fill=0)
_BAND = [
    style("upper", color="semi-dark-blue", width=0, fill_below="lower", fill=20, hidden=True),
    style("lower", color="semi-dark-blue", width=0, fill=0, hidden=True),
    style("ROC AUC", color=BLUE, width=2, fill=0),
    style("floor", color=RED, dash=True, fill=0),
    style("on validation rows", color=GREY, dash=True, fill=0),
    _OTHER,
]


def _ranking() -> list[Panel]:
    return [
        row("Ranking"),
        graph(
            "ROC AUC expected without labels",
            "What the risks of the people who come promise, if they are still right: it sees a change"
            " of the people, never one of the illness. Band: two standard errors.",
            _banded("expected", _TRAFFIC),
            overrides=_BAND,
            scale=Scale(minimum=0.5, maximum=1, decimals=3),
        ),
        graph(
            "ROC AUC realised by late labels",
            f"From late labels. Band: two standard errors. No figure while there are fewer than 50 effective"
            f" positives or negatives, or people of whose risk none is labelled. {_SELECTION}",
            _banded("feedback", _LABELS),
            overrides=_BAND,
            scale=Scale(minimum=0.5, maximum=1, decimals=3),
        ),
        graph(
            "Expected accuracy, precision and recall",
            "At the decision threshold, from the risks alone. Accuracy with two standard errors.",
            [
                query(shown(f"window:model_expected:accuracy{{{_TRAFFIC}}}"), "accuracy"),
                query(
                    shown(
                        f"window:model_expected:accuracy{{{_TRAFFIC}}} - {thresholds.STANDARD_ERRORS}"
                        f" * window:model_expected:accuracy_stderr{{{_TRAFFIC}}}"
                    ),
                    "accuracy, at least",
                ),
                query(shown(f"window:model_expected:precision{{{_TRAFFIC}}}"), "precision"),
                query(shown(f"window:model_expected:recall{{{_TRAFFIC}}}"), "recall"),
                query(shown('model_validation{metric="recall"}'), "recall on validation rows"),
            ],
            look=Look(fill=0),
            overrides=[
                style("recall on validation rows", dash=True, color=GREY),
                style("accuracy, at least", dash=True),
            ],
            scale=Scale(unit="percentunit", maximum=1),
        ),
        graph(
            "Brier score",
            "Mean squared error of the risks by late labels; smaller is better. Dashed: on validation rows.",
            [
                query(_realised("brier"), "Brier score"),
                query(shown('model_validation{metric="brier"}'), "on validation rows"),
                beside("window:model_feedback:brier", _LABELS),
            ],
            look=Look(fill=0),
            overrides=[style("on validation rows", dash=True, color=GREY), _OTHER],
            scale=Scale(minimum=None, decimals=4),
        ),
    ]


def _enough(expr: str) -> str:
    """A figure of the risks, from 300 rows of the window on: fewer are chance."""
    rows = f"window:model_scores:rows{{{_TRAFFIC}}} >= {thresholds.FEWEST_ROWS_SHOWN}"
    return shown(f"{expr} and {_AT} {rows}")


def _enough_labels(expr: str) -> str:
    """A figure of the labels, from 100 of the window on."""
    labels = f"window:model_feedback:labels{{{_LABELS}}} >= {thresholds.FEWEST_LABELS_SHOWN}"
    return shown(f"{expr} and {_AT} {labels}")


def _scores() -> list[Panel]:
    return [
        row("Risks"),
        chart(
            "Risks now and on validation rows",
            "Share of the people in each range of the predicted risk; ranges hold about as many "
            "validation rows each.",
            {
                "now": (
                    f"sum by (bin) (bin_window:model_scores:increase{{{_TRAFFIC}}} * {SHOWN})"
                    f" / scalar(sum(window:model_scores:rows{{{_TRAFFIC}}} * {SHOWN}) > 0)"
                ),
                "validation": f"sum by (bin) (bin:model_scores_reference:ratio * {SHOWN})",
            },
            by="bin",
            words=SCORE_BINS,
            overrides=[style("now", color=ORANGE), style("validation", color=BLUE)],
        ),
        graph(
            "Positive rate",
            "Share of people at or above the decision threshold, the same on validation rows, and the"
            f" share with the outcome. {_SELECTION}",
            [
                query(_enough(f"window:model_predictions:positive_ratio{{{_TRAFFIC}}}"), "predicted"),
                query(_realised("positive_ratio"), "observed"),
                query(shown('model_validation{metric="flagged"}'), "predicted on validation rows"),
                beside("window:model_predictions:positive_ratio", _TRAFFIC),
            ],
            scale=Scale(unit="percentunit"),
            size=Size(12, 9),
            overrides=[
                style("predicted", color=ORANGE),
                style("observed", color=BLUE),
                style("predicted on validation rows", dash=True, color=GREY),
                _OTHER,
            ],
        ),
        graph(
            "Evidence against the model",
            "As multiples of the limit; at 1 an alert fires. Risks: they are distributed otherwise "
            "than on validation rows. Calibration: outcomes do not follow them.",
            [
                query(shown(queries.SCORE_DRIFT), "risks"),
                query(shown(queries.CALIBRATION), "calibration"),
            ],
            scale=Scale(steps=above(0.5, thresholds.EVIDENCE_ALARM), decimals=2, log="signed", minimum=None),
            size=Size(8, 8),
        ),
        graph(
            "PSI of the risks",
            "How large the shift of the predicted risks is. Dashed: 0.1 and 0.25. From 300 rows on.",
            [
                query(_enough(f"window:model_scores:psi{{{_TRAFFIC}}}"), "PSI"),
                beside("window:model_scores:psi", _TRAFFIC),
            ],
            scale=Scale(steps=above(thresholds.PSI_SMALL, thresholds.PSI_LARGE), decimals=3),
            size=Size(8, 8),
            overrides=[_OTHER],
        ),
        graph(
            "Evidence in the window",
            "log10 of how much better drift, or miscalibration, explains what is seen than chance does.",
            [
                query(shown(f"window:model_scores:drift_evidence{{{_TRAFFIC}}}"), "risks"),
                query(shown(f"window:model_calibration:evidence{{{_LABELS}}}"), "calibration"),
                query(shown("version:model_evidence:limit"), "limit"),
            ],
            scale=Scale(log="signed", minimum=None, decimals=1),
            size=Size(8, 8),
            overrides=[style("limit", color=RED, dash=True)],
        ),
    ]


def _calibration() -> list[Panel]:
    outcomes = f"bin_outcome_window:model_feedback:increase{{{_LABELS}}} * {SHOWN}"
    everyone = f"(sum by (bin) ({outcomes}) >= {_FEWEST_IN_A_BIN})"
    positive = f'bin_outcome_window:model_feedback:increase{{outcome="1",{_LABELS}}} * {SHOWN}'
    risks = f"bin_outcome_window:model_feedback_risk_sum:increase{{{_LABELS}}} * {SHOWN}"
    predicted, observed = f"sum by (bin) ({risks}) / {everyone}", f"sum by (bin) ({positive}) / {everyone}"
    all_risks = 'label_replace(label_replace(vector(1), "bin", "all", "", ""), "risk", "all risks", "", "")'
    return [
        row("Calibration and confusion"),
        reliability(
            "Reliability",
            "Each point is a range of risk: the mean risk of its labelled people, and the share of them"
            " with the outcome. On the line risks are right, above it too low. Ranges with fewer than ten"
            " labels are left out.",
            predicted,
            observed,
            by="bin",
        ),
        chart(
            "Risk and outcome by range of risk",
            "The same as bars: mean predicted risk of the labelled people in each range, and the share of"
            " them with the outcome.",
            {"predicted": predicted, "observed": observed},
            by="bin",
            words=SCORE_BINS,
            overrides=[style("predicted", color=ORANGE), style("observed", color=BLUE)],
        ),
        graph(
            "Calibration error",
            "Mean distance of risk and outcome over the bins, from 100 labels on. A perfect model shows some"
            f" too while labels are few; the alarm asks for evidence as well. {_SELECTION}",
            [
                query(_enough_labels(f"window:model_feedback:calibration_error{{{_LABELS}}}"), "error"),
                beside("window:model_feedback:calibration_error", _LABELS),
            ],
            scale=Scale(unit="percentunit"),
            overrides=[_OTHER],
        ),
        graph(
            "Observed against expected",
            "Positives for each that the risks promised: 1 is right, 1.2 is a fifth too few predicted."
            f" Band: two standard errors. {_SELECTION}",
            [
                query(_realised("observed_expected_ratio", thresholds.STANDARD_ERRORS), "upper"),
                query(_realised("observed_expected_ratio", -thresholds.STANDARD_ERRORS), "lower"),
                query(_realised("observed_expected_ratio"), "observed / expected"),
                beside("window:model_feedback:observed_expected_ratio", _LABELS),
            ],
            scale=Scale(steps=((None, RED), (0.8, GREEN), (1.2, RED)), minimum=None, decimals=2),
            overrides=[*_BAND[:2], _OTHER],
        ),
        table(
            "Evidence by range of risk",
            "Where in the range of risks outcomes do not follow: log10 of the evidence in each bin, "
            "and for all.",
            {"evidence": f"sum by (bin) (bin_window:model_calibration:evidence{{{_LABELS}}} * {SHOWN})"},
            by="bin",
            words=Words(f"{SCORE_BINS.expr} or {all_risks}", "risk", order="bin"),
            size=Size(12, 9),
            sort="evidence",
            overrides=[
                style(
                    "evidence",
                    decimals=2,
                    cell="color-background",
                    steps=((None, "transparent"), (_EVIDENT, ORANGE)),
                    nothing="none",
                )
            ],
        ),
        table(
            "Confusion at the threshold",
            "Labelled people, by the prediction at the decision threshold and the outcome; not weighted.",
            {
                "flagged": f"sum by (outcome) ({outcomes} * {_flagged(1)})",
                "not flagged": f"sum by (outcome) ({outcomes} * {_flagged(0)})",
            },
            by="outcome",
            size=Size(6, 9),
            overrides=[
                style("/flagged/", unit="locale", decimals=0, nothing="none"),
                style("outcome", mappings=[_OUTCOME]),
            ],
        ),
        stat(
            "Realised recall and precision",
            "Of the people with the outcome, the share at or above the threshold; of the people at or above"
            f" the threshold, the share with the outcome. {_SELECTION}",
            [
                query(_realised("recall"), "recall", instant=True),
                query(_realised("precision"), "precision", instant=True),
            ],
            text="value_and_name",
            size=Size(6, 9),
            scale=Scale(unit="percentunit", decimals=1, nothing="too few labels"),
        ),
    ]


def _flagged(is_flagged: int) -> str:
    flag = f"bin:model_scores:flagged == bool {is_flagged}"
    return f"on (bin, model_name, model_version) group_left () ({flag})"


def _delay(quantile: float) -> str:
    """Days until this share of the day's labels had come."""
    seconds = f'quantile:model_feedback_delay_seconds:increase1d{{quantile="{quantile}"}}'
    return shown(f"{seconds} / {thresholds.DAY}")


def _labels() -> list[Panel]:
    return [
        row("Late labels and versions"),
        graph(
            "Labels by version",
            "Late labels in the window, by the version that predicted.",
            [query(f"window:model_feedback:labels{{{_LABELS}}}", "version {{model_version}}")],
            size=Size(8, 8),
            scale=Scale(unit="short", decimals=0),
        ),
        graph(
            "Delay of the labels",
            "How long after the prediction half and 90 of 100 of the day's labels came.",
            [query(_delay(0.5), "half"), query(_delay(0.9), "90 of 100")],
            size=Size(8, 8),
            scale=_DAYS,
        ),
        graph(
            "Labels refused",
            "By reason, in the last hour: forged or expired tokens, repeats, other models.",
            [query(happened("reason", "increase", "sidecar_feedback_refused_total", "1h"), "{{reason}}")],
            size=Size(8, 8),
            scale=Scale(unit="short", at_least=5, decimals=0, nothing="none"),
        ),
        graph(
            "Age over time",
            "Since the training of each version served; it falls where a new one is deployed.",
            [query(f"version:model_age:seconds / {thresholds.DAY}", "version {{model_version}}")],
            scale=replace(_DAYS, steps=above(None, thresholds.OLDEST_MODEL_DAYS)),
        ),
        graph(
            "Rows by version",
            "Rows in the window, by the version that predicted.",
            [query(f"window:model_scores:rows{{{_TRAFFIC}}}", "version {{model_version}}")],
            scale=Scale(unit="short"),
        ),
    ]


def board() -> Panel:
    """The whole dashboard."""
    return dashboard(
        UID,
        "Model",
        "Does the model still rank people well, and do outcomes follow its risks?",
        [*_well(), *_ranking(), *_scores(), *_calibration(), *_labels()],
        variables=[
            options("window", "Window of predictions", list(WINDOWS), "1d"),
            options("labels", "Window of labels", list(LABEL_WINDOWS), "30d"),
            VERSION,
            BESIDE,
        ],
        annotations=[VERSION_CHANGE],
        since="now-7d",
        refresh="5m",
    )
