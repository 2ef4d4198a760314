"""Plots of a search, as PNG bytes: the loss of each trial, and the best of each family."""

from __future__ import annotations

import math
from collections.abc import Sequence

from steps.models.trials import Space, Trial
from steps.reports.html import words
from steps.reports.palette import INK, MUTED, SERIES
from steps.reports.plots import drawing, png

# The axis ends at this quantile of the losses: the worst trials would squeeze all others onto one line.
_SHOWN = 0.9


def pictures(trials: Sequence[Trial], space: Space) -> dict[str, bytes]:
    """All plots of a search by name."""
    return {
        "history": history(trials),
        "families": families(trials),
    }


def history(trials: Sequence[Trial]) -> bytes:
    """Loss of each trial and the best so far; failed trials, and trials beyond the axis, are at its top."""
    from matplotlib.ticker import MaxNLocator

    finished = [trial for trial in trials if trial.loss is not None]
    with drawing(8.4, 4.4) as figure:
        axes = figure.subplots()
        low, top = _limits(finished)
        for family, colour in _colours(trials).items():
            of_family = [trial for trial in finished if trial.family == family]
            inside = [trial for trial in of_family if _loss(trial) <= top]
            beyond = [trial for trial in of_family if _loss(trial) > top]
            axes.scatter(
                [t.number for t in inside],
                [_loss(t) for t in inside],
                s=34,
                color=colour,
                label=words(family),
            )
            axes.scatter(
                [t.number for t in beyond], [top] * len(beyond), s=34, color=colour, marker="^", clip_on=False
            )
        failed = [trial.number for trial in trials if trial.loss is None]
        if failed:
            axes.scatter(
                failed, [top] * len(failed), s=34, color=INK, marker="x", clip_on=False, label="failed"
            )
        best, steps = math.inf, []
        for trial in finished:
            best = min(best, _loss(trial))
            steps.append(best)
        axes.step(
            [t.number for t in finished], steps, where="post", color=INK, linewidth=1.4, label="best so far"
        )
        axes.set(
            title="Loss of each trial", xlabel="Trial", ylabel="Log loss, mean over folds", ylim=(low, top)
        )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, handletextpad=0.3, columnspacing=1.4
        )
        return png(figure)


def families(trials: Sequence[Trial]) -> bytes:
    """Losses of each family's trials, with the loss and the ROC AUC of its best trial."""
    finished = [trial for trial in trials if trial.loss is not None]
    names = list(dict.fromkeys(trial.family for trial in sorted(finished, key=_loss)))
    colours = _colours(trials)
    with drawing(8.4, 1.5 + 0.75 * len(names)) as figure:
        axes = figure.subplots()
        low, top = _limits(finished)
        for row, family in enumerate(names):
            of_family = [trial for trial in finished if trial.family == family]
            losses = [_loss(trial) for trial in of_family if _loss(trial) <= top]
            best = min(of_family, key=_loss)
            axes.scatter(losses, [row] * len(losses), s=30, color=colours[family], alpha=0.35, linewidths=0)
            axes.scatter(
                [_loss(best)], [row], s=80, color=colours[family], marker="D", zorder=3, clip_on=False
            )
            auc = best.metrics.get("roc_auc_mean")
            text = f"best {_loss(best):.4f}" if auc is None else f"best {_loss(best):.4f}, ROC AUC {auc:.4f}"
            axes.annotate(
                f"{text}, of {len(of_family)}", (1, row), xycoords=("axes fraction", "data"), xytext=(0, 9),
                textcoords="offset points", ha="right", color=MUTED, fontsize=9,
            )  # fmt: skip
        axes.set(title="What each family reached", xlabel="Log loss, mean over folds", xlim=(low, top))
        axes.set_yticks(range(len(names)), [words(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.7)
        axes.grid(visible=False, axis="y")
        return png(figure)


def _colours(trials: Sequence[Trial]) -> dict[str, str]:
    return dict(zip(dict.fromkeys(trial.family for trial in trials), SERIES, strict=False))


def _limits(finished: Sequence[Trial]) -> tuple[float, float]:
    """Ends of the loss axis: from a little below the best loss to the worst shown loss."""
    losses = sorted(_loss(trial) for trial in finished)
    if not losses:
        return 0.0, 1.0
    low, top = losses[0], losses[min(math.ceil(_SHOWN * len(losses)), len(losses) - 1)]
    width = (top - low) or abs(top) or 1.0
    return low - 0.06 * width, top + 0.06 * width


def _loss(trial: Trial) -> float:
    return math.inf if trial.loss is None else trial.loss
