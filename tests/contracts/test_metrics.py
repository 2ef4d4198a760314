"""Every metric that is named anywhere exists, and every recording rule is of use."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import yaml
from prometheus_client import CollectorRegistry

from monitoring.grafana import lint
from monitoring.grafana.boards import runbook
from monitoring.prometheus.__main__ import RULES
from monitoring.sidecar.metrics import Metrics

# What Prometheus itself, Grafana, node-exporter and every process give that is used here.
OTHERS = {
    "up",
    "node_cpu_seconds_total",
    "node_filesystem_avail_bytes",
    "node_filesystem_size_bytes",
    "node_memory_MemAvailable_bytes",
    "node_memory_MemTotal_bytes",
    "grafana_alerting_notifications_failed_total",
    "grafana_alerting_rule_evaluation_failures_total",
    "grafana_alerting_schedule_rule_evaluations_missed_total",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "prometheus_rule_evaluation_failures_total",
    "prometheus_rule_group_iterations_missed_total",
    "prometheus_tsdb_storage_blocks_bytes",
}
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
_WORDS = {
    "and",
    "or",
    "unless",
    "bool",
    "by",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "offset",
    "without",
}
RECORDED = {
    rule["record"]: rule
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}
RULE_EXPRS = [
    (rule["record"], rule["expr"])
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]


def names(expr: str) -> set[str]:
    """Metric names in PromQL: what is left without strings, selectors, ranges, label lists and functions."""
    text = re.sub(r'"[^"]*"', "", expr)
    text = re.sub(r"\{[^}]*\}", " ", text)
    text = re.sub(r"\[[^\]]*\]", " ", text)
    text = re.sub(r"\b(by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)", " ", text)
    text = re.sub(r"\boffset\s+\w+", " ", text)
    found = re.findall(r"(?<![\w:.])([a-zA-Z_][\w:]*)(?!\s*\(|[\w:])", text)
    return {name for name in found if name not in _WORDS}


def exported() -> set[str]:
    families = Metrics(CollectorRegistry(), None, "1").registry.collect()
    return {family.name + suffix for family in families for suffix in _SUFFIXES[family.type]}


def shown() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of every panel, annotation, variable and alert."""
    files = lint.read()
    for board in files.dashboards.values():
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                yield f"{board['uid']}: {panel['title']}", target["expr"]
        for annotation in board["annotations"]["list"]:
            if "expr" in annotation:
                yield f"{board['uid']}: annotation", annotation["expr"]
        for variable in board["templating"]["list"]:
            found = re.match(r"label_values\((.*), \w+\)", variable.get("definition", ""))
            if found:
                yield f"{board['uid']}: variable", found[1]
    for where, rule in files.rules():
        for query in rule["data"]:
            if query["datasourceUid"] != "__expr__":
                yield where, query["model"]["expr"]


def runbook_queries() -> Iterator[str]:
    text = runbook.RUNBOOK.read_text(encoding="utf-8")
    for chapter in runbook.chapters(text).values():
        for line in chapter.splitlines():
            if re.match(r" {4}\S", line) and not line.strip().startswith(runbook.COMMANDS):
                yield line.strip()


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        ('sum by (le) (rate(model_x_bucket{le="0.5"}[5m])) > bool 1', {"model_x_bucket"}),
        ('a:b:c / on (v) group_left () max by (v) (d{x=~"y|z"}) or 0 * e', {"a:b:c", "d", "e"}),
        ("time() - max(model_t_seconds offset 2m)", {"model_t_seconds"}),
    ],
)
def test_names_are_found_in_promql(expr: str, expected: set[str]) -> None:
    """The reader that the other tests rest on."""
    assert names(expr) == expected


def test_every_metric_in_a_rule_exists() -> None:
    """In the exporter, or as another rule's record."""
    known = exported() | set(RECORDED)
    assert {name for _, expr in RULE_EXPRS for name in names(expr)} - known == set()


def test_every_metric_on_a_dashboard_or_in_an_alert_exists() -> None:
    """In the exporter, as a record, or in the short list of what others give."""
    known = exported() | set(RECORDED) | OTHERS
    unknown = {(where, name) for where, expr in shown() for name in names(expr) if name not in known}
    assert unknown == set()


def test_every_query_in_the_runbook_names_what_exists() -> None:
    """People paste them at night."""
    known = exported() | set(RECORDED) | OTHERS | {"model_"}
    found = list(runbook_queries())
    assert len(found) > 30
    assert {name for expr in found for name in names(expr)} - known == set()


def test_every_recording_rule_is_used() -> None:
    """By another rule, a panel or an alert."""
    used = {name for _, expr in shown() for name in names(expr)}
    used |= {name for record, expr in RULE_EXPRS for name in names(expr) if name != record}
    assert set(RECORDED) - used == set()


def test_every_name_from_others_is_used() -> None:
    """The list stays short."""
    used = {name for _, expr in shown() for name in names(expr)}
    used |= {name for expr in runbook_queries() for name in names(expr)}
    assert used >= OTHERS
