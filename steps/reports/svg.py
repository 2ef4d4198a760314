"""Small pictures as SVG text, for self-contained reports: levels with rates, heat maps, lines, intervals.

Every picture has a description (`role="img"`), text stays text, and colours are distinct in grey and for
people who confuse red and green.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from steps.reports.html import Estimated, Interval, number, percent
from steps.reports.palette import (
    BAR,
    BAR_SECOND,
    CLEARED,
    FALSE_ALARM,
    FIRST,
    GRID,
    INK,
    MUTED,
    PAPER,
    POSITIVE,
    RATE,
    RULE,
    SECOND,
)

_ROW = 19
_FONT = 11


def levels(columns: Sequence[Mapping[str, Any]], top: float, base: Sequence[float | None], alt: str) -> str:
    """Shares of a column's levels as bars and outcome rates as points with 95 % intervals.

    `columns`: the column of one data set, or of two side by side; `top` is the end of the rate axis; `base`
    each data set's overall rate, drawn as a line.
    """
    rows = [level["label"] for level in columns[0]["levels"]]
    missing = any(column["missing"]["share"] or column["missing"]["hidden"] for column in columns)
    are_two = len(columns) > 1
    row = _ROW + 7 if are_two else _ROW
    left, bars, gap, rates, right = 152, 90, 48, 170, 46
    width = left + bars + gap + rates + right
    rated = any(level["rate"] is not None for column in columns for level in column["levels"])
    height = row * (len(rows) + missing) + (24 if rated else 4)
    largest_share = max(
        [level["share"] or 0 for column in columns for level in [*column["levels"], column["missing"]]]
        + [1e-9]
    )
    x0 = left + bars + gap
    axes = _LevelAxes(left, bars if rated else 300, largest_share, x0, rates, top, 4.5 if are_two else 6.0)
    parts = []
    for tick in ticks(top) if rated else ():
        x = x0 + rates * tick / top
        parts.append(_line(x, 0, x, height - 20, GRID))
        parts.append(_text(x, height - 6, percent(tick, 0), MUTED, "middle", 9.5))
    for index, value in enumerate(base):
        if value is not None:
            x = x0 + rates * min(value, top) / top
            parts.append(_line(x, 0, x, height - 20, (MUTED, SECOND)[index], dash=True))
    names = [*rows, "missing"] if missing else rows
    for i, name in enumerate(names):
        middle = row * i + row / 2 + 1
        parts.append(
            _text(left - 8, middle + 4, _short(str(name), 24), INK if i < len(rows) else MUTED, "end")
        )
        for k, column in enumerate(columns):
            level = column["levels"][i] if i < len(rows) else column["missing"]
            y = middle + (k - 0.5) * 11 if are_two else middle
            parts += _level(level, y, k, axes)
    return _svg(width, height, alt, parts)


@dataclass(frozen=True)
class _LevelAxes:
    """Positions of shares and rates in a row of `levels`, in pixels."""

    shares_from: float
    shares_width: float
    largest_share: float
    rates_from: float
    rates_width: float
    largest_rate: float
    half_height: float

    def share(self, share: float) -> float:
        return self.shares_width * share / self.largest_share

    def rate(self, rate: float) -> float:
        return self.rates_from + self.rates_width * min(rate, self.largest_rate) / self.largest_rate


def _level(level: Mapping[str, Any], y: float, index: int, axes: _LevelAxes) -> list[str]:
    """A level of the first data set (`index` 0) or the second, at height `y`."""
    left, half = axes.shares_from, axes.half_height
    if level["hidden"]:
        return [_text(left + 2, y + 4, "not shown", MUTED, "start", 9.5)]
    share = level["share"] or 0.0
    title = f"{level['label']}: {percent(share)}" + (f", {level['rows']:,} rows" if level["rows"] else "")
    parts = [
        _rect(left, y - half, max(0.8, axes.share(share)), 2 * half, (BAR, BAR_SECOND)[index], title),
        _text(left + axes.share(share) + 4, y + 3.5, percent(share), MUTED, "start", 9.5),
    ]
    if level["rate"] is None:
        return parts
    low, high, x = (axes.rate(level[name]) for name in ("low", "high", "rate"))
    colour = (RATE, SECOND)[index]
    title = (
        f"{level['label']}: {percent(level['rate'])} ({percent(level['low'])} to {percent(level['high'])})"
    )
    parts.append(_line(low, y, high, y, colour, 1.6))
    parts.append(_dot(x, y, 3.2 if half > 5 else 2.7, colour, title))
    if half > 5:
        parts.append(
            _text(axes.rates_from + axes.rates_width + 44, y + 4, percent(level["rate"]), INK, "end", 10)
        )
    return parts


def spark(levels: Sequence[Mapping[str, Any]], alt: str) -> str:
    """A column's shares as tiny bars, with the outcome rate of each level as a line above them."""
    width, height = 118, 30
    shares = [level["share"] or 0.0 for level in levels]
    rates = [level["rate"] for level in levels if level["rate"] is not None]
    step = width / max(1, len(levels))
    largest_share, top = max([*shares, 1e-9]), max([*rates, 1e-9])
    parts = [
        _rect(
            i * step + 0.8,
            height * (1 - 0.95 * share / largest_share),
            max(1, step - 1.6),
            height * 0.95 * share / largest_share,
            BAR,
        )
        for i, share in enumerate(shares)
    ]
    points = [
        (i * step + step / 2, height - 2 - (height - 5) * level["rate"] / top)
        for i, level in enumerate(levels)
        if level["rate"] is not None
    ]
    if points:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{RATE}" stroke-width="1.4"/>')
        parts += [_dot(x, y, 1.7, RATE) for x, y in points]
    return _svg(width, height, alt, parts, fixed=True)


def heat_map(names: Sequence[str], matrix: Sequence[Sequence[float]], alt: str) -> str:
    """Strengths of association from -1 (orange) over 0 (white) to 1 (blue), with numbers from 0.2 on."""
    cell, left, top = (30 if len(names) <= 24 else 22), 150, 118
    width, height = left + cell * len(names) + 46, top + cell * len(names) + 4
    parts = []
    for i, name in enumerate(names):
        parts.append(_text(left - 7, top + cell * (i + 0.5) + 4, _short(name, 24), INK, "end", 10.5))
        x = left + cell * (i + 0.5) + 4
        parts.append(_tilted(x, top - 7, _short(name, 20), -50))
        for j, other in enumerate(names):
            value = matrix[i][j]
            x, y = left + cell * j, top + cell * i
            if i == j:
                parts.append(_rect(x, y, cell, cell, GRID))
                continue
            strong = abs(value) > 0.45
            title = f"{name} and {other}: {number(value, 2)}"
            parts.append(_rect(x + 0.5, y + 0.5, cell - 1, cell - 1, _shade(value), title))
            if abs(value) >= 0.2 and cell >= 26:
                parts.append(
                    _text(
                        x + cell / 2,
                        y + cell / 2 + 3.5,
                        f"{abs(value):.2f}"[1:],
                        PAPER if strong else INK,
                        "middle",
                        9.5,
                    )
                )
    return _svg(width, height, alt, parts)


def rate_table(
    first: Sequence[str],
    second: Sequence[str],
    rates: Sequence[Sequence[float | None]],
    names: tuple[str, str],
    alt: str,
) -> str:
    """Outcome rate of each combination of two columns' levels, darker for higher, a dot for few people."""
    cell_w, cell_h, left, top = (max(30.0, min(54.0, 520 / len(second)))), 24, 132, 62
    width, height = left + cell_w * len(second) + 6, top + cell_h * len(first) + 6
    highest = max([rate for row in rates for rate in row if rate is not None] + [1e-9])
    parts = [
        _text(left, 12, names[1], MUTED, "start", 10.5),
        _text(left - 8, top - 8, names[0], MUTED, "end", 10.5),
    ]
    for j, label in enumerate(second):
        x = left + cell_w * (j + 0.5)
        parts.append(_tilted(x - 3, top - 6, _short(label, 14), -35))
    for i, label in enumerate(first):
        parts.append(_text(left - 8, top + cell_h * (i + 0.5) + 4, _short(label, 22), INK, "end", 10.5))
        for j in range(len(second)):
            rate, x, y = rates[i][j], left + cell_w * j, top + cell_h * i
            if rate is None:
                parts.append(_text(x + cell_w / 2, y + cell_h / 2 + 4, "·", MUTED, "middle"))
                continue
            strength = rate / highest
            parts.append(_rect(x + 0.5, y + 0.5, cell_w - 1, cell_h - 1, _blend(RATE, strength * 0.9)))
            parts.append(
                _text(
                    x + cell_w / 2,
                    y + cell_h / 2 + 4,
                    f"{100 * rate:.0f}",
                    PAPER if strength > 0.6 else INK,
                    "middle",
                    10,
                )
            )
    return _svg(width, height, alt, parts)


def intervals(
    rows: Sequence[Mapping[str, Any]], start: float, end: float, alt: str, reference: float | None = None,
    digits: int = 3, as_percent: bool = False,
) -> str:  # fmt: skip
    """Points with intervals, one row each: `label`, `value`, `low`, `high`, and optionally `strong` and
    `note`.
    """
    left, plot, right = 214, 300, 70
    width, height = left + plot + right, _ROW * len(rows) + 26
    span = end - start or 1.0

    def tick_text(value: float) -> str:
        return percent(value) if as_percent else f"{value:g}".replace("-", "−")

    def x_of(value: float) -> float:
        return left + plot * (min(max(value, start), end) - start) / span

    parts = []
    for tick in ticks(end, start):
        parts.append(_line(x_of(tick), 0, x_of(tick), height - 22, GRID))
        parts.append(_text(x_of(tick), height - 7, tick_text(tick), MUTED, "middle", 9.5))
    if reference is not None:
        parts.append(_line(x_of(reference), 0, x_of(reference), height - 22, MUTED, dash=True))
    for i, row in enumerate(rows):
        y = _ROW * i + _ROW / 2
        colour = RATE if row.get("strong") else FIRST
        parts.append(_text(left - 8, y + 4, _short(str(row["label"]), 36), INK, "end"))
        if row["value"] is None:
            parts.append(_text(left, y + 4, str(row.get("note", "–")), MUTED, "start", 9.5))
            continue
        parts.append(_line(x_of(row["low"]), y, x_of(row["high"]), y, colour, 1.8))
        parts.append(_dot(x_of(row["value"]), y, 3.4, colour))
        parts.append(
            _text(
                left + plot + 8,
                y + 4,
                percent(row["value"]) if as_percent else number(row["value"], digits),
                INK,
                "start",
                10.5,
            )
        )
    return _svg(width, height, alt, parts)


def bars(rows: Sequence[tuple[str, float]], alt: str) -> str:
    """One bar per row, from 0, with its number."""
    left, plot = 196, 260
    largest = max([value for _, value in rows] + [1e-9])
    parts = []
    for i, (label, value) in enumerate(rows):
        y = _ROW * i
        parts.append(_text(left - 8, y + 13, _short(label, 32), INK, "end"))
        parts.append(_rect(left, y + 3, max(1.0, plot * value / largest), _ROW - 6, FIRST))
        parts.append(_text(left + plot * value / largest + 6, y + 13, number(value, 3), INK, "start", 10.5))
    return _svg(left + plot + 60, _ROW * len(rows) + 4, alt, parts)


def steps(then: Sequence[float], now: Sequence[float], bins: Sequence[str], alt: str) -> str:
    """Two distributions over the same bins: bars for the first, a line of steps for the second."""
    left, width, height = 40, 460, 210
    bin_width, top = (width - left) / max(1, len(then)), max([*then, *now, 1e-9]) * 1.08
    floor = height - 24

    def y(share: float) -> float:
        return floor - (floor - 6) * share / top

    parts = []
    for tick in ticks(top):
        parts.append(_line(left, y(tick), width, y(tick), GRID))
        parts.append(_text(left - 5, y(tick) + 3.5, percent(tick, 0), MUTED, "end", 9.5))
    path = []
    for i, (old, new) in enumerate(zip(then, now, strict=True)):
        x = left + i * bin_width
        title = f"{bins[i]}: {percent(old)} then, {percent(new)} now"
        parts.append(_rect(x + 1, y(old), bin_width - 2, floor - y(old), BAR, title))
        path += [f"{x:.1f},{y(new):.1f}", f"{x + bin_width:.1f},{y(new):.1f}"]
    parts.append(f'<polyline points="{" ".join(path)}" fill="none" stroke="{SECOND}" stroke-width="2"/>')
    for index in (0, len(bins) // 2, len(bins) - 1):
        anchor = ("start", "middle", "end")[(index > 0) + (index == len(bins) - 1)]
        x = left + bin_width * (index + (0, 0.5, 1)[(index > 0) + (index == len(bins) - 1)])
        parts.append(_text(x, height - 8, bins[index], MUTED, anchor, 9.5))
    return _svg(width, height, alt, parts)


def trend(entry: Mapping[str, Any], breaks: Sequence[float], alt: str) -> str:
    """A column's mean along the file, the overall mean, and the band that chance explains."""
    left, width, height = 8, 330, 84
    means = [value for value in entry["means"] if value is not None]
    spread = 3 * entry["stderr"]
    low = min([*means, entry["overall"] - spread])
    high = max([*means, entry["overall"] + spread])
    span = (high - low) or 1.0

    def y(value: float) -> float:
        return float(6 + (height - 12) * (high - value) / span)

    parts = [
        _rect(
            left,
            y(entry["overall"] + spread),
            width - 2 * left,
            max(1.0, y(entry["overall"] - spread) - y(entry["overall"] + spread)),
            GRID,
        ),
        _line(left, y(entry["overall"]), width - left, y(entry["overall"]), MUTED, dash=True),
    ]
    for share in breaks if len(breaks) <= 40 else ():
        x = left + (width - 2 * left) * share
        parts.append(_line(x, 0, x, height, RULE, 0.7))
    step = (width - 2 * left) / max(1, len(entry["means"]) - 1)
    path = " ".join(
        f"{left + i * step:.1f},{y(value):.1f}" for i, value in enumerate(entry["means"]) if value is not None
    )
    parts.append(f'<polyline points="{path}" fill="none" stroke="{FIRST}" stroke-width="1.3"/>')
    return _svg(width, height, alt, parts)


def icon_array(counts: Mapping[str, int], labels: Mapping[str, str]) -> str:
    """A thousand small squares, one per person, by decision and outcome; `counts` add up to 1,000."""
    colours = {
        "true_positives": POSITIVE,
        "false_positives": FALSE_ALARM,
        "false_negatives": INK,
        "true_negatives": CLEARED,
    }
    step, side = 10, 8
    paths, position = [], 0
    for name, colour in colours.items():
        cells = range(position, position + counts[name])
        position += counts[name]
        squares = "".join(f"M{cell // 20 * step} {cell % 20 * step}h{side}v{side}h-{side}z" for cell in cells)
        paths.append(
            f'<path fill="{colour}" d="{squares}"><title>{counts[name]} {labels[name]}</title></path>'
        )
    title = "Of 1,000 people: " + ", ".join(f"{counts[name]} {labels[name]}" for name in colours)
    return (
        f'<svg class="icons" role="img" aria-label="{escape(title)}" viewBox="0 0 {50 * step} {20 * step}">'
        f"{''.join(paths)}</svg>"
    )


def whisker(estimate: Estimated, low: float, high: float, reference: float | None = None) -> str:
    """A small interval plot for a table cell, on the axis from `low` to `high`."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return ""
    width, scale = 150, 138 / (high - low)

    def at(value: float) -> str:
        return f"{6 + scale * (min(max(value, low), high) - low):.1f}"

    def line(start: str, end: str, stroke: str) -> str:
        return f'<line x1="{start}" x2="{end}" y1="9" y2="9" {stroke}/>'

    parts = [line("6", "144", f'stroke="{GRID}"')]
    if reference is not None:
        x = at(reference)
        parts.append(f'<path d="M{x} 0V18" stroke="{MUTED}" stroke-dasharray="2 2"/>')
    parts.append(line(at(estimate.low), at(estimate.high), f'stroke="{FIRST}" stroke-width="2"'))
    parts.append(f'<circle cx="{at(estimate.value)}" cy="9" r="4" fill="{FIRST}"/>')
    return f'<svg class="whisker" aria-hidden="true" viewBox="0 0 {width} 18">{"".join(parts)}</svg>'


def whisker_axis(estimates: Sequence[Interval], reference: float) -> tuple[float, float]:
    """A common axis for `whisker`: the range of all intervals and the reference, a little wider."""
    ends = [reference]
    for estimate in estimates:
        ends += [end for end in (estimate.low, estimate.high) if end is not None]
    margin = 0.05 * (max(ends) - min(ends)) or 0.01
    return min(ends) - margin, max(ends) + margin


def ticks(end: float, start: float = 0.0, most_ticks: int = 5) -> list[float]:
    """Round values from `start` up to `end`, at most six."""
    span = max(end - start, 1e-9)
    step = float(10.0 ** np.floor(np.log10(span / most_ticks)))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if span / (step * factor) <= most_ticks)
    first = int(np.ceil(start / step - 1e-9))
    return [round(i * step, 12) for i in range(first, int(np.floor(end / step + 1e-9)) + 1)]


def term_curve(
    labels: Sequence[str],
    effects: Sequence[float],
    band: Sequence[float],
    people: Sequence[float],
    *,
    ordered: bool,
    alt: str,
) -> str:
    """The effect of each level as a step with its band, and its number of people as a bar below.

    The first level, a missing answer, is set apart. Steps of ordered levels are joined.
    """
    step, left, top, plot, bars = max(16, min(64, 560 // len(labels))), 44, 10, 150, 30
    low = min(0.0, *(e - b for e, b in zip(effects, band, strict=True)))
    high = max(0.0, *(e + b for e, b in zip(effects, band, strict=True)))
    scale = plot / max(high - low, 1e-6)
    positions = [left + step * index + (0 if index == 0 else step * 0.5) for index in range(len(labels))]
    width, bottom = positions[-1] + step + 90, top + plot

    def y(value: float) -> float:
        return top + (high - value) * scale

    parts = [_text(left - 6, y(tick) + 4, number(tick, 1), MUTED, "end", 9.5) for tick in ticks(high, low)]
    parts += [_line(left, y(tick), width - 90, y(tick), GRID) for tick in ticks(high, low)]
    parts.append(_line(left, y(0), width - 90, y(0), MUTED))
    most_people = max(*people, 1.0)
    for index, (x, label) in enumerate(zip(positions, labels, strict=True)):
        effect, half_width = effects[index], band[index]
        parts.append(
            _rect(x, y(effect + half_width), step, max(2 * half_width * scale, 0.5), _blend(FIRST, 0.25))
        )
        colour = MUTED if index == 0 else FIRST
        parts.append(_line(x, y(effect), x + step, y(effect), colour, 2.2))
        if ordered and index > 1:
            parts.append(_line(x, y(effects[index - 1]), x, y(effect), colour, 1.2))
        bar_height = bars * people[index] / most_people
        parts.append(_rect(x + 1, bottom + 8 + bars - bar_height, step - 2, bar_height, BAR))
        parts.append(_tilted(x + step / 2, bottom + bars + 20, _short(label, 28), 35))
    hanging = 4 * max(len(_short(label, 28)) for label in labels)
    return _svg(width, bottom + bars + 30 + hanging, alt, parts, fixed=True)


def term_table(
    rows: Sequence[str],
    columns: Sequence[str],
    effects: Sequence[Sequence[float]],
    has_people: Sequence[Sequence[bool]],
    alt: str,
) -> str:
    """The effect of each pair of levels, orange below 0 and blue above; grey where no person has the pair."""
    cell, left, top = (22 if len(columns) <= 20 else 16), 180, 100
    largest = max([abs(value) for row in effects for value in row] or [1.0]) or 1.0
    parts = []
    for j, label in enumerate(columns):
        parts.append(_tilted(left + cell * (j + 0.5) + 3, top - 6, _short(label, 22), -45))
    for i, label in enumerate(rows):
        y = top + cell * i
        parts.append(_text(left - 7, y + cell / 2 + 4, _short(label, 28), INK, "end", 10))
        for j, value in enumerate(effects[i]):
            colour = _shade(value / largest) if has_people[i][j] else GRID
            parts.append(_rect(left + cell * j + 0.5, y + 0.5, cell - 1, cell - 1, colour))
    width, height = left + cell * len(columns) + 90, top + cell * len(rows) + 34
    parts.append(_text(left, height - 8, f"strongest: {number(largest, 2)} in log odds", MUTED, "start", 10))
    return _svg(width, height, alt, parts, fixed=True)


def _svg(width: float, height: float, alt: str, parts: Sequence[str], fixed: bool = False) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}"' if fixed else f'style="max-width:{width:.0f}px"'
    head = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" {size} role="img" font-family="inherit"'
    return f'{head} font-size="{_FONT}" aria-label="{escape(alt, quote=True)}">{"".join(parts)}</svg>'


def _rect(x: float, y: float, width: float, height: float, colour: str, title: str = "") -> str:
    head = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"'
    return f"{head}><title>{escape(title)}</title></rect>" if title else f"{head}/>"


def _dot(x: float, y: float, radius: float, colour: str, title: str = "") -> str:
    head = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"'
    return f"{head}><title>{escape(title)}</title></circle>" if title else f"{head}/>"


def _line(
    x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1, dash: bool = False
) -> str:
    style = f'stroke="{colour}" stroke-width="{width}"' + (' stroke-dasharray="4 3"' if dash else "")
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def _text(x: float, y: float, text: str, colour: str, anchor: str, size: float = _FONT) -> str:
    head = f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}"'
    return f"{head}>{escape(text)}</text>"


def _tilted(x: float, y: float, text: str, degrees: float) -> str:
    rotation = f"rotate({degrees:g} {x:.1f} {y:.1f})"
    head = f'<text x="{x:.1f}" y="{y:.1f}" font-size="10" fill="{INK}" transform="{rotation}"'
    return f"{head}>{escape(text)}</text>"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip(" ,;") + "…"


def _shade(value: float) -> str:
    return _blend(FIRST if value > 0 else RATE, min(1.0, abs(value) ** 0.8 * 1.25))


def _blend(colour: str, strength: float) -> str:
    """The colour over white, from 0 (white) to 1."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 + (part - 255) * strength):02x}" for part in parts)
