"""Checks the files that Grafana is provisioned with, for faults that Grafana hides or reports too late.

Grafana drops unknown keys, expands `$NAME` in some places and not in others, and stops at the first error of
an alerting file. `check` reads the files like Grafana and lists every problem.

    python -m monitoring.grafana.lint
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent
COMPOSE = FOLDER.parent / "deploy" / "compose.yaml"

_VARIABLE = re.compile(r"\$(\w+|\{\w+\})")
_FIELDS: dict[str, set[str]] = {
    "group": {"orgId", "name", "folder", "interval", "rules"},
    "rule": {
        *("uid", "title", "condition", "data", "for", "keepFiringFor", "missing_series_evals_to_resolve"),
        *("noDataState", "execErrState", "isPaused", "labels", "annotations"),
    },
    "query": {"refId", "queryType", "datasourceUid", "relativeTimeRange", "model"},
    "promql": {"refId", "expr", "instant", "range", "editorMode"},
    "expression": {"refId", "type", "expression", "conditions", "reducer", "settings"},
    "contactPoint": {"orgId", "name", "receivers"},
    "receiver": {"uid", "type", "disableResolveMessage", "settings"},
    "email": {"addresses", "singleEmail", "subject", "message"},
    "slack": {"url", "token", "recipient", "title", "text", "color"},
    "webhook": {
        *("url", "httpMethod", "authorization_scheme", "authorization_credentials", "headers", "payload"),
        *("title", "message", "maxAlerts"),
    },
    "policy": {
        *("orgId", "receiver", "group_by", "group_wait", "group_interval", "repeat_interval", "routes"),
        *("object_matchers", "continue", "mute_time_intervals", "active_time_intervals"),
    },
    "muteTime": {"orgId", "name", "time_intervals"},
    "interval": {"times", "weekdays", "days_of_month", "months", "years", "location"},
    "template": {"orgId", "name", "template"},
    "datasource": {
        *("name", "uid", "type", "access", "url", "isDefault", "editable", "jsonData", "secureJsonData"),
    },
    "jsonData": {"httpMethod", "prometheusType", "timeInterval"},
    "provider": {
        *("name", "type", "folder", "allowUiUpdates", "disableDeletion", "updateIntervalSeconds", "options"),
    },
    "options": {"path", "foldersFromFilesStructure"},
    "dashboard": {
        *("uid", "title", "description", "tags", "schemaVersion", "editable", "timezone", "graphTooltip"),
        *("fiscalYearStartMonth", "time", "refresh", "links", "annotations", "templating", "panels"),
    },
    "panel": {
        *("id", "type", "title", "description", "gridPos", "datasource", "targets", "fieldConfig", "options"),
        *("transformations", "links", "collapsed", "panels", "pluginVersion"),
    },
    "target": {
        *("refId", "datasource", "editorMode", "expr", "legendFormat", "format", "instant", "range"),
    },
    "defaults": {
        *("unit", "noValue", "thresholds", "mappings", "color", "custom", "min", "max", "decimals", "links"),
    },
    "root": {
        *(
            "apiVersion",
            "apps",
            "groups",
            "contactPoints",
            "policies",
            "muteTimes",
            "templates",
            "datasources",
        ),
        *("prune", "providers"),
    },
}
_REQUIRED_SETTINGS = {"email": "addresses", "slack": "url", "webhook": "url"}
_DURATION = re.compile(r"(\d+(ms|s|m|h|d|w))+")
_STATES = {"noDataState": ("NoData", "Alerting", "OK", "KeepLast")} | {
    "execErrState": ("Error", "Alerting", "OK", "KeepLast")
}
_BUILT_IN = {"__rate_interval", "__interval", "__range", "__from", "__to"}


@dataclass(frozen=True, slots=True)
class Files:
    """The files that Grafana is provisioned with, parsed, and its environment variables."""

    provisioning: Mapping[str, dict[str, Any]]
    dashboards: Mapping[str, dict[str, Any]]
    environment: Mapping[str, str]

    def items(self, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(file name, entry) of every list of this name, over all files."""
        for name, document in self.provisioning.items():
            for item in document.get(key) or []:
                yield name, item

    def rules(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(where, alert rule) over all groups."""
        for name, group in self.items("groups"):
            for rule in group.get("rules") or []:
                yield f"{name}, rule {rule.get('uid')}", rule


def read(folder: Path = FOLDER, compose: Path = COMPOSE) -> Files:
    """The files of a folder with `provisioning/` and `dashboards/`; Grafana's environment from `compose`."""
    provisioning = {
        str(path.relative_to(folder)): yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in sorted((folder / "provisioning").rglob("*.yaml"))
    }
    dashboards = {
        str(path.relative_to(folder)): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((folder / "dashboards").glob("*.json"))
    }
    stack = yaml.safe_load(compose.read_text(encoding="utf-8"))
    return Files(provisioning, dashboards, stack["services"]["grafana"]["environment"])


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """Expand `$NAME` and `${NAME}` from the environment (empty if unset) and `$$` to `$`, like Grafana."""
    expanded = (
        _VARIABLE.sub(lambda match: environment.get(match[1].strip("{}"), ""), part)
        for part in text.split("$$")
    )
    return "$".join(expanded)


def check(files: Files) -> list[str]:
    """Every problem as a sentence, with the file and the place in it."""
    return [
        *_keys(files),
        *_variables(files),
        *_duplicates(files),
        *_references(files),
        *_settings(files),
        *_rules(files),
        *_dashboards(files),
    ]


def _unknown(where: str, kind: str, entry: Mapping[str, Any]) -> Iterator[str]:
    for key in entry:
        if key not in _FIELDS[kind]:
            yield f"{where}: Grafana does not know the key {key!r} of a {kind} and would drop it"


def _routes(policy: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield policy
    for route in policy.get("routes") or []:
        yield from _routes(route)


def _keys(files: Files) -> Iterator[str]:
    for name, document in files.provisioning.items():
        yield from _unknown(name, "root", document)
        if document.get("apiVersion") != 1:
            yield f"{name}: apiVersion should be 1"
    for key, kind in (("groups", "group"), ("muteTimes", "muteTime"), ("templates", "template")):
        for name, item in files.items(key):
            yield from _unknown(name, kind, item)
    for where, rule in files.rules():
        yield from _unknown(where, "rule", rule)
        for query in rule.get("data") or []:
            yield from _unknown(where, "query", query)
            kind = "expression" if query.get("datasourceUid") == "__expr__" else "promql"
            yield from _unknown(where, kind, query.get("model") or {})
    for name, point in files.items("contactPoints"):
        yield from _unknown(name, "contactPoint", point)
        for receiver in point.get("receivers") or []:
            yield from _unknown(name, "receiver", receiver)
            if receiver.get("type") not in _REQUIRED_SETTINGS:
                yield f"{name}: {receiver.get('type')!r} is no type of receiver that is used here"
            else:
                yield from _unknown(name, receiver["type"], receiver.get("settings") or {})
    for name, policy in files.items("policies"):
        for route in _routes(policy):
            yield from _unknown(name, "policy", route)
    for name, item in files.items("muteTimes"):
        for interval in item.get("time_intervals") or []:
            yield from _unknown(name, "interval", interval)
    for name, item in files.items("datasources"):
        yield from _unknown(name, "datasource", item)
        yield from _unknown(name, "jsonData", item.get("jsonData") or {})
    for name, item in files.items("providers"):
        yield from _unknown(name, "provider", item)
        yield from _unknown(name, "options", item.get("options") or {})


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _interpolated(files: Files) -> Iterator[tuple[str, str]]:
    """(where, text) of every value in which Grafana expands variables."""
    for key in ("datasources", "providers", "contactPoints", "policies"):
        for name, item in files.items(key):
            for text in _texts(item):
                yield name, text
    for where, rule in files.rules():
        for key in ("uid", "title", "labels", "condition", "for", "noDataState", "execErrState"):
            for text in _texts(rule.get(key)):
                yield where, text


def _literal(files: Files) -> Iterator[tuple[str, str]]:
    """(where, text) of every value that Grafana does not expand."""
    for where, rule in files.rules():
        for part in (rule.get("annotations"), [query.get("model") for query in rule.get("data") or []]):
            for text in _texts(part):
                yield where, text
    for key in ("muteTimes", "templates"):
        for name, item in files.items(key):
            for text in _texts(item):
                yield name, text


def _variables(files: Files) -> Iterator[str]:
    for where, text in _interpolated(files):
        in_template = "".join(re.findall(r"\{\{.*?\}\}", text, re.DOTALL)).replace("$$", "")
        if _VARIABLE.search(in_template):
            yield f"{where}: a $ inside {{{{ }}}} would be lost: write $$ in {text!r}"
            continue
        for name in re.findall(r"\$\{(\w+)\}", text.replace("$$", "")):
            if not files.environment.get(name, "").startswith("$$__file{"):
                yield f"{where}: ${{NAME}} is expanded twice, which only a file needs: use $NAME in {text!r}"
        for name in _VARIABLE.findall(text.replace("$$", "")):
            if name.strip("{}") not in files.environment:
                yield f"{where}: the variable {name} is not in Grafana's environment, so it would be empty"
    for where, text in _literal(files):
        if "$$" in text:
            yield f"{where}: nothing is expanded here, so $$ stays $$: write a single $ in {text!r}"


def _repeated(kind: str, names: list[Any]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{kind} {name!r} is used {count} times"


def _duplicates(files: Files) -> Iterator[str]:
    yield from _repeated("rule uid", [rule.get("uid") for _, rule in files.rules()])
    yield from _repeated("rule title", [rule.get("title") for _, rule in files.rules()])
    receivers = [r for _, point in files.items("contactPoints") for r in point.get("receivers") or []]
    yield from _repeated("receiver uid", [receiver.get("uid") for receiver in receivers])
    yield from _repeated("contact point", [point.get("name") for _, point in files.items("contactPoints")])
    yield from _repeated("dashboard uid", [board.get("uid") for board in files.dashboards.values()])
    yield from _repeated(
        "notification policy of organisation", [p.get("orgId") for _, p in files.items("policies")]
    )
    uids = [rule.get("uid") for _, rule in files.rules()] + [b.get("uid") for b in files.dashboards.values()]
    for uid in uids:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", str(uid)):
            yield f"uid {uid!r} should be 1 to 40 letters, digits, - or _"


def _references(files: Files) -> Iterator[str]:
    points = {point.get("name") for _, point in files.items("contactPoints")}
    mutes = {item.get("name") for _, item in files.items("muteTimes")}
    sources = {item.get("uid") for _, item in files.items("datasources")} | {"__expr__"}
    for name, policy in files.items("policies"):
        for route in _routes(policy):
            receiver = route.get("receiver")
            if receiver is not None and receiver not in points:
                yield f"{name}: there is no contact point {receiver!r}, and Grafana would not start"
            for mute in route.get("mute_time_intervals") or []:
                if mute not in mutes:
                    yield f"{name}: there is no mute timing {mute!r}, and Grafana would not start"
    for where, rule in files.rules():
        for query in rule.get("data") or []:
            if query.get("datasourceUid") not in sources:
                yield f"{where}: there is no data source {query.get('datasourceUid')!r}"
    texts = [text for _, item in files.items("templates") for text in _texts(item)]
    defined = set(re.findall(r'define "([^"]+)"', "\n".join(texts)))
    settings = [text for _, point in files.items("contactPoints") for text in _texts(point)]
    for used in re.findall(r'template "([^"]+)"', "\n".join(texts + settings)):
        if used not in defined:
            yield f"there is no template {used!r}: every notification that needs it would be lost"


def _settings(files: Files) -> Iterator[str]:
    for name, point in files.items("contactPoints"):
        for receiver in point.get("receivers") or []:
            required = _REQUIRED_SETTINGS.get(receiver.get("type"))
            if required and not (receiver.get("settings") or {}).get(required):
                yield f"{name}: receiver {receiver.get('uid')!r} needs {required}, or Grafana would not start"


def _duration(where: str, key: str, value: Any) -> Iterator[str]:
    if not _DURATION.fullmatch(str(value)):
        yield f"{where}: {key} should be a duration such as 5m, found {value!r}"


def _panel_link(files: Files, where: str, uid: str, number: str) -> Iterator[str]:
    board = next((b for b in files.dashboards.values() if b.get("uid") == uid), None)
    if board is None:
        yield f"{where}: there is no dashboard {uid!r}"
    elif number not in {str(panel.get("id")) for panel in board["panels"] if panel["type"] != "row"}:
        yield f"{where}: the dashboard {uid!r} has no panel {number}"


def _links(files: Files, where: str, value: Any) -> Iterator[str]:
    for text in _texts(value):
        for uid, _, number in re.findall(r"/d/([\w-]+)([^\s\"]*?[?&]viewPanel=(?:panel-)?(\d+))?", text):
            if number:
                yield from _panel_link(files, where, uid, number)
            elif uid not in {board.get("uid") for board in files.dashboards.values()}:
                yield f"{where}: there is no dashboard {uid!r}"


def _rules(files: Files) -> Iterator[str]:
    for name, group in files.items("groups"):
        yield from _duration(name, "interval", group.get("interval"))
    for where, rule in files.rules():
        letters = [query.get("refId") for query in rule.get("data") or []]
        if rule.get("condition") not in letters:
            yield f"{where}: the condition {rule.get('condition')!r} is none of its queries"
        for query in rule.get("data") or []:
            model = query.get("model") or {}
            if model.get("refId") != query.get("refId"):
                yield f"{where}: query {query.get('refId')!r} calls itself {model.get('refId')!r} inside"
            if query.get("datasourceUid") == "__expr__" and model.get("expression") not in letters:
                yield f"{where}: the expression {query.get('refId')!r} reads what is no query of the rule"
        for key in ("for", "keepFiringFor"):
            yield from _duration(where, key, rule.get(key, "0s"))
        for key, states in _STATES.items():
            if rule.get(key) not in states:
                yield f"{where}: {key} should be one of {', '.join(states)}, found {rule.get(key)!r}"
        if (rule.get("labels") or {}).get("severity") not in ("critical", "warning", "action", "watchdog"):
            yield f"{where}: the label severity should be critical, warning, action or watchdog"
        notes = rule.get("annotations") or {}
        for key in ("summary", "description", "runbook_url", "__dashboardUid__", "__panelId__"):
            if not isinstance(notes.get(key), str):
                yield f"{where}: the annotation {key} should be there, as text"
        yield from _panel_link(files, where, notes.get("__dashboardUid__", ""), str(notes.get("__panelId__")))
        yield from _links(files, where, notes)
        bare = re.sub(
            r"\{\{-? ?if \$values\.\w+.*?\{\{-? ?end -?\}\}", "", str(notes.get("summary")), flags=re.DOTALL
        )
        if "$values" in bare:
            yield f"{where}: the summary reads a value that may be absent: guard it by {{{{ if $values.A }}}}"


def _dashboards(files: Files) -> Iterator[str]:
    for name, board in files.dashboards.items():
        yield from _unknown(name, "dashboard", board)
        yield from _repeated(f"{name}: panel id", [panel.get("id") for panel in board["panels"]])
        yield from _overlaps(name, board["panels"])
        yield from _links(
            files, name, [board.get("links"), [panel.get("links") for panel in board["panels"]]]
        )
        declared = {variable["name"] for variable in board.get("templating", {}).get("list", [])} | _BUILT_IN
        for panel in board["panels"]:
            where = f"{name}, panel {panel.get('title')!r}"
            yield from _unknown(where, "panel", panel)
            yield from _unknown(where, "defaults", panel.get("fieldConfig", {}).get("defaults", {}))
            if panel["type"] not in ("row", "text") and not panel.get("description"):
                yield f"{where}: it should have a description"
            for target in panel.get("targets") or []:
                yield from _unknown(where, "target", target)
                for variable in _VARIABLE.findall(target["expr"]):
                    # $1 is a group of label_replace.
                    if variable.strip("{}") not in declared and not variable.isdigit():
                        yield f"{where}: the dashboard has no variable {variable.strip('{}')!r}"


def _overlaps(name: str, panels: list[dict[str, Any]]) -> Iterator[str]:
    title_of_cell: dict[tuple[int, int], str] = {}
    for panel in panels:
        position, title = panel["gridPos"], panel.get("title", "")
        if position["x"] < 0 or position["w"] < 1 or position["x"] + position["w"] > 24:
            yield f"{name}: panel {title!r} leaves the grid of 24 columns"
        cells = {
            (x, y)
            for x in range(position["x"], position["x"] + position["w"])
            for y in range(position["y"], position["y"] + position["h"])
        }
        overlapped = {title_of_cell[cell] for cell in cells if cell in title_of_cell}
        if overlapped:
            yield f"{name}: panel {title!r} overlaps {', '.join(sorted(overlapped))}"
        title_of_cell.update(dict.fromkeys(cells, title))


def main() -> int:
    """Print every problem; exit code 1 if there is one."""
    problems = check(read())
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
