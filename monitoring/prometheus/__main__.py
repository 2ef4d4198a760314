"""Writes the recording rules: each formula stands here once, `rules.yml` repeats it for windows and signals.

    python -m monitoring.prometheus           writes rules.yml
    python -m monitoring.prometheus --check   exits 1 if rules.yml is not what would be written

`steps/measures/evidence.py` is the numpy reference of every statistic, with its sources; tests compare the
two in promtool. A window is a label, so everything after the counts is one rule for all windows. Counts are
summed over replicas; what the reference says is the same from each of them and taken once (`max by`). A name
gives the labels that are left (but for `model_name` and `model_version`, which all rules on the model keep),
metric and operation.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import NamedTuple

RULES = Path(__file__).with_name("rules.yml")

# Windows up to a day are read from the counters; longer ones are summed from recorded hours, or each
# evaluation would read millions of samples. Such a subquery steps on full hours and takes both its ends in
# Prometheus 2, hence a second less than the window.
TRAFFIC_WINDOWS = {"1h": "", "6h": "", "12h": "", "1d": "", "3d": "71h59m59s", "14d": "335h59m59s"}
LABEL_WINDOWS = {"1d": "", "7d": "167h59m59s", "30d": "719h59m59s", "90d": "2159h59m59s"}
BURN_WINDOWS = {"5m": "", "30m": "", "1h": "", "2h": "", "6h": "", "1d": "", "3d": "71h59m59s"}

# As in steps/measures/evidence.py, which says why.
SMOOTHING = 0.5
TYPICAL_PSI = 0.1
PSI_FLOOR = 0.02
CALIBRATION_CONCENTRATION = 100
CALIBRATION_FLOOR = 0.015
SMALLEST_PRIOR = 1e-9
LOOKS_A_YEAR = 525_600
SCORE_BINS = 20
# Normal quantile of 0.999.
Z_999 = 3.0902

# Share of /invocations answered without a 5xx, and share answered within SLOW_SECONDS (the edge of a bucket).
OBJECTIVES = {"availability": 0.995, "latency": 0.99}
SLOW_SECONDS = "0.25"
# Severity, long window, short window, burn rate: they spend 2, 5, 10 and 10 % of a 30-day error budget (Beyer
# et al., The Site Reliability Workbook, 2018, chapter 5). One error in ten requests is no fire: MIN_REQUESTS.
BURN_ALARMS = (
    ("page", "1h", "5m", 14.4),
    ("page", "6h", "30m", 6),
    ("ticket", "1d", "2h", 3),
    ("ticket", "3d", "6h", 1),
)
MIN_REQUESTS = 20

FATES = {
    "missing": "model_feature_missing_total",
    "out_of_range": "model_feature_out_of_range_total",
    "unknown_level": "model_feature_unknown_level_total",
}


class Rule(NamedTuple):
    """One recording rule; rules may share a name if their labels differ."""

    record: str
    expr: str
    labels: Mapping[str, str]


class Group(NamedTuple):
    """Rules that are evaluated in this order, so that a later one sees an earlier one's fresh result."""

    name: str
    rules: Sequence[Rule]


def rule(record: str, expr: str, **labels: str) -> Rule:
    """A recording rule."""
    return Rule(record, expr.strip(), labels)


def block(expr: str) -> str:
    """The expression in brackets, on lines of its own."""
    return "(\n" + indent(expr.strip(), "  ") + "\n)"


def log_gamma(x: str) -> str:
    """PromQL for ln Gamma(x), x > 0, within 1e-6: Stirling's series at x + 4, and back by four factors."""
    z = f"({x} + 4)"
    return (
        f"({z} - 0.5) * ln({z}) - {z} + {math.log(2 * math.pi) / 2}\n"
        f"+ 1 / (12 * {z}) - 1 / (360 * {z} ^ 3)\n"
        f"- ln({x} * ({x} + 1) * ({x} + 2) * ({x} + 3))"
    )


def windowed(
    windows: Mapping[str, str], record: str, hours: str, counter: str, by: str = "", absent: str = ""
) -> list[Rule]:
    """Increase of a counter in each window, and in the last hour as `hours`, summed over replicas.

    `absent` is what counts for a series that nobody exported.
    """

    def increase(window: str) -> str:
        total = f"sum by ({by}) (increase({counter}[{window}]))"
        return f"{total}\nor {absent}" if absent else total

    def count(window: str, subquery: str) -> str:
        if window == "1h":
            return hours
        return f"sum_over_time({hours}[{subquery}:1h])" if subquery else increase(window)

    return [
        rule(hours, increase("1h")),
        *(rule(record, count(window, subquery), window=window) for window, subquery in windows.items()),
    ]


def service_rules() -> list[Rule]:
    """Rate, errors, latency and burn rates of /invocations."""
    requests, errors = "window:sidecar_requests:increase", "window:sidecar_request_errors:increase"
    timed, fast = "window:sidecar_requests_timed:increase", "window:sidecar_requests_fast:increase"
    bad, burn = "slo_window:sidecar_requests_bad:ratio", "slo_window:sidecar_error_budget:burn_rate"
    invocations, failed = '{endpoint="invocations"}', '{endpoint="invocations",status="5xx"}'
    bucket = f'sidecar_request_duration_seconds_bucket{{le="{SLOW_SECONDS}"}}'
    return [
        rule(
            "status:sidecar_requests:rate5m",
            f"sum by (status) (rate(sidecar_requests_total{invocations}[5m]))",
        ),
        *(
            rule(
                f"quantile:{metric}:rate5m",
                f"histogram_quantile({quantile}, sum by (le) (rate({metric}_bucket[5m])))",
                quantile=quantile,
            )
            for metric in ("sidecar_request_duration_seconds", "sidecar_upstream_duration_seconds")
            for quantile in ("0.5", "0.95", "0.99")
        ),
        *windowed(
            BURN_WINDOWS, requests, "sidecar_requests:increase1h", f"sidecar_requests_total{invocations}"
        ),
        *windowed(
            BURN_WINDOWS, errors, "sidecar_request_errors:increase1h", f"sidecar_requests_total{failed}"
        ),
        *windowed(
            BURN_WINDOWS, timed, "sidecar_requests_timed:increase1h", "sidecar_request_duration_seconds_count"
        ),
        *windowed(BURN_WINDOWS, fast, "sidecar_requests_fast:increase1h", bucket),
        # 0 without requests.
        rule(bad, f"{errors} / ({requests} > 0) or 0 * {requests}", slo="availability"),
        rule(bad, f"1 - {fast} / ({timed} > 0) or 0 * {timed}", slo="latency"),
        *(
            rule(burn, f'{bad}{{slo="{slo}"}} / {1 - objective:.4g}', slo=slo)
            for slo, objective in OBJECTIVES.items()
        ),
        # From 1 on both windows of a pair burn too fast.
        *(
            rule(
                "severity_slo_windows:sidecar_error_budget:burn_alarm",
                f'min by (slo) ({burn}{{window=~"{long}|{short}"}}) / {factor}\n'
                f'* on () group_left () ({requests}{{window="{long}"}} >= bool {MIN_REQUESTS})',
                severity=severity,
                windows=f"{long} {short}",
            )
            for severity, long, short, factor in BURN_ALARMS
        ),
    ]


def drift_rules(noun: str, values: str, reference: str, signal: str) -> list[Rule]:
    """PSI, evidence and alarm of one kind of signal in each window.

    `signal` is the label that tells the signals of this kind apart, or empty if there is only one.
    """
    of = f"{signal}, " if signal else ""
    level = f"{signal}_" if signal else ""
    one = signal or "version"
    per_bin = f"on ({of}bin, model_name, model_version) group_left ()"
    per_signal = f"on ({of}model_name, model_version) group_left ()"
    per_window = f"on ({of}window, model_name, model_version) group_left ()"
    per_hypothesis = f"on ({of}hypothesis, model_name, model_version) group_left ()"

    reference_rows, bins = f"{level}bin:{noun}_reference:rows", f"{one}:{noun}_reference:bins"
    reference_total = f"{one}:{noun}_reference:rows"
    p, q = f"{level}bin:{noun}_reference:ratio", f"{level}bin_window:{noun}:ratio"
    counts, rows = f"{level}bin_window:{noun}:increase", f"{level}window:{noun}:rows"
    prior, prior_total = f"{level}bin_hypothesis:{noun}:prior", f"{level}hypothesis:{noun}:prior"
    posterior = f"{level}bin_hypothesis_window:{noun}:posterior"
    posterior_total = f"{level}hypothesis_window:{noun}:posterior"
    likelihood = f"{level}hypothesis_window:{noun}:log_likelihood"
    psi, evidence = f"{level}window:{noun}:psi", f"{level}window:{noun}:drift_evidence"
    return [
        # The reference stays for an hour after its exporter went, so that a restart leaves no gap.
        rule(
            reference_rows, f"max by ({of}bin, model_name, model_version) (last_over_time({reference}[1h]))"
        ),
        rule(reference_total, f"sum by ({of}model_name, model_version) ({reference_rows})"),
        rule(bins, f"count by ({of}model_name, model_version) ({reference_rows})"),
        rule(
            p, f"({reference_rows} + {SMOOTHING}) / {per_signal} ({reference_total} + {SMOOTHING} * {bins})"
        ),
        *windowed(
            TRAFFIC_WINDOWS,
            counts,
            f"{level}bin:{noun}:increase1h",
            values,
            f"{of}bin, model_name, model_version",
            f"0 * {reference_rows}",
        ),
        rule(rows, f"sum by ({of}window, model_name, model_version) ({counts})"),
        # PSI: sum of (q - p) ln(q / p).
        rule(q, f"({counts} + {SMOOTHING}) / {per_window} ({rows} + {per_signal} ({SMOOTHING} * {bins}))"),
        rule(
            psi,
            f"sum by ({of}window, model_name, model_version)"
            f" (({q} - {per_bin} {p}) * ln({q} / {per_bin} {p}))",
        ),
        # Evidence: log10 of P(counts | drift) / P(counts | same), each Polya's urn, filled with its prior.
        rule(
            prior,
            f"{p} * {per_signal} (clamp_min({bins} - 1, 1) / {TYPICAL_PSI})",
            hypothesis="drift",
        ),
        rule(prior, f"{reference_rows} + {SMOOTHING}", hypothesis="same"),
        *(
            rule(posterior, f'{counts} + {per_bin} {prior}{{hypothesis="{name}"}}', hypothesis=name)
            for name in ("drift", "same")
        ),
        rule(prior_total, f"sum by ({of}hypothesis, model_name, model_version) ({prior})"),
        rule(posterior_total, f"sum by ({of}hypothesis, window, model_name, model_version) ({posterior})"),
        rule(
            likelihood,
            f"sum by ({of}hypothesis, window, model_name, model_version) {block(log_gamma(posterior))}\n"
            f"- {per_hypothesis} sum by ({of}hypothesis, model_name, model_version)"
            f" {block(log_gamma(prior))}\n"
            f"- {block(log_gamma(posterior_total))}\n"
            f"+ {per_hypothesis} {block(log_gamma(prior_total))}",
        ),
        rule(
            evidence,
            f'({likelihood}{{hypothesis="drift"}}\n'
            f' - ignoring (hypothesis) {likelihood}{{hypothesis="same"}})\n'
            f"/ {math.log(10)}",
        ),
        # Evidence and effect in the same window; rings at version:model_evidence:limit, always has a value.
        rule(
            f"{one}:{noun}:drift_alarm",
            f"max by ({of}model_name, model_version) ({evidence} * ({psi} >= bool {PSI_FLOOR}))",
        ),
    ]


def feature_rules() -> list[Rule]:
    """Drift of each feature, and the values that are in no bin."""
    fates, share = (
        "fate_feature_window:model_feature_values:increase",
        "fate_feature_window:model_feature_values",
    )
    values = "feature_window:model_feature_values:total"
    in_bins = "feature_window:model_feature_values:rows"
    per_value = "on (feature, window, model_name, model_version) group_left ()"
    bins = "feature:model_feature_values_reference:bins"
    z2 = Z_999**2
    return [
        *drift_rules(
            "model_feature_values", "model_feature_values_total", "model_feature_reference_rows", "feature"
        ),
        # Features, score and calibration share one false alarm a year.
        rule(
            "version:model_evidence:limit",
            f"log10({LOOKS_A_YEAR} * (2 + count by (model_name, model_version) ({bins})))",
        ),
        *(
            rule(r.record, r.expr, fate=fate, **r.labels)
            for fate, counter in FATES.items()
            for r in windowed(
                TRAFFIC_WINDOWS,
                fates,
                f"feature:model_feature_{fate}:increase1h",
                counter,
                "feature, model_name, model_version",
            )
        ),
        rule(
            values,
            f"{in_bins}\n"
            f"+ on (feature, window, model_name, model_version)"
            f" sum by (feature, window, model_name, model_version) ({fates})",
        ),
        rule(f"{share}:ratio", f"{fates} / {per_value} ({values} > 0)\nor 0 * {fates}"),
        # What the share is at least, with confidence 0.999 (Wilson, JASA 22, 1927): one odd row is no alarm.
        rule(
            f"{share}:ratio_lower",
            f"clamp_min(\n  ({fates} + {z2 / 2}\n"
            f"    - {Z_999} * sqrt({fates} - {fates} ^ 2 / {per_value} ({values} > 0) + {z2 / 4}))\n"
            f"  / {per_value} ({values} + {z2}), 0)\nor 0 * {fates}",
        ),
    ]


def roc_auc(rows: str, total: str) -> str:
    """PromQL for ROC AUC by window from `rows` by bin and outcome and `total` by outcome.

    A pair in the right order counts 1, one within a bin 1/2 (Mann and Whitney). PromQL has no running sum
    over a label, so the bins below each bin are named.
    """
    bins = [f"{index:02d}" for index in range(SCORE_BINS)]
    below = "\nor ".join(
        f'label_replace(sum by (window, model_name, model_version) ({rows}{{outcome="0",'
        f'bin=~"{"|".join(bins[:index])}"}}), "bin", "{bins[index]}", "", "")'
        for index in range(1, SCORE_BINS)
    )
    on_bin = "on (bin, window, model_name, model_version)"
    positives, negatives = f'{rows}{{outcome="1"}}', f'{rows}{{outcome="0"}}'
    pairs = f'({total}{{outcome="1"}} * ignoring (outcome) {total}{{outcome="0"}} > 0)'
    return (
        block(
            f"sum by (window, model_name, model_version) ({positives} * {on_bin} {block(below)})\n"
            f"+ 0.5 * sum by (window, model_name, model_version) ({positives} * {on_bin} {negatives})"
        )
        + f" / {pairs}"
    )


def roc_auc_stderr(auc: str, total: str) -> str:
    """PromQL for the standard error of a ROC AUC (Hanley and McNeil, 1982)."""
    positives, negatives = f'{total}{{outcome="1"}}', f'{total}{{outcome="0"}}'
    at = "on (window, model_name, model_version)"
    variance = (
        f"{auc} * (1 - {auc})\n"
        f"+ ({auc} / (2 - {auc}) - {auc} ^ 2) * {at} ({positives} - 1)\n"
        f"+ (2 * {auc} ^ 2 / (1 + {auc}) - {auc} ^ 2) * {at} ({negatives} - 1)"
    )
    return f"sqrt(clamp_min({block(variance)} / {at} {positives} / {at} {negatives}, 0))"


def score_rules() -> list[Rule]:
    """Drift of the score, positive rate, and expected performance without labels (CBPE)."""
    sums = "bin_window:model_score_sum:increase"
    rows, total = "bin_outcome_window:model_expected:rows", "outcome_window:model_expected:rows"
    predictions = "predicted_window:model_predictions:increase"
    risks = "predicted_window:model_prediction_risk_sum:increase"
    variances = "predicted_window:model_prediction_variance_sum:increase"
    auc = "window:model_expected:roc_auc"
    flagged = f'{predictions}{{predicted="1"}}'
    true_positives, false_negatives = f'{risks}{{predicted="1"}}', f'{risks}{{predicted="0"}}'
    everyone = f"(sum by (window, model_name, model_version) ({predictions}) > 0)"
    unlabelled = "ignoring (predicted)"
    by_class, by_window = "predicted, model_name, model_version", "sum by (window, model_name, model_version)"
    return [
        *drift_rules("model_scores", "model_scores_total", "model_score_reference_rows", ""),
        *windowed(
            TRAFFIC_WINDOWS,
            sums,
            "bin:model_score_sum:increase1h",
            "model_score_sum_total",
            "bin, model_name, model_version",
        ),
        *windowed(
            TRAFFIC_WINDOWS,
            predictions,
            "predicted:model_predictions:increase1h",
            "model_predictions_total",
            by_class,
        ),
        *windowed(
            TRAFFIC_WINDOWS,
            risks,
            "predicted:model_prediction_risk_sum:increase1h",
            "model_prediction_risk_sum_total",
            by_class,
        ),
        *windowed(
            TRAFFIC_WINDOWS,
            variances,
            "predicted:model_prediction_variance_sum:increase1h",
            "model_prediction_variance_sum_total",
            by_class,
        ),
        rule(
            "window:model_predictions:positive_ratio",
            f"{by_window} ({flagged}) / {everyone}",
        ),
        # A calibrated model's n rows with risks summing to s hold s positives.
        rule(rows, sums, outcome="1"),
        rule(rows, f"clamp_min(bin_window:model_scores:increase - {sums}, 0)", outcome="0"),
        rule(total, f"sum by (outcome, window, model_name, model_version) ({rows})"),
        rule(auc, roc_auc(rows, total)),
        rule(f"{auc}_stderr", roc_auc_stderr(auc, total)),
        rule(
            "window:model_expected:accuracy",
            f'({true_positives} + {unlabelled} {predictions}{{predicted="0"}}\n'
            f" - {unlabelled} {false_negatives})\n"
            f"/ on (window, model_name, model_version) {everyone}",
        ),
        rule(
            "window:model_expected:accuracy_stderr",
            f"sqrt({by_window} ({variances})) / {everyone}",
        ),
        rule("window:model_expected:recall", f"{by_window} ({true_positives}) / ({by_window} ({risks}) > 0)"),
        rule(
            "window:model_expected:precision",
            f"{by_window} ({true_positives}) / ({by_window} ({flagged}) > 0)",
        ),
    ]


def label_rules() -> list[Rule]:
    """Realised performance and calibration from late labels, and how late they are."""
    labels = "bin_outcome_window:model_feedback:increase"
    risks = "bin_outcome_window:model_feedback_risk_sum:increase"
    squares = "bin_outcome_window:model_feedback_squared_risk_sum:increase"
    total, everyone = "outcome_window:model_feedback:labels", "window:model_feedback:labels"
    auc, brier = "window:model_feedback:roc_auc", "window:model_feedback:brier"
    error = "window:model_feedback:calibration_error"
    by_window = "sum by (window, model_name, model_version)"
    by_bin = "sum by (bin, window, model_name, model_version)"
    positives, positive_risks = (
        f'{by_window} ({labels}{{outcome="1"}})',
        f'{by_window} ({risks}{{outcome="1"}})',
    )
    any_labels = f"({everyone} > 0)"
    # A calibrated model's variance of the number of positives: sum of risk (1 - risk).
    variance = f"clamp_min({by_window} ({risks}) - {by_window} ({squares}), 0)"
    # Squared errors of the positives: (1 - risk)^2 = 1 - 2 risk + risk^2.
    squared_errors = {
        "1": f'clamp_min({labels}{{outcome="1"}} - 2 * {risks}{{outcome="1"}} + {squares}{{outcome="1"}}, 0)',
        "0": f'{squares}{{outcome="0"}}',
    }
    fourth = "\n+ ".join(
        f'({by_window} ({errors} ^ 2 / ({labels}{{outcome="{outcome}"}} > 0)) or 0 * {everyone})'
        for outcome, errors in squared_errors.items()
    )
    windows = "bin, outcome, model_name, model_version"
    kept = '{model_version!="other"}'
    return [
        # "other" mixes versions whose bins differ.
        *windowed(
            LABEL_WINDOWS,
            labels,
            "bin_outcome:model_feedback:increase1h",
            f"model_feedback_total{kept}",
            windows,
        ),
        *windowed(
            LABEL_WINDOWS,
            risks,
            "bin_outcome:model_feedback_risk_sum:increase1h",
            f"model_feedback_risk_sum_total{kept}",
            windows,
        ),
        *windowed(
            LABEL_WINDOWS,
            squares,
            "bin_outcome:model_feedback_squared_risk_sum:increase1h",
            f"model_feedback_squared_risk_sum_total{kept}",
            windows,
        ),
        rule(total, f"sum by (outcome, window, model_name, model_version) ({labels})"),
        rule(everyone, f"{by_window} ({labels})"),
        rule("window:model_feedback:positive_ratio", f"{positives} / {any_labels}"),
        rule(auc, roc_auc(labels, total)),
        rule(f"{auc}_stderr", roc_auc_stderr(auc, total)),
        rule(brier, f"({by_window} ({squares}) - 2 * {positive_risks} + {positives}) / {any_labels}"),
        rule(
            f"{brier}_stderr",
            f"sqrt(clamp_min(\n  ({fourth})\n  / {any_labels} - {brier} ^ 2, 0) / {any_labels})",
        ),
        rule(
            "window:model_feedback:calibration_bias", f"({by_window} ({risks}) - {positives}) / {any_labels}"
        ),
        rule("window:model_feedback:calibration_bias_stderr", f"sqrt({variance}) / {any_labels}"),
        rule("window:model_feedback:observed_expected_ratio", f"{positives} / ({by_window} ({risks}) > 0)"),
        rule(
            error,
            f'{by_window} (abs({by_bin} ({labels}{{outcome="1"}}) - {by_bin} ({risks}))) / {any_labels}',
        ),
        # What a calibrated model would show: the error of a few labels is never 0.
        rule(
            f"{error}_if_calibrated",
            f"{math.sqrt(2 / math.pi)} * {by_window} (\n"
            f"  sqrt(clamp_min({by_bin} ({risks}) - {by_bin} ({squares}), 0))\n) / {any_labels}",
        ),
        rule(f"{error}_stderr", f"sqrt({1 - 2 / math.pi} * {variance}) / {any_labels}"),
        *calibration_rules(labels, risks, everyone, error),
        *(
            rule(
                "quantile:model_feedback_delay_seconds:increase1d",
                f"histogram_quantile({quantile},"
                " sum by (le, model_name, model_version)"
                " (increase(model_feedback_delay_seconds_bucket[1d])))",
                quantile=quantile,
            )
            for quantile in ("0.5", "0.9")
        ),
    ]


def calibration_rules(labels: str, risks: str, everyone: str, error: str) -> list[Rule]:
    """Evidence that outcomes do not follow the risks, bin by bin and for all labels together (bin="all")."""
    observed, expected = (
        "bin_outcome_window:model_calibration:observed",
        "bin_outcome_window:model_calibration:expected",
    )
    rows, prior = "bin_window:model_calibration:labels", "bin_outcome_window:model_calibration:prior"
    risk_sums = "bin_window:model_calibration:risk_sum"
    by_bin = "bin_window:model_calibration:evidence"
    aspects, evidence = "aspect_window:model_calibration:evidence", "window:model_calibration:evidence"

    def with_all(series: str, by: str) -> str:
        pooled = f'label_replace(sum by ({by}) ({series}), "bin", "all", "", "")'
        return f"sum by (bin, {by}) ({series})\nor {pooled}"

    return [
        rule(observed, with_all(labels, "outcome, window, model_name, model_version")),
        rule(rows, f"sum by (bin, window, model_name, model_version) ({observed})"),
        rule(risk_sums, with_all(risks, "window, model_name, model_version")),
        rule(expected, risk_sums, outcome="1"),
        rule(expected, f"clamp_min({rows} - {risk_sums}, 0)", outcome="0"),
        rule(
            prior,
            f"clamp_min({CALIBRATION_CONCENTRATION} * {expected}\n"
            f"/ on (bin, window, model_name, model_version) group_left () ({rows} > 0), {SMALLEST_PRIOR})",
        ),
        # log10 of P(outcomes | rate drawn from Beta around the mean risk) / P(outcomes | mean risk).
        rule(
            by_bin,
            block(
                "sum by (bin, window, model_name, model_version) "
                + block(
                    f"{block(log_gamma(f'({prior} + {observed})'))}\n- {block(log_gamma(prior))}\n"
                    f"- {observed} * ln({prior} / {CALIBRATION_CONCENTRATION})"
                )
                + f"\n- {block(log_gamma(f'({CALIBRATION_CONCENTRATION} + {rows})'))}\n"
                + f"+ {math.lgamma(CALIBRATION_CONCENTRATION)}"
            )
            + f" / {math.log(10)}",
        ),
        rule(
            aspects, f'sum by (window, model_name, model_version) ({by_bin}{{bin!="all"}})', aspect="by_bin"
        ),
        rule(aspects, f'sum by (window, model_name, model_version) ({by_bin}{{bin="all"}})', aspect="pooled"),
        # The larger of two costs a factor of 2; 0 without labels.
        rule(
            evidence,
            f"max by (window, model_name, model_version) ({aspects}) - {math.log10(2)}\nor 0 * {everyone}",
        ),
        rule(
            "version:model_calibration:alarm",
            f"max by (model_name, model_version)"
            f" ({evidence} * ({error} >= bool {CALIBRATION_FLOOR})\nor 0 * {everyone})",
        ),
    ]


def groups() -> list[Group]:
    """All recording rules."""
    return [
        Group("service", service_rules()),
        Group("features", feature_rules()),
        Group("scores", score_rules()),
        Group("labels", label_rules()),
        Group(
            "model",
            [
                rule(
                    "version:model_age:seconds",
                    "time() - max by (model_name, model_version) (model_trained_timestamp_seconds)",
                )
            ],
        ),
    ]


def levels() -> list[list[Rule]]:
    """The rules by depth: those of level 0 read only raw metrics, those of level n only levels below n.

    `promtool tsdb create-blocks-from rules` does not see what its own rules produce, so a backfill takes one
    level after the other.
    """
    rules = [one for group in groups() for one in group.rules]
    names = {one.record for one in rules}
    depth: dict[str, int] = {}
    for one in rules:
        used = set(re.findall(r"[a-z_]+(?::[a-z_0-9]+)+", one.expr)) & names
        at = max((depth[name] + 1 for name in used), default=0)
        depth[one.record] = max(at, depth.get(one.record, 0))
    return [[one for one in rules if depth[one.record] == level] for level in range(max(depth.values()) + 1)]


def as_yaml(rule_groups: Sequence[Group]) -> str:
    """A Prometheus rule file."""
    lines = ["groups:"]
    for group in rule_groups:
        lines += [f"  - name: {group.name}", "    rules:"]
        for one in group.rules:
            lines += [f"      - record: {one.record}"]
            if one.labels:
                pairs = ", ".join(f'{name}: "{value}"' for name, value in one.labels.items())
                lines += [f"        labels: {{{pairs}}}"]
            lines += ["        expr: |-", indent(one.expr, " " * 10)]
    return "\n".join(lines) + "\n"


def rule_file() -> str:
    """The text of rules.yml."""
    return "# Written by `python -m monitoring.prometheus`: change the formulas there.\n" + as_yaml(groups())


def main(argv: Sequence[str] | None = None) -> int:
    """Write rules.yml, or say whether it is fresh."""
    parser = argparse.ArgumentParser(description="Write the recording rules of Prometheus.")
    parser.add_argument("--check", action="store_true", help="only say whether rules.yml is up to date")
    if not parser.parse_args(argv).check:
        RULES.write_text(rule_file(), encoding="utf-8")
        return 0
    if RULES.exists() and RULES.read_text(encoding="utf-8") == rule_file():
        return 0
    print(f"{RULES.name} is out of date: run python -m monitoring.prometheus", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
