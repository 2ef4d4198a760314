"""Grafana's classic dashboard JSON (schema version 42) from short descriptions.

Every function returns plain dictionaries. A panel is described by its title, its meaning, its queries and its
unit; its position and its id follow from its index in the list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

Panel = dict[str, Any]
Range = tuple[float | None, float | None, str, str]  # from, to, word, colour
Step = tuple[float | None, str]  # from this value on, this colour; the first value is None

PROMETHEUS = {"type": "prometheus", "uid": "prometheus"}
GRID_COLUMNS = 24
GREEN, ORANGE, RED, BLUE, GREY = "green", "orange", "red", "blue", "text"
PLAIN: tuple[Step, ...] = ((None, GREEN),)


@dataclass(frozen=True)
class Size:
    """Width and height in cells of the page's grid, which is 24 wide."""

    width: int
    height: int


@dataclass(frozen=True)
class Scale:
    """Format and axis of a figure: unit, decimals, colours by value, ends of the axis.

    The axis extends at least to `at_least`, so that it has a sensible scale if all values are 0. It is
    logarithmic if `log` is "positive", or "signed": straight between -1 and 1. `nothing` is the text without
    an answer.
    """

    unit: str = "none"
    decimals: int | None = None
    steps: tuple[Step, ...] | None = None
    minimum: float | None = 0
    maximum: float | None = None
    at_least: float | None = None
    log: str = ""
    nothing: str = "no data"

    @property
    def given(self) -> Panel:
        """The given options under Grafana's names."""
        minimum = None if self.log == "positive" else self.minimum  # 0 has no logarithm
        pairs = {"min": minimum, "max": self.maximum, "decimals": self.decimals}
        return {key: value for key, value in pairs.items() if value is not None}


@dataclass(frozen=True)
class Look:
    """Style of lines: stacked or not, and the opacity of the area below them in percent."""

    stacked: bool = False
    fill: int = 8


_LINES = Look()
_SMALL, _HALF, _HIGH, _CHART, _ALERTS = Size(4, 4), Size(12, 8), Size(12, 10), Size(12, 9), Size(12, 7)
_SCALE, _SECONDS, _SHARES = Scale(), Scale(unit="s"), Scale(unit="percentunit")


def above(warn: float | None, alarm: float | None = None) -> tuple[Step, ...]:
    """Thresholds of a figure that is good while small: orange from `warn`, red from `alarm` on."""
    steps: list[Step] = [(None, GREEN)]
    steps += [(warn, ORANGE)] if warn is not None else []
    return (*steps, (alarm, RED)) if alarm is not None else tuple(steps)


def query(expr: str, legend: str = "", *, instant: bool = False, form: str = "time_series") -> Panel:
    """A Prometheus query; its panel sets its letter."""
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
    size: Size,
    scale: Scale = _SCALE,
    defaults: Panel | None = None,
    options: Panel | None = None,
) -> Panel:
    colours = [{"color": colour, "value": value} for value, colour in scale.steps or PLAIN]
    return {
        "type": kind,
        "title": title,
        "description": description,
        "gridPos": {"w": size.width, "h": size.height},
        "datasource": PROMETHEUS,
        "targets": [{"refId": chr(ord("A") + index), **target} for index, target in enumerate(queries)],
        "fieldConfig": {
            "defaults": {
                "unit": scale.unit,
                "noValue": scale.nothing,
                "thresholds": {"mode": "absolute", "steps": colours},
                **(defaults or {}),
            },
            "overrides": [],
        },
        "options": options or {},
    }


def _overridden(panel: Panel, overrides: list[Panel] | None) -> Panel:
    panel["fieldConfig"]["overrides"] = overrides or []
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
) -> Panel:
    """A coloured field with a word for the present value of `expr`."""
    return _panel(
        "stat",
        title,
        description,
        [query(expr, title, instant=True)],
        size=Size(width, 4),
        scale=Scale(steps=((None, GREY),)),
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
    )


def stat(
    title: str,
    description: str,
    expr: str | list[Panel],
    *,
    scale: Scale = _SCALE,
    size: Size = _SMALL,
    text: str = "auto",
) -> Panel:
    """The latest value in large figures, blue unless the scale has colours; grey words without an answer."""
    queries = [query(expr, instant=True)] if isinstance(expr, str) else expr
    defaults: Panel = {"color": {"mode": "thresholds"}, "mappings": range_words([], scale.nothing)}
    if scale.decimals is not None:
        defaults["decimals"] = scale.decimals
    return _panel(
        "stat",
        title,
        description,
        queries,
        size=size,
        scale=replace(scale, steps=scale.steps or ((None, BLUE),)),
        defaults=defaults,
        options={
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "textMode": text,
            "orientation": "auto",
            "wideLayout": False,
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    )


def _axis_ends(scale: Scale) -> Panel:
    """Ends that an axis has at least: it reaches its thresholds, since Grafana draws one that lies a little
    beyond an end across the numbers of the axis."""
    limits = [start for start, _ in scale.steps or () if start is not None]
    ends: Panel = {}
    if limits or scale.at_least is not None:
        ends["axisSoftMax"] = max([*(1.05 * limit for limit in limits), scale.at_least or 0])
    if limits and scale.minimum is None:
        ends["axisSoftMin"] = 0.95 * min(limits)
    return ends


def graph(
    title: str,
    description: str,
    queries: list[Panel],
    *,
    scale: Scale = _SCALE,
    size: Size = _HALF,
    look: Look = _LINES,
    overrides: list[Panel] | None = None,
    legend: str = "",
) -> Panel:
    """Lines over time; the thresholds of the scale are drawn as dashed lines.

    The legend of lines that labels name is a table of the last values, the largest first, `legend` ("right"
    or "below") of the lines: right of them where there is room. That of other lines, and with `legend`
    "names", has only names.
    """
    if not legend and all("{{" in one["legendFormat"] for one in queries):
        legend = "right" if size.width >= _HALF.width else "below"
    custom: Panel = {
        "drawStyle": "line",
        # The line of a stacked series that is 0 would lie on top of the one below, in its own colour.
        "lineWidth": 0 if look.stacked else 2,
        "fillOpacity": 70 if look.stacked else look.fill,
        "gradientMode": "none",
        "showPoints": "never",
        "spanNulls": 600_000,  # ten minutes: a restart of the sidecar leaves no gap
        "stacking": {"mode": "normal" if look.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "dashed" if scale.steps else "off"},
        "axisPlacement": "auto",
    }
    custom |= _axis_ends(scale)
    if scale.log:
        signed = {"type": "symlog", "log": 10, "linearThreshold": 1}
        custom["scaleDistribution"] = signed if scale.log == "signed" else {"type": "log", "log": 10}
    ranked = {"displayMode": "table", "calcs": ["lastNotNull"], "sortBy": "Last *", "sortDesc": True}
    panel = _panel(
        "timeseries",
        title,
        description,
        queries,
        size=size,
        scale=scale,
        defaults={"custom": custom, "color": {"mode": "palette-classic"}, **scale.given},
        options={
            "legend": {
                **(ranked if legend in ("right", "below") else {"displayMode": "list", "calcs": []}),
                "placement": "right" if legend == "right" else "bottom",
                "showLegend": True,
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    )
    return _overridden(panel, overrides)


def style(name: str, **properties: Any) -> Panel:
    """Style of the series of a name (with a leading slash: of a pattern), e.g. color="red", dash=True."""
    matcher = {"id": "byRegexp" if name.startswith("/") else "byName", "options": name}
    overrides: dict[str, Callable[[Any], tuple[str, Any]]] = {
        "color": lambda value: ("color", {"mode": "fixed", "fixedColor": value}),
        "dash": lambda _: ("custom.lineStyle", {"fill": "dash", "dash": [8, 6]}),
        "width": lambda value: ("custom.lineWidth", value),
        "fill_below": lambda value: ("custom.fillBelowTo", value),
        "fill": lambda value: ("custom.fillOpacity", value),
        "at_least": lambda value: ("custom.axisSoftMax", value),
        "axis": lambda value: ("custom.axisLabel", value),
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
        "narrowest": lambda value: ("custom.minWidth", value),
        "maximum": lambda value: ("max", value),
        "show": lambda value: ("custom.show", value),
        "mappings": lambda value: ("mappings", value),
        "nothing": lambda value: ("noValue", value),
        "links": lambda value: ("links", value),
    }
    pairs = [overrides[key](value) for key, value in properties.items()]
    return {"matcher": matcher, "properties": [{"id": key, "value": value} for key, value in pairs]}


def heatmap(title: str, description: str, expr: str, *, scale: Scale = _SECONDS, size: Size = _HALF) -> Panel:
    """Counts by bucket over time, of a query that returns one series for each `le`."""
    return _panel(
        "heatmap",
        title,
        description,
        [query(expr, "{{le}}", form="heatmap")],
        size=size,
        defaults={"custom": {"scaleDistribution": {"type": "linear"}}},
        options={
            "calculate": False,
            "yAxis": {"unit": scale.unit, "axisPlacement": "left"},
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
    scale: Scale = _SCALE,
    size: Size = _HIGH,
) -> Panel:
    """A horizontal bar for the present value of each series."""
    return _panel(
        "bargauge",
        title,
        description,
        queries,
        size=size,
        scale=scale,
        defaults={"color": {"mode": "thresholds"}, **scale.given},
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


@dataclass(frozen=True)
class Words:
    """Words for the values of a label: `expr` has a series for each value, with the labels `label` (in words)
    and `order`, which sorts them if the value itself does not."""

    expr: str
    label: str
    order: str = ""


def chart(
    title: str,
    description: str,
    columns: dict[str, str],
    by: str,
    *,
    words: Words | None = None,
    scale: Scale = _SHARES,
    size: Size = _CHART,
    overrides: list[Panel] | None = None,
) -> Panel:
    """Grouped bars of present values: a group per value of the label `by`, a bar per column (name: query)."""
    x_label = words.label if words else by
    panel = _panel(
        "barchart",
        title,
        description,
        _table_queries(columns, words),
        size=size,
        scale=scale,
        defaults={
            "min": 0,
            "noValue": "",  # else it would appear under bars whose label has no room
            "color": {"mode": "palette-classic"},
            "custom": {"fillOpacity": 80, "lineWidth": 0, "axisPlacement": "auto"},
        },
        options={
            "orientation": "auto",
            "xField": x_label,
            "xTickLabelRotation": -30 if words else 0,
            "xTickLabelSpacing": 26 if words else 0,  # pixels: a phone leaves out every other one
            "xTickLabelMaxLength": 18,
            "showValue": "never",
            "stacking": "none",
            "groupWidth": 0.8,
            "barWidth": 0.95,
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "none"},
        },
    )
    panel["transformations"] = _joined(list(columns), by, words=words)
    return _overridden(panel, [style(x_label, unit="string"), *(overrides or [])])


def reliability(
    title: str,
    description: str,
    risk: str,
    outcome: str,
    by: str,
    *,
    size: Size = _CHART,
) -> Panel:
    """Present points: for each value of the label `by` its mean risk and its share of outcomes; right risks
    are on the line."""
    names = ["risk", "right risks", "observed"]
    panel = _panel(
        "xychart",
        title,
        description,
        [query(expr, instant=True, form="table") for expr in (risk, risk, outcome)],
        size=size,
        scale=Scale(unit="percentunit"),
        defaults={
            "min": 0,
            "color": {"mode": "palette-classic"},
            "custom": {
                "show": "points",
                "pointSize": {"fixed": 9},
                "pointShape": "circle",
                "fillOpacity": 80,
            },
        },
        options={
            "mapping": "manual",
            "series": [
                {
                    "frame": {"matcher": {"id": "byIndex", "options": 0}},
                    "x": {"matcher": {"id": "byName", "options": "risk"}},
                    "y": {"matcher": {"id": "byName", "options": name}},
                    "name": {"fixed": name},
                }
                for name in names[1:]
            ],
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "single", "sort": "none"},
        },
    )
    panel["pluginVersion"] = "12.4.0"  # without it, Grafana reads the options like those before 11.1
    panel["transformations"] = _joined(names, by)
    # Without names Grafana makes one of what the lines' names have in common: "right risks right risks".
    axes = [style("risk", axis="mean risk"), style("/right risks|observed/", axis="with the outcome")]
    diagonal = style("right risks", color=GREY, show="lines", dash=True, width=2)
    return _overridden(panel, [*axes, diagonal, style("observed", color=ORANGE)])


def table(
    title: str,
    description: str,
    columns: dict[str, str],
    by: str,
    *,
    words: Words | None = None,
    size: Size = _HIGH,
    sort: str | None = None,
    overrides: list[Panel] | None = None,
) -> Panel:
    """A table of present values: a line per value of the label `by`, a column per query (name: query)."""
    panel = _panel(
        "table",
        title,
        description,
        _table_queries(columns, words),
        size=size,
        # Grafana's default minimum width, 150, would push the last of seven columns out of the panel.
        defaults={
            "custom": {
                "align": "auto",
                "cellOptions": {"type": "auto"},
                "filterable": False,
                "minWidth": 90,
            }
        },
        options={
            "showHeader": True,
            "cellHeight": "sm",
            "sortBy": [{"displayName": sort, "desc": True}] if sort else [],
        },
    )
    panel["transformations"] = _joined(list(columns), by, words=words)
    return _overridden(panel, overrides)


def labels_table(
    title: str,
    description: str,
    expr: str,
    columns: dict[str, str],
    *,
    size: Size = _HIGH,
    overrides: list[Panel] | None = None,
) -> Panel:
    """A line for each present series of a query. `columns`: headings, and the label or "Value" of each."""
    first_label, *other_labels = columns.values()
    panel = table(title, description, {"": expr}, first_label, size=size, overrides=overrides)
    headings = {label: heading for heading, label in columns.items()}
    panel["transformations"] = _tidied([first_label, *other_labels], headings, order=first_label)
    return panel


def _table_queries(columns: dict[str, str], words: Words | None) -> list[Panel]:
    exprs = [*([words.expr] if words else []), *columns.values()]
    return [query(expr, instant=True, form="table") for expr in exprs]


def _joined(names: list[str], by: str, words: Words | None = None) -> list[Panel]:
    """Transformations that join the answers of all queries by a label, sort them and name their values."""
    first = 1 if words else 0
    letters = [chr(ord("A") + first + index) for index in range(len(names))]
    # With one query Grafana calls its column "Value", with several "Value #A", "Value #B", ...
    is_single = len(names) + first == 1
    values = ["Value"] if is_single else [f"Value #{letter}" for letter in letters]
    join = {"id": "joinByField", "options": {"byField": by, "mode": "outer"}}
    columns = [words.label if words else by, *values]
    order = (words.order or by) if words else by
    return [*([] if is_single else [join]), *_tidied(columns, dict(zip(values, names, strict=True)), order)]


def _tidied(columns: list[str], headings: dict[str, str], order: str) -> list[Panel]:
    """Lines in the order of a column; these columns, in order, under their headings."""
    return [
        {"id": "sortBy", "options": {"fields": {}, "sort": [{"field": order}]}},
        {"id": "filterFieldsByName", "options": {"include": {"names": columns}}},
        {
            "id": "organize",
            "options": {
                "excludeByName": {},
                "indexByName": {name: index for index, name in enumerate(columns)},
                "renameByName": headings,
            },
        },
    ]


def alert_list(title: str, description: str, *, severity: str, size: Size = _ALERTS) -> Panel:
    """Alerts of a severity that are firing or about to."""
    return {
        "type": "alertlist",
        "title": title,
        "description": description,
        "gridPos": {"w": size.width, "h": size.height},
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
    """A variable with the values of a query such as `label_values(m, l)`."""
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


def from_answer(
    name: str, label: str, expr: str, value: str, *, default: str, words: tuple[str, str] | None = None
) -> Panel:
    """A variable with the values of the label `value` in the answer to a query, in the answer's order.

    `words` are the label whose values a reader sees in place of them, and that of the default.
    """
    definition = f"query_result({expr})"
    regex = f'/{value}="([^"]+)"/'
    if words is not None:  # labels come in the order of their names
        regex = f'/{value}="(?<value>[^"]+)".*{words[0]}="(?<text>[^"]+)"/'
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": PROMETHEUS,
        "definition": definition,
        "query": {"query": definition, "refId": name},
        "regex": regex,
        "refresh": 2,
        "sort": 0,
        "multi": False,
        "includeAll": False,
        "current": {"text": words[1] if words else default, "value": default},
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
    other_dashboards = {
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
        "links": [other_dashboards],
        "annotations": {"list": [alerts, *(annotations or [])]},
        "templating": {"list": variables or []},
        "panels": _placed(panels),
    }
