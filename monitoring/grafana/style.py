"""Grafana's classic dashboard JSON (schema version 42) from short descriptions.

Every function returns plain dictionaries. A panel is described by its title, what it means, its queries and
its unit; where it stands and which number it has follows from its place in the list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Panel = dict[str, Any]
Range = tuple[float | None, float | None, str, str]  # from, to, word, colour
Step = tuple[float | None, str]  # from this value on, this colour; the first value is None

PROMETHEUS = {"type": "prometheus", "uid": "prometheus"}
GRID_COLUMNS = 24
GREEN, ORANGE, RED, BLUE, GREY = "green", "orange", "red", "blue", "text"
PLAIN: tuple[Step, ...] = ((None, GREEN),)


def above(warn: float | None, alarm: float | None = None) -> tuple[Step, ...]:
    """Thresholds of a figure that is good while small: orange from `warn`, red from `alarm` on."""
    steps: list[Step] = [(None, GREEN)]
    steps += [(warn, ORANGE)] if warn is not None else []
    return (*steps, (alarm, RED)) if alarm is not None else tuple(steps)


def query(expr: str, legend: str = "", *, instant: bool = False, form: str = "time_series") -> Panel:
    """One Prometheus query; its letter is set by the panel that holds it."""
    return {
        "datasource": PROMETHEUS,
        "editorMode": "code",
        "expr": expr,
        "legendFormat": legend or "__auto",
        "format": form,
        "instant": instant,
        "range": not instant,
    }


def range_words(ranges: list[Range], nothing: str) -> list[Panel]:
    """Mapping of ranges (from, to, word, colour) and of an empty answer (grey) to words."""
    mappings: list[Panel] = [
        {
            "type": "range",
            "options": {"from": low, "to": high, "result": {"text": text, "color": colour, "index": index}},
        }
        for index, (low, high, text, colour) in enumerate(ranges)
    ]
    result = {"text": nothing, "color": GREY, "index": len(ranges)}
    return [*mappings, {"type": "special", "options": {"match": "null+nan", "result": result}}]


def _panel(
    kind: str,
    title: str,
    description: str,
    queries: list[Panel],
    *,
    width: int,
    height: int,
    unit: str = "none",
    steps: tuple[Step, ...] = PLAIN,
    defaults: Panel | None = None,
    overrides: list[Panel] | None = None,
    options: Panel | None = None,
    transformations: list[Panel] | None = None,
    links: list[Panel] | None = None,
) -> Panel:
    thresholds = {"mode": "absolute", "steps": [{"color": colour, "value": value} for value, colour in steps]}
    panel: Panel = {
        "type": kind,
        "title": title,
        "description": description,
        "gridPos": {"w": width, "h": height},
        "datasource": PROMETHEUS,
        "targets": [{"refId": chr(ord("A") + index), **target} for index, target in enumerate(queries)],
        "fieldConfig": {
            "defaults": {"unit": unit, "noValue": "no data", "thresholds": thresholds, **(defaults or {})},
            "overrides": overrides or [],
        },
        "options": options or {},
    }
    if transformations:
        panel["transformations"] = transformations
    if links:
        panel["links"] = links
    return panel


def row(title: str) -> Panel:
    """A heading across the page."""
    return {
        "type": "row",
        "title": title,
        "collapsed": False,
        "panels": [],
        "gridPos": {"w": GRID_COLUMNS, "h": 1},
    }


def verdict(
    title: str,
    description: str,
    expr: str,
    ranges: list[Range],
    *,
    nothing: str = "no data",
    width: int = 4,
    links: list[Panel] | None = None,
) -> Panel:
    """A coloured field with one word: what the figure of `expr` means now."""
    return _panel(
        "stat",
        title,
        description,
        [query(expr, title, instant=True)],
        width=width,
        height=4,
        steps=((None, GREY),),
        defaults={
            "mappings": range_words(ranges, nothing),
            "noValue": nothing,
            "color": {"mode": "thresholds"},
        },
        options={
            "colorMode": "background_solid",
            "graphMode": "none",
            "justifyMode": "center",
            "textMode": "value",
            "orientation": "auto",
            "wideLayout": True,
            "text": {"valueSize": 30},
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
        links=links,
    )


def stat(
    title: str,
    description: str,
    expr: str | list[Panel],
    *,
    unit: str = "none",
    decimals: int | None = None,
    steps: tuple[Step, ...] = ((None, BLUE),),
    width: int = 4,
    height: int = 4,
    nothing: str = "no data",
    text: str = "auto",
    mappings: list[Panel] | None = None,
) -> Panel:
    """The latest value in large figures."""
    queries = [query(expr, instant=True)] if isinstance(expr, str) else expr
    defaults: Panel = {"noValue": nothing, "color": {"mode": "thresholds"}, "mappings": mappings or []}
    if decimals is not None:
        defaults["decimals"] = decimals
    return _panel(
        "stat",
        title,
        description,
        queries,
        width=width,
        height=height,
        unit=unit,
        steps=steps,
        defaults=defaults,
        options={
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "textMode": text,
            "orientation": "auto",
            "wideLayout": True,
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    )


def graph(
    title: str,
    description: str,
    queries: list[Panel],
    *,
    unit: str = "none",
    steps: tuple[Step, ...] | None = None,
    width: int = 12,
    height: int = 8,
    decimals: int | None = None,
    minimum: float | None = 0,
    maximum: float | None = None,
    at_least: float | None = None,
    stacked: bool = False,
    bars: bool = False,
    fill: int = 8,
    log: bool = False,
    overrides: list[Panel] | None = None,
    legend: str = "bottom",
    links: list[Panel] | None = None,
) -> Panel:
    """Lines over time; the thresholds of `steps` are drawn as dashed lines.

    The axis reaches `at_least` so far up, so that nothing but zeros does not look like a scale.
    """
    custom: Panel = {
        "drawStyle": "bars" if bars else "line",
        # The line of a stacked series that is 0 would lie on top of the one below, in its own colour.
        "lineWidth": 0 if stacked else 1 if bars else 2,
        "fillOpacity": 70 if bars or stacked else fill,
        "gradientMode": "none",
        "showPoints": "never",
        "spanNulls": 600_000,  # ten minutes: a restart of the sidecar leaves no gap
        "stacking": {"mode": "normal" if stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if steps else "off"},
        "axisPlacement": "auto",
    }
    if at_least is not None:
        custom["axisSoftMax"] = at_least
    if log:
        # As a logarithm from 1 on, straight around 0: evidence may be negative.
        custom["scaleDistribution"] = {"type": "symlog", "log": 10, "linearThreshold": 1}
    defaults: Panel = {"custom": custom, "color": {"mode": "palette-classic"}}
    for key, value in (("min", minimum), ("max", maximum), ("decimals", decimals)):
        if value is not None:
            defaults[key] = value
    return _panel(
        "timeseries",
        title,
        description,
        queries,
        width=width,
        height=height,
        unit=unit,
        steps=steps or PLAIN,
        defaults=defaults,
        overrides=overrides,
        options={
            "legend": {
                "displayMode": "list" if legend == "bottom" else "table",
                "placement": "bottom" if legend == "bottom" else "right",
                "showLegend": True,
                "calcs": [] if legend == "bottom" else ["lastNotNull"],
            }
            | ({} if legend == "bottom" else {"sortBy": "Last *", "sortDesc": True}),
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        links=links,
    )


def style(name: str, **properties: Any) -> Panel:
    """How the series of a name (with a leading slash: of a pattern) looks, e.g. color="red", dash=True."""
    matcher = {"id": "byRegexp" if name.startswith("/") else "byName", "options": name}
    known: dict[str, Callable[[Any], tuple[str, Any]]] = {
        "color": lambda value: ("color", {"mode": "fixed", "fixedColor": value}),
        "dash": lambda _: ("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}),
        "width": lambda value: ("custom.lineWidth", value),
        "fill_below": lambda value: ("custom.fillBelowTo", value),
        "fill": lambda value: ("custom.fillOpacity", value),
        "at_least": lambda value: ("custom.axisSoftMax", value),
        "right_axis": lambda _: ("custom.axisPlacement", "right"),
        "unit": lambda value: ("unit", value),
        "hidden": lambda _: ("custom.hideFrom", {"legend": True, "tooltip": False, "viz": False}),
        "cell": lambda value: ("custom.cellOptions", {"type": value, "mode": "basic"}),
        "steps": lambda value: (
            "thresholds",
            {"mode": "absolute", "steps": [{"color": colour, "value": start} for start, colour in value]},
        ),
        "decimals": lambda value: ("decimals", value),
        "column_width": lambda value: ("custom.width", value),
        "maximum": lambda value: ("max", value),
        "mappings": lambda value: ("mappings", value),
        "links": lambda value: ("links", value),
    }
    pairs = [known[key](value) for key, value in properties.items()]
    return {"matcher": matcher, "properties": [{"id": key, "value": value} for key, value in pairs]}


def heatmap(
    title: str, description: str, expr: str, *, width: int = 12, height: int = 8, unit: str = "s"
) -> Panel:
    """Counts by bucket over time, of a query that returns one series for each `le`."""
    return _panel(
        "heatmap",
        title,
        description,
        [query(expr, "{{le}}", form="heatmap")],
        width=width,
        height=height,
        defaults={"custom": {"scaleDistribution": {"type": "linear"}}},
        options={
            "calculate": False,
            "yAxis": {"unit": unit, "axisPlacement": "left"},
            "rowsFrame": {"layout": "auto"},
            "color": {
                "mode": "scheme",
                "scheme": "Blues",
                "fill": "dark-blue",
                "exponent": 0.5,
                "steps": 32,
                "reverse": False,
            },
            "cellGap": 1,
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "showValue": "never",
            "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
        },
    )


def bars(
    title: str,
    description: str,
    queries: list[Panel],
    *,
    unit: str = "none",
    steps: tuple[Step, ...] = PLAIN,
    width: int = 12,
    height: int = 10,
    maximum: float | None = None,
    decimals: int | None = None,
    overrides: list[Panel] | None = None,
) -> Panel:
    """One horizontal bar for each series, now."""
    defaults: Panel = {"min": 0, "color": {"mode": "thresholds"}}
    for key, value in (("max", maximum), ("decimals", decimals)):
        if value is not None:
            defaults[key] = value
    return _panel(
        "bargauge",
        title,
        description,
        queries,
        width=width,
        height=height,
        unit=unit,
        steps=steps,
        defaults=defaults,
        overrides=overrides,
        options={
            "displayMode": "basic",
            "orientation": "horizontal",
            "valueMode": "color",
            "showUnfilled": True,
            "namePlacement": "left",
            "sizing": "auto",
            "minVizHeight": 12,
            "maxVizHeight": 32,
            "minVizWidth": 8,
            "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    )


def chart(
    title: str,
    description: str,
    columns: dict[str, str],
    by: str,
    *,
    unit: str = "percentunit",
    width: int = 12,
    height: int = 9,
    overrides: list[Panel] | None = None,
) -> Panel:
    """Grouped bars, now: a group a value of the label `by`, a bar for each of `columns` (name: query)."""
    return _panel(
        "barchart",
        title,
        description,
        [query(expr, instant=True, form="table") for expr in columns.values()],
        width=width,
        height=height,
        unit=unit,
        defaults={
            "min": 0,
            "noValue": "",  # or it would be written under the bars whose label has no room
            "color": {"mode": "palette-classic"},
            "custom": {"fillOpacity": 80, "lineWidth": 0, "axisPlacement": "auto"},
        },
        overrides=[style(by, unit="string"), *(overrides or [])],
        options={
            "orientation": "auto",
            "xField": by,
            "xTickLabelRotation": 0,
            "xTickLabelSpacing": 0,
            "xTickLabelMaxLength": 12,
            "showValue": "never",
            "stacking": "none",
            "groupWidth": 0.8,
            "barWidth": 0.95,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "none"},
        },
        transformations=_joined(list(columns), by),
    )


def table(
    title: str,
    description: str,
    columns: dict[str, str],
    by: str,
    *,
    width: int = 12,
    height: int = 10,
    labels: tuple[str, ...] = (),
    sort: str | None = None,
    overrides: list[Panel] | None = None,
    links: list[Panel] | None = None,
) -> Panel:
    """One line for each value of the label `by`, one column for each of `columns` (name: query), now.

    With a single query its other `labels` become columns too.
    """
    return _panel(
        "table",
        title,
        description,
        [query(expr, instant=True, form="table") for expr in columns.values()],
        width=width,
        height=height,
        # Grafana's own least width, 150, would push the last of seven columns out of the panel.
        defaults={
            "custom": {
                "align": "auto",
                "cellOptions": {"type": "auto"},
                "filterable": False,
                "minWidth": 90,
            }
        },
        overrides=overrides,
        options={
            "showHeader": True,
            "cellHeight": "sm",
            "sortBy": [{"displayName": sort, "desc": True}] if sort else [],
        },
        transformations=_joined(list(columns), by, labels),
        links=links,
    )


def _joined(names: list[str], by: str, labels: tuple[str, ...] = ()) -> list[Panel]:
    letters = [chr(ord("A") + index) for index in range(len(names))]
    # With one query Grafana calls its column "Value", with several "Value #A", "Value #B", ...
    values = ["Value"] if len(names) == 1 else [f"Value #{letter}" for letter in letters]
    join = {"id": "joinByField", "options": {"byField": by, "mode": "outer"}}
    kept = [by, *labels, *values]
    return [
        *([join] if len(names) > 1 else []),
        {"id": "filterFieldsByName", "options": {"include": {"names": kept}}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {},
                "indexByName": {name: place for place, name in enumerate(kept)},
                "renameByName": dict(zip(values, names, strict=True)),
            },
        },
        {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": by}]}},
    ]


def alert_list(title: str, description: str, *, severity: str, width: int = 12, height: int = 7) -> Panel:
    """Alerts of a severity that are firing or about to."""
    return {
        "type": "alertlist",
        "title": title,
        "description": description,
        "gridPos": {"w": width, "h": height},
        "options": {
            "alertName": "",
            "alertInstanceLabelFilter": f'{{severity="{severity}"}}',
            "dashboardAlerts": False,
            "groupMode": "default",
            "groupBy": [],
            "maxItems": 30,
            "sortOrder": 3,
            "viewMode": "list",
            "showInactiveAlerts": False,
            "showInstances": True,
            "stateFilter": {
                "recovering": True,
                "firing": True,
                "pending": True,
                "noData": True,
                "normal": False,
                "error": True,
            },
        },
    }


def text(title: str, content: str, *, width: int = GRID_COLUMNS, height: int = 4) -> Panel:
    """Markdown."""
    return {
        "type": "text",
        "title": title,
        "description": "",
        "gridPos": {"w": width, "h": height},
        "options": {"mode": "markdown", "content": content},
    }


def choice(name: str, label: str, values: str, *, default: str | None = None, many: bool = False) -> Panel:
    """A variable whose values a query such as `label_values(m, l)` gives."""
    current = (
        {"text": ["All"], "value": ["$__all"]} if many else {"text": default or "", "value": default or ""}
    )
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": PROMETHEUS,
        "definition": values,
        "query": {"query": values, "refId": name},
        "refresh": 2,
        "sort": 3,
        "multi": many,
        "includeAll": many,
        "current": current,
    }


def options(name: str, label: str, values: list[str], default: str) -> Panel:
    """A variable with fixed values."""
    return {
        "type": "custom",
        "name": name,
        "label": label,
        "query": ",".join(values),
        "multi": False,
        "includeAll": False,
        "current": {"text": default, "value": default},
        "options": [{"text": value, "value": value, "selected": value == default} for value in values],
    }


def marks(name: str, expr: str, title: str, text: str = "", *, colour: str = BLUE) -> Panel:
    """Vertical lines where `expr` has a value."""
    return {
        "name": name,
        "datasource": PROMETHEUS,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "expr": expr,
        "step": "60s",
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": "",
        "useValueForTime": False,
    }


def link(title: str, url: str) -> Panel:
    """A link of a panel, to another place in this Grafana."""
    return {"title": title, "url": url, "targetBlank": False}


def _placed(panels: list[Panel]) -> list[Panel]:
    """Panels left to right, a new line where one does not fit; numbered from 1."""
    x = y = line = 0
    placed = []
    for number, panel in enumerate(panels, start=1):
        width, height = panel["gridPos"]["w"], panel["gridPos"]["h"]
        if x + width > GRID_COLUMNS:
            x, y, line = 0, y + line, 0
        placed.append({"id": number, **panel, "gridPos": {"x": x, "y": y, "w": width, "h": height}})
        x, line = x + width, max(line, height)
    return placed


def dashboard(
    uid: str,
    title: str,
    description: str,
    panels: list[Panel],
    *,
    variables: list[Panel] | None = None,
    annotations: list[Panel] | None = None,
    since: str = "now-24h",
    refresh: str = "1m",
) -> Panel:
    """A whole dashboard; its panels flow over the page in the given order."""
    alerts = {
        "builtIn": 1,
        "type": "dashboard",
        "name": "Alerts",
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
    }
    others = {
        "type": "dashboards",
        "title": "Model monitoring",
        "tags": ["model-monitoring"],
        "asDropdown": False,
        "keepTime": True,
        "includeVars": True,
        "icon": "external link",
        "targetBlank": False,
        "tooltip": "",
        "url": "",
    }
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["model-monitoring"],
        "schemaVersion": 42,
        "editable": False,
        "timezone": "browser",
        "graphTooltip": 1,
        "fiscalYearStartMonth": 0,
        "time": {"from": since, "to": "now"},
        "refresh": refresh,
        "links": [others],
        "annotations": {"list": [alerts, *(annotations or [])]},
        "templating": {"list": variables or []},
        "panels": _placed(panels),
    }
