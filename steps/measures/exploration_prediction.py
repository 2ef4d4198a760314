"""What predicts: each column alone, each pair, and what each adds to all others, on held-out rows.

The yardstick is a glass box of few rounds (an explainable boosting machine of interpret-core: one effect for
each level or band of each column). Held-out rows are those that the split puts beside training, so exact
repeats of a row are on one side.
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
# Pairs that are shown, and pairs whose interaction is tried.
_PAIRS = 12
_INTERACTIONS = 8
# Enough for the ROC AUC of effects that have settled: 0.0001 from Newton's method on the cohort.
_ROUNDS = 50
_LEARNING_RATE = 0.2
# A level of few rows is drawn to the mean as if so many rows with the mean rate were added.
_PRIOR_ROWS = 20.0


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows with an outcome: codes (rows, columns), outcomes (rows,), and the columns that they are of."""

    columns: Sequence[Coded]
    codes: Codes
    y: NDArray[np.int8]

    def cells(self, *places: int) -> Codes:
        """One code for each combination of these columns' codes, shape (rows,)."""
        combined = self.codes[:, places[0]]
        for place in places[1:]:
            combined = combined * self.columns[place].size + self.codes[:, place]
        return combined

    def matrix(self, places: Sequence[int]) -> Floats:
        """Codes of these columns as numbers, NaN for a missing answer, shape (rows, places)."""
        missing = np.array([self.columns[place].missing for place in places])
        codes = self.codes[:, places]
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
    """What each column and each pair tells about the outcome (rows,) of 1, 0 or NaN; None with too few.

    `keys` (rows,): the hash of each row's answers.
    """
    labelled = np.flatnonzero(~np.isnan(outcome))
    learned = split.part(keys[labelled]) == 0
    codes = np.column_stack([column.codes for column in columns])
    learn, judge = (
        _Rows(columns, codes[rows], outcome[rows].astype(np.int8))
        for rows in (labelled[learned], labelled[~learned])
    )
    if (
        min(min(int(rows.y.sum()), len(rows.y) - int(rows.y.sum())) for rows in (learn, judge))
        < FEWEST_OUTCOMES
    ):
        return None
    parts = _Split(learn, judge, seed)
    places = range(len(columns))
    whole = _fit(parts, _varying(parts))
    start = _Start(whole.log_odds(learn), whole.log_odds(judge))
    base = placements(judge.y, start.judged)
    areas = [_table_auc(parts, place) for place in places]
    alone = [_alone(parts, place, areas[place], base) for place in places]
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
    """A fitted machine of some columns; None of no column, whose log odds are all 0."""

    machine: Any
    places: Sequence[int]

    def log_odds(self, rows: _Rows, start: Floats | None = None) -> Floats:
        """Log odds of each row, added to `start` where the machine was fitted from there, shape (rows,)."""
        if self.machine is None:
            return np.zeros(len(rows.y))
        with _quiet():
            return np.asarray(self.machine.decision_function(rows.matrix(self.places), start))


@dataclass(frozen=True, eq=False)
class _Start:
    """Log odds that a glass box of all columns gives the rows learned from and the rows to judge by."""

    learned: Floats
    judged: Floats


def _fit(
    parts: _Split, places: Sequence[int], pairs: Sequence[tuple[int, int]] = (), start: _Start | None = None
) -> _GlassBox:
    """A glass box of some columns; or of `pairs` of them (indices into `places`), on top of `start`."""
    from interpret.glassbox import ExplainableBoostingClassifier

    if not places:
        return _GlassBox(None, places)
    machine = ExplainableBoostingClassifier(
        feature_types=_feature_types(parts.learn, places),
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
            parts.learn.matrix(places), parts.learn.y, init_score=None if start is None else start.learned
        )
    return _GlassBox(machine, places)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's warning that its plots do not show missing values."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Missing values detected")
        yield


def _feature_types(rows: _Rows, places: Sequence[int]) -> list[Any]:
    """As the library takes them: cuts between codes that have an order, or `nominal`."""
    return [
        "nominal"
        if column.column.kind == "nominal" and len(column.labels) > 2
        else [code + 0.5 for code in range(len(column.labels) - 1)]
        for column in (rows.columns[place] for place in places)
    ]


def _varying(parts: _Split) -> list[int]:
    """Columns in which the rows learned from differ."""
    codes = parts.learn.codes
    return np.flatnonzero((codes != codes[0]).any(axis=0)).tolist()


def _alone(parts: _Split, place: int, area: float, base: Placements) -> ColumnPrediction:
    """One column by itself, and the ROC AUC that a glass box of all others lacks."""
    others = [other for other in _varying(parts) if other != place]
    without = placements(parts.judge.y, _fit(parts, others).log_odds(parts.judge))
    return ColumnPrediction(
        name=parts.learn.columns[place].column.name,
        roc_auc=area,
        stderr=_stderr(area, parts.judge.y),
        adds=base.roc_auc - without.roc_auc,
        adds_stderr=difference_error(base, without),
    )


def _stderr(area: float, y: NDArray[np.int8]) -> float:
    return float(evidence.roc_auc_stderr(area, y.sum(), len(y) - y.sum()))


def _table_auc(parts: _Split, *places: int) -> float:
    """Held-out ROC AUC of the outcome rate of each combination of some columns' levels.

    Combinations of few rows are drawn to the mean.
    """
    learn, judge = parts.learn, parts.judge
    size = int(np.prod([learn.columns[place].size for place in places]))
    learned, judged = learn.cells(*places), judge.cells(*places)
    rows, hits = bins.counts(learned, size), bins.counts(learned, size, learn.y.astype(np.float64))
    rate = (hits + _PRIOR_ROWS * float(learn.y.mean())) / (rows + _PRIOR_ROWS)
    order = np.argsort(rate, kind="stable")
    total = bins.counts(judged, size)[order]
    positives = bins.counts(judged, size, judge.y.astype(np.float64))[order]
    # Cells of equal rate are ties.
    group = np.cumsum(np.diff(rate[order], prepend=-1.0) > 0) - 1
    hit, seen = np.bincount(group, positives), np.bincount(group, total)
    return float(evidence.roc_auc(hit, seen - hit))


def _pairs(parts: _Split, areas: Sequence[float]) -> list[PairPrediction]:
    """Each pair of columns by the table of both."""
    columns = parts.learn.columns
    found = []
    for first, second in itertools.combinations(range(len(columns)), 2):
        area = _table_auc(parts, first, second)
        better = max(areas[first], areas[second])
        found.append(
            PairPrediction(columns[first].column.name, columns[second].column.name, area, area - better)
        )
    return found


def _interactions(
    parts: _Split, start: _Start, base: Placements
) -> tuple[tuple[Interaction, ...], Gain | None]:
    """The pairs that say most beyond the effects of each column, and what each and all of them add.

    Pairs are ranked on the rows learned from by FAST (Lou and others, KDD 2013), so that held-out gains are
    not those of the luckiest.
    """
    from interpret.utils import measure_interactions

    learn = parts.learn
    places = _varying(parts)
    if len(places) < 2:
        return (), None
    with _quiet():
        strongest: list[tuple[int, int]] = [  # by their place among `places`
            pair
            for pair, _ in measure_interactions(
                learn.matrix(places),
                learn.y,
                interactions=_INTERACTIONS,
                init_score=start.learned,
                feature_types=_feature_types(learn, places),
            )
        ]
    names = [learn.columns[place].column.name for place in places]
    found = [
        Interaction(
            names[first],
            names[second],
            _gain(parts, base, start, _fit(parts, (places[first], places[second]), [(0, 1)], start)),
        )
        for first, second in strongest
    ]
    together = _gain(parts, base, start, _fit(parts, places, strongest, start)) if strongest else None
    return tuple(sorted(found, key=lambda entry: -entry.gain.value)), together


def _gain(parts: _Split, base: Placements, start: _Start, pairs: _GlassBox) -> Gain:
    more = placements(parts.judge.y, pairs.log_odds(parts.judge, start.judged))
    value, spread = more.roc_auc - base.roc_auc, 1.96 * difference_error(more, base)
    return Gain(value, value - spread, value + spread)


def _rate_table(columns: Sequence[Coded], outcome: Floats, pair: PairPrediction) -> RateTable:
    """Outcome rate of each combination of a pair's levels; None where it is hidden.

    No counts stand here, but each column's stand elsewhere, and with the rates they can give the counts: the
    combinations and the levels of both columns are one table.
    """
    by_name = {column.column.name: column for column in columns}
    first, second = sorted((by_name[pair.first], by_name[pair.second]), key=lambda column: column.size)
    labelled = ~np.isnan(outcome)
    size = first.size * second.size
    crossed = bins.cross(first, second)[labelled]
    rows, hits = bins.counts(crossed, size), bins.counts(crossed, size, outcome[labelled])
    cell = np.arange(size)
    one = cell // second.size == np.arange(first.size)[:, None]
    other = cell % second.size == np.arange(second.size)[:, None]
    hidden = hidden_lines(np.vstack([np.eye(size, dtype=np.bool_), one, other]), rows, hits, rows - hits)
    rates = np.where(~hidden[:size] & (rows > 0), hits / np.maximum(rows, 1), np.nan)
    rates = rates.reshape(first.size, second.size)[: first.missing, : second.missing].round(3)
    return RateTable(
        first.column.name,
        second.column.name,
        (tuple(first.labels), tuple(second.labels)),
        tuple(tuple(defined(rate) for rate in row) for row in rates),
    )
