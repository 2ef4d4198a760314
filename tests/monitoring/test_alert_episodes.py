"""One episode of every alert: all is well, a fault comes, a message is sent, the fault is mended, it is over.

promtool plays each on Prometheus' own alerting: Grafana's `for`, `keepFiringFor`, labels and annotations are
translated (`as_prometheus`), so that what people read is compared word by word. Not covered is what only a
Grafana does: its own state machine, which series of a second query belongs to an alert, routes and grouping
of messages; `test_grafana_run.py` fires alerts in a real one.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
import yaml

from monitoring.grafana import lint
from monitoring.simulation import alert_states
from tests.conftest import require
from tests.monitoring.test_grafana_alerts import (
    DRIFT,
    GOOD,
    LIMIT,
    NO_DRIFT,
    REFERENCE,
    RULES,
    SERVED,
    SOUND,
    burn,
    condition,
    share,
)
from tests.monitoring.test_grafana_alerts import V as VERSION

WEEK = 7 * 24 * 60
MODEL = {"model_name": "risk", "model_version": "1"}


@dataclass(frozen=True)
class Episode:
    """A fault of some minutes in one series or more, and what is to be read.

    faults: series -> (value while all is well, value in the fault); `+1` is a growth a minute, "now" the
    time, "then" the time at which the fault began. others: what holds still. begins: minutes before the
    fault. delay: minutes of it until the condition holds, `tail` from its end until the condition does not.
    labels: those of the alert beside its rule's own.
    """

    faults: Mapping[str, tuple[str, str]]
    summary: str
    labels: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    begins: int = 10
    delay: int = 0
    tail: int = 0


def series(name: str, well: str, fault: str, begins: int, lasts: int, after: int) -> dict[str, str]:
    """One input series of promtool: well, fault, well, a value a minute."""
    values: list[float] = []
    for text in [well] * begins + [fault] * lasts + [well] * after:
        if text in ("now", "then"):
            values.append(60.0 * (len(values) if text == "now" else begins))
        elif text.startswith("+"):
            values.append(float(text) + (values[-1] if values else 0.0))
        else:
            values.append(float(text))
    return {"series": name, "values": " ".join(f"{value:.10g}" for value in values)}


_FATE = "fate_feature_window:model_feature_values:ratio"
BMI = {"feature": "BMI", **MODEL}
ODD = "Pets & food?"  # a column of somebody's table, which a link has to write otherwise
CONTACT = "sidecar_upstream_contact_timestamp_seconds"
ANSWERED = 'sidecar_requests_total{endpoint="invocations",status="2xx"}'
REALISED = f'window:model_feedback:roc_auc{{window="30d",{VERSION}}}'
EXPECTED = f'window:model_expected:roc_auc{{window="1d",{VERSION}}}'
CALIBRATION = f"version:model_calibration:alarm{{{VERSION}}}"

LABELLED = f'window="30d",bin="03",{VERSION}'


def _bad(slo: str, window: str) -> str:
    return f'slo_window:sidecar_requests_bad:ratio{{slo="{slo}",window="{window}"}}'


def _fate(fate: str) -> str:
    return f'{_FATE}{{fate="{fate}",feature="BMI",window="1d",{VERSION}}}'


def _bin(name: str, bin_: str, window: str = "") -> str:
    of_window = f',window="{window}"' if window else ""
    return (
        f'feature_bin{"_window" if window else ""}:{name}{{feature="BMI",bin="{bin_}"{of_window},{VERSION}}}'
    )


def _level(bin_: str, level: str) -> str:
    return (
        f'model_feature_level_info{{feature="BMI",bin="{bin_}",bin_order="{bin_}",level="{level}",{VERSION}}}'
    )


EPISODES: dict[str, Episode] = {
    "Model down": Episode(
        {"job:sidecar_upstream_down:ratio": ("0", "1"), f'{CONTACT}{{instance="a"}}': ("now", "then")},
        "The model has answered nothing for 1m 0s",
    ),
    "Model replica down": Episode(
        {f'{CONTACT}{{instance="b"}}': ("now", "then")},
        "The model behind b has answered nothing for 4m 0s",
        {"instance": "b"},
        {"job:sidecar_upstream_down:ratio": "0.5"},
        delay=2,
    ),
    "Sidecar down": Episode(
        {'up{job="exporter",instance="b"}': ("1", "0")},
        "No sidecar, or fewer than half of them, can be reached",
    ),
    "Sidecar replica down": Episode(
        {'up{job="exporter",instance="b"}': ("1", "0")},
        "The sidecar b cannot be reached",
        {"instance": "b"},
        {'up{job="exporter",instance="a"}': "1"},
    ),
    "Prometheus down": Episode(
        {'up{job="prometheus"}': ("1", "0")}, "Grafana gets no answer from Prometheus"
    ),
    "Model and reference do not match": Episode(
        {f"model_golden_rows_match{{{VERSION}}}": ("1", "0")},
        "The container's scores are not those of the sidecar's reference",
        others={"sidecar_reference_loaded": "1"},
    ),
    "Error budget burns fast": Episode(
        {burn("availability", "page"): ("0", "3"), _bad("availability", "1h"): ("0", "0.231")},
        "23.1 % of requests failed in the last hour (objective 0.5 %)",
    ),
    "Error budget burns slowly": Episode(
        {burn("availability", "ticket"): ("0", "1"), _bad("availability", "1d"): ("0", "0.0152")},
        "1.5 % of requests failed in the last day (objective 0.5 %)",
    ),
    "Latency budget burns fast": Episode(
        {burn("latency", "page"): ("0", "3"), _bad("latency", "1h"): ("0", "0.4")},
        "40.0 % of answers took longer than 250 ms in the last hour (objective 1.0 %)",
    ),
    "Latency budget burns slowly": Episode(
        {burn("latency", "ticket"): ("0", "1"), _bad("latency", "1d"): ("0", "0.0333")},
        "3.3 % of answers took longer than 250 ms in the last day (objective 1.0 %)",
    ),
    "Overload": Episode(
        {'sidecar_requests_refused_total{reason="overload"}': ("+0", "+30"), ANSWERED: ("+100", "+100")},
        "30.0 % of requests were refused for overload in 5 minutes",
        delay=5,
        tail=6,
    ),
    "Requests wait": Episode(
        {"sidecar_queue_oldest_wait_seconds": ("0", "75")},
        "The oldest request has waited for 1m 15s",
        others={"job:sidecar_upstream_down:ratio": "0"},
    ),
    "No traffic": Episode(
        {'window:sidecar_requests:increase{window="1h"}': ("100", "3")},
        "3 requests in the last hour; yesterday and a week ago it was 100 at least",
        begins=WEEK + 10,
    ),
    "Sidecar cannot observe": Episode(
        # Of 30 answers 15, and golden rows that do not match, which has an alert of its own.
        {
            'sidecar_observation_failures_total{part="body"}': ("+0", "+1"),
            'sidecar_observation_failures_total{part="golden"}': ("+4", "+4"),
            ANSWERED: ("+2", "+2"),
        },
        "50.0 % of the answers of 15 minutes could not be counted",
        begins=20,
        delay=15,
        tail=16,
    ),
    "Target down": Episode(
        {'up{job="node-exporter",instance="a"}': ("1", "0")},
        "node-exporter at a cannot be scraped",
        {"job": "node-exporter", "instance": "a"},
    ),
    "Rules fail": Episode(
        {'prometheus_rule_evaluation_failures_total{rule_group="a"}': ("+0", "+2")},
        "22 evaluations of rules failed or were missed in 11 minutes",
        others={'prometheus_rule_group_iterations_missed_total{rule_group="a"}': "0"},
        begins=20,
        delay=11,
        tail=12,
    ),
    "Messages fail": Episode(
        {'grafana_alerting_notifications_failed_total{integration="slack"}': ("+0", "+1")},
        "Messages by slack that were not delivered in the last hour: 2",
        {"integration": "slack"},
        begins=75,
        delay=1,
        tail=62,
    ),
    "Missing values": Episode(
        {share("missing"): ("0.1", "0.4"), _fate("missing"): ("0.1", "0.43")},
        "BMI: missing in 43.0 % of rows, 10.0 % in training",
        BMI,
        REFERENCE | SERVED,
        tail=121,
    ),
    "Invalid values": Episode(
        {share("out_of_range"): ("0", "0.02"), _fate("out_of_range"): ("0", "0.024")},
        "BMI: out of range in 2.4 % of rows",
        BMI,
        SERVED,
        tail=121,
    ),
    "Unknown levels": Episode(
        {
            series_name.replace("BMI", ODD): values
            for series_name, values in {
                share("unknown_level"): ("0", "0.2"),
                _fate("unknown_level"): ("0", "0.21"),
            }.items()
        },
        f"{ODD}: a level that the model does not know in 21.0 % of rows",
        {**BMI, "feature": ODD},
        SERVED,
        tail=121,
    ),
    "Feature drift": Episode(
        {DRIFT: ("0", "9")},
        "BMI: PSI 0.10, 36 to 99 in 21.0 % of rows, 11.0 % in training",
        BMI,
        {
            **LIMIT,
            f'feature_window:model_feature_values:psi{{feature="BMI",window="1d",{VERSION}}}': "0.1",
            f'feature_window:model_feature_values:rows{{feature="BMI",window="1d",{VERSION}}}': "1000",
            _bin("model_feature_values:increase", "9", "1d"): "210",
            _bin("model_feature_values:increase", "8", "1d"): "790",
            _bin("model_feature_values_reference:ratio", "9"): "0.11",
            _bin("model_feature_values_reference:ratio", "8"): "0.89",
            _level("8", "below 36"): "1",
            _level("9", "36 to 99"): "1",
        },
    ),
    "Score drift": Episode(
        {f"version:model_scores:drift_alarm{{{VERSION}}}": ("0", "9")},
        "The predicted risks: PSI 0.15 against validation rows",
        MODEL,
        {**LIMIT, f'window:model_scores:psi{{window="1d",{VERSION}}}': "0.15"},
    ),
    "Drift with harm": Episode(
        {EXPECTED: ("0.83", "0.79"), DRIFT: ("0", "9")},
        "The data drifted; expected ROC AUC at most 0.800, on validation rows 0.830",
        MODEL,
        {key: value for key, value in (NO_DRIFT | GOOD).items() if key not in (EXPECTED, DRIFT)},
    ),
    "Realised ROC AUC below floor": Episode(
        {REALISED: ("0.83", "0.764")},
        "ROC AUC by late labels at most 0.784, floor 0.800",
        MODEL,
        {key: value for key, value in GOOD.items() if key != REALISED},
    ),
    "Expected ROC AUC below floor": Episode(
        {EXPECTED: ("0.83", "0.78")},
        "ROC AUC expected without labels at most 0.790, floor 0.800",
        MODEL,
        {key: value for key, value in (GOOD | NO_DRIFT).items() if key != EXPECTED},
    ),
    "Calibration": Episode(
        {CALIBRATION: ("0", "9")},
        "By late labels of 30 days 1.38 positives for each that the risks predict",
        MODEL,
        {
            **LIMIT,
            f'bin_outcome_window:model_feedback:increase{{outcome="1",{LABELLED}}}': "138",
            f'bin_outcome_window:model_feedback_risk_sum:increase{{outcome="0",{LABELLED}}}': "70",
            f'bin_outcome_window:model_feedback_risk_sum:increase{{outcome="1",{LABELLED}}}': "30",
        },
    ),
    "Labels stopped": Episode(
        {f'window:model_feedback:labels{{window="7d",{VERSION}}}': ("50", "0")},
        "0 late labels in 7 days, after there had been some",
        others={f'window:model_feedback:labels{{window="90d",{VERSION}}}': "500"},
    ),
    "Model too old": Episode(
        {f"version:model_age:seconds{{{VERSION}}}": ("1000", "15638400")},
        "The model was trained 181d 0h 0m 0s ago",
        MODEL,
    ),
    "Retraining asked for": Episode(
        {REALISED: ("0.83", "0.7")},
        "retrain: the model ranks people worse than it may",
        MODEL,
        {key: value for key, value in (GOOD | SOUND).items() if key != REALISED},
    ),
    "Recalibration asked for": Episode(
        {CALIBRATION: ("0", "9")},
        "recalibrate: outcomes do not follow the risks",
        MODEL,
        GOOD | SOUND,
    ),
    "Host memory": Episode(
        {"node_memory_MemAvailable_bytes": ("500", "42")},
        "4.2 % of the host's memory is free",
        others={"node_memory_MemTotal_bytes": "1000"},
    ),
    "Host disk": Episode(
        {'node_filesystem_avail_bytes{mountpoint="/",fstype="ext4"}': ("500", "70")},
        "7.0 % of / is free",
        {"mountpoint": "/"},
        {'node_filesystem_size_bytes{mountpoint="/",fstype="ext4"}': "1000"},
    ),
    "Restarts": Episode(
        {'process_start_time_seconds{job="exporter",instance="a"}': ("+0", "+1")},
        "exporter was restarted 3 times in an hour",
        {"job": "exporter"},
        delay=2,
        tail=60,
    ),
}


def as_prometheus(rule: Mapping[str, Any]) -> dict[str, Any]:
    """A Prometheus alerting rule of one of Grafana's.

    `$values.A` becomes `$value`; `$values.B` and so on, which Grafana takes from the rule's further queries
    by the labels of the alert, become Prometheus' own `query` of the same expression, chosen by the feature.
    """
    queries = {query["refId"]: query["model"].get("expr", "") for query in rule["data"]}
    return {
        "alert": rule["title"],
        "expr": condition(rule),
        "for": rule["for"],
        "keep_firing_for": rule["keepFiringFor"],
        "labels": labels_of(rule),
        "annotations": {name: _template(str(text), queries) for name, text in rule["annotations"].items()},
    }


def labels_of(rule: Mapping[str, Any]) -> dict[str, str]:
    """The rule's own labels, as a Grafana whose environment is `test` has them."""
    return {name: lint.interpolate(value, {"ENVIRONMENT": "test"}) for name, value in rule["labels"].items()}


# Chooses of a query's series that of the alert's feature, where it has one.
_OF_FEATURE = (
    " (and $labels.feature (printf"
    ' ` and on (feature) label_replace(vector(1), "feature", "%s", "", "")` $labels.feature))'
)


def _template(text: str, queries: Mapping[str, str]) -> str:
    """Grafana's template as Prometheus': see `as_prometheus`."""

    def asked(found: re.Match[str]) -> str:
        expr = " ".join(queries[found[1]].split()).replace("%", "%%")
        return f"{{{{ with query (printf `topk(1, ({expr}))%s`{_OF_FEATURE}) }}}}"

    nested = r"{{ else }}{{ if $values.\1 }}\2{{ end }}{{ end }}"
    text = re.sub(r"{{ else if \$values\.(\w) }}(.*?){{ end }}", nested, text)
    text = text.replace("{{ if $values.A }}", "{{ if true }}").replace("$values.A.Value", "$value")
    text = re.sub(r"{{ if \$values\.(\w) }}", asked, text)
    text = re.sub(r"\$values\.\w\.Value", "(. | first | value)", text)
    return re.sub(r"\$values\.\w\.Labels\.(\w+)", r'(. | first | label "\1")', text)


def played(title: str, episode: Episode) -> dict[str, Any]:
    """promtool's test of an episode: silent, pending, firing with this message, firing to the end, silent."""
    rule = RULES[title]
    waits, keeps = (alert_states.seconds(rule[key]) // 60 for key in ("for", "keepFiringFor"))
    lasts, after = episode.delay + waits + 10, episode.tail + keeps + 10
    ends = episode.begins + lasts
    feature = episode.labels.get("feature", "")
    texts = {name: str(value) for name, value in rule["annotations"].items()} | {
        "summary": episode.summary,
        "model": "risk 1" if "model_name" in episode.labels else "",
        "graph_url": re.sub(
            r"{{ with .*? }}(.*?){{ \. }}{{ end }}",
            r"\g<1>1" if "model_version" in episode.labels else "",
            rule["annotations"]["graph_url"].replace("{{ $labels.feature | urlquery }}", quote_plus(feature)),
        ),
    }
    firing = [{"exp_labels": {**labels_of(rule), **episode.labels}, "exp_annotations": texts}]
    moments: list[tuple[int, list[dict[str, Any]]]] = [
        (episode.begins - 1, []),
        (episode.begins + episode.delay + waits, firing),
        (ends + episode.tail + keeps + 2, []),
    ]
    if waits:
        moments.append((episode.begins + waits - 1, []))
    faults = [
        series(name, well, fault, episode.begins, lasts, after)
        for name, (well, fault) in episode.faults.items()
    ]
    others = [{"series": name, "values": f"{text}+0x{ends + after}"} for name, text in episode.others.items()]
    return {
        "name": title,
        "interval": "1m",
        "input_series": faults + others,
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": title, "exp_alerts": alerts}
            for minute, alerts in moments
        ],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{title}",alertstate="firing"}}) or vector(0)',
                "eval_time": f"{ends - 1}m",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
        ],
    }


def run(
    rules: list[dict[str, Any]], tests: list[dict[str, Any]], folder: Path
) -> subprocess.CompletedProcess[str]:
    """What promtool says of alert rules and tests of them."""
    groups = {"groups": [{"name": "alerts", "rules": rules}]}
    (folder / "rules.yml").write_text(yaml.safe_dump(groups, width=10_000), encoding="utf-8")
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "test.yml").write_text(yaml.safe_dump(document, width=10_000), encoding="utf-8")
    command = [require("promtool"), "test", "rules", "test.yml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_every_alert_has_an_episode() -> None:
    assert set(EPISODES) == set(RULES) - {"Watchdog"}


@pytest.mark.real
@pytest.mark.parametrize("title", EPISODES)
def test_an_episode_is_one_true_message_and_ends(title: str, tmp_path: Path) -> None:
    """Silent before, pending for as long as `for` says, then this text, and over when the fault is."""
    done = run([as_prometheus(RULES[title])], [played(title, EPISODES[title])], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def sidecars(title: str, replicas: Mapping[str, str], rings: Mapping[int, list[Any]]) -> dict[str, Any]:
    """promtool's test of an alert at some minutes, from `up` of each sidecar."""
    return {
        "interval": "1m",
        "input_series": [
            {"series": f'up{{job="exporter",instance="{name}"}}', "values": values}
            for name, values in replicas.items()
        ],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": title, "exp_alerts": alerts}
            for minute, alerts in rings.items()
        ],
    }


@pytest.mark.real
def test_a_replica_whose_container_stopped_is_missed_by_number(tmp_path: Path) -> None:
    """Its name goes with it, and so does its target: two of three sidecars are there for an hour."""
    title = "Sidecar replica down"
    texts = {name: str(value) for name, value in RULES[title]["annotations"].items()} | {
        "summary": "Sidecars that are left: 2 of 3",
        "model": "",
    }
    alert = {"exp_labels": labels_of(RULES[title]), "exp_annotations": texts}
    replicas = {"a": "1x200", "b": "1x200", "c": "1x60 stale"}
    rings = {60: [], 65: [], 67: [alert], 110: [alert], 135: []}
    done = run([as_prometheus(RULES[title])], [sidecars(title, replicas, rings)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
@pytest.mark.parametrize("title", ["Sidecar down", "Sidecar replica down"])
def test_replicas_that_are_replaced_ring_nothing(title: str, tmp_path: Path) -> None:
    """Three new ones at other addresses, which overlap with the old ones for two minutes."""
    replicas = dict.fromkeys("abc", "1x61 stale") | dict.fromkeys("def", "_x60 1x140")
    rings: dict[int, list[Any]] = {minute: [] for minute in (59, 61, 62, 66, 68, 80, 119, 150)}
    done = run([as_prometheus(RULES[title])], [sidecars(title, replicas, rings)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
def test_a_job_without_any_target_is_down_for_a_day(tmp_path: Path) -> None:
    rule = RULES["Target down"]
    texts = {name: str(value) for name, value in rule["annotations"].items()} | {
        "summary": "node-exporter cannot be scraped",
        "model": "",
    }
    alert = {"exp_labels": {**labels_of(rule), "job": "node-exporter"}, "exp_annotations": texts}
    rings = {60: [], 69: [], 72: [alert], 24 * 60 + 50: [alert], 24 * 60 + 65: []}
    test = {
        "interval": "1m",
        "input_series": [
            {"series": 'up{job="node-exporter",instance="a"}', "values": "1x60 stale"},
            {"series": 'up{job="grafana",instance="a"}', "values": "1x1600"},
        ],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": "Target down", "exp_alerts": alerts}
            for minute, alerts in rings.items()
        ],
    }
    done = run([as_prometheus(rule)], [test], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
@pytest.mark.parametrize(("before", "now"), [("1", "2"), ("2", "1")])
def test_a_title_names_the_model_that_was_served_last(before: str, now: str, tmp_path: Path) -> None:
    """Not the one before the deployment or the rollback, which was served on the same day too."""
    title, episode = "Sidecar down", EPISODES["Sidecar down"]
    test = played(title, episode)
    moment = next(one for one in test["alert_rule_test"] if one["exp_alerts"])
    moment["exp_alerts"][0]["exp_annotations"]["model"] = f"risk {now}"
    served = {before: "1x2 stale", now: "_x3 1x6 stale"}  # the sidecar has gone when it rings
    test["input_series"] += [
        {
            "series": f'model_info{{model_name="risk",model_version="{version}",synthetic="false"}}',
            "values": values,
        }
        for version, values in served.items()
    ]
    done = run([as_prometheus(RULES[title])], [test], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
def test_the_watchdog_always_fires(tmp_path: Path) -> None:
    texts = {name: str(value) for name, value in RULES["Watchdog"]["annotations"].items()} | {"model": ""}
    labels = {"severity": "watchdog", "environment": "test"}
    alert = {"exp_labels": labels, "exp_annotations": texts}
    checks = [{"eval_time": at, "alertname": "Watchdog", "exp_alerts": [alert]} for at in ("0m", "9m")]
    tests = [{"interval": "1m", "input_series": [], "alert_rule_test": checks}]
    done = run([as_prometheus(RULES["Watchdog"])], tests, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.real
def test_a_wrong_message_is_noticed(tmp_path: Path) -> None:
    """The tests above can fail."""
    test = played("Host disk", EPISODES["Host disk"])
    test["alert_rule_test"][1]["exp_alerts"][0]["exp_annotations"]["summary"] = "8.0 % of / is free"
    assert run([as_prometheus(RULES["Host disk"])], [test], tmp_path).returncode != 0
