"""PromQL that both an alert rule and a panel need: recorded series in relation to their limits.

The recording rules compute all statistics.
"""

from monitoring.grafana.alerts import thresholds
from monitoring.prometheus.promql import MODEL
from monitoring.prometheus.service import MODEL_DOWN

_AT = f"on ({MODEL})"
# The model that is served, for messages; while the sidecar is away the one that was served last in a day.
# Without one, a 0 without labels: Grafana takes a rule of which any query is empty for one without data.
_INFO_SEEN = "timestamp(model_info)"
SERVED = (
    f"topk(1, max by ({MODEL}, synthetic) ({_INFO_SEEN})\n"
    f"or max by ({MODEL}, synthetic) (last_over_time({_INFO_SEEN}[1d:5m])))\n"
    "or on () vector(0)"
)

_LIMIT = "version:model_evidence:limit"
FLOOR = f'max by ({MODEL}) (model_floor{{metric="roc_auc"}})'
VALIDATION = f'max by ({MODEL}) (model_validation{{metric="roc_auc"}})'

# Evidence where the effect is large enough too, as a multiple of the limit: an alarm from 1 on.
FEATURE_DRIFT = f"feature:model_feature_values:drift_alarm / {_AT} group_left () {_LIMIT}"
SCORE_DRIFT = f"version:model_scores:drift_alarm / {_AT} {_LIMIT}"
CALIBRATION = f"version:model_calibration:alarm / {_AT} {_LIMIT}"
WORST_DRIFT = f"max by ({MODEL}) ({FEATURE_DRIFT} or {SCORE_DRIFT})"


def _best_case(kind: str, newer: str, longer: str) -> str:
    """ROC AUC plus its standard errors, the least of two windows: what it still could be.

    The longer window does not count where the newer one lies a standard error above the floor: what it holds
    was mended since.
    """
    auc, error = f"window:model_{kind}:roc_auc", f"window:model_{kind}:roc_auc_stderr"

    def best(window: str) -> str:
        selector = f'{{window="{window}"}}'
        return f"({auc}{selector} + {thresholds.STANDARD_ERRORS} * {error}{selector})"

    above_floor = f'({auc}{{window="{newer}"}} - {error}{{window="{newer}"}} >= {_AT} {FLOOR})'
    return f"min by ({MODEL}) (\n  {best(newer)}\n  or ({best(longer)} unless {_AT} {above_floor})\n)"


EXPECTED_BEST = _best_case("expected", "1d", "14d")
REALISED_BEST = _best_case("feedback", "7d", "30d")
# 0 for each model that is served, where a figure is not known. While no sidecar tells which model is served
# there is no value, and the alert keeps its state.
_NOTHING = f"0 * max by ({MODEL}) (model_info)"
# Negative where ROC AUC lies below the model's floor, however its uncertainty is turned.
REALISED_ABOVE_FLOOR = f"{REALISED_BEST}\n- {_AT} {FLOOR}\nor {_NOTHING}"
_REALISED_LOSS = f"({REALISED_ABOVE_FLOOR}) < 0"
# How far the expected ROC AUC lies under its value on validation rows; 0 where neither can be told.
DROP = f"max by ({MODEL}) (\n  {VALIDATION} - {_AT} {EXPECTED_BEST}\n  or {_NOTHING}\n)"
# Drift, and a drop of the expected ROC AUC; 0 where late labels say the same already.
HARM = (
    f"({WORST_DRIFT} >= bool {thresholds.EVIDENCE_ALARM})\n* {_AT} ({DROP})\n"
    f"unless {_AT} ({_REALISED_LOSS})\nor {_NOTHING}"
)
_HARM = f"(({HARM}) > {thresholds.ROC_AUC_DROP})"
# The same without drift that anybody knows of; not where one of the two above says it.
EXPECTED_ABOVE_FLOOR = (
    f"({EXPECTED_BEST}\n- {_AT} {FLOOR})\nunless {_AT} ({_REALISED_LOSS})\nunless {_AT} {_HARM}"
    f"\nor {_NOTHING}"
)


def bad_values(fate: str, windows: str = "1h|1d") -> str:
    """Share of values of one fate that is certain (at 0.999), by feature: the most over the windows.

    The last one known within two hours, so that a sidecar that is away mends nothing. Of a version that was
    served within that time: the rows of the one before stay in the window of a day.
    """
    share = f'fate_feature_window:model_feature_values:ratio_lower{{fate="{fate}",window=~"{windows}"}}'
    served = f"on ({MODEL}) last_over_time(model_info[2h])"
    return f"max by (feature, {MODEL}) (last_over_time({share}[2h]) and {served})"


def share_of_fate(fate: str) -> str:
    """Share of values of one fate in the last hour or day, whichever is larger, for messages."""
    share = f'fate_feature_window:model_feature_values:ratio{{fate="{fate}",window=~"1h|1d"}}'
    return f"max by (feature, {MODEL}) (last_over_time({share}[2h]))"


_MISSING = f"max by (feature, {MODEL}) (last_over_time(model_feature_reference_missing_rows[2h]))"
REFERENCE_MISSING = (
    f"{_MISSING}\n/ on (feature, {MODEL}) ({_MISSING} + on (feature, {MODEL})"
    " last_over_time(feature:model_feature_values_reference:rows[2h]))"
)
MORE_MISSING = f"{bad_values('missing')}\n- on (feature, {MODEL}) ({REFERENCE_MISSING})"
# 1 while no value is missing, invalid or unknown too often: training on a broken source learns the fault.
SOURCES_SOUND = (
    f"({_LIMIT} * 0 + 1 unless {_AT} (\n"
    f"  max by ({MODEL}) ({MORE_MISSING}) > {thresholds.MISSING_SHARE}\n"
    f"  or max by ({MODEL}) ({bad_values('out_of_range')}) > {thresholds.BAD_SHARE}\n"
    f"  or max by ({MODEL}) ({bad_values('unknown_level')}) > {thresholds.BAD_SHARE}\n))"
)
_RETRAIN = f"max by ({MODEL}) (({_REALISED_LOSS}) * 0 + 1 or {_HARM} * 0 + 1)"
# 1 where the act is asked for and the sources are sound, else 0.
RETRAIN = f"({_RETRAIN}) * {_AT} {SOURCES_SOUND}\nor {_NOTHING}"
RECALIBRATE = (
    f"(({CALIBRATION}) >= {thresholds.EVIDENCE_ALARM}) * 0 + 1\n"
    f"and {_AT} {SOURCES_SOUND}\nunless {_AT} ({_RETRAIN})\nor {_NOTHING}"
)

# The bin whose share rose most in the last day: its share now, with what it is in words, and in training.
_NOW = (
    'feature_bin_window:model_feature_values:increase{window="1d"}'
    f' / on (feature, {MODEL}) group_left () (feature_window:model_feature_values:rows{{window="1d"}} > 0)'
)
_TRAINING = "feature_bin:model_feature_values_reference:ratio"
_ROSE_MOST = f"topk by (feature, {MODEL}) (1, {_NOW} - on (feature, bin, {MODEL}) {_TRAINING})"
_LEVEL = f"max by (feature, bin, level, {MODEL}) (last_over_time(model_feature_level_info[2h]))"
ROSE_MOST_NOW = (
    f"({_NOW} and on (feature, bin, {MODEL}) {_ROSE_MOST})\n"
    f"* on (feature, bin, {MODEL}) group_left (level) {_LEVEL}"
)
ROSE_MOST_TRAINING = f"{_TRAINING} and on (feature, bin, {MODEL}) {_ROSE_MOST}"
FEATURE_PSI = f'max by (feature, {MODEL}) (feature_window:model_feature_values:psi{{window=~"1d|3d|14d"}})'
SCORE_PSI = f'max by ({MODEL}) (window:model_scores:psi{{window=~"1d|3d|14d"}})'
LABELLED_OBSERVED_EXPECTED = (
    f'sum by ({MODEL}) (bin_outcome_window:model_feedback:increase{{outcome="1",window="30d"}})\n'
    f'/ sum by ({MODEL}) (bin_outcome_window:model_feedback_risk_sum:increase{{window="30d"}})'
)

# Of the replica that has been without an answer for longest: a healthy one must not hide it.
SILENCE = "max(time() - sidecar_upstream_contact_timestamp_seconds)"
MODELS_DOWN = f"max({MODEL_DOWN})"
_FEW_DOWN = f"on () group_left () ({MODELS_DOWN} <= bool {thresholds.MOST})"
ONE_SILENT = f"max by (instance) (time() - sidecar_upstream_contact_timestamp_seconds) * {_FEW_DOWN}"
# A container that stops loses its name and its target: only their number tells. `SIDECARS` is how many stood
# for ten minutes within the hour, since old and new ones overlap while they are replaced.
SIDECARS_THERE = 'count(up{job="exporter"})'
SIDECARS = f"max_over_time(min_over_time({SIDECARS_THERE}[10m:1m])[1h:1m])"
# Share of them that can be scraped.
SIDECARS_UP = f'(sum(up{{job="exporter"}}) / {SIDECARS}) or vector(0)'
# One that does not answer, by its address; and, without an address, that there are fewer of them than before.
ONE_SIDECAR_DOWN = (
    f'(max by (instance) (1 - up{{job="exporter"}})\nor clamp_max({SIDECARS} - {SIDECARS_THERE}, 1))\n'
    f"* on () group_left () (({SIDECARS_UP}) >= bool {thresholds.MOST})"
)
PAIR_MATCHES = "min(sidecar_reference_loaded) * (min(model_golden_rows_match) or vector(1))"
_REFUSED = 'sum(increase(sidecar_requests_refused_total{reason="overload"}[5m]))'
OVERLOAD = (
    f'{_REFUSED} / clamp_min(sum(increase(sidecar_requests_total{{endpoint="invocations"}}[5m])), 1)\n'
    f"* ({_REFUSED} >= bool {thresholds.FEWEST_REFUSED})"
)
# Quiet while the model is down and for five minutes after it, in which a sidecar may have been started again.
WAITING = (
    "max(sidecar_queue_oldest_wait_seconds)"
    f" * (max(max_over_time({MODEL_DOWN}[5m])) <= bool {thresholds.MOST})"
)
_HOUR = 'max(window:sidecar_requests:increase{{window="1h"}}{})'
_YESTERDAY, _A_WEEK_AGO = _HOUR.format(" offset 1d"), _HOUR.format(" offset 7d")
USUAL_REQUESTS = f"({_YESTERDAY} < {_A_WEEK_AGO}) or {_A_WEEK_AGO}"
# Requests of the last hour as a share of the same hour of other days; 1 where those had few.
TRAFFIC = (
    f"{_HOUR.format('')} / ({_YESTERDAY} >= {thresholds.USUAL_REQUESTS}"
    f" and {_A_WEEK_AGO} >= {thresholds.USUAL_REQUESTS})\nor vector(1)"
)
# Without the golden rows, which are no answer to anybody and have an alert of their own.
_UNOBSERVED = 'sum(increase(sidecar_observation_failures_total{part!="golden"}[15m]))'
_ANSWERS = 'sum(increase(sidecar_requests_total{endpoint="invocations",status="2xx"}[15m]))'
UNOBSERVED = f"{_UNOBSERVED}\n/ clamp_min({_ANSWERS}, {thresholds.FEWEST_ANSWERS})"
# For messages: of the answers that there were; one answer may fail in two parts.
UNOBSERVED_OF_ANSWERS = f"clamp_max({_UNOBSERVED} / clamp_min({_ANSWERS}, 1), 1)"
# Exporter and Prometheus have alerts of their own. A job of which no target is left was there within a day.
_OTHERS = 'up{job!~"exporter|prometheus"}'
TARGET_DOWN = (
    f"max by (job, instance) (1 - {_OTHERS})\n"
    f"or group by (job) (max_over_time({_OTHERS}[1d]) unless on (job) {_OTHERS})"
)
# Of recording rules and of Grafana's, in every eleven minutes, which hold an evaluation of the slowest group.
# A short pause of Prometheus misses some once, and that is over before the alert has waited.
RULES_FAIL = (
    "sum(increase(prometheus_rule_evaluation_failures_total[11m]))\n"
    "+ sum(increase(prometheus_rule_group_iterations_missed_total[11m]))\n"
    "+ (sum(increase(grafana_alerting_rule_evaluation_failures_total[11m])) or vector(0))\n"
    "+ (sum(increase(grafana_alerting_schedule_rule_evaluations_missed_total[11m])) or vector(0))"
)
# Not `increase`: a series is born with its first failure, also in a Grafana that is new. How many there were
# an hour ago, or when Prometheus was last there before.
_FAILED = "grafana_alerting_notifications_failed_total"
_FAILED_BEFORE = f"last_over_time({_FAILED}[1d] offset 1h)"
MESSAGES_FAIL = f"sum by (integration) (\n  {_FAILED} - (({_FAILED_BEFORE} <= {_FAILED}) or 0 * {_FAILED})\n)"


def burn(slo: str, severity: str) -> str:
    """The recorded burn alarm of one objective and severity, the worst over its pairs of windows."""
    return f'max(severity_slo_windows:sidecar_error_budget:burn_alarm{{slo="{slo}",severity="{severity}"}})'


def bad_share(slo: str, window: str) -> str:
    """Share of requests of a window that missed an objective."""
    return f'max(slo_window:sidecar_requests_bad:ratio{{slo="{slo}",window="{window}"}})'


# Labels of the last week, where there were any in the last quarter.
LABELS_A_WEEK = (
    'sum(window:model_feedback:labels{window="7d"}) and sum(window:model_feedback:labels{window="90d"}) > 0'
)
AGE = f"max by ({MODEL}) (version:model_age:seconds)"
FREE_MEMORY = "min(node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)"
_DISKS = 'fstype!~"tmpfs|overlay|squashfs|ramfs"'
FREE_DISK = (
    f"min by (mountpoint) (node_filesystem_avail_bytes{{{_DISKS}}} / node_filesystem_size_bytes{{{_DISKS}}})"
)
RESTARTED = "max by (job) (changes(process_start_time_seconds[1h]))"
