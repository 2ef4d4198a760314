"""Evaluation of one model on one split: aggregates with 95 % intervals, never a row.

The result of `evaluate` is JSON-able and holds everything that the report, the card and the gates need, curve
points included. `steps.measures.metrics` has the formulas.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from steps.measures import metrics
from steps.measures.metrics import Counts, Floats, Ranking

if TYPE_CHECKING:
    from pandas import DataFrame

    from steps.data.schema import Column, PointScore, Schema, Subgroup

FORMAT = 1
SMALLEST_CELL = 10  # a subgroup with fewer positives or negatives is not shown
IMPORTANCE_ROWS = 5000
IMPORTANCE_REPEATS = 5
_CUTS = (0.05, 0.10, 0.15, 0.20, 0.30, 0.40, 0.50)
_LOSSES = ("brier", "log_loss")
_DECISION = ("recall", "precision", "specificity", "flagged", "accuracy", "f1")

Statistics = Callable[[Floats, Counts], dict[str, Floats]]
Predict = Callable[["DataFrame"], ArrayLike]


def evaluate(
    y: ArrayLike,
    risk: ArrayLike,
    frame: "DataFrame",
    schema: "Schema",
    threshold: float,
    seed: int,
    *,
    model: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    predict: Predict | None = None,
    replicates: int = metrics.REPLICATES,
) -> dict[str, Any]:
    """Everything that is reported about a model on one split.

    `y` (rows,) of 0 and 1, `risk` (rows,) in [0, 1], `frame` the valid frame of the same rows; flagged is
    whose risk reaches `threshold`. `model` and `data` are facts to carry along (name, version, family, the
    recall that the threshold was chosen for, kind, digests); the result is synthetic where either says so.
    With `predict` (features to risks) permutation importance is measured too. Raises ValueError where one
    class is absent or the lengths differ: no metric is defined then.
    """
    labels, risks = np.asarray(y, dtype=np.int8), np.asarray(risk, dtype=np.float64)
    positives = int(labels.sum())
    if not len(labels) == len(risks) == len(frame):
        raise ValueError(
            f"{len(labels)} outcomes, {len(risks)} risks and {len(frame)} rows cannot be one split"
        )
    if not 0 < positives < len(labels):
        raise ValueError(f"an evaluation needs both classes: {positives} of {len(labels)} rows are positive")
    if not (np.isfinite(risks).all() and risks.min() >= 0 and risks.max() <= 1):
        raise ValueError("risks must be probabilities from 0 to 1")

    cells = _cells(labels, frame, schema.subgroups)
    cuts = decision_thresholds(positives / len(labels))
    points = [score.points(frame) for score in schema.point_scores]
    parts: dict[str, Statistics] = {"": _overall(labels, risks, threshold, cuts)}
    for group, cell in zip(schema.subgroups, cells, strict=True):
        if not cell["suppressed"]:
            parts[f"subgroup {group.name}"] = _within(labels, risks, threshold, np.asarray(group.mask(frame)))
    for score, own in zip(schema.point_scores, points, strict=True):
        parts[f"score {score.name}"] = _points(labels, own, score.cut)

    ranking = metrics.rank(labels, risks)
    found = _estimates(parts, ranking, len(labels), seed, replicates)
    overall = found[""]
    known_model, known_data = dict(model or {}), dict(data or {})
    return {
        "format": FORMAT,
        "synthetic": bool(known_model.get("synthetic") or known_data.get("kind") == "synthetic"),
        "schema": {"name": schema.name, "title": schema.title, "digest": schema.digest},
        "features": [{"name": c.name, "meaning": c.meaning, "unit": c.unit} for c in schema.columns],
        "target": _target(schema),
        "model": known_model,
        "data": {
            **known_data,
            "rows": len(labels),
            "positives": positives,
            "prevalence": positives / len(labels),
        },
        "method": {
            "level": metrics.LEVEL,
            "replicates": replicates,
            "seed": seed,
            "smallest_cell": SMALLEST_CELL,
        },
        "threshold": float(threshold),
        "metrics": {name: overall[name] for name in overall if name != "net_benefit"},
        "per_1000": _per_1000(metrics.confusion(labels, risks, threshold)),
        "choices": _choices(labels, risks, threshold),
        "curves": {
            "calibration": _calibration_bins(labels, risks),
            "decision": _decision_curve(overall["net_benefit"], cuts, positives / len(labels)),
            "distribution": _distribution(labels, risks),
            "roc": _roc_points(ranking),
        },
        "subgroups": [{**cell, **found.get(f"subgroup {cell['name']}", {})} for cell in cells],
        "point_scores": [
            {**_about(score), **found[f"score {score.name}"], "roc": _roc_points(metrics.rank(labels, own))}
            for score, own in zip(schema.point_scores, points, strict=True)
        ],
        "importance": None
        if predict is None
        else importance(predict, labels, frame[list(schema.feature_names)], schema.columns, seed),
    }


def compare(
    y: ArrayLike,
    risk_new: ArrayLike,
    risk_champion: ArrayLike,
    seed: int,
    replicates: int = metrics.REPLICATES,
) -> dict[str, Any]:
    """New model less champion on the same rows, paired: what the gates judge and the report shows."""
    return {
        "rows": len(np.asarray(y)),
        "level": metrics.LEVEL,
        "replicates": replicates,
        "metrics": metrics.paired_differences(y, risk_new, risk_champion, seed, replicates),
    }


def scalars(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """Flat numbers to log as metrics: the overall ones with their intervals, and each subgroup's ROC AUC."""
    flat: dict[str, float] = {
        "rows": evaluation["data"]["rows"],
        "prevalence": evaluation["data"]["prevalence"],
    }
    for name, estimate in evaluation["metrics"].items():
        flat[name] = estimate["value"]
        flat[f"{name}_low"], flat[f"{name}_high"] = estimate["low"], estimate["high"]
    for group in evaluation["subgroups"]:
        if not group["suppressed"]:
            flat[f"roc_auc {group['name']}"] = group["roc_auc"]["value"]
    return {name: float(value) for name, value in flat.items() if value is not None}


def decision_thresholds(prevalence: float) -> Floats:
    """Thresholds of the decision curve: 1 % up to four times the prevalence, within 20 % and 90 %."""
    highest = min(90, max(20, 5 * math.ceil(4 * prevalence * 20)))
    cuts: Floats = np.arange(1, highest + 1) / 100
    return cuts


def importance(
    predict: Predict,
    y: ArrayLike,
    features: "DataFrame",
    columns: Sequence["Column"],
    seed: int,
    rows: int = IMPORTANCE_ROWS,
    repeats: int = IMPORTANCE_REPEATS,
) -> dict[str, Any]:
    """Permutation importance (Breiman 2001): loss of ROC AUC when one column is shuffled, mean and spread.

    Measured on a random sample of at most `rows` rows, so that its cost is bounded: columns x repeats x rows
    predictions. Columns that carry the same information share it: each alone then seems to matter less.
    """
    generator = np.random.default_rng(seed)
    labels = np.asarray(y)
    chosen = np.sort(generator.permutation(len(labels))[:rows])
    sample, outcomes = features.iloc[chosen].reset_index(drop=True), labels[chosen]
    base = metrics.roc_auc(outcomes, predict(sample))
    measured: list[dict[str, Any]] = []
    for column in columns:
        losses = []
        for _ in range(repeats):
            shuffled = sample.copy()
            shuffled[column.name] = sample[column.name].array[generator.permutation(len(sample))]
            losses.append(base - metrics.roc_auc(outcomes, predict(shuffled)))
        mean, spread = float(np.mean(losses)), float(np.std(losses, ddof=1)) if repeats > 1 else 0.0
        measured.append(
            {"name": column.name, "meaning": column.meaning, "loss": _number(mean), "spread": _number(spread)}
        )
    measured.sort(key=lambda entry: entry["loss"] or 0.0, reverse=True)
    return {"rows": len(sample), "repeats": repeats, "roc_auc": _number(base), "columns": measured}


def _number(value: float) -> float | None:
    """A JSON number: NaN becomes null."""
    return float(value) if math.isfinite(value) else None


def _estimates(
    parts: Mapping[str, Statistics], ranking: Ranking, rows: int, seed: int, replicates: int
) -> dict[str, dict[str, Any]]:
    """Value and interval of every statistic of every part, all parts on the same replicates."""

    def measure(weights: Floats) -> dict[tuple[str, str], Floats]:
        counts = metrics.count(ranking, weights)
        measured: dict[tuple[str, str], Floats] = {}
        for part, statistics in parts.items():
            for name, values in statistics(weights, counts).items():
                measured[part, name] = values
        for part, name in list(measured):
            if name == "roc_auc" and part.startswith(("subgroup ", "score ")):
                measured[part, "roc_auc_difference"] = measured["", "roc_auc"] - measured[part, name]
        return measured

    values = measure(np.ones((1, rows)))
    samples: dict[tuple[str, str], list[Floats]] = {key: [] for key in values}
    for weights in metrics.bootstrap_weights(rows, replicates, seed):
        for key, replicate in measure(weights).items():
            samples[key].append(replicate)
    found: dict[str, dict[str, Any]] = {part: {} for part in parts}
    for (part, name), value in values.items():
        found[part][name] = _estimate(value[0], np.concatenate(samples[part, name]))
    return found


def _estimate(value: Any, samples: Floats) -> Any:
    """{"value", "low", "high"}, or a list of them for an array of values."""
    if np.ndim(value):
        return [_estimate(own, samples[:, i]) for i, own in enumerate(value)]
    low, high = metrics.interval(samples)
    return {"value": _number(value), "low": _number(low), "high": _number(high)}


def _overall(labels: Any, risks: Floats, threshold: float, cuts: Floats) -> Statistics:
    recalibration = metrics.calibration(labels, risks)
    rows = np.column_stack(
        [labels, risks, metrics.squared_errors(labels, risks), metrics.log_losses(labels, risks)]
    )
    at = np.append(cuts, threshold)

    def statistics(weights: Floats, counts: Counts) -> dict[str, Floats]:
        observed, expected, *losses = (weights @ rows).T
        slope, intercept = recalibration.replicates(weights)
        decisions = metrics.confusion_of_counts(counts, at)
        return {
            "roc_auc": metrics.roc_auc_of_counts(counts),
            "calibration_slope": slope,
            "calibration_intercept": intercept,
            "observed_expected": metrics.ratio(observed, expected),
            "average_precision": metrics.average_precision_of_counts(counts),
            **{name: loss / weights.sum(axis=1) for name, loss in zip(_LOSSES, losses, strict=True)},
            **{name: getattr(decisions, name)[:, -1] for name in _DECISION},
            "net_benefit": metrics.net_benefit(decisions, at)[:, :-1],
        }

    return statistics


def _within(labels: Any, risks: Floats, threshold: float, mask: Any) -> Statistics:
    ranking, expected = metrics.rank(labels, risks, np.flatnonzero(mask)), risks * mask

    def statistics(weights: Floats, _: Counts) -> dict[str, Floats]:
        counts = metrics.count(ranking, weights)
        decision = metrics.confusion_of_counts(counts, [threshold])
        return {
            "roc_auc": metrics.roc_auc_of_counts(counts),
            "observed_expected": metrics.ratio(counts.positives.sum(axis=1), weights @ expected),
            "recall": decision.recall[:, 0],
            "flagged": decision.flagged[:, 0],
        }

    return statistics


def _points(labels: Any, points: Any, cut: int) -> Statistics:
    ranking = metrics.rank(labels, points)

    def statistics(weights: Floats, model: Counts) -> dict[str, Floats]:
        counts = metrics.count(ranking, weights)
        decision = metrics.confusion_of_counts(counts, [cut])
        model_flagged = metrics.flagged_at_recall(model, decision.recall[:, 0])
        return {
            "roc_auc": metrics.roc_auc_of_counts(counts),
            "average_precision": metrics.average_precision_of_counts(counts),
            "recall": decision.recall[:, 0],
            "specificity": decision.specificity[:, 0],
            "flagged": decision.flagged[:, 0],
            "model_flagged": model_flagged,
            "fewer_flagged": decision.flagged[:, 0] - model_flagged,
        }

    return statistics


def _cells(labels: Any, frame: "DataFrame", subgroups: Sequence["Subgroup"]) -> list[dict[str, Any]]:
    """Size and prevalence of each subgroup; what is suppressed has a name only.

    Suppressed: fewer than 10 positives or negatives. Where that hides a single subgroup of a column, the next
    smallest of that column goes too: otherwise subtraction would bring the first one back.
    """
    sizes = []
    for group in subgroups:
        mask = np.asarray(group.mask(frame))
        rows, positives = int(mask.sum()), int(labels[mask].sum())
        sizes.append((rows, positives))
    hidden = {
        i for i, (rows, positives) in enumerate(sizes) if min(positives, rows - positives) < SMALLEST_CELL
    }
    for column in {group.column for group in subgroups}:
        own = [i for i, group in enumerate(subgroups) if group.column == column]
        if len([i for i in own if i in hidden and sizes[i][0] > 0]) == 1 and len(own) > 1:
            hidden.add(min((i for i in own if i not in hidden), key=lambda i: sizes[i][0], default=own[0]))
    cells = []
    for i, (group, (rows, positives)) in enumerate(zip(subgroups, sizes, strict=True)):
        cell = {
            "name": group.name,
            "column": group.column,
            "headline": group.headline,
            "suppressed": i in hidden,
        }
        if i not in hidden:
            cell |= {"rows": rows, "positives": positives, "prevalence": positives / rows}
        cells.append(cell)
    return cells


def _target(schema: "Schema") -> dict[str, Any]:
    target = schema.target
    return {
        "name": target.name,
        "meaning": target.meaning,
        "positive": [target.levels[value] for value in target.positive],
        "disclaimer": schema.disclaimer,
    }


def _about(score: "PointScore") -> dict[str, Any]:
    return {
        "name": score.name,
        "cut": score.cut,
        "item_count": len(score.items),
        "lacks": list(score.lacks),
        "made_for": score.made_for,
    }


def _per_1000(counts: metrics.Confusion) -> dict[str, int]:
    """Of 1,000 rows: whole numbers that add up to 1,000 (largest remainders)."""
    missed = counts.positives - counts.true_positives
    cleared = counts.rows - counts.true_positives - counts.false_positives - missed
    exact = np.array([counts.true_positives, counts.false_positives, missed, cleared]) * 1000 / counts.rows
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: 1000 - whole.sum()]] += 1
    names = ("true_positives", "false_positives", "false_negatives", "true_negatives")
    return dict(zip(names, whole.tolist(), strict=True))


def _choices(labels: Any, risks: Floats, threshold: float) -> list[dict[str, Any]]:
    """What other thresholds would mean."""
    choices = []
    for cut in sorted({*_CUTS, float(threshold)}):
        counts = metrics.confusion(labels, risks, cut)
        entry = {
            name: _number(float(getattr(counts, name)))
            for name in ("recall", "specificity", "precision", "flagged")
        }
        choices.append({"threshold": cut, "chosen": cut == threshold, **entry})
    return choices


def _calibration_bins(labels: Any, risks: Floats) -> list[dict[str, Any]]:
    """Mean risk and observed share in groups of equal size: 20, fewer where rows are few or tied."""
    groups = min(20, max(4, len(risks) // 250))
    edges = np.unique(np.quantile(risks, np.arange(1, groups) / groups))
    group = np.searchsorted(edges, risks, side="right")
    bins = []
    for i in np.unique(group):
        inside = group == i
        rows, positives = int(inside.sum()), int(labels[inside].sum())
        low, high = metrics.wilson_interval(positives, rows)
        bins.append(
            {
                "rows": rows,
                "predicted": float(risks[inside].mean()),
                "observed": positives / rows,
                "low": low,
                "high": high,
            }
        )
    return bins


def _decision_curve(model: list[dict[str, Any]], cuts: Floats, prevalence: float) -> dict[str, Any]:
    treat_all = prevalence - (1 - prevalence) * cuts / (1 - cuts)
    return {
        "threshold": cuts.tolist(),
        "model": [estimate["value"] for estimate in model],
        "low": [estimate["low"] for estimate in model],
        "high": [estimate["high"] for estimate in model],
        "all": treat_all.tolist(),
    }


def _distribution(labels: Any, risks: Floats) -> dict[str, Any]:
    """Counts of risks in steps of 0.02, by outcome."""
    edges = np.linspace(0, 1, 51)
    return {
        "edges": edges.round(2).tolist(),
        "negative": np.histogram(risks[labels == 0], edges)[0].tolist(),
        "positive": np.histogram(risks[labels == 1], edges)[0].tolist(),
    }


def _roc_points(ranking: Ranking) -> dict[str, list[float]]:
    """The ROC curve at up to 101 thresholds, equally spaced in rows."""
    rows = len(ranking.order)
    ends = np.minimum(np.arange(0, 101) * rows // 100, rows - 1)
    group = np.unique(np.searchsorted(ranking.starts, ends, side="right") - 1)
    decisions = metrics.confusion_of_counts(metrics.count(ranking, np.ones((1, rows))), ranking.scores[group])
    false_positive_rate, recall = 1 - decisions.specificity[0], decisions.recall[0]
    return {
        "false_positive_rate": [0.0, *false_positive_rate[::-1].tolist()],
        "recall": [0.0, *recall[::-1].tolist()],
    }
