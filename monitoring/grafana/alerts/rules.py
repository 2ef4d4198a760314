"""The alert rules, one entry each; `generate.py` writes them into Grafana's file.

A rule compares one figure with one limit, so that it always has a value while all is well. Where it has none,
the figure's source is gone, and one rule each says that: "Sidecar down" and "Prometheus down". All others
keep their state through a failure of the data source, instead of multiplying it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from monitoring.grafana.alerts import queries, thresholds

FOLDER = "Model monitoring"
WINDOW_SECONDS = 600


class Alert(NamedTuple):
    """One alert rule.

    It fires when `expr` is `relation` (gt, gte, lt) `limit` for the duration `lasts`. `value` is the template
    of the figure in the summary; `panel` the panel that shows it, as (dashboard uid, title).
    """

    title: str
    group: str
    expr: str
    relation: str
    limit: float
    lasts: str
    severity: str
    summary: str
    value: str
    description: str
    panel: tuple[str, str]
    no_data: str = "OK"
    failure: str = "KeepLast"
    keep: str = "0s"
    retrain: bool = False

    @property
    def uid(self) -> str:
        """Its name in links: the title in small letters with hyphens."""
        return slug(self.title)


def slug(title: str) -> str:
    """A heading as its anchor in Markdown: small letters, hyphens for spaces."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")


_NUMBER = '{{ printf "%.2f" $values.A.Value }}'
_COUNT = '{{ printf "%.0f" $values.A.Value }}'
_PERCENT = "{{ humanizePercentage $values.A.Value }}"
_TIME = "{{ humanizeDuration $values.A.Value }}"
_POINTS = '{{ printf "%.3f" $values.A.Value }}'
_FEATURE = "{{ $labels.feature }}"
_DISK = "{{ $labels.mountpoint }}"
_CONTAINER = "{{ $labels.container_label_com_docker_compose_service }}"

ALERTS: tuple[Alert, ...] = (
    Alert(
        title="Model down",
        group="service",
        expr=queries.SILENCE,
        relation="gt",
        limit=thresholds.SILENT_SECONDS,
        lasts="1m",
        severity="critical",
        summary="The model has answered nothing for {value}",
        value=_TIME,
        description=(
            "The sidecar runs, and the container behind it gives no answer: every prediction fails "
            "with 502 or 504."
        ),
        panel=("service", "Model"),
    ),
    Alert(
        title="Sidecar down",
        group="service",
        expr='min(up{job="exporter"})',
        relation="lt",
        limit=1,
        lasts="2m",
        severity="critical",
        summary="The sidecar cannot be scraped (up is {value})",
        value=_COUNT,
        description=(
            "Predictions go through the sidecar: as long as it is away nobody gets one, and nothing "
            "is counted."
        ),
        panel=("service", "Sidecar"),
        no_data="Alerting",
    ),
    Alert(
        title="Prometheus down",
        group="service",
        expr='min(up{job="prometheus"})',
        relation="lt",
        limit=1,
        lasts="2m",
        severity="critical",
        summary="Grafana gets no answer from Prometheus (up is {value})",
        value=_COUNT,
        description=(
            "Predictions go on, but nobody watches: every other rule keeps its last state until this "
            "is mended."
        ),
        panel=("service", "Scraped"),
        no_data="Alerting",
        failure="Alerting",
    ),
    Alert(
        title="Model and reference do not match",
        group="service",
        expr=queries.PAIR_MATCHES,
        relation="lt",
        limit=1,
        lasts="5m",
        severity="critical",
        summary="The container's scores are not those of the sidecar's reference (match is {value})",
        value=_COUNT,
        description=(
            "Model and exporter come from different versions, or the reference is missing: drift and "
            "calibration figures mean nothing."
        ),
        panel=("service", "Pair"),
    ),
    Alert(
        title="Error budget burns fast",
        group="service",
        expr=queries.burn("availability", "page"),
        relation="gte",
        limit=thresholds.BUDGET_ALARM,
        lasts="1m",
        severity="critical",
        summary="Requests fail at {value} times the rate of a page",
        value=_NUMBER,
        description="At this rate 2 % of the month's error budget goes in an hour, or 5 % in six.",
        panel=("service", "Error budget"),
        keep="5m",
    ),
    Alert(
        title="Error budget burns slowly",
        group="service",
        expr=queries.burn("availability", "ticket"),
        relation="gte",
        limit=thresholds.BUDGET_ALARM,
        lasts="15m",
        severity="warning",
        summary="Requests fail at {value} times the rate of a ticket",
        value=_NUMBER,
        description="At this rate 10 % of the month's error budget goes within one to three days.",
        panel=("service", "Error budget"),
    ),
    Alert(
        title="Latency budget burns fast",
        group="service",
        expr=queries.burn("latency", "page"),
        relation="gte",
        limit=thresholds.BUDGET_ALARM,
        lasts="1m",
        severity="critical",
        summary="Slow answers come at {value} times the rate of a page",
        value=_NUMBER,
        description="Far too many answers take longer than 250 ms.",
        panel=("service", "Latency"),
        keep="5m",
    ),
    Alert(
        title="Latency budget burns slowly",
        group="service",
        expr=queries.burn("latency", "ticket"),
        relation="gte",
        limit=thresholds.BUDGET_ALARM,
        lasts="15m",
        severity="warning",
        summary="Slow answers come at {value} times the rate of a ticket",
        value=_NUMBER,
        description="More answers than agreed take longer than 250 ms.",
        panel=("service", "Latency"),
    ),
    Alert(
        title="Overload",
        group="service",
        expr=queries.OVERLOAD,
        relation="gt",
        limit=0,
        lasts="2m",
        severity="warning",
        summary="{value} requests were refused for overload in 5 minutes",
        value=_COUNT,
        description="The queue is full; clients are told to come back (503 with Retry-After).",
        panel=("service", "Refused requests"),
        keep="5m",
    ),
    Alert(
        title="No traffic",
        group="service",
        expr=queries.REQUESTS_AN_HOUR,
        relation="lt",
        limit=thresholds.FEWEST_REQUESTS,
        lasts="30m",
        severity="warning",
        summary="{value} requests in the last hour",
        value=_COUNT,
        description="Nobody asks for predictions, or they do not arrive here.",
        panel=("service", "Requests"),
    ),
    Alert(
        title="Sidecar cannot observe",
        group="service",
        expr="sum(increase(sidecar_observation_failures_total[1h]))",
        relation="gt",
        limit=0,
        lasts="5m",
        severity="warning",
        summary="{value} answers could not be counted in the last hour",
        value=_COUNT,
        description="Predictions are not touched by it, but the figures of data and model miss rows.",
        panel=("service", "What the sidecar could not observe"),
    ),
    Alert(
        title="Feature drift",
        group="data",
        expr=queries.FEATURE_DRIFT,
        relation="gte",
        limit=thresholds.EVIDENCE_ALARM,
        lasts="10m",
        severity="warning",
        summary=f"{_FEATURE} drifts: evidence is {{value}} times its limit",
        value=_NUMBER,
        description=(
            "Its values are distributed otherwise than in training, by an amount that matters; chance"
            " would say so once a year for all features together."
        ),
        panel=("data", "Evidence of drift by feature"),
        keep="30m",
        retrain=True,
    ),
    Alert(
        title="Score drift",
        group="data",
        expr=queries.SCORE_DRIFT,
        relation="gte",
        limit=thresholds.EVIDENCE_ALARM,
        lasts="10m",
        severity="warning",
        summary="The predicted risks drift: evidence is {value} times its limit",
        value=_NUMBER,
        description="Risks are distributed otherwise than on the validation rows.",
        panel=("model", "Evidence against the model"),
        keep="30m",
        retrain=True,
    ),
    Alert(
        title="Drift with harm",
        group="data",
        expr=f"({queries.WORST_DRIFT} >= bool {thresholds.EVIDENCE_ALARM})\n"
        f"* on (model_name, model_version) ({queries.DROP})",
        relation="gt",
        limit=thresholds.ROC_AUC_DROP,
        lasts="10m",
        severity="critical",
        summary="Data drift, and ROC AUC has dropped by {value} or more",
        value=_POINTS,
        description=(
            "Drift alone is a ticket. This is drift together with a drop of expected or realised ROC "
            "AUC that its uncertainty does not explain."
        ),
        panel=("model", "ROC AUC expected without labels"),
        keep="30m",
        retrain=True,
    ),
    Alert(
        title="Missing values",
        group="data",
        expr=queries.MORE_MISSING,
        relation="gt",
        limit=thresholds.MISSING_SHARE,
        lasts="10m",
        severity="warning",
        summary=f"{_FEATURE} is missing {{value}} more often than in training",
        value=_PERCENT,
        description="A client has stopped to send it, or sends it under another name.",
        panel=("data", "Missing values"),
    ),
    Alert(
        title="Invalid values",
        group="data",
        expr=queries.bad_values("out_of_range"),
        relation="gt",
        limit=thresholds.BAD_SHARE,
        lasts="10m",
        severity="warning",
        summary=f"{_FEATURE} is out of range in {{value}} of the rows",
        value=_PERCENT,
        description=(
            "Values outside the schema's range are answered all the same, and those answers mean little."
        ),
        panel=("data", "Values out of range"),
    ),
    Alert(
        title="Unknown levels",
        group="data",
        expr=queries.bad_values("unknown_level"),
        relation="gt",
        limit=thresholds.BAD_SHARE,
        lasts="10m",
        severity="warning",
        summary=f"{_FEATURE} has a level that the model does not know in {{value}} of the rows",
        value=_PERCENT,
        description="A new code, a misspelt one, or text where a number belongs.",
        panel=("data", "Unknown levels"),
    ),
    Alert(
        title="Realised ROC AUC below floor",
        group="model",
        expr=queries.REALISED_ABOVE_FLOOR,
        relation="lt",
        limit=0,
        lasts="10m",
        severity="critical",
        summary="ROC AUC by late labels lies at best {value} from its floor",
        value=_POINTS,
        description="The model ranks people worse than its gate allowed it to at promotion.",
        panel=("model", "ROC AUC realised by late labels"),
        keep="1h",
        retrain=True,
    ),
    Alert(
        title="Expected ROC AUC below floor",
        group="model",
        expr=queries.EXPECTED_ABOVE_FLOOR,
        relation="lt",
        limit=0,
        lasts="10m",
        severity="warning",
        summary="ROC AUC expected without labels lies at best {value} from its floor",
        value=_POINTS,
        description="For the people who come now the model is expected to rank worse than its gate allowed.",
        panel=("model", "ROC AUC expected without labels"),
        keep="30m",
        retrain=True,
    ),
    Alert(
        title="Calibration",
        group="model",
        expr=queries.CALIBRATION,
        relation="gte",
        limit=thresholds.EVIDENCE_ALARM,
        lasts="10m",
        severity="warning",
        summary="Outcomes do not follow the risks: evidence is {value} times its limit",
        value=_NUMBER,
        description="Late labels say that a risk of 20 % is not 20 of 100 people any more.",
        panel=("model", "Evidence against the model"),
        keep="1h",
        retrain=True,
    ),
    Alert(
        title="Labels stopped",
        group="model",
        expr=queries.LABELS_A_WEEK,
        relation="lt",
        limit=thresholds.FEWEST_LABELS,
        lasts="1h",
        severity="warning",
        summary="{value} late labels in 7 days, after there had been some",
        value=_COUNT,
        description=(
            "Without labels nobody sees a change of the illness itself: realised ROC AUC and "
            "calibration stand still."
        ),
        panel=("model", "Labels"),
    ),
    Alert(
        title="Model too old",
        group="model",
        expr=queries.AGE,
        relation="gt",
        limit=thresholds.OLDEST_MODEL_DAYS * thresholds.DAY,
        lasts="1h",
        severity="warning",
        summary="The model was trained {value} ago",
        value=_TIME,
        description="Nothing is known to be wrong; nobody has looked for half a year either.",
        panel=("model", "Age of the model"),
    ),
    Alert(
        title="Host memory",
        group="host",
        expr=queries.FREE_MEMORY,
        relation="lt",
        limit=thresholds.FREE_MEMORY_SHARE,
        lasts="10m",
        severity="warning",
        summary="{value} of the host's memory is free",
        value=_PERCENT,
        description="The kernel will soon end a process to get memory, most likely the model.",
        panel=("service", "Memory in use"),
    ),
    Alert(
        title="Host disk",
        group="host",
        expr=queries.FREE_DISK,
        relation="lt",
        limit=thresholds.FREE_DISK_SHARE,
        lasts="10m",
        severity="warning",
        summary=f"{{value}} of {_DISK} is free",
        value=_PERCENT,
        description="Prometheus and Grafana stop to write when it is full.",
        panel=("service", "Disk in use"),
    ),
    Alert(
        title="Restarts",
        group="host",
        expr=queries.RESTARTED,
        relation="gt",
        limit=thresholds.RESTARTS,
        lasts="0s",
        severity="warning",
        summary=f"{_CONTAINER} was restarted {{value}} times in an hour",
        value=_COUNT,
        description=(
            "A container ends and is started again and again; what it held in memory is lost each time."
        ),
        panel=("service", "Container restarts"),
    ),
)


def rule_file(panel_id: Callable[[str, str], int], runbook_url: Callable[[str], str]) -> dict[str, Any]:
    """Grafana's alerting file with all rules, grouped.

    `panel_id` gives a panel's number from its dashboard's uid and its title, `runbook_url` the address of an
    alert's heading.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for alert in ALERTS:
        groups.setdefault(alert.group, []).append(
            _rule(alert, panel_id(*alert.panel), runbook_url(alert.title))
        )
    return {
        "apiVersion": 1,
        "groups": [
            {"orgId": 1, "name": name, "folder": FOLDER, "interval": "1m", "rules": rules}
            for name, rules in groups.items()
        ],
    }


def summary(alert: Alert) -> str:
    """The summary's template; where there is no value (no data, no answer) it reads "no value"."""
    value = "{{ if $values.A }}" + alert.value + "{{ else }}no value{{ end }}"
    return alert.summary.replace("{value}", value)


def _rule(alert: Alert, panel: int, runbook: str) -> dict[str, Any]:
    query = {"refId": "A", "expr": alert.expr, "instant": True, "range": False, "editorMode": "code"}
    condition = {
        "refId": "C",
        "type": "threshold",
        "expression": "A",
        "conditions": [{"evaluator": {"type": alert.relation, "params": [alert.limit]}}],
    }
    return {
        "uid": alert.uid,
        "title": alert.title,
        "condition": "C",
        "for": alert.lasts,
        "keepFiringFor": alert.keep,
        "missing_series_evals_to_resolve": 5,
        "noDataState": alert.no_data,
        "execErrState": alert.failure,
        "data": [
            {
                "refId": "A",
                "datasourceUid": "prometheus",
                "relativeTimeRange": {"from": WINDOW_SECONDS, "to": 0},
                "model": query,
            },
            {
                "refId": "C",
                "datasourceUid": "__expr__",
                "relativeTimeRange": {"from": 0, "to": 0},
                "model": condition,
            },
        ],
        "labels": {"severity": alert.severity} | ({"action": "retrain"} if alert.retrain else {}),
        "annotations": {
            "summary": summary(alert),
            "description": alert.description,
            "runbook_url": runbook,
            "__dashboardUid__": alert.panel[0],
            "__panelId__": str(panel),
        },
    }
