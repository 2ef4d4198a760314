"""Evaluation of one model on one set of rows: aggregates with 95 % intervals, never a row.

`steps.measures.evaluation_document` is the form of the result, `steps.measures.metrics` has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steps.data.disclosure import SMALLEST_CELL, hidden_lines
from steps.data.documents import defined
from steps.measures import concordance, metrics, missing_answers
from steps.measures.evaluation_document import (
    CalibrationGroup,
    Choice,
    Comparison,
    Curves,
    DataFacts,
    DecisionCurve,
    Difference,
    Distribution,
    Estimate,
    Evaluation,
    Feature,
    Group,
    Method,
    ModelFacts,
    Per1000,
    Performance,
    PointScoreResult,
    RocCurve,
    SchemaFacts,
    TargetFacts,
)
from steps.measures.importance import Predict, importance
from steps.measures.metrics import Counts, Floats, Ranking

if TYPE_CHECKING:
    from pandas import DataFrame

    from steps.data.schema import PointScore, Schema, Subgroup

_CUTS = (0.05, 0.10, 0.15, 0.20, 0.30, 0.40, 0.50)
_LOSSES = ("brier", "log_loss")
_DECISION = ("recall", "precision", "specificity", "flagged", "accuracy", "f1")

Statistics = Callable[[Floats, Counts], dict[str, Floats]]


@dataclass(frozen=True)
class ScoredRows:
    """Rows with their outcomes and the risks that a model gives them.

    `y` (rows,) of 0 and 1, `risk` (rows,) in [0, 1], `frame` the valid frame of the same rows.
    """

    y: NDArray[np.int8]
    risk: Floats
    frame: DataFrame

    @property
    def positives(self) -> int:
        """Rows with the outcome."""
        return int(self.y.sum())

    @property
    def prevalence(self) -> float:
        """Share of rows with the outcome."""
        return self.positives / len(self.y)


def scored_rows(y: ArrayLike, risk: ArrayLike, frame: DataFrame) -> ScoredRows:
    """Rows to evaluate, checked.

    Raises:
        ValueError: one class is absent, the lengths differ or a risk is no probability: no metric is defined.
    """
    rows = ScoredRows(np.asarray(y, dtype=np.int8), np.asarray(risk, dtype=np.float64), frame)
    if not len(rows.y) == len(rows.risk) == len(frame):
        raise ValueError(
            f"{len(rows.y)} outcomes, {len(rows.risk)} risks and {len(frame)} rows cannot be one split"
        )
    if not 0 < rows.positives < len(rows.y):
        raise ValueError(
            f"an evaluation needs both classes: {rows.positives} of {len(rows.y)} rows are positive"
        )
    if not (np.isfinite(rows.risk).all() and rows.risk.min() >= 0 and rows.risk.max() <= 1):
        raise ValueError("risks must be probabilities from 0 to 1")
    return rows


def evaluate(
    rows: ScoredRows,
    schema: Schema,
    threshold: float,
    *,
    seed: int,
    replicates: int = metrics.REPLICATES,
    model: ModelFacts | None = None,
    kind: str = "private",
    digest: str | None = None,
    predict: Predict | None = None,
) -> Evaluation:
    """Everything that is reported about a model on one set of rows.

    A person is flagged whose risk reaches `threshold`. `model`, `kind` and `digest` (of the data) are facts
    to carry along; the result is synthetic where model or data are. With `predict` (features to risks)
    permutation importance is measured too.
    """
    about = model or ModelFacts()
    cuts = decision_thresholds(rows.prevalence)
    shown = shown_subgroups(rows, schema.subgroups)
    ranking = metrics.rank(rows.y, rows.risk)
    parts: dict[str, Statistics] = {"": _overall(rows, threshold, cuts)}
    for group in shown:
        parts[f"subgroup {group.name}"] = _within(rows, threshold, np.asarray(group.mask(rows.frame)))
    for score in schema.point_scores:
        parts[f"score {score.name}"] = _points(rows.y, score.points(rows.frame), score.cut)
    found = _estimates(parts, ranking, len(rows.y), seed, replicates)
    benefit = found[""].pop("net_benefit")
    return Evaluation(
        schema=SchemaFacts(schema.name, schema.title, schema.digest),
        features=tuple(Feature(c.name, c.meaning, c.unit) for c in schema.columns),
        target=_target(schema),
        model=about,
        data=DataFacts(len(rows.y), rows.positives, rows.prevalence, kind, digest),
        method=Method(metrics.LEVEL, replicates, seed, SMALLEST_CELL),
        threshold=float(threshold),
        metrics=Performance(**found[""]),
        per_1000=_per_1000(metrics.confusion(rows.y, rows.risk, threshold)),
        choices=_choices(rows, threshold),
        curves=Curves(
            _calibration_groups(rows),
            DecisionCurve(tuple(cuts.tolist()), tuple(benefit), _everybody(rows.prevalence, cuts)),
            _distribution(rows),
            _roc_curve(ranking),
        ),
        subgroups=tuple(_group(group, rows, found[f"subgroup {group.name}"]) for group in shown),
        hidden_subgroups=tuple(group.name for group in schema.subgroups if group not in shown),
        point_scores=tuple(
            _point_score(score, rows, found[f"score {score.name}"]) for score in schema.point_scores
        ),
        importance=None
        if predict is None
        else importance(predict, rows.y, rows.frame[list(schema.feature_names)], schema.columns, seed),
        concordance=concordance.measure(rows.y, rows.risk),
        missing_answers=None
        if predict is None
        else missing_answers.measure(
            predict, rows.y, rows.frame[list(schema.feature_names)], schema, threshold, seed
        ),
        synthetic=about.synthetic or kind == "synthetic",
    )


def compare(
    y: ArrayLike,
    risk_new: ArrayLike,
    risk_champion: ArrayLike,
    seed: int,
    replicates: int = metrics.REPLICATES,
) -> Comparison:
    """New model less champion on the same rows, paired: what the gates judge and the report shows."""
    found = metrics.paired_differences(y, risk_new, risk_champion, seed, replicates)
    differences = {
        name: Difference(
            defined(entry["first"]),
            defined(entry["second"]),
            defined(entry["difference"]),
            defined(entry["low"]),
            defined(entry["high"]),
        )
        for name, entry in found.items()
    }
    return Comparison(len(np.asarray(y)), metrics.LEVEL, replicates, differences)


def decision_thresholds(prevalence: float) -> Floats:
    """Thresholds of the decision curve: 1 % up to four times the prevalence, within 20 % and 90 %."""
    highest = min(90, max(20, 5 * math.ceil(4 * prevalence * 20)))
    cuts: Floats = np.arange(1, highest + 1) / 100
    return cuts


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
    """The value with the percentiles of its replicates; a list of estimates for an array of values."""
    if np.ndim(value):
        return [_estimate(own, samples[:, i]) for i, own in enumerate(value)]
    low, high = metrics.interval(samples)
    return Estimate(defined(float(value)), defined(low), defined(high))


def _overall(scored: ScoredRows, threshold: float, cuts: Floats) -> Statistics:
    labels, risks = scored.y, scored.risk
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


def _within(rows: ScoredRows, threshold: float, mask: Any) -> Statistics:
    ranking, expected = metrics.rank(rows.y, rows.risk, np.flatnonzero(mask)), rows.risk * mask

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


def shown_subgroups(rows: ScoredRows, subgroups: Sequence[Subgroup]) -> list[Subgroup]:
    """The subgroups whose figures may be shown.

    Subgroups of one column are one table, whether or not they overlap: see `steps.data.disclosure`.
    """
    masks = [np.asarray(group.mask(rows.frame)) for group in subgroups]
    shown = np.ones(len(masks), dtype=np.bool_)
    for column in {group.column for group in subgroups}:
        own = [i for i, group in enumerate(subgroups) if group.column == column]
        members, place = np.unique(np.array([masks[i] for i in own]), axis=1, return_inverse=True)
        sizes = np.bincount(place.ravel()).astype(np.float64)
        positives = np.bincount(place.ravel(), weights=rows.y).astype(np.float64)
        peopled = members.astype(np.float64) @ sizes > 0
        shown[own] = peopled & ~hidden_lines(members, sizes, positives, sizes - positives)
    return [group for group, show in zip(subgroups, shown, strict=True) if show]


def _group(group: Subgroup, rows: ScoredRows, figures: Mapping[str, Estimate]) -> Group:
    mask = np.asarray(group.mask(rows.frame))
    size, positives = int(mask.sum()), int(rows.y[mask].sum())
    return Group(group.name, group.column, group.headline, size, positives, positives / size, **figures)


def _target(schema: Schema) -> TargetFacts:
    target = schema.target
    positive = tuple(target.levels[value] for value in target.positive)
    return TargetFacts(target.name, target.meaning, positive, schema.disclaimer)


def _point_score(score: PointScore, rows: ScoredRows, figures: Mapping[str, Estimate]) -> PointScoreResult:
    curve = _roc_curve(metrics.rank(rows.y, score.points(rows.frame)))
    return PointScoreResult(
        score.name, score.cut, len(score.items), score.lacks, score.made_for, roc=curve, **figures
    )


def _per_1000(counts: metrics.Confusion) -> Per1000:
    """Of 1,000 rows: whole numbers that add up to 1,000 (largest remainders)."""
    missed = counts.positives - counts.true_positives
    cleared = counts.rows - counts.true_positives - counts.false_positives - missed
    exact = np.array([counts.true_positives, counts.false_positives, missed, cleared]) * 1000 / counts.rows
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: 1000 - whole.sum()]] += 1
    return Per1000(*whole.tolist())


def _choices(rows: ScoredRows, threshold: float) -> tuple[Choice, ...]:
    """What other thresholds would mean."""
    choices = []
    for cut in sorted({*_CUTS, float(threshold)}):
        counts = metrics.confusion(rows.y, rows.risk, cut)
        rates = (
            defined(float(rate))
            for rate in (counts.recall, counts.specificity, counts.precision, counts.flagged)
        )
        choices.append(Choice(cut, cut == threshold, *rates))
    return tuple(choices)


def _calibration_groups(rows: ScoredRows) -> tuple[CalibrationGroup, ...]:
    """Mean risk and observed share in groups of equal size: 20, fewer where rows are few or tied."""
    count = min(20, max(4, len(rows.y) // 250))
    edges = np.unique(np.quantile(rows.risk, np.arange(1, count) / count))
    place = np.searchsorted(edges, rows.risk, side="right")
    groups = []
    for i in np.unique(place):
        inside = place == i
        size, positives = int(inside.sum()), int(rows.y[inside].sum())
        interval = metrics.wilson_interval(positives, size)
        groups.append(CalibrationGroup(size, float(rows.risk[inside].mean()), positives / size, *interval))
    return tuple(groups)


def _everybody(prevalence: float, cuts: Floats) -> tuple[float, ...]:
    """Net benefit of flagging everybody at each threshold."""
    return tuple((prevalence - (1 - prevalence) * cuts / (1 - cuts)).tolist())


def _distribution(rows: ScoredRows) -> Distribution:
    """Counts of risks in steps of 0.02, by outcome."""
    edges = np.linspace(0, 1, 51)
    negative, positive = (np.histogram(rows.risk[rows.y == label], edges)[0].tolist() for label in (0, 1))
    return Distribution(tuple(edges.round(2).tolist()), tuple(negative), tuple(positive))


def _roc_curve(ranking: Ranking) -> RocCurve:
    """The ROC curve at up to 101 thresholds, equally spaced in rows."""
    rows = len(ranking.order)
    ends = np.minimum(np.arange(0, 101) * rows // 100, rows - 1)
    group = np.unique(np.searchsorted(ranking.starts, ends, side="right") - 1)
    decisions = metrics.confusion_of_counts(metrics.count(ranking, np.ones((1, rows))), ranking.scores[group])
    false_positive_rate, recall = 1 - decisions.specificity[0], decisions.recall[0]
    return RocCurve((0.0, *false_positive_rate[::-1].tolist()), (0.0, *recall[::-1].tolist()))
