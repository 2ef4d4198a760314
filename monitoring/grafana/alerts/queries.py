"""PromQL that both an alert rule and a panel need: recorded series put in relation to their limits.

Nothing here computes a statistic; that is the recording rules' work.
"""

from monitoring.grafana.alerts.thresholds import STANDARD_ERRORS

# Joins a series to the version that is served now, and so drops the older ones.
CURRENT = "on (model_name, model_version) group_left () max by (model_name, model_version) (model_info)"

_LIMIT = "version:model_evidence:limit"
_FLOOR = 'max by (model_name, model_version) (model_floor{metric="roc_auc"})'
_VALIDATION = 'max by (model_name, model_version) (model_validation{metric="roc_auc"})'

# Evidence where the effect is large enough too, as a multiple of the limit: an alarm from 1 on.
FEATURE_DRIFT = (
    f"feature:model_feature_values:drift_alarm / on (model_name, model_version) group_left () {_LIMIT}"
)
SCORE_DRIFT = f"version:model_scores:drift_alarm / on (model_name, model_version) {_LIMIT}"
CALIBRATION = f"version:model_calibration:alarm / on (model_name, model_version) {_LIMIT}"
WORST_DRIFT = f"max by (model_name, model_version) ({FEATURE_DRIFT} or {SCORE_DRIFT})"

# Windows in which performance is judged: short ones see a change soon, long ones see a small one.
_EXPECTED = 'window=~"1d|14d"'
_REALISED = 'window=~"7d|30d"'


def _best_case(kind: str, windows: str) -> str:
    """ROC AUC plus its standard errors, the least over the windows: what it still could be."""
    auc = f"window:model_{kind}:roc_auc"
    best = f"{auc}{{{windows}}} + {STANDARD_ERRORS} * {auc}_stderr{{{windows}}}"
    return f"min by (model_name, model_version) ({best})"


# Negative where ROC AUC lies below the model's floor, however its uncertainty is turned.
EXPECTED_ABOVE_FLOOR = f"{_best_case('expected', _EXPECTED)} - on (model_name, model_version) {_FLOOR}"
REALISED_ABOVE_FLOOR = f"{_best_case('feedback', _REALISED)} - on (model_name, model_version) {_FLOOR}"
# How far the worse of the two lies under its value on validation rows; 0 where neither can be told.
DROP = (
    f"max by (model_name, model_version) (\n"
    f"  {_VALIDATION} - on (model_name, model_version) {_best_case('expected', _EXPECTED)}\n"
    f"  or label_replace({_VALIDATION} - on (model_name, model_version) {_best_case('feedback', _REALISED)},"
    ' "kind", "realised", "", "")\n'
    f"  or 0 * {_LIMIT}\n)"
)


def bad_values(fate: str, windows: str = "1h|1d") -> str:
    """Share of values of one fate that is certain (at 0.999), by feature: the most over the windows."""
    share = f'fate_feature_window:model_feature_values:ratio_lower{{fate="{fate}",window=~"{windows}"}}'
    return f"max by (feature, model_name, model_version) ({share})"


_MISSING_ROWS = "max by (feature, model_name, model_version) (model_feature_reference_missing_rows)"
REFERENCE_MISSING = (
    f"{_MISSING_ROWS}\n/ on (feature, model_name, model_version) ({_MISSING_ROWS}"
    " + on (feature, model_name, model_version) feature:model_feature_values_reference:rows)"
)
MORE_MISSING = f"{bad_values('missing')}\n- on (feature, model_name, model_version) ({REFERENCE_MISSING})"

# Of the replica that has been without an answer for longest: a healthy one must not hide it.
SILENCE = "max(time() - sidecar_upstream_contact_timestamp_seconds)"
PAIR_MATCHES = "min(model_golden_rows_match or sidecar_reference_loaded)"
OVERLOAD = 'sum(increase(sidecar_requests_refused_total{reason="overload"}[5m]))'
WAITING = "max(sidecar_queue_oldest_wait_seconds)"


def burn(slo: str, severity: str) -> str:
    """The recorded burn alarm of one objective and severity, the worst over its pairs of windows."""
    return f'max(severity_slo_windows:sidecar_error_budget:burn_alarm{{slo="{slo}",severity="{severity}"}})'


REQUESTS_AN_HOUR = 'max(window:sidecar_requests:increase{window="1h"})'
# Labels of the last week, where there were any in the last quarter.
LABELS_A_WEEK = (
    'sum(window:model_feedback:labels{window="7d"}) and sum(window:model_feedback:labels{window="90d"}) > 0'
)
AGE = "max(version:model_age:seconds)"
FREE_MEMORY = "min(node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)"
_DISKS = 'fstype!~"tmpfs|overlay|squashfs|ramfs"'
FREE_DISK = (
    f"min by (mountpoint) (node_filesystem_avail_bytes{{{_DISKS}}} / node_filesystem_size_bytes{{{_DISKS}}})"
)
_SERVICE = "container_label_com_docker_compose_service"
RESTARTED = f'max by ({_SERVICE}) (changes(container_start_time_seconds{{{_SERVICE}!=""}}[1h]))'
