"""Figures of a report as inline SVG, drawn from the aggregates of an evaluation alone.

Colours are told apart by people who confuse red and green, and by lightness on paper (Okabe & Ito 2008). Text
stays text, so that it can be read aloud, searched and scaled.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1b2733", "#5a6874", "#e3e8ec"
MODEL, OTHER, POSITIVE, NEGATIVE = "#0b5c8a", "#8a5a00", "#c2410c", "#9db4c4"
_SCORES = ("#7a3b8f", "#8a5a00", "#2f6b3a", "#444444")
_FONTS = "system-ui, -apple-system, Segoe UI, Roboto, Arial, sans-serif"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#b7c2cb",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 1.6,
}


def calibration(evaluation: Mapping[str, Any]) -> str:
    """Observed share against mean risk in groups of equal size, with Wilson 95 % intervals."""
    bins = evaluation["curves"]["calibration"]
    predicted = np.array([entry["predicted"] for entry in bins])
    observed = np.array([entry["observed"] for entry in bins])
    low, high = (np.array([entry[key] for entry in bins]) for key in ("low", "high"))

    def draw(axes: "Axes") -> None:
        top = min(1.0, 1.08 * float(max(predicted.max(), high.max())))
        axes.plot(
            [0, top], [0, top], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="perfect calibration"
        )
        axes.errorbar(
            predicted,
            observed,
            yerr=[observed - low, high - observed],
            fmt="o",
            markersize=4.5,
            linewidth=1.4,
            color=MODEL,
            label="groups of equal size",
        )
        axes.set(xlim=(0, top), ylim=(0, top), xlabel="Estimated risk", ylabel="Observed share")
        _percent(axes, both=True)
        axes.legend(loc="upper left")

    return _svg(
        draw, "Calibration: observed share against estimated risk, with the line of perfect calibration"
    )


def decision_curve(evaluation: Mapping[str, Any]) -> str:
    """Net benefit over thresholds, against flagging everybody and nobody."""
    curve = evaluation["curves"]["decision"]
    cuts, everyone = np.array(curve["threshold"]), np.array(curve["all"])
    model, low, high = (np.array(curve[key], dtype=np.float64) for key in ("model", "low", "high"))

    def draw(axes: "Axes") -> None:
        axes.axhline(0, color=INK, linewidth=1, label="flag nobody")
        axes.plot(cuts, everyone, color=OTHER, linewidth=1.6, linestyle=(0, (5, 2)), label="flag everybody")
        axes.fill_between(cuts, low, high, color=MODEL, alpha=0.18, linewidth=0)
        axes.plot(cuts, model, color=MODEL, linewidth=2, label="this model")
        axes.axvline(evaluation["threshold"], color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        top = 1.12 * max(float(np.nanmax(model)), float(everyone[0]))
        axes.set(
            xlim=(0, cuts[-1]), ylim=(-0.22 * top, top), xlabel="Threshold", ylabel="Net benefit per person"
        )
        _percent(axes)
        axes.legend(loc="upper right")

    return _svg(
        draw, "Decision curve: net benefit of the model over thresholds, against flagging everybody or nobody"
    )


def distribution(evaluation: Mapping[str, Any], with_outcome: str, without_outcome: str) -> str:
    """Share of each outcome's rows at each risk."""
    shape = evaluation["curves"]["distribution"]
    edges = np.array(shape["edges"])
    positive, negative = (np.array(shape[key], dtype=np.float64) for key in ("positive", "negative"))

    def draw(axes: "Axes") -> None:
        heights = [negative / negative.sum(), positive / positive.sum()]
        used = np.flatnonzero((negative + positive) > 0)
        right = min(1.0, edges[used[-1] + 1] + 0.02)
        axes.stairs(heights[0], edges, fill=True, color=NEGATIVE, alpha=0.75, label=without_outcome)
        axes.stairs(heights[1], edges, fill=True, color=POSITIVE, alpha=0.35)
        axes.stairs(heights[1], edges, color=POSITIVE, linewidth=1.6, label=with_outcome)
        axes.axvline(
            evaluation["threshold"], color=INK, linewidth=1, linestyle=(0, (4, 3)), label="threshold"
        )
        axes.set(xlim=(0, right), xlabel="Estimated risk", ylabel="Share of the group")
        axes.set_ylim(0, 1.05 * max(float(height.max()) for height in heights))
        _percent(axes, both=True)
        axes.legend(loc="upper right")

    return _svg(draw, "Distribution of the estimated risk for people with and without the outcome")


def roc(evaluation: Mapping[str, Any]) -> str:
    """ROC curve of the model, with each point score's curve and its cut."""
    curve = evaluation["curves"]["roc"]

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(curve["false_positive_rate"], curve["recall"], color=MODEL, linewidth=2, label="this model")
        for score, colour in zip(
            evaluation["point_scores"], _cycle(len(evaluation["point_scores"])), strict=True
        ):
            own = score["roc"]
            axes.plot(own["false_positive_rate"], own["recall"], color=colour, linewidth=1.2, alpha=0.8)
            axes.plot(
                [1 - score["specificity"]["value"]],
                [score["recall"]["value"]],
                marker="D",
                markersize=6,
                linewidth=1.2,
                color=colour,
                label=f"{score['name']}, cut {score['cut']}",
            )
        metrics = evaluation["metrics"]
        axes.plot(
            [1 - metrics["specificity"]["value"]],
            [metrics["recall"]["value"]],
            marker="o",
            markersize=7,
            linestyle="none",
            color=MODEL,
            label="this model, threshold",
        )
        axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="1 - specificity", ylabel="Sensitivity (recall)")
        _percent(axes, both=True)
        axes.legend(loc="lower right")

    return _svg(draw, "ROC curve of the model and of each point score")


def icon_array(per_1000: Mapping[str, int], labels: Mapping[str, str]) -> str:
    """A thousand small squares, one a person, by decision and outcome."""
    colours = {
        "true_positives": POSITIVE,
        "false_positives": "#e8a977",
        "false_negatives": INK,
        "true_negatives": "#d5dee5",
    }
    step, side = 10, 8
    paths, position = [], 0
    for name, colour in colours.items():
        cells = range(position, position + per_1000[name])
        position += per_1000[name]
        squares = "".join(f"M{cell // 20 * step} {cell % 20 * step}h{side}v{side}h-{side}z" for cell in cells)
        paths.append(
            f'<path fill="{colour}" d="{squares}"><title>{per_1000[name]} {labels[name]}</title></path>'
        )
    title = "Of 1,000 people: " + ", ".join(f"{per_1000[name]} {labels[name]}" for name in colours)
    return (
        f'<svg class="icons" role="img" aria-label="{_escape(title)}" viewBox="0 0 {50 * step} {20 * step}">'
        f"{''.join(paths)}</svg>"
    )


def whisker(estimate: Mapping[str, Any], low: float, high: float, reference: float | None = None) -> str:
    """A small interval plot for a table cell, on the axis from `low` to `high`."""
    if estimate["value"] is None or estimate["low"] is None:
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
    parts.append(line(at(estimate["low"]), at(estimate["high"]), f'stroke="{MODEL}" stroke-width="2"'))
    parts.append(f'<circle cx="{at(estimate["value"])}" cy="9" r="4" fill="{MODEL}"/>')
    return f'<svg class="whisker" aria-hidden="true" viewBox="0 0 {width} 18">{"".join(parts)}</svg>'


def whisker_axis(estimates: Sequence[Mapping[str, Any]], reference: float) -> tuple[float, float]:
    """A common axis for `whisker`: the range of all intervals and the reference, a little wider."""
    ends = [reference]
    for estimate in estimates:
        ends += [end for end in (estimate["low"], estimate["high"]) if end is not None]
    margin = 0.05 * (max(ends) - min(ends)) or 0.01
    return min(ends) - margin, max(ends) + margin


def _cycle(count: int) -> list[str]:
    return [_SCORES[i % len(_SCORES)] for i in range(count)]


def _percent(axes: "Axes", both: bool = False) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    if both:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


def _escape(text: str) -> str:
    import html

    return html.escape(text, quote=True)


def _svg(draw: Any, title: str) -> str:
    """What `draw` puts on fresh axes as an SVG element that scales with its box; no global state."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as NewFigure

    with mpl.rc_context(_STYLE):
        figure: Figure = NewFigure(figsize=(4.7, 3.6), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        target = io.StringIO()
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    element = target.getvalue()
    element = element[element.index("<svg") :]
    prefix = re.sub(r"\W+", "-", title.lower())[:12]
    element = re.sub(r'( id="|url\(#|href="#)', rf"\1{prefix}-", element)
    element = element.replace("'DejaVu Sans', sans-serif", _FONTS)
    element = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', "", element, count=1)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    return element.replace("<svg", f'<svg class="figure" role="img" aria-label="{_escape(title)}"', 1)
