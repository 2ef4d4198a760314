"""The glass box: an explainable boosting machine, fitted by interpret-core, kept as tables.

Lou, Caruana, Gehrke, Hooker, "Accurate intelligible models with pairwise interactions", KDD 2013; Nori and
colleagues, "InterpretML", 2019. Bins are ours and given before the fit, from the schema's levels and a
rounded grid, so that each holds at least the disclosure limit of people; what the library remembers of people
besides (extremes, counts, edges between two values) never leaves this module.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from steps.data import disclosure
from steps.data.disclosure import SMALLEST_CELL
from steps.data.schema import LevelledColumn, NumericColumn
from steps.measures import bins as measure_bins
from steps.models.served_model import Binning, Term, Terms

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from steps.data.schema import Code, Schema
    from steps.models.missing_answers import TrainingRows

    Bins = NDArray[np.intp]
    Counts = NDArray[np.float64]

# A number becomes at most so many bins, of about as many people each.
_PARTS = 32
# Of each bag, so many of the people are kept for early stopping.
_STOPPING_SHARE = 0.15
# Bags of 85 % of the same people differ less than samples of other people: by this factor, which makes their
# spread that of models learned from disjoint samples of as many people.
_SPREAD_FACTOR = math.sqrt((1 - _STOPPING_SHARE) / _STOPPING_SHARE)
_NAMED_LEVELS = 3


def fit(
    params: Mapping[str, int | float],
    rows: TrainingRows,
    schema: Schema,
    *,
    seed: int,
    bags: int,
    threads: int,
) -> Terms:
    """A fitted glass box without calibration; its spread is 0 where there is one bag only.

    params: `interactions`, `learning_rate`, `max_leaves`, `min_samples_leaf`. Each bag keeps the people for
    its early stopping apart, all rows of a person on one side.
    """
    from interpret.glassbox import ExplainableBoostingClassifier
    from joblib import parallel_config

    columns = bin_columns(rows.X.iloc[: rows.people], schema)
    bins = Terms(columns, [], 0.0).bins(rows.X)
    used = [place for place, column in enumerate(columns) if len(column.labels) > 1]
    if not used:
        return Terms(columns, [], _log_odds(rows))
    machine = ExplainableBoostingClassifier(
        feature_names=[columns[place].name for place in used],
        feature_types=[_feature_type(columns[place], schema) for place in used],
        interactions=min(int(params["interactions"]), math.comb(len(used), 2)),
        learning_rate=float(params["learning_rate"]),
        max_leaves=int(params["max_leaves"]),
        min_samples_leaf=int(params["min_samples_leaf"]),
        outer_bags=bags,
        n_jobs=min(threads, bags),
        random_state=seed,
    )
    X = np.where(bins == 0, np.nan, bins - 1.0)[:, used]
    with parallel_config(backend="threading"), warnings.catch_warnings():  # it computes outside Python's lock
        warnings.filterwarnings("ignore", "Missing values detected")  # of its own plots
        machine.fit(X, rows.y, sample_weight=rows.weight, bags=_bags(rows, bags, seed))
    return _tables(machine, columns, used, bins, rows)


def _log_odds(rows: TrainingRows) -> float:
    share = float(np.average(rows.y, weights=rows.weight))
    return math.log(share / (1 - share))


def _feature_type(column: Binning, schema: Schema) -> Any:
    """As the library takes it: cuts between bins that have an order, or `nominal`."""
    if schema.column(column.name).kind == "nominal" and len(column.labels) > 2:
        return "nominal"
    return [place + 0.5 for place in range(len(column.labels) - 1)]


def _bags(rows: TrainingRows, bags: int, seed: int) -> NDArray[np.int8]:
    """1 for rows that a bag learns from, -1 for those that stop it, shape (rows, bags)."""
    draw = np.random.default_rng([seed, 20])
    y = rows.y[: rows.people]
    sides = np.ones((rows.people, bags), dtype=np.int8)
    for bag in range(bags):
        for outcome in (0, 1):
            people = np.flatnonzero(y == outcome)
            count = max(1, round(_STOPPING_SHARE * len(people))) if len(people) > 1 else 0
            sides[draw.permutation(people)[:count], bag] = -1
    return sides[rows.person]


def _tables(
    machine: Any, columns: tuple[Binning, ...], used: Sequence[int], bins: Bins, rows: TrainingRows
) -> Terms:
    """The machine's scores as tables in our order of bins, cells of few people blanked."""
    entries = [_entries(machine.bins_[place][0], columns[used[place]].size) for place in range(len(used))]
    terms = []
    for features, scores, spreads in zip(
        machine.term_features_, machine.term_scores_, machine.standard_deviations_, strict=True
    ):
        places = tuple(used[feature] for feature in features)
        cells = np.ix_(*(entries[feature] for feature in features))
        counts = _people(bins, places, columns, rows)
        blank = counts.learned_from < SMALLEST_CELL
        # A column alone has few bins, whose sum is known; the many cells of a pair leave each other room.
        in_tens = disclosure.coarse_parts if len(places) == 1 else disclosure.coarse
        terms.append(
            Term(
                places,
                np.where(blank, 0.0, scores[cells]),
                np.where(blank, 0.0, spreads[cells] * _SPREAD_FACTOR),
                in_tens(counts.answered).astype(np.float64),
            )
        )
    spread = float(np.std(machine.bagged_intercept_)) * _SPREAD_FACTOR
    return Terms(columns, terms, float(machine.intercept_[0]), spread)


def _entries(library_bins: Any, size: int) -> Bins:
    """Where the library keeps the score of each of our bins; its entry 0 is a missing value too."""
    if not isinstance(library_bins, Mapping):
        return np.arange(size)
    return np.array([0, *(library_bins[str(place)] for place in range(size - 1))], dtype=np.intp)


@dataclass(frozen=True, eq=False)
class _People:
    """People in each cell of a term: those who gave these answers, and all that the fit saw there."""

    answered: Counts
    learned_from: Counts


def _people(bins: Bins, places: tuple[int, ...], columns: Sequence[Binning], rows: TrainingRows) -> _People:
    shape = tuple(columns[place].size for place in places)
    cells = np.ravel_multi_index(tuple(bins[:, place] for place in places), shape)
    size = math.prod(shape)
    answered = np.bincount(cells[: rows.people], minlength=size).astype(np.float64)
    copies = np.bincount(cells[rows.people :], minlength=size).astype(np.float64)
    # A copy adds nobody to a cell without a missing answer: the person's complete row stands there as well.
    hidden = np.zeros(shape, dtype=bool)
    for axis in range(len(shape)):
        hidden[(slice(None),) * axis + (0,)] = True
    learned_from = np.where(hidden.ravel(), np.maximum(answered, copies), answered)
    return _People(answered.reshape(shape), learned_from.reshape(shape))


# Bins, from the schema and the people who answered


def bin_columns(frame: pd.DataFrame, schema: Schema, fewest: int = SMALLEST_CELL) -> tuple[Binning, ...]:
    """How each column becomes bins that hold at least `fewest` of these people each.

    Levels and bands with fewer are merged with their smaller neighbour, rare nominal levels with one another;
    a column that cannot be cut at all keeps one bin, which then tells nothing.
    """
    return tuple(
        _number_bins(frame, column, fewest)
        if isinstance(column, NumericColumn)
        else _level_bins(frame, column, fewest)
        for column in schema.columns
    )


def _number_bins(frame: pd.DataFrame, column: NumericColumn, fewest: int) -> Binning:
    missing = tuple(float(code) for code in column.missing if not isinstance(code, str))
    values = np.asarray(frame[column.name], dtype=np.float64)
    values = values[~(np.isnan(values) | np.isin(values, missing))]
    cuts = disclosure.quantile_edges(values, column.minimum, column.maximum, _PARTS)
    counts = np.bincount(np.searchsorted(cuts, values, side="right"), minlength=len(cuts) + 1)
    groups = _merged(counts.tolist(), fewest)
    kept = tuple(cuts[group[0] - 1] for group in groups[1:])
    return Binning(column.name, measure_bins.band_names(kept, column), cuts=kept, missing=missing)


def _level_bins(frame: pd.DataFrame, column: LevelledColumn, fewest: int) -> Binning:
    counts = frame[column.name].value_counts()
    people = [int(counts.get(code, 0)) for code in column.codes]
    groups = _pooled(people, fewest) if column.kind == "nominal" else _merged(people, fewest)
    words = list(column.levels.values())
    place = {level: number for number, group in enumerate(groups, 1) for level in group}
    levels: tuple[Code, ...] = column.codes
    return Binning(
        column.name,
        tuple(_together([words[level] for level in group]) for group in groups),
        levels=levels,
        bins=tuple(place[level] for level in range(len(levels))),
    )


def _merged(counts: Sequence[int], fewest: int) -> list[list[int]]:
    """Neighbours put together until each group has at least `fewest`, or one group is left."""
    groups, sums = [[place] for place in range(len(counts))], list(counts)
    while len(groups) > 1 and min(sums) < fewest:
        least = sums.index(min(sums))
        beside = [place for place in (least - 1, least + 1) if 0 <= place < len(groups)]
        other = min(beside, key=lambda place: sums[place])
        first, second = sorted((least, other))
        groups[first] += groups.pop(second)
        sums[first] += sums.pop(second)
    return groups


def _pooled(counts: Sequence[int], fewest: int) -> list[list[int]]:
    """Each level by itself, those with fewer than `fewest` together, with the next smallest if need be."""
    ascending = sorted(range(len(counts)), key=lambda level: (counts[level], level))
    pool: list[int] = []
    while ascending and (counts[ascending[0]] < fewest or (pool and _sum(counts, pool) < fewest)):
        pool.append(ascending.pop(0))
    groups = [[level] for level in sorted(ascending)]
    return [*groups, sorted(pool)] if pool else groups


def _sum(counts: Sequence[int], levels: Sequence[int]) -> int:
    return sum(counts[level] for level in levels)


def _together(words: Sequence[str]) -> str:
    if len(words) <= _NAMED_LEVELS:
        return " or ".join(words)
    return f"{' or '.join(words[:2])} or one of {len(words) - 2} more"
