"""Alert rules just below and just above their limits, evaluated by promtool from Grafana's own file."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from monitoring.grafana import lint
from tests.conftest import require

RULES = {rule["title"]: rule for _, rule in lint.read().rules()}
COMPARISON = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
V = 'model_name="risk",model_version="1"'
LIMIT = {f"version:model_evidence:limit{{{V}}}": "7.1"}
NO_DRIFT = {
    **LIMIT,
    f'feature:model_feature_values:drift_alarm{{feature="BMI",{V}}}': "0",
    f"version:model_scores:drift_alarm{{{V}}}": "0",
}
GOOD = {
    f'model_validation{{metric="roc_auc",{V}}}': "0.83",
    f'window:model_expected:roc_auc{{window="1d",{V}}}': "0.83",
    f'window:model_expected:roc_auc_stderr{{window="1d",{V}}}': "0.005",
    f'window:model_feedback:roc_auc{{window="30d",{V}}}': "0.83",
    f'window:model_feedback:roc_auc_stderr{{window="30d",{V}}}': "0.01",
    f'model_floor{{metric="roc_auc",{V}}}': "0.8",
}
HARM = f'window:model_expected:roc_auc{{window="1d",{V}}}'
DRIFT = f'feature:model_feature_values:drift_alarm{{feature="BMI",{V}}}'
REFERENCE = {
    f'model_feature_reference_missing_rows{{feature="BMI",{V}}}': "10",
    f'feature:model_feature_values_reference:rows{{feature="BMI",{V}}}': "90",
}


def burn(slo: str, severity: str) -> str:
    labels = f'slo="{slo}",severity="{severity}",windows="a"'
    return f"severity_slo_windows:sidecar_error_budget:burn_alarm{{{labels}}}"


def share(fate: str) -> str:
    return (
        f'fate_feature_window:model_feature_values:ratio_lower{{fate="{fate}",feature="BMI",window="1d",{V}}}'
    )


class Case(NamedTuple):
    """Series with a value just before the limit and just beyond it; `others` hold still."""

    series: str
    silent: str
    firing: str
    others: dict[str, str] = {}  # noqa: RUF012 - never changed


# Values in promtool's notation, a minute apart; a plain number is constant. Evaluated at 20 min.
CASES: dict[str, list[Case]] = {
    "Model down": [
        Case("sidecar_upstream_contact_timestamp_seconds", "1140", "1139"),
        Case(
            'sidecar_upstream_contact_timestamp_seconds{instance="b"}',
            "1140",
            "1139",
            {'sidecar_upstream_contact_timestamp_seconds{instance="a"}': "1200"},
        ),
    ],
    "Sidecar down": [
        Case('up{job="exporter",instance="b"}', "1", "0", {'up{job="exporter",instance="a"}': "1"})
    ],
    "Prometheus down": [Case('up{job="prometheus"}', "1", "0")],
    "Model and reference do not match": [
        Case(f"model_golden_rows_match{{{V}}}", "1", "0", {"sidecar_reference_loaded": "1"}),
        Case("sidecar_reference_loaded", "1", "0", {f"model_golden_rows_match{{{V}}}": "1"}),
        Case("sidecar_reference_loaded", "1", "0"),
    ],
    "Error budget burns fast": [
        Case(burn("availability", "page"), "0.99", "1", {burn("latency", "page"): "5"}),
    ],
    "Error budget burns slowly": [Case(burn("availability", "ticket"), "0.99", "1")],
    "Latency budget burns fast": [
        Case(burn("latency", "page"), "0.99", "1", {burn("availability", "page"): "5"})
    ],
    "Latency budget burns slowly": [Case(burn("latency", "ticket"), "0.99", "1")],
    "Overload": [
        Case(
            'sidecar_requests_refused_total{reason="overload"}',
            "0",
            "0+1x30",
            {'sidecar_requests_refused_total{reason="guard"}': "0+9x30"},
        )
    ],
    "No traffic": [Case('window:sidecar_requests:increase{window="1h"}', "1", "0.99")],
    "Sidecar cannot observe": [Case('sidecar_observation_failures_total{part="body"}', "3", "3+1x30")],
    "Feature drift": [Case(DRIFT, "7.09", "7.1", LIMIT)],
    "Score drift": [Case(f"version:model_scores:drift_alarm{{{V}}}", "7.09", "7.1", LIMIT)],
    "Drift with harm": [
        # Drift all along, and the expected ROC AUC drops; then the drop all along, and drift comes.
        Case(HARM, "0.801", "0.799", NO_DRIFT | GOOD | {DRIFT: "8"}),
        Case(DRIFT, "7.09", "7.1", NO_DRIFT | GOOD | {HARM: "0.7"}),
        Case(
            f'window:model_feedback:roc_auc{{window="30d",{V}}}',
            "0.791",
            "0.789",
            NO_DRIFT | GOOD | {DRIFT: "8"},
        ),
    ],
    "Missing values": [Case(share("missing"), "0.149", "0.151", REFERENCE)],
    "Invalid values": [Case(share("out_of_range"), "0.0099", "0.0101", {share("unknown_level"): "0.5"})],
    "Unknown levels": [Case(share("unknown_level"), "0.0099", "0.0101", {share("missing"): "0.5"})],
    "Realised ROC AUC below floor": [
        Case(f'window:model_feedback:roc_auc{{window="30d",{V}}}', "0.781", "0.779", GOOD),
        Case(
            f'window:model_feedback:roc_auc{{window="7d",{V}}}',
            "0.721",
            "0.719",
            GOOD | {f'window:model_feedback:roc_auc_stderr{{window="7d",{V}}}': "0.04"},
        ),
    ],
    "Expected ROC AUC below floor": [Case(HARM, "0.791", "0.789", GOOD)],
    "Calibration": [Case(f"version:model_calibration:alarm{{{V}}}", "7.09", "7.1", LIMIT)],
    "Labels stopped": [
        Case(
            f'window:model_feedback:labels{{window="7d",{V}}}',
            "1",
            "0",
            {f'window:model_feedback:labels{{window="90d",{V}}}': "500"},
        )
    ],
    "Model too old": [Case(f"version:model_age:seconds{{{V}}}", "15552000", "15552001")],
    "Host memory": [
        Case("node_memory_MemAvailable_bytes", "101", "99", {"node_memory_MemTotal_bytes": "1000"}),
    ],
    "Host disk": [
        Case(
            'node_filesystem_avail_bytes{mountpoint="/",fstype="ext4"}',
            "101",
            "99",
            {
                'node_filesystem_size_bytes{mountpoint="/",fstype="ext4"}': "1000",
                'node_filesystem_avail_bytes{mountpoint="/tmp",fstype="tmpfs"}': "0",
                'node_filesystem_size_bytes{mountpoint="/tmp",fstype="tmpfs"}': "1000",
            },
        )
    ],
    "Restarts": [
        Case(
            'container_start_time_seconds{container_label_com_docker_compose_service="model"}',
            "1x5 2x5 3x20",
            "1x5 2x5 3x5 4x20",
        )
    ],
}


def breach(rule: dict[str, Any]) -> str:
    """PromQL for 1 while the rule's condition holds for any series, else 0, from the rule as it stands."""
    evaluator = rule["data"][1]["model"]["conditions"][0]["evaluator"]
    expr, comparison = rule["data"][0]["model"]["expr"], COMPARISON[evaluator["type"]]
    return f"max(({expr}) {comparison} bool {evaluator['params'][0]})"


def promtool_test(title: str, case: Case, value: str, expected: int) -> dict[str, Any]:
    series = {**case.others, case.series: value}
    return {
        "name": f"{title}: {case.series} = {value}",
        "interval": "1m",
        "input_series": [
            {"series": name, "values": text if "x" in text else f"{text}+0x30"}
            for name, text in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": breach(RULES[title]),
                "eval_time": "20m",
                "exp_samples": [{"labels": "{}", "value": expected}],
            }
        ],
    }


def run_promtool(tests: list[dict[str, Any]], folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "alerts_test.yml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": tests}), encoding="utf-8")
    command = [require("promtool"), "test", "rules", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.real
def test_every_alert_is_silent_just_before_its_limit_and_fires_just_beyond(tmp_path: Path) -> None:
    """Expression, comparison and limit are read from Grafana's file; promtool evaluates them."""
    tests = [
        promtool_test(title, case, value, expected)
        for title, cases in CASES.items()
        for case in cases
        for value, expected in ((case.silent, 0), (case.firing, 1))
    ]
    done = run_promtool(tests, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
def test_promtool_notices_a_wrong_expectation(tmp_path: Path) -> None:
    """The test above can fail."""
    case = CASES["Feature drift"][0]
    assert run_promtool([promtool_test("Feature drift", case, case.silent, 1)], tmp_path).returncode != 0


def test_every_alert_has_a_case() -> None:
    """A new rule needs values at which it is silent and at which it fires."""
    assert set(CASES) == set(RULES)


def test_drift_alone_is_a_ticket_and_drift_with_harm_a_page() -> None:
    """Severity comes from harm."""
    severity = {title: rule["labels"]["severity"] for title, rule in RULES.items()}
    assert severity["Feature drift"] == severity["Score drift"] == "warning"
    assert severity["Drift with harm"] == "critical"


def test_only_two_rules_speak_when_there_is_no_data_and_one_when_prometheus_fails() -> None:
    """One cause gives one alert: every other rule keeps its state or is content."""
    no_data = {title for title, rule in RULES.items() if rule["noDataState"] != "OK"}
    failing = {title for title, rule in RULES.items() if rule["execErrState"] != "KeepLast"}
    assert no_data == {"Sidecar down", "Prometheus down"}
    assert failing == {"Prometheus down"}


def test_what_a_training_can_mend_starts_one() -> None:
    """Drift, performance and calibration; never a service alert or a broken source alone."""
    starting = {title for title, rule in RULES.items() if rule["labels"].get("action") == "retrain"}
    assert starting == {
        "Feature drift",
        "Score drift",
        "Drift with harm",
        "Realised ROC AUC below floor",
        "Expected ROC AUC below floor",
        "Calibration",
    }
