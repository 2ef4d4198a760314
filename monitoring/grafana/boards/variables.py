"""Variables and words that several dashboards share."""

from __future__ import annotations

from monitoring.grafana.style import Panel, Words, choice, from_answer, query
from monitoring.prometheus.promql import MODEL

# The version that a page is about: of those that are served, normally one, the newest or a chosen one.
VERSION = from_answer(
    "version",
    "Version",
    'label_replace(label_replace(vector(1), "model_version", ".*", "", ""), "words", "newest", "", "")'
    ' or label_replace(group by (model_version) (version:model_age:seconds), "words", "$1", "model_version",'
    ' "(.+)")',
    "model_version",
    default=".*",
    words=("words", "newest"),
)
# Joins a series to that version, at each moment of a graph, and so drops the others.
SHOWN = (
    f'on ({MODEL}) group_left () (bottomk(1, version:model_age:seconds{{model_version=~"$version"}}) * 0 + 1)'
)


def shown(expr: str, *by: str) -> str:
    """A figure of that version, by these labels: one line, also where one version follows another."""
    return f"max by ({', '.join(by)}) (({expr}) * {SHOWN})"


NO_VERSION = "none"
# A version to show beside the served version: any version with rows in 90 days.
BESIDE = from_answer(
    "beside",
    "Beside it, version",
    f'label_replace(vector(1), "model_version", "{NO_VERSION}", "", "")'
    ' or group by (model_version) (window:model_scores:rows{window="90d"})',
    "model_version",
    default=NO_VERSION,
)
INSTANCE = choice("instance", "Replica", 'label_values(up{job="exporter"}, instance)', many=True)

REPLICAS = '{instance=~"$instance"}'

SCORE_BINS = Words(f"max by (bin, risk) (model_score_bin_info * {SHOWN})", "risk")


def happened(by: str, measure: str, counter: str, window: str) -> str:
    """`rate` or `increase` of a counter by a label, only where it grew in the time range of the page."""
    grew = f"sum by ({by}) (increase({counter}[$__range] @ end())) > 0"
    return f"sum by ({by}) ({measure}({counter}[{window}])) and on ({by}) {grew}"


def beside(series: str, selector: str) -> Panel:
    """A recorded figure of the version to compare with, if one is chosen."""
    return query(f'{series}{{{selector},model_version="$beside"}}', "version {{model_version}}")
