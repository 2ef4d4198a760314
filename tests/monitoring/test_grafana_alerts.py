"""Alert rules just below and just above their limits, evaluated by promtool from Grafana's own file."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from monitoring.grafana import lint
from tests.conftest import require

RULES = {rule["title"]: rule for _, rule in lint.read().rules()}
COMPARISON = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
V = 'model_name="risk",model_version="1"'
SERVED = {f'model_info{{{V},synthetic="false"}}': "1"}
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
_LOWER = "fate_feature_window:model_feature_values:ratio_lower"
SOUND = {
    **NO_DRIFT,
    **REFERENCE,
    **SERVED,
    **{
        f'{_LOWER}{{fate="{fate}",feature="BMI",window="1d",{V}}}': "0"
        for fate in ("missing", "out_of_range", "unknown_level")
    },
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
        Case("job:sidecar_upstream_down:ratio", "0.5", "0.51"),
    ],
    "Model replica down": [
        Case(
            'sidecar_upstream_contact_timestamp_seconds{instance="b"}',
            "1140",
            "1139",
            {"job:sidecar_upstream_down:ratio": "0.5"},
        ),
    ],
    "Sidecar down": [
        Case('up{job="exporter",instance="b"}', "1", "0"),
        Case(  # two of three
            'up{job="exporter",instance="b"}',
            "1",
            "0",
            {'up{job="exporter",instance="a"}': "0", 'up{job="exporter",instance="c"}': "1"},
        ),
    ],
    "Sidecar replica down": [
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
        # One refusal in five minutes, however few requests; and a share of 1 % of very many.
        Case(
            'sidecar_requests_refused_total{reason="overload"}',
            "0x16 1x30",
            "0+9x30",
            {'sidecar_requests_total{endpoint="invocations",status="5xx"}': "0+10x30"},
        ),
        Case(
            'sidecar_requests_refused_total{reason="overload"}',
            "0+9x30",
            "0+11x30",
            {'sidecar_requests_total{endpoint="invocations",status="2xx"}': "0+1000x30"},
        ),
    ],
    "Requests wait": [
        Case("sidecar_queue_oldest_wait_seconds", "5", "5.1", {"job:sidecar_upstream_down:ratio": "0"}),
    ],
    "No traffic": [
        Case('window:sidecar_requests:increase{window="1h"}', "100x20160 5x30", "100x20160 4x30"),
        Case('window:sidecar_requests:increase{window="1h"}', "19x20160 0x30", "20x20160 0x30"),
    ],
    "Sidecar cannot observe": [
        # One odd body is no alarm; one in twenty is.
        Case(
            'sidecar_observation_failures_total{part="body"}',
            "0x10 1x30",
            "0+1x30",
            {'sidecar_requests_total{endpoint="invocations",status="2xx"}': "0+1x30"},
        ),
    ],
    "Target down": [
        Case('up{job="node-exporter",instance="a"}', "1", "0", {'up{job="exporter"}': "0"}),
    ],
    "Rules fail": [
        Case(
            'prometheus_rule_evaluation_failures_total{rule_group="a"}',
            "3",
            "3x10 4x30",
            {'prometheus_rule_group_iterations_missed_total{rule_group="a"}': "0"},
        ),
        *(
            Case(  # an alert that Grafana cannot evaluate keeps its last state, and would be silent
                metric,
                "3",
                "3x10 4x30",
                {
                    'prometheus_rule_evaluation_failures_total{rule_group="a"}': "0",
                    'prometheus_rule_group_iterations_missed_total{rule_group="a"}': "0",
                },
            )
            for metric in (
                'grafana_alerting_rule_evaluation_failures_total{org="1"}',
                'grafana_alerting_schedule_rule_evaluations_missed_total{org="1",name="Model down"}',
            )
        ),
    ],
    "Messages fail": [
        Case('grafana_alerting_notifications_failed_total{integration="slack"}', "2x100", "2x75 3x30"),
        Case(  # born with its first failure
            'grafana_alerting_notifications_failed_total{integration="slack"}', "_x75 0x30", "_x75 1x30"
        ),
        Case(  # Prometheus was away an hour ago
            'grafana_alerting_notifications_failed_total{integration="slack"}',
            "3x10 _x20 3x100",
            "3x10 _x20 3x30 4x100",
        ),
        Case(  # counted anew since Grafana was started again
            'grafana_alerting_notifications_failed_total{integration="slack"}', "5x100", "5x60 _x14 1x100"
        ),
        Case(  # by another Grafana, at another address
            'grafana_alerting_notifications_failed_total{integration="slack",instance="b"}',
            "_x75 0x100",
            "_x75 1x100",
            {'grafana_alerting_notifications_failed_total{integration="slack",instance="a"}': "1x60 stale"},
        ),
    ],
    "Watchdog": [],
    "Feature drift": [Case(DRIFT, "7.09", "7.1", LIMIT)],
    "Score drift": [Case(f"version:model_scores:drift_alarm{{{V}}}", "7.09", "7.1", LIMIT)],
    "Drift with harm": [
        # Drift all along, and the expected ROC AUC drops; then the drop all along, and drift comes.
        Case(HARM, "0.801", "0.799", NO_DRIFT | GOOD | {DRIFT: "8"}),
        Case(DRIFT, "7.09", "7.1", NO_DRIFT | GOOD | {HARM: "0.7"}),
    ],
    "Missing values": [Case(share("missing"), "0.149", "0.151", REFERENCE | SERVED)],
    "Invalid values": [
        Case(share("out_of_range"), "0.0099", "0.0101", SERVED | {share("unknown_level"): "0.5"})
    ],
    "Unknown levels": [Case(share("unknown_level"), "0.0099", "0.0101", SERVED | {share("missing"): "0.5"})],
    "Realised ROC AUC below floor": [
        Case(f'window:model_feedback:roc_auc{{window="30d",{V}}}', "0.781", "0.779", GOOD),
        Case(
            f'window:model_feedback:roc_auc{{window="7d",{V}}}',
            "0.721",
            "0.719",
            GOOD | {f'window:model_feedback:roc_auc_stderr{{window="7d",{V}}}': "0.04"},
        ),
    ],
    "Expected ROC AUC below floor": [Case(HARM, "0.791", "0.789", GOOD | NO_DRIFT)],
    "Calibration": [Case(f"version:model_calibration:alarm{{{V}}}", "7.09", "7.1", LIMIT)],
    "Retraining asked for": [
        Case(f'window:model_feedback:roc_auc{{window="30d",{V}}}', "0.781", "0.779", GOOD | SOUND),
        # Held while a value is missing too often.
        Case(
            share("missing"),
            "0.151",
            "0.149",
            GOOD | SOUND | {f'window:model_feedback:roc_auc{{window="30d",{V}}}': "0.7"},
        ),
    ],
    "Recalibration asked for": [
        Case(f"version:model_calibration:alarm{{{V}}}", "7.09", "7.1", GOOD | SOUND),
        # A model that ranks too badly is trained again instead.
        Case(
            f'window:model_feedback:roc_auc{{window="30d",{V}}}',
            "0.779",
            "0.781",
            GOOD | SOUND | {f"version:model_calibration:alarm{{{V}}}": "8"},
        ),
    ],
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
            'process_start_time_seconds{job="exporter",instance="a"}',
            "1x5 2x5 3x20",
            "1x5 2x5 3x5 4x20",
        )
    ],
}


def breach(rule: Mapping[str, Any]) -> str:
    """PromQL for 1 while the rule's condition holds for any series, else 0, from the rule as it stands."""
    return f"max({condition(rule, 'bool ')})"


def condition(rule: Mapping[str, Any], as_number: str = "") -> str:
    """PromQL for the rule's condition: the series for which it holds, or 0 and 1."""
    evaluator = rule["data"][1]["model"]["conditions"][0]["evaluator"]
    expr, comparison = rule["data"][0]["model"]["expr"], COMPARISON[evaluator["type"]]
    return f"({expr}) {comparison} {as_number}{evaluator['params'][0]}"


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
                "eval_time": {"x20160": "20180m", "x75": "80m", "x100": "80m"}.get(
                    next((part for part in ("x20160", "x75", "x100") if part in value), ""), "20m"
                ),
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
def test_no_traffic_names_the_lesser_of_yesterday_and_a_week_ago(tmp_path: Path) -> None:
    (usual,) = [q["model"]["expr"] for q in RULES["No traffic"]["data"] if q["refId"] == "C"]
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": 'window:sidecar_requests:increase{window="1h"}', "values": values}],
            "promql_expr_test": [
                {
                    "expr": usual,
                    "eval_time": "11520m",  # eight days
                    "exp_samples": [{"labels": "{}", "value": 50}],
                }
            ],
        }
        for values in ("50x5000 1000x7000", "1000x5000 50x7000")
    ]
    done = run_promtool(tests, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
def test_bad_values_of_a_version_that_is_no_longer_served_are_over(tmp_path: Path) -> None:
    """Its rows stay in the window of a day; it was rolled back at minute 60."""
    served = f'model_info{{{V},synthetic="false"}}'
    for title, fate in (("Invalid values", "out_of_range"), ("Unknown levels", "unknown_level")):
        test = {
            "interval": "1m",
            "input_series": [
                {"series": share(fate), "values": "0.3x400"},
                {"series": served, "values": "1x60"},
            ],
            "promql_expr_test": [
                {
                    "expr": f"count({condition(RULES[title])}) or vector(0)",
                    "eval_time": f"{minute}m",
                    "exp_samples": [{"labels": "{}", "value": value}],
                }
                for minute, value in ((30, 1), (179, 1), (185, 0))
            ],
        }
        done = run_promtool([test], tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
def test_a_title_without_a_model_does_not_take_the_figure_away(tmp_path: Path) -> None:
    """Grafana takes a rule of which any query is empty for one without data: that for the model never is.

    Else nothing would ring where no model was served for a day, but *Prometheus down*, and the watchdog
    would stop.
    """
    queries = {q["model"]["expr"] for rule in RULES.values() for q in rule["data"] if q["refId"] == "M"}
    assert len(queries) == 1
    served = f'model_info{{{V},synthetic="false"}}'
    expected = '{model_name="risk", model_version="1", synthetic="false"}'
    for series, sample in (
        ([], {"labels": "{}", "value": 0}),
        ([served], {"labels": expected, "value": 1200}),
    ):
        test = {
            "interval": "1m",
            "input_series": [{"series": name, "values": "1+0x30"} for name in ["up", *series]],
            "promql_expr_test": [
                {"expr": query, "eval_time": "20m", "exp_samples": [sample]} for query in queries
            ],
        }
        done = run_promtool([test], tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
def test_promtool_notices_a_wrong_expectation(tmp_path: Path) -> None:
    """The test above can fail."""
    case = CASES["Feature drift"][0]
    assert run_promtool([promtool_test("Feature drift", case, case.silent, 1)], tmp_path).returncode != 0


def test_every_alert_has_a_case() -> None:
    """A new rule needs values at which it is silent and at which it fires."""
    assert set(CASES) == set(RULES)


def test_nothing_about_the_model_wakes_anybody_but_its_absence() -> None:
    """A model decays slowly: a warning in the daytime, once."""
    critical = {title for title, rule in RULES.items() if rule["labels"]["severity"] == "critical"}
    assert critical == {
        "Model down",
        "Sidecar down",
        "Prometheus down",
        "Model and reference do not match",
        "Error budget burns fast",
        "Latency budget burns fast",
    }


def test_only_one_rule_speaks_when_there_is_no_data_or_no_answer() -> None:
    """One cause gives one alert: every other rule keeps its state or is content."""
    no_data = {title for title, rule in RULES.items() if rule["noDataState"] not in ("OK", "KeepLast")}
    failing = {title for title, rule in RULES.items() if rule["execErrState"] != "KeepLast"}
    assert no_data == failing == {"Prometheus down"}


KEPT = {title for title, rule in RULES.items() if rule["noDataState"] == "KeepLast"}
OF_ROWS = {
    "Missing values",
    "Invalid values",
    "Unknown levels",
    "Feature drift",
    "Score drift",
    "Calibration",
}


def test_a_sidecar_that_is_away_ends_no_alert_about_rows_or_labels() -> None:
    """They keep their state while there is no data; then each has to have some while a model is served."""
    of_labels = {"Realised ROC AUC below floor", "Expected ROC AUC below floor", "Drift with harm"}
    assert OF_ROWS | of_labels | {"Retraining asked for", "Recalibration asked for"} == KEPT


@pytest.mark.real
@pytest.mark.parametrize("title", sorted(KEPT - OF_ROWS))
def test_a_figure_that_is_not_known_is_no_alarm_and_a_sidecar_away_is_no_figure(
    title: str, tmp_path: Path
) -> None:
    """A new version has no rows and labels; the windows of a version outlive the facts of its sidecar."""
    expr = f"count({RULES[title]['data'][0]['model']['expr']})"
    limits = {**LIMIT, **NO_DRIFT, f"version:model_calibration:alarm{{{V}}}": "0"}
    windows = {name: value for name, value in GOOD.items() if name.startswith("window:")}
    for name, series, samples in (
        ("served", limits | SERVED, [{"labels": "{}", "value": 1}]),
        ("away", limits | windows, []),
    ):
        test = {
            "interval": "1m",
            "input_series": [{"series": key, "values": f"{text}+0x30"} for key, text in series.items()],
            "promql_expr_test": [{"expr": expr, "eval_time": "20m", "exp_samples": samples}],
        }
        folder = tmp_path / name
        folder.mkdir()
        done = run_promtool([test], folder)
        assert done.returncode == 0, done.stdout + done.stderr


def test_drift_alone_starts_nothing() -> None:
    """Two rules ask for an act, and nobody is told by them."""
    asking = {title: rule["labels"] for title, rule in RULES.items() if "action" in rule["labels"]}
    assert {title: labels["action"] for title, labels in asking.items()} == {
        "Retraining asked for": "retrain",
        "Recalibration asked for": "recalibrate",
    }
    assert all(labels["severity"] == "action" for labels in asking.values())
