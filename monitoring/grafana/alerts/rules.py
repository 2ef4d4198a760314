"""The alert rules, one entry each; `python -m monitoring.grafana` writes them into Grafana's file.

A rule compares a figure with a limit, so that it has a value while all is well; other queries give the values
in its message. A figure without a value has lost its source, which the rules "Sidecar down" and "Prometheus
down" report. All other rules keep their state during a failure of the data source, and those about rows and
labels while no sidecar counts.

`critical` wakes a person; `warning` is for the next working day and repeats daily at most; `action` only asks
a workflow for a training; `watchdog` always fires, and its absence is the alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from monitoring.grafana.alerts import queries, thresholds

FOLDER = "Model monitoring"
WINDOW_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class Alert:
    """An alert rule.

    It fires when `expr` is `relation` (gt, gte, lt) `limit` for the duration `lasts`. `values` are queries
    for the message, by the letter that `summary` names them with, as in `{B percent}`; A is `expr` itself.
    None of them may be empty where the alert has to ring: Grafana takes the rule for one without data then.
    `panel` shows the figure, as (dashboard uid, title). `action` names what a workflow is asked for.
    """

    title: str
    group: str
    expr: str
    relation: str
    limit: float
    lasts: str
    severity: str
    summary: str
    description: str
    panel: tuple[str, str]
    values: Mapping[str, str] = field(default_factory=dict)
    no_data: str = "OK"
    failure: str = "KeepLast"
    keep: str = "0s"
    action: str = ""

    @property
    def uid(self) -> str:
        """Its name in links: the title in lower case with hyphens."""
        return slug(self.title)


def slug(title: str) -> str:
    """A heading as its anchor in Markdown: lower case, hyphens for spaces."""
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")


# How a value is written in a message. Templates cannot multiply; the query of `{B percent}` does: `_values`.
_FORMATS = {
    "number": '{{{{ printf "%.2f" $values.{0}.Value }}}}',
    "points": '{{{{ printf "%.3f" $values.{0}.Value }}}}',
    "count": '{{{{ printf "%.0f" $values.{0}.Value }}}}',
    "percent": '{{{{ printf "%.1f" $values.{0}.Value }}}} %',
    "time": "{{{{ humanizeDuration $values.{0}.Value }}}}",
    "level": "{{{{ $values.{0}.Labels.level }}}}",
}

_DOWN = (
    Alert(
        title="Model down",
        group="service",
        expr=queries.MODELS_DOWN,
        relation="gt",
        limit=thresholds.MOST,
        lasts="1m",
        severity="critical",
        summary="The model has answered nothing for {B time}",
        values={"B": queries.SILENCE},
        description="Every prediction fails with 502 or 504. The sidecar itself runs.",
        panel=("service", "Model"),
        keep="5m",
    ),
    Alert(
        title="Model replica down",
        group="service",
        expr=queries.ONE_SILENT,
        relation="gt",
        limit=60,
        lasts="2m",
        severity="warning",
        summary="The model behind {{ $labels.instance }} has answered nothing for {A time}",
        description="The other replicas answer; requests that reach this one fail.",
        panel=("service", "Model"),
    ),
    Alert(
        title="Sidecar down",
        group="service",
        expr=queries.SIDECARS_UP,
        relation="lt",
        limit=thresholds.MOST,
        lasts="2m",
        severity="critical",
        summary="No sidecar, or fewer than half of them, can be reached",
        description="Predictions go through the sidecar: nobody gets one there, and nothing is counted.",
        panel=("service", "Sidecar"),
        keep="5m",
    ),
    Alert(
        title="Sidecar replica down",
        group="service",
        expr=queries.ONE_SIDECAR_DOWN,
        relation="gt",
        limit=0,
        lasts="5m",
        severity="warning",
        summary=(
            "{{ with $labels.instance }}The sidecar {{ . }} cannot be reached"
            "{{ else }}Sidecars that are left: {B count} of {C count}{{ end }}"
        ),
        values={"B": queries.SIDECARS_THERE, "C": queries.SIDECARS},
        description="The other replicas answer.",
        panel=("service", "Sidecar"),
    ),
    Alert(
        title="Prometheus down",
        group="service",
        expr='min(up{job="prometheus"})',
        relation="lt",
        limit=1,
        lasts="2m",
        severity="critical",
        summary="Grafana gets no answer from Prometheus",
        description="Predictions go on, but nobody watches: every other rule keeps its last state.",
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
        summary="The container's scores are not those of the sidecar's reference",
        description="Model and sidecar are of different versions: drift and calibration mean nothing.",
        panel=("service", "Pair"),
        keep="5m",
    ),
)

_BUDGET = tuple(
    Alert(
        title=f"{noun} budget burns {'fast' if fast else 'slowly'}",
        group="service",
        expr=queries.burn(slo, "page" if fast else "ticket"),
        relation="gte",
        limit=thresholds.BUDGET_ALARM,
        lasts="2m" if fast else "15m",
        severity="critical" if fast else "warning",
        summary=(
            f"{{B percent}} of {what} in the last {'hour' if fast else 'day'}"
            f" (objective {thresholds.MAY_FAIL[slo] * 100:.1f} %)"
        ),
        values={"B": queries.bad_share(slo, "1h" if fast else "1d")},
        description=(
            "At this rate 2 % of the month's budget goes in an hour, or 5 % in six."
            if fast
            else "At this rate 10 % of the month's budget goes within one to three days."
        ),
        panel=("service", panel),
        keep="5m" if fast else "0s",
    )
    for slo, noun, what, panel in (
        ("availability", "Error", "requests failed", "Error budget"),
        ("latency", "Latency", "answers took longer than 250 ms", "Latency"),
    )
    for fast in (True, False)
)

_LOAD = (
    Alert(
        title="Overload",
        group="service",
        expr=queries.OVERLOAD,
        relation="gte",
        limit=thresholds.REFUSED_SHARE,
        lasts="2m",
        severity="warning",
        summary="{B percent} of requests were refused for overload in 5 minutes",
        values={"B": queries.OVERLOAD},
        description="The queue is full; clients are told to come back (503 with Retry-After).",
        panel=("service", "Refused requests"),
        keep="5m",
    ),
    Alert(
        title="Requests wait",
        group="service",
        expr=queries.WAITING,
        relation="gt",
        limit=thresholds.WAIT_SECONDS,
        lasts="1m",
        severity="warning",
        summary="The oldest request has waited for {A time}",
        description="Calls of the model hang or are too many; a request counts only when it ends.",
        panel=("service", "Waiting"),
        keep="5m",
    ),
    Alert(
        title="No traffic",
        group="service",
        expr=queries.TRAFFIC,
        relation="lt",
        limit=thresholds.TRAFFIC_SHARE,
        lasts="30m",
        severity="warning",
        summary="{B count} requests in the last hour; yesterday and a week ago it was {C count} at least",
        values={"B": 'max(window:sidecar_requests:increase{window="1h"})', "C": queries.USUAL_REQUESTS},
        description="Clients no longer ask at an hour at which they usually do, or do not get here.",
        panel=("service", "Requests"),
    ),
    Alert(
        title="Sidecar cannot observe",
        group="service",
        expr=queries.UNOBSERVED,
        relation="gte",
        limit=thresholds.UNOBSERVED_SHARE,
        lasts="10m",
        severity="warning",
        summary="{B percent} of the answers of 15 minutes could not be counted",
        values={"B": queries.UNOBSERVED_OF_ANSWERS},
        description="Predictions are not touched by it, but figures of data and model miss rows.",
        panel=("service", "What the sidecar could not observe"),
    ),
)

_WATCHERS = (
    Alert(
        title="Target down",
        group="watchers",
        expr=queries.TARGET_DOWN,
        relation="gt",
        limit=0,
        lasts="10m",
        severity="warning",
        summary="{{ $labels.job }}{{ with $labels.instance }} at {{ . }}{{ end }} cannot be scraped",
        description="What it tells is missing until it is back.",
        panel=("service", "Scraped"),
    ),
    Alert(
        title="Rules fail",
        group="watchers",
        expr=queries.RULES_FAIL,
        relation="gt",
        limit=0,
        lasts="15m",
        severity="warning",
        summary="{A count} evaluations of rules failed or were missed in 11 minutes",
        description="Figures and alerts that read those rules stand still.",
        panel=("service", "Evaluations that failed"),
    ),
    Alert(
        title="Messages fail",
        group="watchers",
        expr=queries.MESSAGES_FAIL,
        relation="gt",
        limit=0,
        lasts="0s",
        severity="warning",
        summary="Messages by {{ $labels.integration }} that were not delivered in the last hour: {A count}",
        description="Whoever is to be woken by that channel was not.",
        panel=("service", "Messages that failed"),
    ),
    Alert(
        title="Watchdog",
        group="watchers",
        expr="vector(1)",
        relation="gt",
        limit=0,
        lasts="0s",
        severity="watchdog",
        summary="Alerting works: this always fires",
        description="Send it to a service that calls you when it stops to come: docs/monitoring.md.",
        panel=("service", "Scraped"),
    ),
)

_BAD_VALUES = tuple(
    Alert(
        title=title,
        group="data",
        expr=expr,
        relation="gt",
        limit=limit,
        lasts="10m",
        severity="warning",
        summary=f"{{{{ $labels.feature }}}}: {summary}",
        values={"B": queries.share_of_fate(fate), **more},
        description=description,
        panel=("data", panel),
    )
    for title, expr, limit, fate, more, summary, description, panel in (
        (
            "Missing values",
            queries.MORE_MISSING,
            thresholds.MISSING_SHARE,
            "missing",
            {"C": queries.REFERENCE_MISSING},
            "missing in {B percent} of rows, {C percent} in training",
            "A client has stopped to send it, or sends it under another name.",
            "Missing values",
        ),
        (
            "Invalid values",
            queries.bad_values("out_of_range"),
            thresholds.BAD_SHARE,
            "out_of_range",
            {},
            "out of range in {B percent} of rows",
            "Values outside the schema's range are answered all the same; those answers mean little.",
            "Values out of range",
        ),
        (
            "Unknown levels",
            queries.bad_values("unknown_level"),
            thresholds.BAD_SHARE,
            "unknown_level",
            {},
            "a level that the model does not know in {B percent} of rows",
            "A new code, a misspelt one, or text where a number belongs.",
            "Unknown levels",
        ),
    )
)

_DRIFT = (
    Alert(
        title="Feature drift",
        group="data",
        expr=queries.FEATURE_DRIFT,
        relation="gte",
        limit=thresholds.EVIDENCE_ALARM,
        lasts="10m",
        severity="warning",
        summary=(
            "{{ $labels.feature }}: PSI {B number}, {C level} in {C percent} of rows, {D percent} in training"
        ),
        values={
            "B": queries.FEATURE_PSI,
            "C": queries.ROSE_MOST_NOW,
            "D": queries.ROSE_MOST_TRAINING,
        },
        description="Chance would say so once a year for all features together. Drift alone trains nothing.",
        panel=("data", "Evidence of drift by feature"),
        keep="30m",
    ),
    Alert(
        title="Score drift",
        group="data",
        expr=queries.SCORE_DRIFT,
        relation="gte",
        limit=thresholds.EVIDENCE_ALARM,
        lasts="10m",
        severity="warning",
        summary="The predicted risks: PSI {B number} against validation rows",
        values={"B": queries.SCORE_PSI},
        description="Risks are distributed otherwise than on the validation rows.",
        panel=("model", "Evidence against the model"),
        keep="30m",
    ),
)

_LOSS = (
    Alert(
        title="Drift with harm",
        group="model",
        expr=queries.HARM,
        relation="gt",
        limit=thresholds.ROC_AUC_DROP,
        lasts="10m",
        severity="warning",
        summary="The data drifted; expected ROC AUC at most {B points}, on validation rows {C points}",
        values={"B": queries.EXPECTED_BEST, "C": queries.VALIDATION},
        description="A drop of the expected ROC AUC that its uncertainty does not explain.",
        panel=("model", "ROC AUC expected without labels"),
        keep="30m",
    ),
    Alert(
        title="Realised ROC AUC below floor",
        group="model",
        expr=queries.REALISED_ABOVE_FLOOR,
        relation="lt",
        limit=0,
        lasts="10m",
        severity="warning",
        summary="ROC AUC by late labels at most {B points}, floor {C points}",
        values={"B": queries.REALISED_BEST, "C": queries.FLOOR},
        description=(
            "The model ranks people worse than its gate allowed it to. Right if labelling depends on the risk"
            " alone."
        ),
        panel=("model", "ROC AUC realised by late labels"),
        keep="1h",
    ),
    Alert(
        title="Expected ROC AUC below floor",
        group="model",
        expr=queries.EXPECTED_ABOVE_FLOOR,
        relation="lt",
        limit=0,
        lasts="10m",
        severity="warning",
        summary="ROC AUC expected without labels at most {B points}, floor {C points}",
        values={"B": queries.EXPECTED_BEST, "C": queries.FLOOR},
        description="For the people who come now the model is expected to rank worse than its gate allowed.",
        panel=("model", "ROC AUC expected without labels"),
        keep="30m",
    ),
    Alert(
        title="Calibration",
        group="model",
        expr=queries.CALIBRATION,
        relation="gte",
        limit=thresholds.EVIDENCE_ALARM,
        lasts="10m",
        severity="warning",
        summary="By late labels of 30 days {B number} positives for each that the risks predict",
        values={"B": queries.LABELLED_OBSERVED_EXPECTED},
        description="A risk of 20 % is not 20 of 100 people any more.",
        panel=("model", "Evidence against the model"),
        keep="1d",
    ),
)

_AGE = (
    Alert(
        title="Labels stopped",
        group="model",
        expr=queries.LABELS_A_WEEK,
        relation="lt",
        limit=thresholds.FEWEST_LABELS,
        lasts="1h",
        severity="warning",
        summary="{A count} late labels in 7 days, after there had been some",
        description="Without labels nobody sees a change of the illness itself.",
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
        summary="The model was trained {A time} ago",
        description="Nothing is known to be wrong; nobody has looked for half a year either.",
        panel=("model", "Age of the model"),
    ),
)

_ACTIONS = tuple(
    Alert(
        title=title,
        group="actions",
        expr=expr,
        relation="gt",
        limit=0,
        lasts="30m",
        severity="action",
        summary=summary,
        description="Held while values are missing, invalid or unknown: training would learn that fault.",
        panel=("model", panel),
        keep="1h",
        action=action,
    )
    for title, expr, action, summary, panel in (
        (
            "Retraining asked for",
            queries.RETRAIN,
            "retrain",
            "retrain: the model ranks people worse than it may",
            "ROC AUC realised by late labels",
        ),
        (
            "Recalibration asked for",
            queries.RECALIBRATE,
            "recalibrate",
            "recalibrate: outcomes do not follow the risks",
            "Evidence against the model",
        ),
    )
)

_HOST = (
    Alert(
        title="Host memory",
        group="host",
        expr=queries.FREE_MEMORY,
        relation="lt",
        limit=thresholds.FREE_MEMORY_SHARE,
        lasts="10m",
        severity="warning",
        summary="{B percent} of the host's memory is free",
        values={"B": queries.FREE_MEMORY},
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
        summary="{B percent} of {{ $labels.mountpoint }} is free",
        values={"B": queries.FREE_DISK},
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
        summary="{{ $labels.job }} was restarted {A count} times in an hour",
        description="It ends and is started again and again; what it held in memory is lost each time.",
        panel=("service", "Restarts in an hour"),
    ),
)


def _kept(alert: Alert) -> Alert:
    """The alert with its state kept while nothing is counted: a sidecar that is away mends nothing."""
    return replace(alert, no_data="KeepLast")


ALERTS = (
    *(*_DOWN, *_BUDGET, *_LOAD, *_WATCHERS),
    *map(_kept, (*_BAD_VALUES, *_DRIFT, *_LOSS)),
    *_AGE,
    *map(_kept, _ACTIONS),
    *_HOST,
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
    """The summary's template; a value that is not known (no data, no answer) reads "?"."""
    text = alert.summary
    for letter in ("A", *alert.values):
        for name, form in _FORMATS.items():
            written = f"{{{{ if $values.{letter} }}}}{form.format(letter)}{{{{ else }}}}?{{{{ end }}}}"
            text = text.replace(f"{{{letter} {name}}}", written)
    return text


def _values(alert: Alert) -> dict[str, str]:
    """The queries of the values in a message; those written as percentages are asked for as such."""
    return {
        letter: f"100 * ({expr})" if f"{{{letter} percent}}" in alert.summary else expr
        for letter, expr in alert.values.items()
    }


# The model that a message is about: the alert's own labels, else the one that was served last.
_MODEL = (
    "{{ if $labels.model_name }}{{ $labels.model_name }} {{ $labels.model_version }}"
    "{{ else if $values.M }}{{ if $values.M.Labels.model_name }}"
    "{{ $values.M.Labels.model_name }} {{ $values.M.Labels.model_version }}{{ end }}{{ end }}"
)


def _query(letter: str, expr: str) -> dict[str, Any]:
    return {
        "refId": letter,
        "datasourceUid": "prometheus",
        "relativeTimeRange": {"from": WINDOW_SECONDS, "to": 0},
        "model": {"refId": letter, "expr": expr, "instant": True, "range": False, "editorMode": "code"},
    }


def _rule(alert: Alert, panel: int, runbook: str) -> dict[str, Any]:
    dashboard = alert.panel[0]
    condition = {
        "refId": "Z",
        "datasourceUid": "__expr__",
        "relativeTimeRange": {"from": 0, "to": 0},
        "model": {
            "refId": "Z",
            "type": "threshold",
            "expression": "A",
            "conditions": [{"evaluator": {"type": alert.relation, "params": [alert.limit]}}],
        },
    }
    chosen = {"data": "&var-one={{ $labels.feature | urlquery }}"}.get(dashboard, "")
    if dashboard in ("data", "model"):
        chosen += "{{ with $labels.model_version }}&var-version={{ . }}{{ end }}"
    return {
        "uid": alert.uid,
        "title": alert.title,
        "condition": "Z",
        "for": alert.lasts,
        "keepFiringFor": alert.keep,
        "missing_series_evals_to_resolve": 5,
        "noDataState": alert.no_data,
        "execErrState": alert.failure,
        "data": [
            _query("A", alert.expr),
            condition,
            *(_query(letter, expr) for letter, expr in _values(alert).items()),
            _query("M", queries.SERVED),
        ],
        "labels": {"severity": alert.severity, "environment": "$ENVIRONMENT"}
        | ({"action": alert.action} if alert.action else {}),
        "annotations": {
            "summary": summary(alert),
            "description": alert.description,
            "model": _MODEL,
            "runbook_url": runbook,
            "graph_url": f"/d/{dashboard}?viewPanel=panel-{panel}{chosen}",
            "__dashboardUid__": dashboard,
            "__panelId__": str(panel),
        },
    }
