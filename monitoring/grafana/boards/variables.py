"""Variables and words that several dashboards share."""

from __future__ import annotations

from monitoring.grafana.alerts.queries import CURRENT
from monitoring.grafana.style import Panel, Words, choice, from_answer, query

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

SCORE_BINS = Words(f"max by (bin, risk) (model_score_bin_info * {CURRENT})", "risk")


def happened(by: str, measure: str, counter: str, window: str) -> str:
    """`rate` or `increase` of a counter by a label, only where it grew in the time range of the page."""
    grew = f"sum by ({by}) (increase({counter}[$__range] @ end())) > 0"
    return f"sum by ({by}) ({measure}({counter}[{window}])) and on ({by}) {grew}"


def beside(series: str, selector: str) -> Panel:
    """A recorded figure of the version to compare with, if one is chosen."""
    return query(f'{series}{{{selector},model_version="$beside"}}', "version {{model_version}}")
