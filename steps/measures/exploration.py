"""A data set before a model is fitted to it: aggregates only, never a row.

`explore` measures everything that the report shows. The predictive value of a column or of a pair of columns
is measured on held-out rows (`steps.measures.exploration_prediction`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steps.data import split
from steps.data.disclosure import SMALLEST_CELL, hidden_counts, is_small, shown
from steps.data.documents import defined
from steps.data.files import TARGET_COLUMN
from steps.data.schema import NumericColumn
from steps.measures import (
    associations,
    bins,
    evidence,
    exploration_columns,
    exploration_prediction,
    metrics,
    oddities,
    row_order,
)
from steps.measures.bins import Coded, Floats
from steps.measures.exploration_document import (
    Associations,
    BrokenRule,
    ColumnPrediction,
    Comparison,
    Data,
    Exploration,
    Leak,
    MovedColumn,
    Order,
    Repeats,
    SchemaName,
    Share,
    Target,
    Trend,
)

if TYPE_CHECKING:
    import pandas as pd

    from steps.data.schema import Schema
    from steps.data.validation import Problem

# Held-out ROC AUC of one column alone from which it probably holds the outcome itself.
LEAK_AUC = 0.95
# A level determines the outcome if the Wilson interval of its outcome share is above this.
LEAK_RATE = 0.98
# Strength of association from which two columns count as equivalent.
SAME = 0.95
_STRONGEST = 12
_TRENDS = 6


@dataclass(frozen=True)
class Table:
    """A checked data set in file order.

    `frame`: valid features, `__file__`, and `__target__` as float64 with NaN where unlabelled (absent if
    the data have no outcome). `read`: rows of the files; `rejected` of them broke the schema, for the reasons
    in `problems`. `answers`: a code for the level of each valid row's outcome, where it has more than two.
    """

    name: str
    kind: str
    frame: pd.DataFrame
    read: int
    rejected: int
    problems: tuple[Problem, ...] = ()
    extra_columns: tuple[str, ...] = ()
    answers: NDArray[np.intp] | None = None


def explore(table: Table, schema: Schema, seed: int, like: pd.DataFrame | None = None) -> Exploration:
    """Explore a data set; with `like`, the bands of numeric columns are the deciles of that table."""
    frame = table.frame
    columns = bins.code(frame, schema, None if like is None else bins.code(like, schema))
    outcome = (
        np.asarray(frame[TARGET_COLUMN], dtype=np.float64)
        if TARGET_COLUMN in frame
        else np.full(len(frame), np.nan)
    )
    keys = split.row_keys(frame, schema)
    hidden = {
        column.column.name: exploration_columns.hide(column, outcome, frame, schema.subgroups)
        for column in columns
    }
    prediction = exploration_prediction.predict(columns, outcome, keys, seed)
    alone = {entry.name: entry for entry in prediction.alone} if prediction else {}
    return Exploration(
        schema=SchemaName(schema.name, schema.title, schema.digest, tuple(schema.open_topics)),
        target=Target(
            schema.target.name,
            schema.target.meaning,
            tuple(schema.target.levels[code] for code in schema.target.positive),
            schema.disclaimer,
        ),
        data=_about(table, outcome),
        problems=_problems(table),
        columns=tuple(
            exploration_columns.describe(
                column, outcome, frame, alone.get(column.column.name), hidden[column.column.name]
            )
            for column in columns
        ),
        repeats=_repeats(keys, outcome, table.answers),
        order=_order(columns, outcome),
        files=exploration_columns.files(frame, outcome),
        associations=_associations(columns, frame),
        leaks=_leaks(columns, outcome, alone, frame),
        subgroups=exploration_columns.subgroups(frame, outcome, schema, hidden),
        prediction=prediction,
        suppressed_below=SMALLEST_CELL,
    )


def compare(first: Table, second: Table, schema: Schema) -> Comparison:
    """Compare two data sets: how far the shares of each column have moved.

    The first is the reference: its deciles are the bands of both.
    """
    reference_columns = bins.code(first.frame, schema)
    current_columns = bins.code(second.frame, schema, like=reference_columns)
    columns = []
    for reference_column, current_column in zip(reference_columns, current_columns, strict=True):
        reference, current = (
            bins.counts(reference_column.codes, reference_column.size),
            bins.counts(current_column.codes, current_column.size),
        )
        used = reference + current > 0
        low, high = evidence.psi_interval(current[used], reference[used]) if used.sum() > 1 else (0.0, 0.0)
        columns.append(
            MovedColumn(
                name=reference_column.column.name,
                psi=float(evidence.psi(current[used], reference[used])),
                low=float(low),
                high=float(high),
                evidence=float(evidence.drift_evidence(current[used], reference[used])),
            )
        )
    return Comparison(tuple(sorted(columns, key=lambda column: -column.psi)), evidence.PSI_FLOOR)


def scalars(exploration: Exploration) -> dict[str, float]:
    """Flat numbers to log as metrics."""
    data, prediction = exploration.data, exploration.prediction
    flat: dict[str, float | None] = {
        "rows": data.rows,
        "rejected": data.rejected,
        "prevalence": data.prevalence.value,
        "exact_repeats": exploration.repeats.exact,
        "ordered_columns": len(exploration.order.ordered),
        "leak_suspects": len(exploration.leaks),
    }
    if prediction:
        flat["roc_auc_all"] = prediction.roc_auc
        flat |= {f"roc_auc_alone {entry.name}": entry.roc_auc for entry in prediction.alone}
    return {name: float(value) for name, value in flat.items() if value is not None}


def _about(table: Table, outcome: Floats) -> Data:
    labelled = ~np.isnan(outcome)
    positives, labels = int(np.nansum(outcome)), int(labelled.sum())
    low, high = metrics.wilson_interval(positives, labels)
    few = is_small(positives) or is_small(labels - positives)
    rejected = shown(table.rejected)
    return Data(
        name=table.name,
        kind=table.kind,
        read=None if rejected is None else table.read,
        rows=len(outcome),
        rejected=rejected,
        labelled=None if is_small(len(outcome) - labels) else shown(labels),
        has_outcome=labels > 0,
        positives=None if few else positives,
        prevalence=Share(None, None, None)
        if few or not labels
        else Share(positives / labels, defined(low), defined(high)),
        extra_columns=table.extra_columns,
    )


def _problems(table: Table) -> tuple[BrokenRule, ...]:
    """Rows by broken rule; small counts are hidden as parts of a known sum, as most rows break one rule."""
    hidden = hidden_counts(np.array([problem.rows for problem in table.problems], dtype=np.float64))
    return tuple(
        BrokenRule(problem.column, problem.rule, None if hide else problem.rows)
        for problem, hide in zip(table.problems, hidden, strict=True)
    )


def _repeats(keys: NDArray[np.uint64], outcome: Floats, answers: NDArray[np.intp] | None) -> Repeats:
    """Rows that repeat another exactly, and patterns of features that occur with both outcomes."""
    _, pattern, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    written = np.where(np.isnan(outcome), -1, outcome).astype(np.intp) if answers is None else answers
    state = (written + 1).astype(np.uint64)
    distinct = len(np.unique(split.mix(keys + state)))
    labelled = ~np.isnan(outcome)
    labels = bins.counts(pattern[labelled], len(sizes))
    positives = bins.counts(pattern[labelled], len(sizes), outcome[labelled])
    disputed = (positives > 0) & (positives < labels)
    minority = float(np.minimum(positives, labels - positives)[disputed].sum())
    return Repeats(
        same_features=int(len(keys) - len(sizes)),
        exact=int(len(keys) - distinct),
        largest_group=shown(int(sizes.max(initial=0))),
        disagreeing_patterns=int(disputed.sum()),
        disagreeing_rows=int(labels[disputed].sum()),
        unavoidable_errors=minority / max(1, int(labelled.sum())),
    )


def _order(columns: Sequence[Coded], outcome: Floats) -> Order:
    values = {
        column.column.name: np.where(column.codes == column.missing, np.nan, column.codes.astype(np.float64))
        for column in columns
        if associations.is_ordered(column)
    }
    if np.isfinite(outcome).any():
        values["outcome"] = outcome
    examined = row_order.examine(values)
    sizes = {column.column.name: max(1, len(column.labels) - 1) for column in columns} | {"outcome": 1}
    return Order(
        stretches=examined.stretches,
        columns=len(values),
        ordered=tuple(examined.ordered),
        breaks=tuple(examined.breaks),
        trends=tuple(
            Trend(
                name=trend.name,
                between=trend.between,
                p_value=trend.p_value,
                means=tuple(defined(mean / sizes[trend.name]) for mean in _smooth(trend.means)),
                overall=trend.overall / sizes[trend.name],
                stderr=trend.stderr / sizes[trend.name],
            )
            for trend in examined.trends[:_TRENDS]
        ),
    )


def _smooth(means: Floats) -> Floats:
    """At most 125 points of a line: stretches averaged in pairs where there are more."""
    if len(means) <= 125:
        return means
    even = means[: len(means) // 2 * 2].reshape(-1, 2)
    averaged: Floats = np.nanmean(even, axis=1)
    return averaged


def _associations(columns: Sequence[Coded], frame: pd.DataFrame) -> Associations:
    pairs = associations.between_columns(columns, frame)
    names = [column.column.name for column in columns]
    matrix = np.eye(len(names))
    for pair in pairs:
        i, j = names.index(pair.first), names.index(pair.second)
        matrix[i, j] = matrix[j, i] = pair.value
    strongest = sorted(pairs, key=lambda pair: -abs(pair.value))[:_STRONGEST]
    order = _clustered(np.abs(matrix))
    return Associations(
        names=tuple(names[i] for i in order),
        matrix=tuple(tuple(round(float(matrix[i, j]), 4) for j in order) for i in order),
        strongest=tuple(strongest),
        same=tuple(pair for pair in strongest if abs(pair.value) >= SAME),
    )


def _clustered(strength: Floats) -> list[int]:
    """An order of columns that puts associated columns side by side (average linkage)."""
    if len(strength) < 3:
        return list(range(len(strength)))
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    distance = squareform(np.clip(1 - strength, 0, None), checks=False)
    tree = hierarchy.linkage(distance, "average", optimal_ordering=True)
    return [int(leaf) for leaf in hierarchy.leaves_list(tree)]


def _span(decided: oddities.Decided) -> str:
    """The values as text, with their share of the people who have the outcome."""
    low, high = decided.low, decided.high
    where = f"{low:g} and over" if high is None else f"{high:g} and below" if low is None else f"{low:g}"
    return f"{where}: {decided.share:.0%} of those who have it"


def _leaks(
    columns: Sequence[Coded], outcome: Floats, alone: Mapping[str, ColumnPrediction], frame: pd.DataFrame
) -> tuple[Leak, ...]:
    """Columns that probably hold the outcome itself: too good alone, or with a level that determines it."""
    leaks = []
    for column in columns:
        name = column.column.name
        area = alone[name].roc_auc if name in alone else 0.5
        if area >= LEAK_AUC:
            leaks.append(Leak(name, "alone", area, None))
        elif isinstance(column.column, NumericColumn):
            values = np.asarray(frame[name], dtype=np.float64)
            decided = oddities.decided(values, outcome, column.column.minimum, column.column.maximum)
            if decided is not None:
                leaks.append(Leak(name, "values", area, _span(decided)))
        elif (label := _deciding_level(column, outcome)) is not None:
            leaks.append(Leak(name, "level", area, label))
    return tuple(leaks)


def _deciding_level(column: Coded, outcome: Floats) -> str | None:
    """The first level with enough people of whom nearly all have the outcome."""
    labelled = ~np.isnan(outcome)
    labels = bins.counts(column.codes[labelled], column.size)
    positives = bins.counts(column.codes[labelled], column.size, outcome[labelled])
    return next(
        (
            label
            for label, rows, hits in zip([*column.labels, "missing"], labels, positives, strict=True)
            if rows >= 5 * SMALLEST_CELL and metrics.wilson_interval(hits, rows)[0] >= LEAK_RATE
        ),
        None,
    )
