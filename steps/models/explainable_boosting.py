"""The glass box: an explainable boosting machine, fitted by interpret-core, kept as tables.

Lou, Caruana, Gehrke, Hooker, "Accurate intelligible models with pairwise interactions", KDD 2013; Nori and
colleagues, "InterpretML", 2019. This module makes the bins before the fit, from the schema's levels and a
rounded grid, so that each holds at least the disclosure limit of people. What the library itself remembers of
people (extremes, counts, edges between two values) never leaves this module.
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

# The most bins of a numeric column; each holds about the same number of people.
_PARTS = 32
# Share of the people of each bag that decide its early stopping.
_STOPPING_SHARE = 0.15
# Bags that share most of their people differ less than samples of different people. This factor turns the
# spread of the bags into the spread of models learned from disjoint samples of the same size.
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

    params: `interactions`, `learning_rate`, `max_leaves`, `min_samples_leaf`. Each bag holds out
    people for its early stopping; all rows of a person are on the same side.
    """
    from interpret.glassbox import ExplainableBoostingClassifier
    from joblib import parallel_config

    columns = bin_columns(rows.X.iloc[: rows.people], schema)
    bins = Terms(columns, [], 0.0).bins(rows.X)
    used = [index for index, column in enumerate(columns) if len(column.labels) > 1]
    if not used:
        return Terms(columns, [], _log_odds(rows))
    machine = ExplainableBoostingClassifier(
        feature_names=[columns[index].name for index in used],
        feature_types=[_feature_type(columns[index], schema) for index in used],
        interactions=min(int(params["interactions"]), math.comb(len(used), 2)),
        learning_rate=float(params["learning_rate"]),
        max_leaves=int(params["max_leaves"]),
        min_samples_leaf=int(params["min_samples_leaf"]),
        outer_bags=bags,
        n_jobs=min(threads, bags),
        random_state=seed,
    )
    X = np.where(bins == 0, np.nan, bins - 1.0)[:, used]
    with parallel_config(backend="threading"), warnings.catch_warnings():  # it releases the GIL
        warnings.filterwarnings("ignore", "Missing values detected")  # concerns its plots only
        machine.fit(X, rows.y, sample_weight=rows.weight, bags=_bags(rows, bags, seed))
    return _tables(machine, columns, used, bins, rows)


def _log_odds(rows: TrainingRows) -> float:
    share = float(np.average(rows.y, weights=rows.weight))
    return math.log(share / (1 - share))


def _feature_type(column: Binning, schema: Schema) -> Any:
    """The library's feature type: cuts between ordered bins, or `nominal`."""
    if schema.column(column.name).kind == "nominal" and len(column.labels) > 2:
        return "nominal"
    return [bin_index + 0.5 for bin_index in range(len(column.labels) - 1)]


def _bags(rows: TrainingRows, bags: int, seed: int) -> NDArray[np.int8]:
    """1 for rows that a bag learns from, -1 for rows of its early stopping, shape (rows, bags)."""
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
    """The machine's scores as tables in this module's order of bins; cells of few people are blank."""
    entries = [_entries(machine.bins_[index][0], columns[used[index]].size) for index in range(len(used))]
    terms = []
    for features, scores, spreads in zip(
        machine.term_features_, machine.term_scores_, machine.standard_deviations_, strict=True
    ):
        column_indices = tuple(used[feature] for feature in features)
        cells = np.ix_(*(entries[feature] for feature in features))
        counts = _people(bins, column_indices, columns, rows)
        blank = counts.learned_from < SMALLEST_CELL
        # The few counts of one column add up to a known sum, so they are rounded together.
        in_tens = disclosure.coarse_parts if len(column_indices) == 1 else disclosure.coarse
        terms.append(
            Term(
                column_indices,
                np.where(blank, 0.0, scores[cells]),
                np.where(blank, 0.0, spreads[cells] * _SPREAD_FACTOR),
                in_tens(counts.answered).astype(np.float64),
            )
        )
    spread = float(np.std(machine.bagged_intercept_)) * _SPREAD_FACTOR
    return Terms(columns, terms, float(machine.intercept_[0]), spread)


def _entries(library_bins: Any, size: int) -> Bins:
    """The library's index of the score of each of this module's bins; entry 0 is a missing value in both."""
    if not isinstance(library_bins, Mapping):
        return np.arange(size)
    return np.array([0, *(library_bins[str(index)] for index in range(size - 1))], dtype=np.intp)


@dataclass(frozen=True, eq=False)
class _People:
    """People in each cell of a term: with these answers, and with these answers or a copy of theirs."""

    answered: Counts
    learned_from: Counts


def _people(
    bins: Bins, column_indices: tuple[int, ...], columns: Sequence[Binning], rows: TrainingRows
) -> _People:
    shape = tuple(columns[index].size for index in column_indices)
    cells = np.ravel_multi_index(tuple(bins[:, index] for index in column_indices), shape)
    size = math.prod(shape)
    answered = np.bincount(cells[: rows.people], minlength=size).astype(np.float64)
    copies = np.bincount(cells[rows.people :], minlength=size).astype(np.float64)
    # In a cell without a missing answer a copy adds no person: the person's complete row is there as well.
    hidden = np.zeros(shape, dtype=bool)
    for axis in range(len(shape)):
        hidden[(slice(None),) * axis + (0,)] = True
    learned_from = np.where(hidden.ravel(), np.maximum(answered, copies), answered)
    return _People(answered.reshape(shape), learned_from.reshape(shape))


# Bins, from the schema and the people who answered


def bin_columns(frame: pd.DataFrame, schema: Schema, fewest: int = SMALLEST_CELL) -> tuple[Binning, ...]:
    """Cut each column into bins that hold at least `fewest` of these people each.

    A level or band with fewer is merged with its smaller neighbour; rare nominal levels are merged with one
    another. A column that cannot be cut has a single bin, and so no effect.
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
    merged_cuts = tuple(cuts[group[0] - 1] for group in groups[1:])
    return Binning(
        column.name, measure_bins.band_names(merged_cuts, column), cuts=merged_cuts, missing=missing
    )


def _level_bins(frame: pd.DataFrame, column: LevelledColumn, fewest: int) -> Binning:
    counts = frame[column.name].value_counts()
    people = [int(counts.get(code, 0)) for code in column.codes]
    groups = _pooled(people, fewest) if column.kind == "nominal" else _merged(people, fewest)
    labels = list(column.levels.values())
    bin_of_level = {level: number for number, group in enumerate(groups, 1) for level in group}
    levels: tuple[Code, ...] = column.codes
    return Binning(
        column.name,
        tuple(_joined([labels[level] for level in group]) for group in groups),
        levels=levels,
        bins=tuple(bin_of_level[level] for level in range(len(levels))),
    )


def _merged(counts: Sequence[int], fewest: int) -> list[list[int]]:
    """Merge neighbours until each group has at least `fewest`, or one group is left."""
    groups, sums = [[index] for index in range(len(counts))], list(counts)
    while len(groups) > 1 and min(sums) < fewest:
        smallest = sums.index(min(sums))
        beside = [index for index in (smallest - 1, smallest + 1) if 0 <= index < len(groups)]
        neighbour = min(beside, key=lambda index: sums[index])
        first, second = sorted((smallest, neighbour))
        groups[first] += groups.pop(second)
        sums[first] += sums.pop(second)
    return groups


def _pooled(counts: Sequence[int], fewest: int) -> list[list[int]]:
    """Group levels with fewer than `fewest` together, with the next smallest if they are still too few."""
    ascending = sorted(range(len(counts)), key=lambda level: (counts[level], level))
    pool: list[int] = []
    while ascending and (counts[ascending[0]] < fewest or (pool and _sum(counts, pool) < fewest)):
        pool.append(ascending.pop(0))
    groups = [[level] for level in sorted(ascending)]
    return [*groups, sorted(pool)] if pool else groups


def _sum(counts: Sequence[int], levels: Sequence[int]) -> int:
    return sum(counts[level] for level in levels)


def _joined(labels: Sequence[str]) -> str:
    if len(labels) <= _NAMED_LEVELS:
        return " or ".join(labels)
    return f"{' or '.join(labels[:2])} or one of {len(labels) - 2} more"
