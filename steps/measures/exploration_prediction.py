"""Predictive value of each column alone, of each pair, and beyond all others, on held-out rows.

All columns together are a glass box of few rounds (an explainable boosting machine of interpret-core: one
effect for each level or band of each column). Held-out rows are the rows that the split does not train on, so
exact repeats of a row are on the same side.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steps.data import split
from steps.data.disclosure import hidden_lines
from steps.data.documents import defined
from steps.measures import bins, evidence
from steps.measures.bins import Coded, Codes, Floats
from steps.measures.delong import Placements, difference_error, placements
from steps.measures.exploration_document import (
    ColumnPrediction,
    Gain,
    Interaction,
    PairPrediction,
    Prediction,
    RateTable,
)

# Fewest outcomes of either kind, in both parts, for measures of prediction.
FEWEST_OUTCOMES = 30
# Number of pairs that are shown, and of pairs whose interaction is tried.
_PAIRS = 12
_INTERACTIONS = 8
# Enough for the ROC AUC of effects that have settled: 0.0001 from Newton's method on the cohort.
_ROUNDS = 50
_LEARNING_RATE = 0.2
# The rate of a level is shrunk to the mean, as if this many rows with the mean rate were added.
_PRIOR_ROWS = 20.0


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows with an outcome: codes (rows, columns), outcomes (rows,), and the columns of the codes."""

    columns: Sequence[Coded]
    codes: Codes
    y: NDArray[np.int8]

    def cells(self, *indices: int) -> Codes:
        """One code for each combination of these columns' codes, shape (rows,)."""
        combined = self.codes[:, indices[0]]
        for index in indices[1:]:
            combined = combined * self.columns[index].size + self.codes[:, index]
        return combined

    def matrix(self, indices: Sequence[int]) -> Floats:
        """Codes of these columns as numbers, NaN for a missing answer, shape (rows, indices)."""
        missing = np.array([self.columns[index].missing for index in indices])
        codes = self.codes[:, indices]
        return np.where(codes == missing, np.nan, codes.astype(np.float64))


@dataclass(frozen=True, eq=False)
class _Split:
    """Rows to learn from and rows to judge by."""

    learn: _Rows
    judge: _Rows
    seed: int


def predict(
    columns: Sequence[Coded], outcome: Floats, keys: NDArray[np.uint64], seed: int
) -> Prediction | None:
    """Predict the outcome (rows,) of 1, 0 or NaN from each column and each pair; None with too few rows.

    `keys` (rows,): the hash of each row's answers.
    """
    labelled = np.flatnonzero(~np.isnan(outcome))
    is_learned = split.part(keys[labelled]) == 0
    codes = np.column_stack([column.codes for column in columns])
    learn, judge = (
        _Rows(columns, codes[rows], outcome[rows].astype(np.int8))
        for rows in (labelled[is_learned], labelled[~is_learned])
    )
    if (
        min(min(int(rows.y.sum()), len(rows.y) - int(rows.y.sum())) for rows in (learn, judge))
        < FEWEST_OUTCOMES
    ):
        return None
    parts = _Split(learn, judge, seed)
    indices = range(len(columns))
    all_columns = _fit(parts, _varying(parts))
    start = _Start(all_columns.log_odds(learn), all_columns.log_odds(judge))
    base = placements(judge.y, start.judged)
    areas = [_table_auc(parts, index) for index in indices]
    alone = [_alone(parts, index, areas[index], base) for index in indices]
    pairs = sorted(_pairs(parts, areas), key=lambda pair: -pair.roc_auc)
    interactions, together = _interactions(parts, start, base)
    return Prediction(
        learned_rows=len(learn.y),
        judged_rows=len(judge.y),
        roc_auc=base.roc_auc,
        stderr=_stderr(base.roc_auc, judge.y),
        alone=tuple(sorted(alone, key=lambda entry: -entry.roc_auc)),
        pairs=tuple(pairs[:_PAIRS]),
        pairs_tried=len(pairs),
        best_pair=_rate_table(columns, outcome, pairs[0]) if pairs else None,
        interactions=interactions,
        together=together,
    )


@dataclass(frozen=True, eq=False)
class _GlassBox:
    """A fitted machine of some columns; without columns it is None, and all log odds are 0."""

    machine: Any
    indices: Sequence[int]

    def log_odds(self, rows: _Rows, start: Floats | None = None) -> Floats:
        """Log odds of each row, shape (rows,), added to `start` where the machine was fitted on top of it."""
        if self.machine is None:
            return np.zeros(len(rows.y))
        with _quiet():
            return np.asarray(self.machine.decision_function(rows.matrix(self.indices), start))


@dataclass(frozen=True, eq=False)
class _Start:
    """Log odds from a glass box of all columns, of the rows to learn from and of the rows to judge by."""

    learned: Floats
    judged: Floats


def _fit(
    parts: _Split, indices: Sequence[int], pairs: Sequence[tuple[int, int]] = (), start: _Start | None = None
) -> _GlassBox:
    """A glass box of some columns; or of `pairs` of them (positions in `indices`), on top of `start`."""
    from interpret.glassbox import ExplainableBoostingClassifier

    if not indices:
        return _GlassBox(None, indices)
    machine = ExplainableBoostingClassifier(
        feature_types=_feature_types(parts.learn, indices),
        interactions=list(pairs),
        exclude="mains" if pairs else [],
        outer_bags=1,
        validation_size=0,
        max_rounds=_ROUNDS,
        learning_rate=_LEARNING_RATE,
        smoothing_rounds=0,
        interaction_smoothing_rounds=0,
        greedy_ratio=0.0,
        n_jobs=1,
        random_state=parts.seed,
    )
    with _quiet():
        machine.fit(
            parts.learn.matrix(indices), parts.learn.y, init_score=None if start is None else start.learned
        )
    return _GlassBox(machine, indices)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the library's warning that its plots do not show missing values."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Missing values detected")
        yield


def _feature_types(rows: _Rows, indices: Sequence[int]) -> list[Any]:
    """The library's feature types: cuts between ordered codes, or `nominal`."""
    return [
        "nominal"
        if column.column.kind == "nominal" and len(column.labels) > 2
        else [code + 0.5 for code in range(len(column.labels) - 1)]
        for column in (rows.columns[index] for index in indices)
    ]


def _varying(parts: _Split) -> list[int]:
    """Indices of the columns that are not constant in the rows to learn from."""
    codes = parts.learn.codes
    return np.flatnonzero((codes != codes[0]).any(axis=0)).tolist()


def _alone(parts: _Split, index: int, area: float, base: Placements) -> ColumnPrediction:
    """The ROC AUC of a column alone, and the loss of a glass box without it."""
    other_indices = [other_index for other_index in _varying(parts) if other_index != index]
    without = placements(parts.judge.y, _fit(parts, other_indices).log_odds(parts.judge))
    return ColumnPrediction(
        name=parts.learn.columns[index].column.name,
        roc_auc=area,
        stderr=_stderr(area, parts.judge.y),
        adds=base.roc_auc - without.roc_auc,
        adds_stderr=difference_error(base, without),
    )


def _stderr(area: float, y: NDArray[np.int8]) -> float:
    return float(evidence.roc_auc_stderr(area, y.sum(), len(y) - y.sum()))


def _table_auc(parts: _Split, *indices: int) -> float:
    """Held-out ROC AUC of the outcome rate of each combination of some columns' levels.

    Rates of combinations with few rows are shrunk to the mean.
    """
    learn, judge = parts.learn, parts.judge
    size = int(np.prod([learn.columns[index].size for index in indices]))
    learned, judged = learn.cells(*indices), judge.cells(*indices)
    rows, hits = bins.counts(learned, size), bins.counts(learned, size, learn.y.astype(np.float64))
    rate = (hits + _PRIOR_ROWS * float(learn.y.mean())) / (rows + _PRIOR_ROWS)
    order = np.argsort(rate, kind="stable")
    total = bins.counts(judged, size)[order]
    positives = bins.counts(judged, size, judge.y.astype(np.float64))[order]
    # Cells of equal rate are ties.
    group = np.cumsum(np.diff(rate[order], prepend=-1.0) > 0) - 1
    judged_hits, judged_rows = np.bincount(group, positives), np.bincount(group, total)
    return float(evidence.roc_auc(judged_hits, judged_rows - judged_hits))


def _pairs(parts: _Split, areas: Sequence[float]) -> list[PairPrediction]:
    """The ROC AUC of each pair of columns, from the table of both."""
    columns = parts.learn.columns
    pairs = []
    for first, second in itertools.combinations(range(len(columns)), 2):
        area = _table_auc(parts, first, second)
        better = max(areas[first], areas[second])
        pairs.append(
            PairPrediction(columns[first].column.name, columns[second].column.name, area, area - better)
        )
    return pairs


def _interactions(
    parts: _Split, start: _Start, base: Placements
) -> tuple[tuple[Interaction, ...], Gain | None]:
    """The pairs with the strongest interactions beyond single effects, and the gain of each and of all.

    Pairs are ranked by FAST (Lou and others, KDD 2013) on the rows to learn from, so that held-out gains have
    no selection bias.
    """
    from interpret.utils import measure_interactions

    learn = parts.learn
    indices = _varying(parts)
    if len(indices) < 2:
        return (), None
    with _quiet():
        strongest: list[tuple[int, int]] = [  # positions in `indices`
            pair
            for pair, _ in measure_interactions(
                learn.matrix(indices),
                learn.y,
                interactions=_INTERACTIONS,
                init_score=start.learned,
                feature_types=_feature_types(learn, indices),
            )
        ]
    names = [learn.columns[index].column.name for index in indices]
    interactions = [
        Interaction(
            names[first],
            names[second],
            _gain(parts, base, start, _fit(parts, (indices[first], indices[second]), [(0, 1)], start)),
        )
        for first, second in strongest
    ]
    together = _gain(parts, base, start, _fit(parts, indices, strongest, start)) if strongest else None
    return tuple(sorted(interactions, key=lambda entry: -entry.gain.value)), together


def _gain(parts: _Split, base: Placements, start: _Start, pairs: _GlassBox) -> Gain:
    with_pairs = placements(parts.judge.y, pairs.log_odds(parts.judge, start.judged))
    value, spread = with_pairs.roc_auc - base.roc_auc, 1.96 * difference_error(with_pairs, base)
    return Gain(value, value - spread, value + spread)


def _rate_table(columns: Sequence[Coded], outcome: Floats, pair: PairPrediction) -> RateTable:
    """Outcome rate of each combination of a pair's levels; None where it is hidden.

    The table has no counts, but they could follow from the rates and the counts of each column, which are
    shown elsewhere. So the combinations and the levels of both columns are hidden as one table.
    """
    by_name = {column.column.name: column for column in columns}
    first, second = sorted((by_name[pair.first], by_name[pair.second]), key=lambda column: column.size)
    labelled = ~np.isnan(outcome)
    size = first.size * second.size
    crossed = bins.cross(first, second)[labelled]
    rows, hits = bins.counts(crossed, size), bins.counts(crossed, size, outcome[labelled])
    cell = np.arange(size)
    in_first_level = cell // second.size == np.arange(first.size)[:, None]
    in_second_level = cell % second.size == np.arange(second.size)[:, None]
    hidden = hidden_lines(
        np.vstack([np.eye(size, dtype=np.bool_), in_first_level, in_second_level]), rows, hits, rows - hits
    )
    rates = np.where(~hidden[:size] & (rows > 0), hits / np.maximum(rows, 1), np.nan)
    rates = rates.reshape(first.size, second.size)[: first.missing, : second.missing].round(3)
    return RateTable(
        first.column.name,
        second.column.name,
        (tuple(first.labels), tuple(second.labels)),
        tuple(tuple(defined(rate) for rate in row) for row in rates),
    )
