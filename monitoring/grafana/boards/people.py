"""The dashboard *People*: for the people responsible for patients, in words and in people of 100."""

from __future__ import annotations

from monitoring.grafana.alerts import queries, thresholds
from monitoring.grafana.boards.variables import SCORE_BINS, SHOWN, VERSION, shown
from monitoring.grafana.style import (
    BLUE,
    GREY,
    ORANGE,
    Panel,
    Scale,
    Size,
    chart,
    dashboard,
    options,
    query,
    reliability,
    row,
    stat,
    style,
    table,
    text,
)
from monitoring.prometheus.performance import LABEL_WINDOWS

UID = "people"
_WINDOW = 'window="$labels"'
_RISK = (
    "Labels are weighted by how completely their score bin is labelled: right if labelling depends on the"
    " risk alone."
)

_BY_CLASS = (
    "Labels are weighted by how completely the flagged, and the other, people of the group are labelled:"
    " right if nothing else decides who is labelled. Too few: fewer than 50 with or without the outcome are"
    " known."
)
SMALLEST_SHOWN = 10  # as in steps.data.disclosure

# Three short texts, since a phone shows each in the height that it has on a wide screen.
_ABOUT = {
    "What the model says": "The model gives each person a **risk**: the probability that this person has the"
    " outcome. It **flags** people whose risk reaches the threshold.",
    "What becomes known": "A **late label** says, some time afterwards, whether a person has the outcome."
    " This page compares the two for the people of the chosen window.",
    "What is not shown": "*Too few labels*: of fewer than 50 people with and 50 without the outcome, or of"
    " nobody of some risk. A model of made-up people says so in its name; it is for trying out only.",
}


def _of_100(title: str, description: str, figure: str, *, nothing: str) -> Panel:
    return stat(
        title,
        description,
        f"{shown(figure)} * 100",
        size=Size(6, 5),
        scale=Scale(unit="none", decimals=0, steps=((None, BLUE),), nothing=nothing),
    )


def _realised(figure: str) -> str:
    """A realised figure in the chosen window."""
    return f"window:model_feedback:{figure}{{{_WINDOW}}}"


def _about() -> list[Panel]:
    return [text(title, words, width=8) for title, words in _ABOUT.items()]


def _found() -> list[Panel]:
    few = "too few labels"
    recall, error = _realised("recall"), f"{thresholds.STANDARD_ERRORS} * {_realised('recall_stderr')}"
    return [
        _of_100(
            "Flagged of 100",
            "People at or above the threshold, of 100 who were asked about in the last day.",
            'window:model_predictions:positive_ratio{window="1d"}',
            nothing="nobody asked",
        ),
        _of_100(
            "Found of 100 with the outcome",
            f"Of 100 people with the outcome, those who had been flagged. {_RISK}",
            recall,
            nothing=few,
        ),
        _of_100(
            "Missed of 100 with the outcome",
            f"Of 100 people with the outcome, those who had not been flagged. {_RISK}",
            f"1 - {recall}",
            nothing=few,
        ),
        _of_100(
            "With the outcome, of 100 flagged",
            f"Of 100 people who were flagged, those with the outcome. {_RISK}",
            _realised("precision"),
            nothing=few,
        ),
        stat(
            "Found: from, to",
            "What the labels leave open: two standard errors to either side, of 100 with the outcome.",
            [
                query(f"{shown(f'clamp_min({recall} - {error}, 0)')} * 100", "from", instant=True),
                query(f"{shown(f'clamp_max({recall} + {error}, 1)')} * 100", "to", instant=True),
            ],
            text="value_and_name",
            size=Size(12, 5),
            scale=Scale(decimals=0, nothing=few),
        ),
        stat(
            "Observed / expected",
            "People with the outcome for each that the risks predict: 1 is right, 1.2 is a fifth more than"
            f" predicted. {_RISK}",
            shown(_realised("observed_expected_ratio")),
            size=Size(6, 5),
            scale=Scale(decimals=2, nothing=few),
        ),
        stat(
            "Labels",
            "People of the chosen window of whom it is known whether they have the outcome.",
            shown(_realised("labels")),
            size=Size(6, 5),
            scale=Scale(unit="locale", decimals=0, nothing="none"),
        ),
    ]


def _groups() -> list[Panel]:
    def by_group(figure: str, factor: int = 1) -> str:
        return f"{shown(f'group_window:model_group_{figure}{{{_WINDOW}}}', 'group')} * {factor}"

    rows = f"group_predicted_window:model_group_rows:increase{{{_WINDOW}}} * {SHOWN}"
    labels = f"group_outcome_predicted_window:model_group_feedback:increase{{{_WINDOW}}} * {SHOWN}"
    recall = "feedback:recall"
    return [
        row("By group of people"),
        table(
            "Flagged, found and missed by group",
            "People of each group that the schema names: found and missed, of 100 with the outcome;"
            " flagged, of 100 who were asked about; risk and observed, of 100; those of whom the outcome is"
            f" known; asked about. {_BY_CLASS}",
            {
                "found": by_group(recall, 100),
                "missed": f"100 - {by_group(recall, 100)}",
                "flagged": by_group("rows:flagged_ratio", 100),
                "risk": by_group("feedback:expected_ratio", 100),
                "observed": by_group("feedback:positive_ratio", 100),
                "known": f"sum by (group) ({labels}) >= {SMALLEST_SHOWN}",
                "asked about": f"sum by (group) ({rows}) >= {SMALLEST_SHOWN}",
            },
            by="group",
            size=Size(14, 8),
            overrides=[
                style("group", column_width=130),
                style("/asked about|known/", unit="locale", decimals=0, nothing="few"),
                style("/flagged|found|missed|risk|observed/", decimals=0, nothing="too few", narrowest=70),
            ],
        ),
        chart(
            "Risk against outcome by group",
            "The mean risk that the people of a group were given, and the share with the outcome."
            f" {_BY_CLASS}",
            {"risk": by_group("feedback:expected_ratio"), "observed": by_group("feedback:positive_ratio")},
            by="group",
            size=Size(10, 8),
            overrides=[style("risk", color=GREY), style("observed", color=ORANGE)],
        ),
    ]


def _reliability() -> list[Panel]:
    labels = f"bin_outcome_window:model_feedback:increase{{{_WINDOW}}} * {SHOWN}"
    positive = f'bin_outcome_window:model_feedback:increase{{outcome="1",{_WINDOW}}} * {SHOWN}'
    risks = f"bin_outcome_window:model_feedback_risk_sum:increase{{{_WINDOW}}} * {SHOWN}"
    everyone = f"(sum by (bin) ({labels}) >= {SMALLEST_SHOWN})"
    risk, observed = f"sum by (bin) ({risks}) / {everyone}", f"sum by (bin) ({positive}) / {everyone}"
    return [
        row("Risk against outcome"),
        chart(
            "Predicted and observed, by risk",
            "People in order of their risk, from the lowest to the highest: the mean risk that they were"
            " given, and the share with the outcome. Ranges with fewer than ten labels are left"
            " out.",
            {"predicted": risk, "observed": observed},
            by="bin",
            words=SCORE_BINS,
            size=Size(14, 9),
            overrides=[style("predicted", color=GREY), style("observed", color=ORANGE)],
        ),
        reliability(
            "Are the risks right?",
            "Each point is a range of risk. On the line as many have the outcome as the risks predict,"
            " above it more, below it fewer.",
            risk,
            observed,
            by="bin",
            size=Size(10, 9),
        ),
        stat(
            "Is the model what it was?",
            "ROC AUC by late labels: of two people of whom one has the outcome, how often that one had the"
            f" higher risk; beside it the value at training. {_RISK}",
            [
                query(shown(_realised("roc_auc")), "now", instant=True),
                query(shown(queries.VALIDATION), "at training", instant=True),
                query(shown(queries.FLOOR), "floor", instant=True),
            ],
            text="value_and_name",
            size=Size(24, 5),
            scale=Scale(decimals=3, nothing="too few labels"),
        ),
    ]


def _versions() -> list[Panel]:
    def by_version(figure: str, factor: int = 1) -> str:
        named = f'label_join({figure}, "version", " ", "model_name", "model_version")'
        return f"max by (version) ({named}) * {factor}"

    return [
        row("One version beside another"),
        table(
            "Found and missed by version",
            "The labelled people of each version that gave risks in the chosen window, also of one that is"
            f" not served any more: found and missed, of 100 with the outcome. {_RISK}",
            {
                "found": by_version(_realised("recall"), 100),
                "missed": f"100 - {by_version(_realised('recall'), 100)}",
                "observed / expected": by_version(_realised("observed_expected_ratio")),
                "ROC AUC": by_version(_realised("roc_auc")),
                "known": f"{by_version(_realised('labels'))} >= {SMALLEST_SHOWN}",
            },
            by="version",
            size=Size(24, 6),
            overrides=[
                style("version", column_width=200),
                style("known", unit="locale", decimals=0, nothing="few"),
                style("/found|missed/", decimals=0, nothing="too few", narrowest=70),
                style("observed / expected", decimals=2, nothing="too few"),
                style("ROC AUC", decimals=3, nothing="too few"),
            ],
        ),
    ]


def board() -> Panel:
    """The whole dashboard."""
    return dashboard(
        UID,
        "People",
        "How many people with the outcome does the model flag, and are its risks right?",
        [
            *_about(),
            *_found(),
            *_groups(),
            *_reliability(),
            *_versions(),
        ],
        variables=[options("labels", "Window of labels", list(LABEL_WINDOWS), "30d"), VERSION],
        since="now-30d",
        refresh="15m",
    )
