"""Point scores on the same rows as the model, and their questions with other weights.

A published score was fitted to other people and another outcome. So two comparisons are fitted to the
training rows: its points turned into risks, which a decision curve needs, and its questions with new weights,
which separates the gain of more questions from the gain of better weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from steps.data.schema import NumericColumn
from steps.measures import curves, intervals, logistic, metrics, splines
from steps.measures.delong import Placements, difference_error, placements
from steps.measures.evaluation_document import Estimate, PointScoreResult, Policy, Refitted
from steps.measures.groups import net_benefit
from steps.measures.metrics import Counts, Floats, Ranking
from steps.measures.scored_rows import ScoredRows

if TYPE_CHECKING:
    from pandas import DataFrame

    from steps.data.schema import Column, PointScore, Schema


@dataclass(frozen=True)
class TrainingRows:
    """Rows to fit comparisons to: `y` (rows,) of 0 and 1 and the valid frame of the same rows."""

    y: NDArray[np.int8]
    frame: DataFrame


@dataclass(frozen=True)
class ScoreOnRows:
    """A score's points and their ranking of the rows; `risk` is fitted to the points of training rows."""

    score: PointScore
    points: NDArray[np.int64]
    ranking: Ranking
    risk: Floats | None


def on_rows(score: PointScore, rows: ScoredRows, training: TrainingRows | None) -> ScoreOnRows:
    """The score's points for these rows, and with training rows the risk at each total."""
    points = score.points(rows.frame)
    risk = None if training is None else _risk_of(points, score.points(training.frame), training.y)
    return ScoreOnRows(score, points, metrics.rank(rows.y, points), risk)


def _risk_of(points: NDArray[np.int64], training: NDArray[np.int64], y: NDArray[np.int8]) -> Floats | None:
    """Logistic regression of the outcome on the total of points, equal totals counted once."""
    totals, total_of_row = np.unique(training, return_inverse=True)
    people = np.bincount(total_of_row)
    share = np.bincount(total_of_row, weights=y) / people
    fitted = logistic.fit(np.column_stack([np.ones(len(totals)), totals]), share, people)
    if fitted is None:
        return None
    return logistic.sigmoid(fitted.log_odds(np.column_stack([np.ones(len(points)), points])))


def result(
    on: ScoreOnRows,
    rows: ScoredRows,
    threshold: float,
    savings: Mapping[str, Estimate],
    refitted: Refitted | None,
) -> PointScoreResult:
    """All figures of one score; `savings` holds `model_flagged` and `fewer_flagged`."""
    score, placed, model = on.score, placements(rows.y, on.points), placements(rows.y, rows.risk)
    counts = metrics.confusion(rows.y, on.points, score.cut)
    negatives = counts.rows - counts.positives
    return PointScoreResult(
        name=score.name,
        cut=score.cut,
        cut_because=score.cut_because,
        item_count=len(score.items),
        lacks=score.lacks,
        differs=score.differs,
        made_for=score.made_for,
        roc_auc=intervals.logit_delong(placed.roc_auc, placed.standard_error, rows.rarer),
        roc_auc_difference=_difference(model, placed),
        recall=intervals.wilson(counts.true_positives, counts.positives),
        specificity=intervals.wilson(negatives - counts.false_positives, negatives),
        flagged=intervals.wilson(counts.true_positives + counts.false_positives, counts.rows),
        net_benefit=net_benefit(counts, threshold),
        model_flagged=savings["model_flagged"],
        fewer_flagged=savings["fewer_flagged"],
        roc=curves.roc_curve(on.ranking),
        refitted=refitted,
    )


def _difference(first: Placements, second: Placements) -> Estimate:
    error = difference_error(first, second)
    return intervals.normal(first.roc_auc - second.roc_auc, error, intervals.DELONG)


def savings(on: ScoreOnRows, model: Counts, weights: Floats) -> dict[str, Floats]:
    """Share that the model flags at the score's recall, and how many fewer that is; (replicates,) each."""
    decision = metrics.confusion_of_counts(metrics.count(on.ranking, weights), [on.score.cut])
    flagged = metrics.flagged_at_recall(model, decision.recall[:, 0])
    return {"model_flagged": flagged, "fewer_flagged": decision.flagged[:, 0] - flagged}


def policy(on: ScoreOnRows, rows: ScoredRows, threshold: float) -> Policy:
    """The policy that flags people from the score's cut on, judged at the model's threshold."""
    counts = metrics.confusion(rows.y, on.points, on.score.cut)
    flagged = intervals.wilson(counts.true_positives + counts.false_positives, counts.rows)
    name = f"{on.score.name}, from {on.score.cut} points"
    return Policy(name, flagged, net_benefit(counts, threshold))


def refit(
    score: PointScore, rows: ScoredRows, training: TrainingRows | None, schema: Schema
) -> Refitted | None:
    """Fit the score's questions with new weights: one for each level, a smooth curve for a number."""
    if training is None:
        return None
    columns = [schema.column(name) for name in score.columns]
    designs = [_design(column, training.frame, rows.frame) for column in columns]
    ones = [np.ones((len(frame), 1)) for frame in (training.frame, rows.frame)]
    fitted = logistic.fit(np.hstack([ones[0], *(design[0] for design in designs)]), training.y)
    if fitted is None:
        return None
    odds = fitted.log_odds(np.hstack([ones[1], *(design[1] for design in designs)]))
    placed, model = placements(rows.y, odds), placements(rows.y, rows.risk)
    area = intervals.logit_delong(placed.roc_auc, placed.standard_error, rows.rarer)
    return Refitted(len(training.y), area, _difference(model, placed))


def _design(column: Column, training: DataFrame, rows: DataFrame) -> tuple[Floats, Floats]:
    """Regression columns of a question, for training rows and for other rows.

    A level that no training row has, and in a numeric column a missing value where training has none, count
    as the commonest.
    """
    if isinstance(column, NumericColumn):
        return _numeric_design(*(frame[column.name].to_numpy(dtype=np.float64) for frame in (training, rows)))
    values = [frame[column.name] for frame in (training, rows)]
    people = {code: int(np.asarray(values[0] == code, dtype=np.bool_).sum()) for code in column.codes}
    commonest = max(people, key=lambda code: people[code])
    other_codes = [code for code, count in people.items() if count and code != commonest]
    dummies = [
        np.column_stack(
            [
                np.zeros((len(value), 0)),
                *(np.asarray(value == code, dtype=np.float64) for code in other_codes),
            ]
        )
        for value in values
    ]
    absent = [np.asarray(value.isna(), dtype=np.float64)[:, None] for value in values]
    if absent[0].any():
        dummies = [np.hstack(pair) for pair in zip(dummies, absent, strict=True)]
    return dummies[0], dummies[1]


def _numeric_design(training: Floats, rows: Floats) -> tuple[Floats, Floats]:
    present = training[~np.isnan(training)]
    if not len(present):
        return np.zeros((len(training), 0)), np.zeros((len(rows), 0))
    middle = float(np.median(present))
    knots = np.unique(np.quantile(present, splines.QUANTILES))
    filled = [np.where(np.isnan(values), middle, values) for values in (training, rows)]
    if len(knots) < 3:
        designs = [values[:, None] for values in filled]
    else:
        designs = [splines.restricted_cubic(values, knots)[:, 1:] for values in filled]
    absent = [np.isnan(values).astype(np.float64)[:, None] for values in (training, rows)]
    if absent[0].any():
        designs = [np.hstack(pair) for pair in zip(designs, absent, strict=True)]
    return designs[0], designs[1]
