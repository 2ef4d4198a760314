"""The data of a report's figures: groups along the risk, counts by outcome, the ROC curve.

Groups are large and made of people with similar risks, not of an answer; no edge is a person's own value.
"""

from __future__ import annotations

import numpy as np

from steps.measures import metrics
from steps.measures.evaluation_document import CalibrationGroup, Distribution, RocCurve
from steps.measures.metrics import Ranking
from steps.measures.scored_rows import ScoredRows


def calibration_groups(rows: ScoredRows) -> tuple[CalibrationGroup, ...]:
    """Mean risk and observed share in groups of equal size: 20, fewer where rows are few or tied."""
    count = min(20, max(4, len(rows.y) // 250))
    edges = np.unique(np.quantile(rows.risk, np.arange(1, count) / count))
    group_of_row = np.searchsorted(edges, rows.risk, side="right")
    groups = []
    for i in np.unique(group_of_row):
        inside = group_of_row == i
        size, positives = int(inside.sum()), int(rows.y[inside].sum())
        interval = metrics.wilson_interval(positives, size)
        groups.append(CalibrationGroup(size, float(rows.risk[inside].mean()), positives / size, *interval))
    return tuple(groups)


def distribution(rows: ScoredRows) -> Distribution:
    """Counts of risks in steps of 0.02, by outcome."""
    edges = np.linspace(0, 1, 51)
    negative, positive = (np.histogram(rows.risk[rows.y == label], edges)[0].tolist() for label in (0, 1))
    return Distribution(tuple(edges.round(2).tolist()), tuple(negative), tuple(positive))


def roc_curve(ranking: Ranking) -> RocCurve:
    """The ROC curve at up to 101 thresholds, equally spaced in rows."""
    rows = len(ranking.order)
    ends = np.minimum(np.arange(0, 101) * rows // 100, rows - 1)
    group = np.unique(np.searchsorted(ranking.starts, ends, side="right") - 1)
    decisions = metrics.confusion_of_counts(metrics.count(ranking, np.ones((1, rows))), ranking.scores[group])
    false_positive_rate, recall = 1 - decisions.specificity[0], decisions.recall[0]
    return RocCurve((0.0, *false_positive_rate[::-1].tolist()), (0.0, *recall[::-1].tolist()))
