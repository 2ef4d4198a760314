"""The dashboard *Data*: are the people who come now like those of the training?"""

from __future__ import annotations

from monitoring.grafana.alerts import queries, thresholds
from monitoring.grafana.boards.service import VERSION_CHANGE
from monitoring.grafana.boards.variables import SHOWN, VERSION, shown
from monitoring.grafana.style import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    Look,
    Panel,
    Range,
    Scale,
    Size,
    Words,
    above,
    bars,
    chart,
    choice,
    dashboard,
    graph,
    options,
    query,
    row,
    stat,
    style,
    table,
    verdict,
)
from monitoring.prometheus.drift import WINDOWS
from monitoring.prometheus.promql import MODEL

UID = "data"
_SHARE = "fate_feature_window:model_feature_values:ratio"
_PSI_STEPS = above(thresholds.PSI_SMALL, thresholds.PSI_LARGE)
_EVIDENCE_STEPS = above(0.5, thresholds.EVIDENCE_ALARM)


def _fate_words(limit: float) -> list[Range]:
    return [(None, limit, "OK", GREEN), (limit, None, "TOO MANY", RED)]


def _well() -> list[Panel]:
    drift: list[Range] = [
        (None, 0.5, "STEADY", GREEN),
        (0.5, thresholds.EVIDENCE_ALARM, "WATCH", ORANGE),
        (thresholds.EVIDENCE_ALARM, None, "DRIFT", RED),
    ]
    return [
        verdict(
            "Features",
            "The feature with the most evidence of drift, against the limit of one false alarm a year.",
            f"max({queries.FEATURE_DRIFT})",
            drift,
            nothing="no reference",
        ),
        verdict(
            "Risks",
            "The distribution of the predicted risks, against the same limit.",
            f"max({queries.SCORE_DRIFT})",
            drift,
            nothing="no reference",
        ),
        verdict(
            "Missing",
            f"Is any feature missing more than {thresholds.MISSING_SHARE:.0%} more often than in training?",
            f"max({queries.MORE_MISSING})",
            _fate_words(thresholds.MISSING_SHARE),
        ),
        verdict(
            "Out of range",
            f"Is any feature out of its range in more than {thresholds.BAD_SHARE:.0%} of the rows?",
            f"max({queries.bad_values('out_of_range')})",
            _fate_words(thresholds.BAD_SHARE),
        ),
        verdict(
            "Unknown",
            f"Has any feature an unknown level in more than {thresholds.BAD_SHARE:.0%} of the rows?",
            f"max({queries.bad_values('unknown_level')})",
            _fate_words(thresholds.BAD_SHARE),
        ),
        stat(
            "Rows",
            "Rows that the figures below rest on. A few hundred show a large shift, a few thousand a "
            "small one.",
            'max(feature_window:model_feature_values:rows{window="$window"})',
            scale=Scale(unit="locale", decimals=0, steps=((None, ORANGE), (300, BLUE)), nothing="none"),
        ),
    ]


def _drift() -> list[Panel]:
    in_window = 'feature=~"$feature",window="$window"'
    enough = (
        f"(feature_window:model_feature_values:psi{{{in_window}}}"
        f" and feature_window:model_feature_values:rows >= {thresholds.FEWEST_ROWS_SHOWN})"
    )
    return [
        row("Drift"),
        graph(
            "Evidence of drift by feature",
            "Evidence in any window in which the shift is large enough to matter, as a multiple of "
            "the limit: at 1 an alert fires. By chance that happens once a year for all features "
            "together.",
            [
                query(
                    shown(
                        queries.FEATURE_DRIFT.replace("drift_alarm", 'drift_alarm{feature=~"$feature"}', 1),
                        "feature",
                    ),
                    "{{feature}}",
                )
            ],
            legend="right",
            size=Size(16, 9),
            scale=Scale(steps=_EVIDENCE_STEPS, decimals=2, log="signed", minimum=None),
        ),
        bars(
            "PSI now",
            "How large the shift is, certain or not. Shown from 300 rows on: below, chance alone makes 0.1.",
            [
                query(
                    f"topk(10, {shown(enough, 'feature')})",
                    "{{feature}}",
                    instant=True,
                )
            ],
            size=Size(8, 9),
            scale=Scale(steps=_PSI_STEPS, decimals=3, maximum=0.5),
        ),
        graph(
            "PSI by feature",
            "Population stability index against the training rows. Dashed: 0.1, by custom a small "
            "shift, and 0.25, a large one.",
            [query(shown(enough, "feature"), "{{feature}}")],
            legend="right",
            scale=Scale(steps=_PSI_STEPS, decimals=3),
        ),
        graph(
            "Evidence in the window",
            "log10 of how much better drift explains the rows than chance does; negative speaks for "
            "no drift. Dashed: the limit.",
            [
                query(
                    shown(f"feature_window:model_feature_values:drift_evidence{{{in_window}}}", "feature"),
                    "{{feature}}",
                ),
                query(shown("version:model_evidence:limit"), "limit"),
            ],
            overrides=[style("limit", color=RED, dash=True)],
            legend="right",
            scale=Scale(log="signed", minimum=None, decimals=1),
        ),
    ]


def _one_feature() -> list[Panel]:
    one = 'feature=~"$one"'
    chosen = f'{{{one},window="$window"}}'
    now = (
        f"feature_bin_window:model_feature_values:increase{chosen} / on (feature, model_name, model_version)"
        f" group_left () (feature_window:model_feature_values:rows{chosen} > 0) * {SHOWN}"
    )
    training = f"feature_bin:model_feature_values_reference:ratio{{{one}}} * {SHOWN}"
    levels = f"max by (feature, bin, bin_order, level, {MODEL}) (model_feature_level_info{{{one}}})"
    return [
        row("One feature"),
        chart(
            "Shares of $one now and in training",
            "Share of the rows at each level, or in each range, of the chosen feature: in the chosen window"
            " and among the training rows.",
            {"now": f"sum by (bin) ({now})", "training": f"sum by (bin) ({training})"},
            by="bin",
            words=Words(f"max by (bin, bin_order, level) ({levels} * {SHOWN})", "level", order="bin_order"),
            size=Size(14, 10),
            overrides=[style("now", color=ORANGE), style("training", color=BLUE)],
        ),
        graph(
            "Shares of $one over time",
            "The same over time: a step is a change of the source, a slope one of the people.",
            [
                query(
                    f"sum by (bin_order, level) (({now})"
                    f" * on (feature, bin, {MODEL}) group_left (bin_order, level) {levels})",
                    "{{level}}",
                )
            ],
            legend="names",  # in the order of the levels
            look=Look(stacked=True),
            size=Size(10, 10),
            scale=Scale(unit="percentunit", maximum=1),
        ),
    ]


def _share(fate: str) -> str:
    """Share of values of one fate in the chosen window, or in a day where that is longer."""
    selector = f'fate="{fate}",feature=~"$feature"'
    day = f'{_SHARE}{{{selector},window="1d"}}'
    return f'({_SHARE}{{{selector},window="$window"}} or on (feature, {MODEL}) {day})'


def _bad() -> list[Panel]:
    def fate(name: str) -> str:
        return f"topk(6, {shown(_share(name), 'feature')} > 0)"

    return [
        row("Missing and invalid values"),
        graph(
            "Missing values",
            "Share of rows without a value, the six worst features. Training has its own share, from which "
            "the alert counts.",
            [query(fate("missing"), "{{feature}}")],
            size=Size(8, 8),
            scale=Scale(
                unit="percentunit",
                steps=above(None, thresholds.MISSING_SHARE),
                at_least=2 * thresholds.MISSING_SHARE,
                nothing="none",
            ),
        ),
        graph(
            "Values out of range",
            "Share of values outside the schema's range, the six worst features.",
            [query(fate("out_of_range"), "{{feature}}")],
            size=Size(8, 8),
            scale=Scale(
                unit="percentunit",
                steps=above(None, thresholds.BAD_SHARE),
                at_least=2 * thresholds.BAD_SHARE,
                nothing="none",
            ),
        ),
        graph(
            "Unknown levels",
            "Share of values that are no level of the schema, or no number; the six worst.",
            [query(fate("unknown_level"), "{{feature}}")],
            size=Size(8, 8),
            scale=Scale(
                unit="percentunit",
                steps=above(None, thresholds.BAD_SHARE),
                at_least=2 * thresholds.BAD_SHARE,
                nothing="none",
            ),
        ),
        _features_table(),
        graph(
            "Columns",
            "Columns in requests that the model does not know, and columns of the model that requests"
            " lacked.",
            [
                query("sum(rate(model_extra_columns_total[5m])) > 0", "unknown"),
                query("sum(rate(model_missing_columns_total[5m])) > 0", "lacking"),
            ],
            size=Size(6, 12),
            scale=Scale(unit="cps", at_least=1, nothing="none"),
        ),
    ]


def _features_table() -> Panel:
    in_window = 'window="$window"'

    def by_feature(expr: str) -> str:
        return shown(expr, "feature")

    share_steps = ((None, "transparent"), (thresholds.BAD_SHARE, RED))
    return table(
        "All features",
        "Every feature in the chosen window, of shares a day at most. Above training: how much more is"
        " missing than then, for certain, in the last hour or day.",
        {
            "PSI": by_feature(f"feature_window:model_feature_values:psi{{{in_window}}}"),
            "evidence / limit": by_feature(f"({queries.FEATURE_DRIFT})"),
            "rows in bins": by_feature(f"feature_window:model_feature_values:rows{{{in_window}}}"),
            "missing": by_feature(_share("missing")),
            "above training": by_feature(f"clamp_min({queries.MORE_MISSING}, 0)"),
            "out of range": by_feature(_share("out_of_range")),
            "unknown": by_feature(_share("unknown_level")),
        },
        by="feature",
        sort="evidence / limit",
        overrides=[
            style("feature", column_width=190),
            style("PSI", cell="color-background", steps=_transparent(_PSI_STEPS), decimals=3),
            style(
                "evidence / limit",
                column_width=130,
                cell="color-background",
                steps=_transparent(_EVIDENCE_STEPS),
                decimals=2,
            ),
            style("rows in bins", unit="locale", decimals=0),
            style("missing", unit="percentunit", decimals=1),
            style(
                "above training",
                unit="percentunit",
                decimals=1,
                cell="color-background",
                steps=((None, "transparent"), (thresholds.MISSING_SHARE, RED)),
            ),
            style("out of range", unit="percentunit", decimals=1, cell="color-background", steps=share_steps),
            style("unknown", unit="percentunit", decimals=1, cell="color-background", steps=share_steps),
        ],
        size=Size(18, 12),
    )


def _transparent(steps: tuple[tuple[float | None, str], ...]) -> tuple[tuple[float | None, str], ...]:
    return ((None, "transparent"), *steps[1:])


def board() -> Panel:
    """The whole dashboard."""
    return dashboard(
        UID,
        "Data",
        "Are the people who come now like those of the training?",
        [*_well(), *_drift(), *_one_feature(), *_bad()],
        variables=[
            options("window", "Window", list(WINDOWS), "1d"),
            choice(
                "feature",
                "Features",
                "label_values(model_feature_reference_missing_rows, feature)",
                many=True,
            ),
            choice("one", "One feature", "label_values(model_feature_reference_missing_rows, feature)"),
            VERSION,
        ],
        annotations=[VERSION_CHANGE],
        since="now-24h",
    )
