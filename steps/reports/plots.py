"""Plots by matplotlib: the figures of an evaluation as inline SVG, and one style for every plot.

Figures are drawn from the aggregates of an evaluation alone. Text stays text, so that it can be read aloud,
searched and scaled.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from steps.reports.palette import AXIS, FIRST, GRID, INK, MUTED, NEGATIVE, POSITIVE, SECOND, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from steps.measures.evaluation_document import Estimate, Evaluation

_FONTS = "system-ui, -apple-system, Segoe UI, Roboto, Arial, sans-serif"
# Dashes of the point scores' lines, which lie close together.
_DASHES = ((4, 1.5), (1, 1.2), (6, 1.5, 1, 1.5))
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": AXIS,
    "axes.linewidth": 0.8,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
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


def calibration(evaluation: Evaluation) -> str:
    """Observed share against estimated risk: a smooth curve with its band, and groups of equal size."""
    groups, smooth = evaluation.curves.calibration, evaluation.curves.smooth_calibration
    predicted = np.array([group.predicted for group in groups])
    observed = np.array([group.observed for group in groups])
    low, high = np.array([group.low for group in groups]), np.array([group.high for group in groups])

    def draw(axes: Axes) -> None:
        top = min(1.0, 1.08 * float(max(predicted.max(), high.max())))
        axes.plot(
            [0, top], [0, top], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="perfect calibration"
        )
        if smooth is not None:
            axes.fill_between(smooth.risk, smooth.low, smooth.high, color=FIRST, alpha=0.18, linewidth=0)
            axes.plot(smooth.risk, smooth.observed, color=FIRST, linewidth=1.8, label="smooth curve")
        axes.errorbar(
            predicted,
            observed,
            yerr=[observed - low, high - observed],
            fmt="o",
            markersize=3.6,
            linewidth=1.1,
            color=SECOND,
            label="groups of equal size",
        )
        axes.set(xlim=(0, top), ylim=(0, top), xlabel="Estimated risk", ylabel="Observed share")
        _percent(axes, both=True)
        axes.legend(loc="upper left")

    return _svg(
        draw, "Calibration: observed share against estimated risk, with the line of perfect calibration"
    )


def decision_curve(evaluation: Evaluation) -> str:
    """Net benefit over thresholds, against flagging everybody and nobody."""
    curve = evaluation.curves.decision
    cuts, everyone = np.array(curve.threshold), np.array(curve.everybody)
    model, low, high = (
        np.array([getattr(estimate, end) for estimate in curve.model], dtype=np.float64)
        for end in ("value", "low", "high")
    )

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=INK, linewidth=1, label="flag nobody")
        axes.plot(cuts, everyone, color=SECOND, linewidth=1.6, linestyle=(0, (5, 2)), label="flag everybody")
        axes.fill_between(cuts, low, high, color=FIRST, alpha=0.18, linewidth=0)
        axes.plot(cuts, model, color=FIRST, linewidth=2, label="this model")
        styles = zip(curve.point_scores.items(), cycle(SERIES[2:]), cycle(_DASHES), strict=False)
        for (name, benefit), colour, dashes in styles:
            axes.plot(cuts, benefit, color=colour, linewidth=1.4, linestyle=(0, dashes), label=name)
        axes.axvline(evaluation.threshold, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        top = 1.12 * max(float(np.nanmax(model)), float(everyone[0]))
        axes.set(
            xlim=(0, cuts[-1]), ylim=(-0.22 * top, top), xlabel="Threshold", ylabel="Net benefit per person"
        )
        _percent(axes)
        axes.legend(loc="upper right")

    return _svg(
        draw,
        "Decision curve: net benefit over thresholds of model, point scores, flagging everybody or nobody",
    )


def distribution(evaluation: Evaluation, with_outcome: str, without_outcome: str) -> str:
    """Share of each outcome's rows at each risk."""
    shape = evaluation.curves.distribution
    edges = np.array(shape.edges)
    positive, negative = np.array(shape.positive, dtype=float), np.array(shape.negative, dtype=float)

    def draw(axes: Axes) -> None:
        heights = [negative / negative.sum(), positive / positive.sum()]
        used = np.flatnonzero((negative + positive) > 0)
        right = min(1.0, edges[used[-1] + 1] + 0.02)
        axes.stairs(heights[0], edges, fill=True, color=NEGATIVE, alpha=0.75, label=without_outcome)
        axes.stairs(heights[1], edges, fill=True, color=POSITIVE, alpha=0.35)
        axes.stairs(heights[1], edges, color=POSITIVE, linewidth=1.6, label=with_outcome)
        axes.axvline(evaluation.threshold, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="threshold")
        axes.set(xlim=(0, right), xlabel="Estimated risk", ylabel="Share of the group")
        axes.set_ylim(0, 1.05 * max(float(height.max()) for height in heights))
        _percent(axes, both=True)
        axes.legend(loc="upper right")

    return _svg(draw, "Distribution of the estimated risk for people with and without the outcome")


def roc(evaluation: Evaluation) -> str:
    """ROC curve of the model, with each point score's curve and its cut."""
    curve = evaluation.curves.roc

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(curve.false_positive_rate, curve.recall, color=FIRST, linewidth=2, label="this model")
        styles = zip(evaluation.point_scores, cycle(SERIES[2:]), cycle(_DASHES), strict=False)
        for score, colour, dashes in styles:
            line: dict[str, Any] = {"color": colour, "linewidth": 1.4, "linestyle": (0, dashes)}
            axes.plot(score.roc.false_positive_rate, score.roc.recall, **line)
            axes.plot(
                [1 - _value(score.specificity)],
                [_value(score.recall)],
                marker="D",
                markersize=6,
                **line,
                label=f"{score.name}, cut {score.cut}",
            )
        axes.plot(
            [1 - _value(evaluation.metrics.specificity)],
            [_value(evaluation.metrics.recall)],
            marker="o",
            markersize=7,
            linestyle="none",
            color=FIRST,
            label="this model, threshold",
        )
        axes.set(xlim=(0, 1), ylim=(0, 1.01), xlabel="1 - specificity", ylabel="Sensitivity (recall)")
        _percent(axes, both=True)
        axes.legend(loc="lower right")

    return _svg(draw, "ROC curve of the model and of each point score")


def _percent(axes: Axes, both: bool = False) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    if both:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))


def _value(estimate: Estimate) -> float:
    """The value, NaN where it is undefined: matplotlib draws nothing there."""
    return math.nan if estimate.value is None else estimate.value


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """An empty figure, in inches, in this project's style; no global state."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        yield Figure(figsize=(width, height), dpi=120, layout="constrained")


def png(figure: Figure) -> bytes:
    """The figure as a PNG file, the same bytes every time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _svg(draw: Any, title: str) -> str:
    """An SVG element that scales with its box, drawn by `draw` on new axes; no global state."""
    with drawing(4.7, 3.6) as figure:
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
    return element.replace("<svg", f'<svg class="figure" role="img" aria-label="{escape(title)}"', 1)
