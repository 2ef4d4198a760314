"""What a data set looks like before anybody fits a model to it: aggregates only, never a row.

`explore` measures everything that the report shows, as one JSON-able document. What a column, a pair of
columns or a derived feature adds to prediction is measured on rows that had no part in its estimates (the
hash split's rows beside training, so exact repeats of a row cannot help).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from steps.data import split
from steps.data.disclosure import (
    SMALLEST_CELL,
    Lines,
    hidden_cells,
    hidden_counts,
    hidden_lines,
    is_small,
    quantile_edges,
    shown,
)
from steps.data.files import FILE_COLUMN, TARGET_COLUMN
from steps.data.schema import NumericColumn
from steps.measures import additive_logit, associations, bins, evidence, metrics, oddities, row_order
from steps.measures.additive_logit import Additive, Block
from steps.measures.bins import Coded, Floats

if TYPE_CHECKING:
    import pandas as pd

    from steps.data.schema import Schema, Subgroup
    from steps.data.validation import Problem

FORMAT = 1
# Held-out ROC AUC of one column alone from which it probably holds the outcome itself.
LEAK_AUC = 0.95
# Share of one outcome in a level from which the level gives the outcome away, with its Wilson interval.
LEAK_RATE = 0.98
# Strength of association from which two columns say the same.
SAME = 0.95
# Share of one value from which a column is nearly constant.
NEARLY_CONSTANT = 0.995
# Fewest outcomes of either kind, in both parts, for measures of prediction.
FEWEST_OUTCOMES = 30
# Rows at most that the boosted trees see: they only tell whether combinations of many columns matter.
_TREE_ROWS = 60_000
_DERIVED_PAIRS = 5
_FINE_PARTS = 40


@dataclass(frozen=True)
class Table:
    """A checked data set in file order.

    `frame`: valid features, `__file__`, and `__target__` as float64 with NaN where unlabelled (absent if
    the data have no outcome). `read`: rows of the files; `rejected` of them broke the schema, as `problems`
    says. `answers`: a code for each valid row's outcome as it was written, where that is more than yes or
    no.
    """

    name: str
    kind: str
    frame: pd.DataFrame
    read: int
    rejected: int
    problems: tuple[Problem, ...] = ()
    extra_columns: tuple[str, ...] = ()
    answers: NDArray[np.intp] | None = None


def explore(table: Table, schema: Schema, seed: int, like: pd.DataFrame | None = None) -> dict[str, Any]:
    """Everything that is reported about one data set; bands of numeric columns are the tenths of `like`, if
    given.
    """
    frame = table.frame
    columns = bins.code(frame, schema, None if like is None else bins.code(like, schema))
    outcome = (
        np.asarray(frame[TARGET_COLUMN], dtype=np.float64)
        if TARGET_COLUMN in frame
        else np.full(len(frame), np.nan)
    )
    keys = split.row_keys(frame, schema)
    pairs = associations.between_columns(columns, frame)
    hidden = {column.column.name: _hidden(column, outcome, frame, schema.subgroups) for column in columns}
    prediction = _prediction(columns, outcome, keys, frame, seed)
    alone = {entry["name"]: entry for entry in prediction["alone"]} if prediction else {}
    return {
        "format": FORMAT,
        "schema": {
            "name": schema.name,
            "title": schema.title,
            "digest": schema.digest,
            "open_questions": list(schema.open_topics),
        },
        "target": {
            "name": schema.target.name,
            "meaning": schema.target.meaning,
            "positive": [schema.target.levels[code] for code in schema.target.positive],
            "disclaimer": schema.disclaimer,
        },
        "data": _about(table, outcome),
        "problems": [{"column": p.column, "rule": p.rule, "rows": rows} for p, rows in _problems(table)],
        "columns": [
            _column(column, outcome, frame, alone.get(column.column.name), hidden[column.column.name].levels)
            for column in columns
        ],
        "repeats": _repeats(keys, outcome, table.answers),
        "order": _order(columns, outcome),
        "files": _files(frame, outcome),
        "associations": _associations(columns, pairs),
        "leaks": _leaks(columns, outcome, alone, frame),
        "subgroups": _subgroups(frame, outcome, schema, hidden),
        "prediction": prediction,
        "suppressed_below": SMALLEST_CELL,
    }


def compare(first: Table, second: Table, schema: Schema) -> dict[str, Any]:
    """Two data sets side by side: how far each column's shares and the outcome's rates have moved.

    The first is the reference: its tenths are the bands of both.
    """
    ours = bins.code(first.frame, schema)
    theirs = bins.code(second.frame, schema, like=ours)
    columns: list[dict[str, Any]] = []
    for mine, other in zip(ours, theirs, strict=True):
        reference, current = bins.counts(mine.codes, mine.size), bins.counts(other.codes, other.size)
        used = reference + current > 0
        low, high = evidence.psi_interval(current[used], reference[used]) if used.sum() > 1 else (0.0, 0.0)
        columns.append(
            {
                "name": mine.column.name,
                "psi": float(evidence.psi(current[used], reference[used])),
                "low": float(low),
                "high": float(high),
                "evidence": float(evidence.drift_evidence(current[used], reference[used])),
            }
        )
    columns.sort(key=lambda column: -float(column["psi"]))
    return {"columns": columns, "psi_floor": evidence.PSI_FLOOR}


def scalars(exploration: Mapping[str, Any]) -> dict[str, float]:
    """Flat numbers to log as metrics."""
    data, prediction = exploration["data"], exploration["prediction"]
    flat: dict[str, float | None] = {
        "rows": data["rows"],
        "rejected": data["rejected"],
        "prevalence": data["prevalence"]["value"],
        "exact_repeats": exploration["repeats"]["exact"],
        "ordered_columns": len(exploration["order"]["ordered"]),
        "leak_suspects": len(exploration["leaks"]),
    }
    if prediction:
        flat["roc_auc_all"] = prediction["roc_auc"]
        flat |= {f"roc_auc_alone {entry['name']}": entry["roc_auc"] for entry in prediction["alone"]}
    return {name: float(value) for name, value in flat.items() if value is not None}


# ---------------------------------------------------------------- what the data are


def _about(table: Table, outcome: Floats) -> dict[str, Any]:
    labelled = ~np.isnan(outcome)
    positives, known = int(np.nansum(outcome)), int(labelled.sum())
    low, high = metrics.wilson_interval(positives, known)
    few = is_small(positives) or is_small(known - positives)
    set_aside = shown(table.rejected)
    return {
        "name": table.name,
        "kind": table.kind,
        "read": None if set_aside is None else table.read,
        "rows": len(outcome),
        "rejected": set_aside,
        "labelled": None if is_small(len(outcome) - known) else shown(known),
        "has_outcome": known > 0,
        "positives": None if few else positives,
        "prevalence": {
            "value": None if few else _number(positives / known if known else math.nan),
            "low": None if few else _number(low),
            "high": None if few else _number(high),
        },
        "extra_columns": list(table.extra_columns),
    }


@dataclass(frozen=True)
class _Hidden:
    """What is not shown of one column: its levels or bands, the missing answers last; and its subgroups."""

    levels: Lines
    subgroups: Mapping[str, bool]


def _hidden(column: Coded, outcome: Floats, frame: pd.DataFrame, subgroups: Sequence[Subgroup]) -> _Hidden:
    """Levels and subgroups of a column as one table: a subgroup less a level is a level."""
    own = [group for group in subgroups if group.column == column.column.name]
    cells = column.codes
    for group in own:
        cells = cells * 2 + group.mask(frame)
    distinct, first, place = np.unique(cells, return_index=True, return_inverse=True)
    labelled = ~np.isnan(outcome)
    rows = bins.counts(place, len(distinct))
    known = bins.counts(place[labelled], len(distinct))
    positives = bins.counts(place[labelled], len(distinct), outcome[labelled])
    levels = column.codes[first] == np.arange(column.size)[:, None]
    groups = [group.mask(frame)[first] for group in own]
    members = np.vstack([levels, *groups]) if len(distinct) else np.zeros((column.size, 0), dtype=np.bool_)
    # The profile of a prepared data set shows the levels without their outcomes.
    elsewhere = np.zeros(len(members), dtype=np.bool_)
    elsewhere[: column.size] = hidden_counts(bins.counts(column.codes, column.size))
    hidden = hidden_lines(members, rows, positives, known - positives, elsewhere=elsewhere)
    names = [group.name for group in own]
    return _Hidden(hidden[: column.size], dict(zip(names, hidden[column.size :].tolist(), strict=True)))


def _column(
    column: Coded, outcome: Floats, frame: pd.DataFrame, alone: Mapping[str, Any] | None, hidden: Lines
) -> dict[str, Any]:
    """Shares and outcome rates of a column's levels or bands."""
    rows = bins.counts(column.codes, column.size)
    labelled = ~np.isnan(outcome)
    known = bins.counts(column.codes[labelled], column.size)
    positives = bins.counts(column.codes[labelled], column.size, outcome[labelled])
    levels = [
        _level(label, rows[i], known[i], positives[i], len(outcome), bool(hidden[i]))
        for i, label in enumerate([*column.labels, "missing"])
    ]
    missing = levels.pop()
    quantiles = None
    if column.column.kind == "numeric":
        values = np.asarray(frame[column.column.name], dtype=np.float64)
        if np.isfinite(values).any():
            quantiles = [
                float(f"{value:.4g}") for value in np.nanquantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
            ]
    zeros, spike = None, None
    if isinstance(column.column, NumericColumn):
        own = np.asarray(frame[column.column.name], dtype=np.float64)
        zeros, spike = oddities.impossible_zeros(own), oddities.spike(own)
    most = float(rows[: column.missing].max(initial=0) / max(1, rows.sum()))
    return {
        "name": column.column.name,
        "meaning": column.column.meaning,
        "kind": column.column.kind,
        "unit": column.column.unit,
        "levels": levels,
        "missing": missing,
        "quantiles": quantiles,
        "largest_share": most,
        "constant": bool((rows[: column.missing] > 0).sum() <= 1),
        "zeros": zeros,
        "spike": None if spike is None else {"value": spike[0], "share": spike[1]},
        "nearly_constant": most >= NEARLY_CONSTANT,
        "empty_levels": [label for label, count in zip(column.labels, rows, strict=False) if count == 0],
        "alone": dict(alone) if alone else None,
    }


def _level(
    label: str, rows: float, known: float, positives: float, total: int, hidden: bool
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "label": label,
        "hidden": hidden,
        "rows": int(rows),
        "share": rows / max(1, total),
    }
    if hidden:
        return {
            "label": label,
            "hidden": True,
            "rows": None,
            "share": None,
            "rate": None,
            "low": None,
            "high": None,
        }
    low, high = metrics.wilson_interval(positives, known)
    rate = positives / known if known else math.nan
    return {**entry, "rate": _number(rate), "low": _number(low), "high": _number(high)}


def _repeats(keys: NDArray[np.uint64], outcome: Floats, answers: NDArray[np.intp] | None) -> dict[str, Any]:
    """Rows that repeat another exactly, and patterns of features that occur with both outcomes."""
    _, pattern, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    written = np.where(np.isnan(outcome), -1, outcome).astype(np.intp) if answers is None else answers
    state = (written + 1).astype(np.uint64)
    distinct = len(np.unique(split.mix(keys + state)))
    labelled = ~np.isnan(outcome)
    known = bins.counts(pattern[labelled], len(sizes))
    positives = bins.counts(pattern[labelled], len(sizes), outcome[labelled])
    disputed = (positives > 0) & (positives < known)
    minority = float(np.minimum(positives, known - positives)[disputed].sum())
    return {
        "same_features": int(len(keys) - len(sizes)),
        "exact": int(len(keys) - distinct),
        "largest_group": shown(int(sizes.max(initial=0))),
        "disagreeing_patterns": int(disputed.sum()),
        "disagreeing_rows": int(known[disputed].sum()),
        "unavoidable_errors": _number(minority / max(1, labelled.sum())),
    }


def _order(columns: Sequence[Coded], outcome: Floats) -> dict[str, Any]:
    values = {
        column.column.name: np.where(column.codes == column.missing, np.nan, column.codes.astype(np.float64))
        for column in columns
        if associations.is_ordered(column)
    }
    if np.isfinite(outcome).any():
        values["outcome"] = outcome
    found = row_order.examine(values)
    sizes = {column.column.name: max(1, len(column.labels) - 1) for column in columns} | {"outcome": 1}
    return {
        "stretches": found.stretches,
        "columns": len(values),
        "ordered": list(found.ordered),
        "breaks": list(found.breaks),
        "trends": [
            {
                "name": trend.name,
                "between": trend.between,
                "p_value": trend.p_value,
                "means": [_number(mean / sizes[trend.name]) for mean in _smooth(trend.means)],
                "overall": trend.overall / sizes[trend.name],
                "stderr": trend.stderr / sizes[trend.name],
            }
            for trend in found.trends[:6]
        ],
    }


def _smooth(means: Floats) -> Floats:
    """At most 125 points of a line: stretches averaged in pairs where there are more."""
    if len(means) <= 125:
        return means
    even = means[: len(means) // 2 * 2].reshape(-1, 2)
    averaged: Floats = np.nanmean(even, axis=1)
    return averaged


def _files(frame: pd.DataFrame, outcome: Floats) -> list[dict[str, Any]]:
    if FILE_COLUMN not in frame:
        return []
    names = frame[FILE_COLUMN].astype("category")
    found = []
    codes, labelled = names.cat.codes.to_numpy().astype(np.intp), ~np.isnan(outcome)
    size = len(names.cat.categories)
    rows, known = bins.counts(codes, size), bins.counts(codes[labelled], size)
    positives = bins.counts(codes[labelled], size, outcome[labelled])
    hidden = hidden_cells(rows, known, positives)
    for place, name in enumerate(names.cat.categories):
        found.append(
            _level(str(name), rows[place], known[place], positives[place], len(outcome), bool(hidden[place]))
        )
    return found


def _problems(table: Table) -> list[tuple[Problem, int | None]]:
    """Most rows break one rule alone, so the problems are hidden as the parts of a known sum."""
    hidden = hidden_counts(np.array([problem.rows for problem in table.problems], dtype=np.float64))
    return [
        (problem, None if hide else problem.rows)
        for problem, hide in zip(table.problems, hidden, strict=True)
    ]


# ---------------------------------------------------------------- how columns hang together


def _associations(columns: Sequence[Coded], pairs: Sequence[associations.Association]) -> dict[str, Any]:
    names = [column.column.name for column in columns]
    matrix = np.eye(len(names))
    for pair in pairs:
        i, j = names.index(pair.first), names.index(pair.second)
        matrix[i, j] = matrix[j, i] = pair.value
    strongest = sorted(pairs, key=lambda pair: -abs(pair.value))
    entries: list[dict[str, Any]] = [
        {"first": p.first, "second": p.second, "measure": p.measure, "value": p.value} for p in strongest[:12]
    ]
    order = _clustered(np.abs(matrix))
    return {
        "names": [names[i] for i in order],
        "matrix": [[round(float(matrix[i, j]), 4) for j in order] for i in order],
        "strongest": entries,
        "same": [entry for entry in entries if abs(entry["value"]) >= SAME],
    }


def _clustered(strength: Floats) -> list[int]:
    """An order of columns in which those that go together stand together (average linkage)."""
    if len(strength) < 3:
        return list(range(len(strength)))
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    distance = squareform(np.clip(1 - strength, 0, None), checks=False)
    tree = hierarchy.linkage(distance, "average", optimal_ordering=True)
    return [int(leaf) for leaf in hierarchy.leaves_list(tree)]


def _span(decided: oddities.Decided) -> str:
    """Values in words, with how many of those with the outcome they hold."""
    low, high = decided.low, decided.high
    where = f"{low:g} and over" if high is None else f"{high:g} and below" if low is None else f"{low:g}"
    return f"{where}: {decided.share:.0%} of those who have it"


def _leaks(
    columns: Sequence[Coded], outcome: Floats, alone: Mapping[str, Mapping[str, Any]], frame: pd.DataFrame
) -> list[dict[str, Any]]:
    """Columns that probably hold the outcome itself: too good alone, or a level that gives it away."""
    labelled = ~np.isnan(outcome)
    found = []
    for column in columns:
        name = column.column.name
        area = alone[name]["roc_auc"] if name in alone else 0.5
        if area >= LEAK_AUC:
            found.append({"name": name, "reason": "alone", "roc_auc": area, "label": None})
            continue
        if isinstance(column.column, NumericColumn):
            own = np.asarray(frame[name], dtype=np.float64)
            decided = oddities.decided(own, outcome, column.column.minimum, column.column.maximum)
            if decided is not None:
                found.append({"name": name, "reason": "values", "roc_auc": area, "label": _span(decided)})
            continue
        known = bins.counts(column.codes[labelled], column.size)
        positives = bins.counts(column.codes[labelled], column.size, outcome[labelled])
        for label, rows, hits in zip([*column.labels, "missing"], known, positives, strict=True):
            if rows >= 5 * SMALLEST_CELL and metrics.wilson_interval(hits, rows)[0] >= LEAK_RATE:
                found.append({"name": name, "reason": "level", "roc_auc": area, "label": label})
                break
    return found


def _subgroups(
    frame: pd.DataFrame, outcome: Floats, schema: Schema, hidden: Mapping[str, _Hidden]
) -> list[dict[str, Any]]:
    labelled = ~np.isnan(outcome)
    masks = [group.mask(frame) for group in schema.subgroups]
    rows = np.array([mask.sum() for mask in masks], dtype=np.float64)
    known = np.array([(mask & labelled).sum() for mask in masks], dtype=np.float64)
    positives = np.array([np.nansum(outcome[mask]) for mask in masks], dtype=np.float64)
    return [
        {
            **_level(
                group.name,
                rows[i],
                known[i],
                positives[i],
                len(frame),
                hidden[group.column].subgroups[group.name],
            ),
            "column": group.column,
            "headline": group.headline,
        }
        for i, group in enumerate(schema.subgroups)
    ]


# ---------------------------------------------------------------- what predicts


def _prediction(
    columns: Sequence[Coded], outcome: Floats, keys: NDArray[np.uint64], frame: pd.DataFrame, seed: int
) -> dict[str, Any] | None:
    """What each column alone, each pair and each derived feature add, on held-out rows; None with too few
    outcomes.
    """
    labelled = np.flatnonzero(~np.isnan(outcome))
    part = split.part(keys[labelled])
    learn, judge = labelled[part == 0], labelled[part != 0]
    fitted_on, judged_on = outcome[learn].astype(np.int8), outcome[judge].astype(np.int8)
    rare = min(min(int(y.sum()), len(y) - int(y.sum())) for y in (fitted_on, judged_on))
    if rare < FEWEST_OUTCOMES:
        return None
    blocks = [Block(column.codes[learn], column.size) for column in columns]
    held_out = [Block(column.codes[judge], column.size) for column in columns]
    model = additive_logit.fit(blocks, fitted_on)
    base = model.log_odds(held_out)
    areas = [
        _table_auc(own, fitted_on, other, judged_on) for own, other in zip(blocks, held_out, strict=True)
    ]
    alone = []
    for place, column in enumerate(columns):
        paired = additive_logit.paired_auc(judged_on, model.without(place).log_odds(held_out), base)
        alone.append(
            {
                "name": column.column.name,
                "roc_auc": areas[place],
                "stderr": float(
                    evidence.roc_auc_stderr(areas[place], judged_on.sum(), len(judged_on) - judged_on.sum())
                ),
                "adds": paired.second - paired.first,
                "adds_stderr": paired.stderr,
            }
        )
    all_columns = evidence.roc_auc_stderr(
        metrics.roc_auc(judged_on, base), judged_on.sum(), len(judged_on) - judged_on.sum()
    )
    pairs = _pairs(columns, blocks, held_out, areas, model, fitted_on, judged_on)
    return {
        "learned_rows": len(learn),
        "judged_rows": len(judge),
        "roc_auc": metrics.roc_auc(judged_on, base),
        "stderr": float(all_columns),
        "alone": sorted(alone, key=lambda entry: -float(entry["roc_auc"])),
        "pairs": sorted(pairs, key=lambda entry: -float(entry["roc_auc"]))[:12],
        "interactions": sorted(pairs, key=lambda entry: -float(entry["interaction"]))[:12],
        "pairs_tried": len(pairs),
        "best_pair": _rate_table(columns, outcome, max(pairs, key=lambda pair: float(pair["roc_auc"])))
        if pairs
        else None,
        "derived": _derived(
            columns, blocks, held_out, pairs, model, fitted_on, judged_on, learn, judge, frame, seed
        ),
    }


def _table_auc(own: Block, y: NDArray[np.int8], other: Block, truth: NDArray[np.int8]) -> float:
    """Held-out ROC AUC of the outcome rates of one categorical column, few-row levels drawn to the mean."""
    prior, weight = float(y.mean()), 20.0
    rows, hits = bins.counts(own.codes, own.size), bins.counts(own.codes, own.size, y.astype(np.float64))
    rate = (hits + weight * prior) / (rows + weight)
    order = np.argsort(rate, kind="stable")
    total = bins.counts(other.codes, other.size)[order]
    positives = bins.counts(other.codes, other.size, truth.astype(np.float64))[order]
    # Codes of equal rate are ties.
    group = np.cumsum(np.diff(rate[order], prepend=-1.0) > 0) - 1
    hit, seen = np.bincount(group, positives), np.bincount(group, total)
    return float(evidence.roc_auc(hit, seen - hit))


def _pairs(
    columns: Sequence[Coded],
    blocks: Sequence[Block],
    held_out: Sequence[Block],
    areas: Sequence[float],
    model: Additive,
    y: NDArray[np.int8],
    truth: NDArray[np.int8],
) -> list[dict[str, Any]]:
    """Each pair: ROC AUC of the table of both, and whether the pair says more than its two parts.

    `interaction` is the score statistic of the pair's cells given the additive model (Rao 1948), in standard
    deviations above what chance gives.
    """
    risk = 1 / (1 + np.exp(-model.log_odds(blocks)))
    residual, variance = y - risk, risk * (1 - risk)
    found = []
    for i, j in itertools.combinations(range(len(columns)), 2):
        own, other = _crossed(blocks[i], blocks[j]), _crossed(held_out[i], held_out[j])
        area = _table_auc(own, y, other, truth)
        left = bins.counts(own.codes, own.size, residual)
        spread = bins.counts(own.codes, own.size, variance)
        used = spread > 5
        freedom = max(
            1.0, float(used.sum() - len(set(np.flatnonzero(used) // blocks[j].size)) - blocks[j].size + 2)
        )
        statistic = float((left[used] ** 2 / spread[used]).sum())
        better = i if areas[i] >= areas[j] else j
        found.append(
            {
                "first": columns[i].column.name,
                "second": columns[j].column.name,
                "roc_auc": area,
                "gain": area - areas[better],
                "interaction": (statistic - freedom) / math.sqrt(2 * freedom),
            }
        )
    return found


def _rate_table(columns: Sequence[Coded], outcome: Floats, pair: Mapping[str, Any]) -> dict[str, Any]:
    """Outcome rate of each combination of a pair's levels; None where it is hidden.

    No counts stand here, but each column's stand elsewhere, and with the rates they can give the counts: the
    combinations and the levels of both columns are one table.
    """
    by_name = {column.column.name: column for column in columns}
    first, second = sorted((by_name[pair["first"]], by_name[pair["second"]]), key=lambda column: column.size)
    labelled = ~np.isnan(outcome)
    size = first.size * second.size
    crossed = bins.cross(first, second)[labelled]
    rows, hits = bins.counts(crossed, size), bins.counts(crossed, size, outcome[labelled])
    cell = np.arange(size)
    one = cell // second.size == np.arange(first.size)[:, None]
    other = cell % second.size == np.arange(second.size)[:, None]
    hidden = hidden_lines(np.vstack([np.eye(size, dtype=np.bool_), one, other]), rows, hits, rows - hits)
    rates = np.where(~hidden[:size] & (rows > 0), hits / np.maximum(rows, 1), np.nan)
    rates = rates.reshape(first.size, second.size)[: first.missing, : second.missing]
    return {
        "first": first.column.name,
        "second": second.column.name,
        "labels": [list(first.labels), list(second.labels)],
        "rates": [[_number(rate) for rate in row] for row in rates.round(3)],
    }


def _crossed(first: Block, second: Block) -> Block:
    return Block(first.codes * second.size + second.codes, first.size * second.size)


def _derived(
    columns: Sequence[Coded],
    blocks: Sequence[Block],
    held_out: Sequence[Block],
    pairs: Sequence[Mapping[str, Any]],
    model: Additive,
    y: NDArray[np.int8],
    truth: NDArray[np.int8],
    learn: NDArray[np.intp],
    judge: NDArray[np.intp],
    frame: pd.DataFrame,
    seed: int,
) -> list[dict[str, Any]]:
    """What derived features add to the additive model of all columns: tried, with the figures."""
    base = model.log_odds(held_out)
    tried = []

    def judged(name: str, why: str, score: Floats) -> None:
        paired = additive_logit.paired_auc(truth, base, score)
        gain = paired.second - paired.first
        tried.append(
            {
                "name": name,
                "why": why,
                "roc_auc": paired.second,
                "gain": gain,
                "low": gain - 1.96 * paired.stderr,
                "high": gain + 1.96 * paired.stderr,
            }
        )

    for name, why, extra in _candidates(columns, pairs, frame):
        own, other = Block(extra.codes[learn], extra.size), Block(extra.codes[judge], extra.size)
        fitted = additive_logit.fit([*blocks, own], y, start=model)
        judged(name, why, fitted.log_odds([*held_out, other]))
    scores = _boosted(columns, y, learn, judge, frame, seed)
    judged("all combinations of all columns", "boosted trees on the columns as they are", scores)
    return sorted(tried, key=lambda entry: -entry["gain"])


def _candidates(
    columns: Sequence[Coded], pairs: Sequence[Mapping[str, Any]], frame: pd.DataFrame
) -> list[tuple[str, str, Block]]:
    by_name = {column.column.name: column for column in columns}
    found: list[tuple[str, str, Block]] = []
    for pair in sorted(pairs, key=lambda pair: -pair["interaction"])[:_DERIVED_PAIRS]:
        first, second = by_name[pair["first"]], by_name[pair["second"]]
        crossed = Block(bins.cross(first, second), first.size * second.size)
        found.append((f"{pair['first']} × {pair['second']}", "the two combined, level by level", crossed))
    for column in columns:
        if not isinstance(column.column, NumericColumn):
            continue
        values = np.asarray(frame[column.column.name], dtype=np.float64)
        edges = quantile_edges(values, column.column.minimum, column.column.maximum, _FINE_PARTS)
        if len(edges) > len(column.edges) + 2:
            codes = np.searchsorted(np.asarray(edges), values, side="right").astype(np.intp)
            codes[np.isnan(values)] = len(edges) + 1
            found.append(
                (
                    f"{column.column.name} in finer steps",
                    f"{len(edges) + 1} bands",
                    Block(codes, len(edges) + 2),
                )
            )
    alike = _alike(columns)
    if len(alike) >= 3:
        total = np.add.reduce([(column.codes == 1).astype(np.intp) for column in alike])
        name = f"number of “{alike[0].labels[1]}” answers"
        found.append((name, f"of {len(alike)} two-level columns", Block(total, len(alike) + 1)))
    lacking = np.add.reduce([(column.codes == column.missing).astype(np.intp) for column in columns])
    if lacking.any():
        found.append(
            ("number of missing answers", "how many columns are empty", Block(lacking, len(columns) + 1))
        )
    return found


def _alike(columns: Sequence[Coded]) -> list[Coded]:
    """The two-level columns whose second level has the commonest name: those that can be counted together."""
    two = [column for column in columns if column.column.kind == "binary" and len(column.labels) == 2]
    names = [column.labels[1] for column in two]
    return [column for column in two if column.labels[1] == max(names, key=names.count)]


def _boosted(
    columns: Sequence[Coded],
    y: NDArray[np.int8],
    learn: NDArray[np.intp],
    judge: NDArray[np.intp],
    frame: pd.DataFrame,
    seed: int,
) -> Floats:
    """Log odds of boosted trees, which find combinations of columns by themselves."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    matrix = bins.matrix(columns, frame)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(learn))[:_TREE_ROWS])
    trees = HistGradientBoostingClassifier(
        max_iter=120, learning_rate=0.08, max_leaf_nodes=12, min_samples_leaf=40, l2_regularization=5.0,
        early_stopping=False, random_state=seed,
    )  # fmt: skip
    trees.fit(matrix[learn[chosen]], y[chosen])
    scores: Floats = trees.decision_function(matrix[judge]).astype(np.float64)
    return scores


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
