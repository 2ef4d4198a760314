"""Evaluation of one model on one set of rows: aggregates with 95 % intervals, never a row.

`steps.measures.evaluation_document` defines the result. Each figure has an interval that suits it, in closed
form where there is one (`steps.measures.intervals`); average precision and the savings against a point score
are bootstrapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from steps.data.disclosure import SMALLEST_CELL
from steps.data.documents import defined
from steps.measures import (
    concordance,
    curves,
    decisions,
    groups,
    intervals,
    metrics,
    missing_answers,
    outcome_levels,
    point_scores,
)
from steps.measures.delong import placements
from steps.measures.evaluation_document import (
    ChanceOfRecall,
    Curves,
    DataFacts,
    Estimate,
    Evaluation,
    Feature,
    Method,
    ModelFacts,
    Performance,
    SchemaFacts,
    TargetFacts,
    TermSize,
)
from steps.measures.importance import Predict, importance
from steps.measures.metrics import Confusion, Floats, Ranking
from steps.measures.point_scores import ScoreOnRows, TrainingRows
from steps.measures.scored_rows import ScoredRows
from steps.measures.smooth_calibration import smooth_calibration

if TYPE_CHECKING:
    from steps.data.schema import Schema


@dataclass(frozen=True)
class Bootstrap:
    """Seed and number of replicates of the bootstrap."""

    seed: int
    replicates: int = metrics.REPLICATES


@dataclass(frozen=True)
class About:
    """Facts that the evaluation carries: model, data, and the validation rows with the outcome.

    `terms`: the terms of an additive model, the largest first.
    """

    model: ModelFacts = field(default_factory=ModelFacts)
    data: DataFacts | None = None
    threshold_chosen_on: int | None = None
    terms: tuple[TermSize, ...] = ()


def evaluate(
    rows: ScoredRows,
    schema: Schema,
    threshold: float,
    bootstrap: Bootstrap,
    *,
    about: About | None = None,
    predict: Predict | None = None,
    training: TrainingRows | None = None,
) -> Evaluation:
    """Evaluate a model on one set of rows.

    A person is flagged if the risk is at least `threshold`. With `predict` (features to risks) missing
    answers are tried, and permutation importance is measured unless the model's terms show it exactly. With
    `training` rows the point scores get the comparisons that are fitted to training rows. The result is
    synthetic where model or data are.
    """
    facts = about or About()
    ranking = metrics.rank(rows.y, rows.risk)
    scores = [point_scores.on_rows(score, rows, training) for score in schema.point_scores]
    sampled = _bootstrapped(ranking, scores, bootstrap)
    shown_groups = groups.shown_subgroups(rows, schema.subgroups)
    cells, hidden_cells = groups.measure_cells(rows, shown_groups)
    data = facts.data or DataFacts(len(rows.y), rows.positives, rows.prevalence)
    counts = metrics.confusion(rows.y, rows.risk, threshold)
    return Evaluation(
        schema=SchemaFacts(
            schema.name,
            schema.title,
            schema.digest,
            schema.lacks,
            schema.card,
            schema.open_topics,
            by_person=schema.person is not None,
        ),
        features=tuple(Feature(c.name, c.meaning, c.unit) for c in schema.columns),
        target=_target(schema),
        model=facts.model,
        data=data,
        method=Method(metrics.LEVEL, bootstrap.replicates, bootstrap.seed, SMALLEST_CELL),
        threshold=float(threshold),
        metrics=_performance(rows, threshold, counts, sampled["average_precision"]),
        per_1000=decisions.per_1000(counts),
        choices=decisions.choices(rows, threshold),
        policies=(
            *decisions.policies(rows, threshold),
            *(point_scores.policy(on, rows, threshold) for on in scores),
        ),
        curves=Curves(
            curves.calibration_groups(rows),
            smooth_calibration(rows.y, rows.risk),
            decisions.decision_curve(rows, ranking, scores),
            curves.distribution(rows),
            curves.roc_curve(ranking),
        ),
        outcome_levels=outcome_levels.measure(rows, schema, threshold),
        subgroups=groups.measure_groups(rows, shown_groups, threshold),
        hidden_subgroups=tuple(group.name for group in schema.subgroups if group not in shown_groups),
        cells=cells,
        hidden_cells=hidden_cells,
        point_scores=tuple(
            point_scores.result(
                on,
                rows,
                threshold,
                {name: sampled[f"{on.score.name} {name}"] for name in ("model_flagged", "fewer_flagged")},
                point_scores.refit(on.score, rows, training, schema),
            )
            for on in scores
        ),
        chance_of_recall=_chance(facts, rows),
        importance=None
        if predict is None or facts.terms
        else importance(
            predict, rows.y, rows.frame[list(schema.feature_names)], schema.columns, bootstrap.seed
        ),
        terms=facts.terms,
        concordance=concordance.measure(rows.y, rows.risk),
        missing_answers=None
        if predict is None
        else missing_answers.measure(
            predict, rows.y, rows.frame[list(schema.feature_names)], schema, threshold, bootstrap.seed
        ),
        synthetic=facts.model.synthetic or data.kind == "synthetic",
    )


def _chance(facts: About, rows: ScoredRows) -> ChanceOfRecall | None:
    """Range of recall by chance, where the threshold was chosen for a recall on a known number of rows."""
    target = facts.model.recall_target
    if target is None or not facts.threshold_chosen_on:
        return None
    return decisions.chance_of_recall(target, facts.threshold_chosen_on, rows.positives)


def _target(schema: Schema) -> TargetFacts:
    target = schema.target
    positive = tuple(target.levels[value] for value in target.positive)
    return TargetFacts(target.name, target.meaning, positive, schema.disclaimer)


def _performance(
    rows: ScoredRows, threshold: float, counts: Confusion, average_precision: Estimate
) -> Performance:
    """All measures of all rows, each with its interval."""
    placed, recalibration = placements(rows.y, rows.risk), metrics.calibration(rows.y, rows.risk)
    negatives, flagged = counts.rows - counts.positives, counts.true_positives + counts.false_positives
    cleared_rightly = negatives - counts.false_positives
    return Performance(
        roc_auc=intervals.logit_delong(placed.roc_auc, placed.standard_error, rows.rarer),
        observed_expected=groups.observed_expected(rows.y, rows.risk),
        calibration_slope=intervals.normal(recalibration.slope, recalibration.slope_error),
        calibration_intercept=intervals.normal(recalibration.intercept, recalibration.intercept_error),
        net_benefit=groups.net_benefit(counts, threshold),
        recall=intervals.wilson(counts.true_positives, counts.positives),
        specificity=intervals.wilson(cleared_rightly, negatives),
        precision=intervals.wilson(counts.true_positives, flagged),
        negative_predictive_value=intervals.wilson(cleared_rightly, counts.rows - flagged),
        flagged=intervals.wilson(flagged, counts.rows),
        brier=_mean(metrics.squared_errors(rows.y, rows.risk)),
        log_loss=_mean(metrics.log_losses(rows.y, rows.risk)),
        average_precision=average_precision,
        accuracy=intervals.wilson(counts.true_positives + cleared_rightly, counts.rows),
        f1=_f1(rows, threshold),
    )


def _mean(values: Floats) -> Estimate:
    return intervals.normal(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))


def _f1(rows: ScoredRows, threshold: float) -> Estimate:
    """F1 as a ratio of two sums over people, with the standard error of a ratio."""
    flagged = rows.risk >= threshold
    top, bottom = 2.0 * (flagged & (rows.y == 1)), flagged.astype(np.float64) + rows.y
    ratio = float(top.sum() / bottom.sum())
    return intervals.normal(ratio, float(np.sqrt(np.sum((top - ratio * bottom) ** 2)) / bottom.sum()))


def _bootstrapped(
    ranking: Ranking, scores: Sequence[ScoreOnRows], bootstrap: Bootstrap
) -> dict[str, Estimate]:
    """Average precision, and the model's savings against each score, on the same replicates."""
    rows = len(ranking.order)

    def measure(weights: Floats) -> dict[str, Floats]:
        counts = metrics.count(ranking, weights)
        figures = {"average_precision": metrics.average_precision_of_counts(counts)}
        for on in scores:
            saved = point_scores.savings(on, counts, weights)
            figures |= {f"{on.score.name} {name}": values for name, values in saved.items()}
        return figures

    values = measure(np.ones((1, rows)))
    samples: dict[str, list[Floats]] = {name: [] for name in values}
    for weights in metrics.bootstrap_weights(rows, bootstrap.replicates, bootstrap.seed):
        for name, replicate in measure(weights).items():
            samples[name].append(replicate)
    estimates = {}
    for name, value in values.items():
        low, high = metrics.interval(np.concatenate(samples[name]))
        estimates[name] = Estimate(defined(float(value[0])), defined(low), defined(high), intervals.BOOTSTRAP)
    return estimates
