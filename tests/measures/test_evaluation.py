"""An evaluation holds aggregates with intervals, for everybody and for subgroups, and never a row."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from steps.data.errors import UserError
from steps.measures import decisions, evaluation, evaluation_document, metrics
from steps.measures.evaluation import About
from steps.measures.evaluation_document import DataFacts, Evaluation, ModelFacts
from steps.measures.importance import importance
from steps.measures.scored_rows import scored_rows
from tests.made_up import made_up_study as study

THRESHOLD = 0.3
CANARY = 123.456789


@pytest.fixture(scope="module")
def rows() -> tuple[Any, Any, pd.DataFrame]:
    return study.rows()


@pytest.fixture(scope="module")
def measured(rows) -> Evaluation:
    return _evaluate(rows, predict=study.predict, replicates=100)


def _evaluate(rows: Any, seed: int = 1, replicates: int = 5, **about: Any) -> Evaluation:
    sampled = evaluation.Bootstrap(seed, replicates)
    return evaluation.evaluate(scored_rows(*rows), study.SCHEMA, THRESHOLD, sampled, **about)


def test_an_evaluation_follows_the_seed(rows, measured):
    """The same rows and seed give the same document, number for number; the seed moves intervals alone."""
    again, other = (_evaluate(rows, seed, 100, predict=study.predict) for seed in (1, 2))
    assert measured == again
    assert other.metrics.roc_auc.value == measured.metrics.roc_auc.value
    assert other.metrics.average_precision.low != measured.metrics.average_precision.low


def test_what_is_written_is_read_back(measured):
    """JSON without NaN, and the reader gives the document back."""
    text = json.dumps(evaluation_document.to_json(measured), allow_nan=False)
    assert evaluation_document.from_json(json.loads(text)) == measured


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 1}, "format 1, and this version reads format 2"),
        ({"threshold": "high"}, "threshold: float_parsing"),
        ({"metrics": {}}, "metrics.roc_auc: missing"),
    ],
)
def test_another_document_is_refused_with_the_place(measured, change, message):
    """An older format, a wrong type and an absent figure are named; no value is."""
    content = evaluation_document.to_json(measured) | change
    with pytest.raises(UserError, match=message) as refused:
        evaluation_document.from_json(content)
    assert "high" not in str(refused.value)


def test_every_metric_is_the_plain_one_inside_its_interval(rows, measured):
    """Values come from all rows; each lies within its interval."""
    y, risk, _ = rows
    found, decision = vars(measured.metrics), metrics.confusion(y, risk, THRESHOLD)
    plain = {
        "roc_auc": metrics.roc_auc(y, risk),
        "average_precision": metrics.average_precision(y, risk),
        "brier": metrics.brier(y, risk),
        "log_loss": metrics.log_loss(y, risk),
        "observed_expected": metrics.observed_expected(y, risk),
        "calibration_slope": metrics.calibration(y, risk).slope,
        "calibration_intercept": metrics.calibration(y, risk).intercept,
        **{
            name: float(getattr(decision, name))
            for name in (
                *("recall", "specificity", "precision", "negative_predictive_value"),
                *("flagged", "accuracy", "f1"),
            )
        },
        "net_benefit": float(metrics.net_benefit(decision, THRESHOLD)),
    }
    assert found.keys() == plain.keys()
    for name, value in plain.items():
        assert found[name].value == pytest.approx(value), name
        assert found[name].low < value < found[name].high, name


def test_a_subgroup_is_measured_on_its_own_rows(rows, measured):
    """Size, prevalence and metrics of a subgroup are those of its rows alone; its gap is to everybody."""
    y, risk, frame = rows
    inside = (frame["dose"] >= 500).to_numpy()
    group = next(group for group in measured.subgroups if group.name == "High dose")
    assert (group.rows, group.positives) == (inside.sum(), y[inside].sum())
    assert group.roc_auc.value == pytest.approx(metrics.roc_auc(y[inside], risk[inside]))
    assert group.observed_expected.value == pytest.approx(y[inside].sum() / risk[inside].sum())
    assert group.recall.value == pytest.approx(
        float(metrics.confusion(y[inside], risk[inside], THRESHOLD).recall)
    )
    assert group.headline
    gap = measured.metrics.roc_auc.value - group.roc_auc.value
    assert group.roc_auc_difference.value == pytest.approx(gap)


def test_a_tiny_subgroup_is_suppressed_and_cannot_be_worked_out(measured):
    """The attic has too few people; the next smallest ward goes too, or subtraction gives it away."""
    shown = [group.name for group in measured.subgroups if group.column == "ward"]
    assert len(shown) == 1
    assert {*shown, *measured.hidden_subgroups} == {"North", "South", "Attic"}


def test_a_point_score_stands_beside_the_model_on_the_same_rows(rows, measured):
    """Its figures are its own; 'fewer flagged' is what the model saves at the same sensitivity."""
    y, risk, frame = rows
    points = study.SCHEMA.point_scores[0].points(frame)
    found, decision = measured.point_scores[0], metrics.confusion(y, points, 3)
    assert found.roc_auc.value == pytest.approx(metrics.roc_auc(y, points))
    assert found.recall.value == pytest.approx(float(decision.recall))
    assert found.specificity.value == pytest.approx(float(decision.specificity))
    wanted = int(decision.true_positives)
    needed = int(np.flatnonzero(np.cumsum(y[np.argsort(-risk)]) >= wanted)[0]) + 1
    assert found.model_flagged.value == pytest.approx(needed / len(y))
    assert found.fewer_flagged.value == pytest.approx(float(decision.flagged) - needed / len(y))
    assert found.lacks == ("blood pressure",)


def test_importance_finds_what_the_model_uses(rows, measured):
    """Shuffling a column that the model reads loses ROC AUC, others none; the rows stay as they were."""
    losses = {column.name: column.loss for column in measured.importance.columns}
    assert losses["grade"] > 0.03
    assert losses["dose"] > 0.03
    assert losses["noise"] == losses["ward"] == 0
    pd.testing.assert_frame_equal(rows[2], study.rows()[2])


def test_importance_costs_no_more_than_stated(rows):
    """However many rows there are, predictions are made for a bounded sample, of the same types."""
    y, _, frame = rows
    asked = []

    def predict(features: pd.DataFrame) -> Any:
        asked.append(len(features))
        assert (features.dtypes == frame.dtypes).all()
        return study.predict(features)

    importance(predict, y, frame, study.SCHEMA.columns, seed=1, rows=200, repeats=2)
    assert asked == [200] * (1 + 2 * 4)


def test_whole_people_of_1000_add_up(measured):
    """Rounding never loses or invents a person."""
    assert sum(vars(measured.per_1000).values()) == 1000


def test_the_decision_curve_starts_like_flagging_everybody(measured):
    """At a low threshold the model gains what flagging everybody does; the range follows the prevalence."""
    curve = measured.curves.decision
    assert curve.model[0].value == pytest.approx(curve.everybody[0], abs=0.01)
    assert curve.threshold[0] == 0.01
    assert decisions.decision_thresholds(0.139)[-1] == pytest.approx(0.6)
    assert decisions.decision_thresholds(0.001)[-1] == pytest.approx(0.2)
    assert decisions.decision_thresholds(0.5)[-1] == pytest.approx(0.9)


def test_curves_hold_groups_of_rows(measured):
    """Calibration groups are of many rows, the ROC curve is thinned, the distribution counts everybody."""
    curves, count = measured.curves, measured.data.rows
    assert sum(group.rows for group in curves.calibration) == count
    assert min(group.rows for group in curves.calibration) >= 50
    assert len(curves.roc.recall) <= 102
    assert curves.roc.recall[0] == 0
    assert curves.roc.recall[-1] == 1
    assert sum(curves.distribution.positive) + sum(curves.distribution.negative) == count


def test_synthetic_rows_or_a_synthetic_model_make_it_synthetic(rows):
    """Either is enough."""
    for about, expected in (
        (About(data=DataFacts(1500, 500, 1 / 3, "synthetic")), True),
        (About(ModelFacts(synthetic=True)), True),
        (About(), False),
    ):
        assert _evaluate(rows, about=about).synthetic is expected


def test_a_planted_value_is_nowhere_in_the_evaluation(rows):
    """An extreme value in one row leaves no trace in the document: it holds aggregates only."""
    y, risk, frame = rows
    frame = frame.copy()
    frame.loc[7, "noise"] = CANARY
    frame.loc[8, "dose"] = CANARY
    found = _evaluate((y, risk, frame), predict=study.predict)
    text = json.dumps(evaluation_document.to_json(found))
    assert "123.45" not in text


@pytest.mark.parametrize(
    ("y", "risk", "message"),
    [
        ([0, 0, 0], [0.1, 0.2, 0.3], "both classes"),
        ([0, 1], [0.1, 0.2, 0.3], "cannot be one split"),
        ([0, 1, 1], [0.1, 0.2, 1.3], "probabilities"),
        ([0, 1, 1], [0.1, 0.2, np.nan], "probabilities"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(rows, y, risk, message):
    """One class, lengths that differ and numbers that are no probabilities are errors."""
    with pytest.raises(ValueError, match=message):
        scored_rows(y, risk, rows[2].head(3))


def test_scalars_are_flat_numbers_for_a_tracking_server(measured):
    """Every metric with its interval, and the ROC AUC of the groups that are shown."""
    flat = evaluation_document.scalars(measured)
    assert flat["roc_auc_low"] < flat["roc_auc"] < flat["roc_auc_high"]
    assert "roc_auc High dose" in flat
    assert "roc_auc Attic" not in flat
    assert all(isinstance(value, float) for value in flat.values())
