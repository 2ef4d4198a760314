"""Figures of the schema's subgroups, and calibration where two of them meet.

People of a group are compared with all other people, so the intervals of differences are those of
independent samples. `steps.data.disclosure` decides what is hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steps.data.disclosure import hidden_lines
from steps.measures import intervals, metrics
from steps.measures.delong import placements
from steps.measures.evaluation_document import Cell, Estimate, Group, GroupDifferences
from steps.measures.metrics import Confusion, Floats
from steps.measures.scored_rows import ScoredRows

if TYPE_CHECKING:
    from steps.data.schema import Subgroup

Mask = NDArray[np.bool_]


def subgroup_masks(rows: ScoredRows, subgroups: Sequence[Subgroup]) -> dict[str, Mask]:
    """Which rows belong to each subgroup, by its name."""
    return {group.name: np.asarray(group.mask(rows.frame)) for group in subgroups}


def shown_subgroups(rows: ScoredRows, subgroups: Sequence[Subgroup]) -> list[Subgroup]:
    """The subgroups whose figures may be shown; subgroups of a column are one table, overlapping or not."""
    masks = subgroup_masks(rows, subgroups)
    shown = []
    for column in dict.fromkeys(group.column for group in subgroups):
        column_groups = [group for group in subgroups if group.column == column]
        hidden = _hidden(rows.y, [masks[group.name] for group in column_groups])
        shown += [group for group, hide in zip(column_groups, hidden, strict=True) if not hide]
    return [group for group in subgroups if group in shown]


def _hidden(y: NDArray[np.int8], masks: Sequence[Mask], public: Mask | None = None) -> Mask:
    """Which of these sets of rows to hide, where some are `public`; empty sets are hidden too."""
    members, pattern_of_row = _patterns(masks)
    rows = np.bincount(pattern_of_row).astype(np.float64)
    positives = np.bincount(pattern_of_row, weights=y).astype(np.float64)
    empty = members.astype(np.float64) @ rows == 0
    hidden = hidden_lines(members, rows, positives, rows - positives, public=public)
    return np.asarray(empty | hidden, dtype=np.bool_)


def _patterns(masks: Sequence[Mask]) -> tuple[Mask, NDArray[np.intp]]:
    """The distinct combinations of masks, (masks, patterns), and the pattern of each row.

    The same as `np.unique(masks, axis=1)`, which compares whole columns and takes ten times as long.
    """
    pattern_of_row = np.zeros(len(masks[0]), dtype=np.int64)
    for mask in masks:
        _, pattern_of_row = np.unique(pattern_of_row * 2 + mask, return_inverse=True)
    _, first_row = np.unique(pattern_of_row, return_index=True)
    return np.array([mask[first_row] for mask in masks]), pattern_of_row


def measure_groups(rows: ScoredRows, subgroups: Sequence[Subgroup], threshold: float) -> tuple[Group, ...]:
    """Measure each of these subgroups."""
    of_all = _auc_influence(rows.y, rows.risk, np.ones(len(rows.y), dtype=np.bool_))
    masks = subgroup_masks(rows, subgroups)
    return tuple(_group(group, masks[group.name], rows, threshold, of_all) for group in subgroups)


def _group(
    group: Subgroup, mask: Mask, rows: ScoredRows, threshold: float, of_all: tuple[float, Floats]
) -> Group:
    y, risk = rows.y[mask], rows.risk[mask]
    size, positives = len(y), int(y.sum())
    roc_auc, influence = _auc_influence(rows.y, rows.risk, mask)
    error = float(np.sqrt(np.sum(influence**2)))
    gap = float(np.sqrt(np.sum((of_all[1] - influence) ** 2)))
    inside = _decision(metrics.confusion(y, risk, threshold), threshold)
    outside = _decision(metrics.confusion(rows.y[~mask], rows.risk[~mask], threshold), threshold)
    return Group(
        name=group.name,
        column=group.column,
        headline=group.headline,
        rows=size,
        positives=positives,
        prevalence=positives / size,
        roc_auc=intervals.logit_delong(roc_auc, error, min(positives, size - positives)),
        roc_auc_difference=intervals.normal(of_all[0] - roc_auc, gap, intervals.DELONG),
        observed_expected=observed_expected(y, risk),
        calibration_slope=calibration_slope(y, risk),
        recall=inside["recall"],
        flagged=inside["flagged"],
        false_positive_rate=inside["false_positive_rate"],
        precision=inside["precision"],
        net_benefit=inside["net_benefit"],
        differences=GroupDifferences(
            recall=intervals.newcombe(inside["recall"], outside["recall"]),
            false_positive_rate=intervals.newcombe(
                inside["false_positive_rate"], outside["false_positive_rate"]
            ),
            precision=intervals.newcombe(inside["precision"], outside["precision"]),
            net_benefit=intervals.difference(inside["net_benefit"], outside["net_benefit"]),
        ),
    )


def _decision(counts: Confusion, threshold: float) -> Mapping[str, Estimate]:
    negatives = counts.rows - counts.positives
    flagged = counts.true_positives + counts.false_positives
    return {
        "recall": intervals.wilson(counts.true_positives, counts.positives),
        "flagged": intervals.wilson(flagged, counts.rows),
        "false_positive_rate": intervals.wilson(counts.false_positives, negatives),
        "precision": intervals.wilson(counts.true_positives, flagged),
        "net_benefit": net_benefit(counts, threshold),
    }


def net_benefit(counts: Confusion, threshold: float) -> Estimate:
    """Net benefit per person at a threshold, with the standard error of a mean over people."""
    if counts.rows == 0:
        return Estimate(None, None, None, intervals.NORMAL)
    odds = threshold / (1 - threshold)
    hits, alarms = counts.true_positives / counts.rows, counts.false_positives / counts.rows
    value = hits - odds * alarms
    variance = hits + odds * odds * alarms - value * value
    return intervals.normal(value, float(np.sqrt(max(variance, 0.0) / counts.rows)))


def observed_expected(y: NDArray[np.int8], risk: Floats) -> Estimate:
    """Positives over the sum of risks, with the standard error of a ratio of two sums over people."""
    expected = float(risk.sum())
    if expected <= 0:
        return Estimate(None, None, None, intervals.LOG_NORMAL)
    ratio = float(y.sum()) / expected
    return intervals.log_normal(ratio, float(np.sqrt(np.sum((y - ratio * risk) ** 2))) / expected)


def calibration_slope(y: NDArray[np.int8], risk: Floats) -> Estimate:
    """Slope of the logistic recalibration with its robust standard error."""
    recalibration = metrics.calibration(y, risk)
    return intervals.normal(recalibration.slope, recalibration.slope_error)


def _auc_influence(y: NDArray[np.int8], risk: Floats, mask: Mask) -> tuple[float, Floats]:
    """ROC AUC of the masked rows, and the influence of each of all rows; the squares sum to its variance.

    The variance of a difference of two ROC AUCs on overlapping people follows from the differences of their
    influences.
    """
    inside = placements(y[mask], risk[mask])
    influence, positive = np.zeros(len(y)), y == 1
    for rows, placed in ((mask & positive, inside.positive), (mask & ~positive, inside.negative)):
        count = len(placed)
        influence[rows] = (placed - inside.roc_auc) / np.sqrt(count * max(count - 1, 1))
    return inside.roc_auc, influence


def measure_cells(rows: ScoredRows, shown: Sequence[Subgroup]) -> tuple[tuple[Cell, ...], int]:
    """Calibration where two subgroups of different columns meet, and how many such cells are hidden.

    The groups of two columns and their cells are one table, of which the groups are public: so no hidden cell
    follows from a group less its shown cells.
    """
    masks = subgroup_masks(rows, shown)
    by_column: dict[str, list[Subgroup]] = {}
    for group in shown:
        by_column.setdefault(group.column, []).append(group)
    cells: list[Cell] = []
    hidden_count = 0
    for first, second in combinations(by_column.values(), 2):
        pairs = [(a.name, b.name, masks[a.name] & masks[b.name]) for a in first for b in second]
        groups = [masks[group.name] for group in (*first, *second)]
        public = np.arange(len(groups) + len(pairs)) < len(groups)
        hidden = _hidden(rows.y, [*groups, *(mask for _, _, mask in pairs)], public)
        for (a, b, mask), hide in zip(pairs, hidden[len(groups) :], strict=True):
            if hide:
                hidden_count += int(mask.any())
                continue
            y, risk = rows.y[mask], rows.risk[mask]
            cells.append(
                Cell(a, b, len(y), int(y.sum()), observed_expected(y, risk), calibration_slope(y, risk))
            )
    return tuple(cells), hidden_count
