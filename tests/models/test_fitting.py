"""Folds, calibration and threshold: what validation rows decide, and that repeats keep together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steps.data.errors import UserError
from steps.data.files import PERSON_COLUMN
from steps.data.schema import Schema
from steps.measures import metrics
from steps.models import cross_validation, families, fitting
from tests.made_up.clinic import SCHEMA, clinic_schema
from tests.made_up.clinic_models import clinic_frame


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return clinic_schema(tmp_path_factory.mktemp("schema"))


def test_repeats_of_a_row_share_a_fold(schema: Schema) -> None:
    frame = clinic_frame(400)
    twice = pd.concat([frame, frame.assign(__target__=1 - frame["__target__"])], ignore_index=True)
    fold = cross_validation.folds(twice, schema, 3)
    assert (fold[:400] == fold[400:]).all()
    assert set(fold) == {0, 1, 2}
    assert np.bincount(fold).min() > 200


def _visits(people: int) -> pd.DataFrame:
    """Three visits of each person with other answers each time, as preprocess stores them."""
    frame = clinic_frame(3 * people)
    frame[PERSON_COLUMN] = np.tile(np.arange(1, people + 1, dtype=np.uint64), 3)
    return frame


def test_all_rows_of_a_person_share_a_fold_and_a_sample(schema: Schema) -> None:
    """Where rows name a person, nobody is learnt from and judged by in one fold."""
    visits = _visits(400)
    fold = cross_validation.folds(visits, schema, 3).reshape(3, 400)
    assert (fold == fold[0]).all()
    assert np.bincount(fold[0]).min() > 90
    sampled = cross_validation.sample(visits, schema, 600)[PERSON_COLUMN]
    assert sampled.nunique() == pytest.approx(200, rel=0.2)
    assert (sampled.value_counts() == 3).all()


def test_a_trial_goes_by_the_people_of_its_table(schema: Schema, tmp_path: Path) -> None:
    """A table that names people gives the loss of folds by person, not that of folds by row."""
    (tmp_path / "clinic.yaml").write_text(SCHEMA)
    visits = _visits(300)
    params = families.check_params("logistic_regression", {})
    losses = {}
    for name, table in (("people", visits), ("rows", visits.drop(columns=PERSON_COLUMN))):
        table.to_parquet(tmp_path / f"{name}.parquet")
        objective = cross_validation.make_objective(
            tmp_path / f"{name}.parquet", tmp_path / "clinic.yaml", fold_count=3, rows=10_000, seed=0
        )
        losses[name] = objective("logistic_regression", params)["loss"]
    by_person = cross_validation.folds(visits, schema, 3)
    expected = cross_validation.cross_validate("logistic_regression", params, visits, schema, by_person, 0)
    assert losses["people"] == expected["loss"] != losses["rows"]


def test_a_sample_keeps_repeats_together_and_is_always_the_same(schema: Schema) -> None:
    frame = clinic_frame(3000).drop_duplicates(list(schema.feature_names))
    twice = pd.concat([frame, frame])
    sampled = cross_validation.sample(twice, schema, len(twice) // 3)
    assert len(sampled) == pytest.approx(len(twice) / 3, rel=0.15)
    assert (sampled.index.value_counts() == 2).all()
    assert cross_validation.sample(twice, schema, len(twice) // 3).equals(sampled)
    assert cross_validation.sample(twice, schema, len(twice)) is twice


def test_an_objective_reads_its_table_and_measures_every_figure(schema: Schema, tmp_path: Path) -> None:
    """Mean and spread over folds of each score; the loss is the mean log loss."""
    (tmp_path / "clinic.yaml").write_text(SCHEMA)
    clinic_frame(900).to_parquet(tmp_path / "train.parquet")
    objective = cross_validation.make_objective(
        tmp_path / "train.parquet", tmp_path / "clinic.yaml", fold_count=3, rows=10_000, seed=0
    )
    result = objective("logistic_regression", families.check_params("logistic_regression", {}))
    scores = [
        f"{s}_{part}"
        for s in ("log_loss", "roc_auc", "average_precision", "brier")
        for part in ("mean", "spread")
    ]
    assert set(result) == {"loss", *scores, "fit_seconds", "rows_per_second"}
    assert result["loss"] == result["log_loss_mean"]
    assert 0.6 < result["roc_auc_mean"] < 0.9
    again = objective("logistic_regression", families.check_params("logistic_regression", {}))
    assert again["loss"] == result["loss"]


@pytest.mark.parametrize("recall", [0.5, 0.8, 0.81, 1.0])
def test_the_threshold_is_the_highest_that_reaches_the_recall(recall: float) -> None:
    rng = np.random.default_rng(0)
    risk, y = rng.random(1000), (rng.random(1000) < 0.2).astype(np.int8)
    threshold = fitting.choose_threshold(y, risk, recall)
    assert metrics.confusion(y, risk, threshold).recall >= recall
    assert metrics.confusion(y, risk, threshold + 2e-6).recall < recall


def test_a_threshold_is_never_1() -> None:
    """The score bin that starts at the threshold must not be empty of numbers."""
    assert fitting.choose_threshold(np.array([0, 1]), np.array([0.2, 1.0]), 0.8) < 1


def test_without_positive_rows_there_is_no_threshold() -> None:
    with pytest.raises(UserError, match="no positive outcome"):
        fitting.choose_threshold(np.array([0, 0]), np.array([0.2, 1.0]), 0.8)


def test_a_calibration_is_kept_only_where_it_helps(schema: Schema) -> None:
    """A sound model stays as it is; one that saw three times too few negatives is put right."""
    train, validation = clinic_frame(3000, 1), clinic_frame(2000, 2)
    sound = fitting.fit("logistic_regression", {}, train, schema, seed=0, threads=1)
    kept = fitting.calibrate_if_better(sound, validation, schema)
    assert kept.method == "none"
    assert kept.model is sound
    assert set(kept.log_losses) == {"none", "sigmoid", "isotonic"}

    few = train[(train["__target__"] == 1) | (np.arange(len(train)) % 3 == 0)]
    skewed = fitting.fit("logistic_regression", {}, few, schema, seed=0, threads=1)
    mended = fitting.calibrate_if_better(skewed, validation, schema)
    assert mended.method in ("sigmoid", "isotonic")
    X, y = validation[list(schema.feature_names)], validation["__target__"]
    assert metrics.observed_expected(y, families.predict_risk(skewed, X)) < 0.8
    assert metrics.observed_expected(y, families.predict_risk(mended.model, X)) == pytest.approx(1, abs=0.02)


def test_few_validation_rows_say_nothing_about_calibration(schema: Schema) -> None:
    model = fitting.fit("logistic_regression", {}, clinic_frame(600), schema, seed=0, threads=1)
    assert fitting.calibrate_if_better(model, clinic_frame(60, 2), schema).method == "none"


def test_a_fitted_model_knows_all_its_hyperparameters_and_reaches_its_recall(schema: Schema) -> None:
    train, validation = clinic_frame(1500, 1), clinic_frame(800, 2)
    fitted = fitting.fit_model(
        "histogram_gradient_boosting",
        {"max_iter": 60},
        fitting.Parts(train, validation),
        schema,
        recall=0.8,
        seed=0,
        threads=1,
    )
    assert fitted.params == {**families.check_params("histogram_gradient_boosting", {}), "max_iter": 60}
    risk = families.predict_risk(fitted.model, validation[list(schema.feature_names)])
    assert metrics.confusion(validation["__target__"], risk, fitted.threshold).recall >= 0.8
    assert fitting.at_odds(fitted, None) is fitted
    assert fitting.at_odds(fitted, 9.0).threshold == pytest.approx(0.1)  # one is worth nine


@pytest.mark.parametrize("family", ["logistic_regression", "histogram_gradient_boosting"])
def test_threads_do_not_change_the_answers(family: families.Family, schema: Schema) -> None:
    """One thread or two, the same predictions to the last bit."""
    train, params = clinic_frame(1500), {"histogram_gradient_boosting": {"max_iter": 60}}.get(family, {})
    X = train[list(schema.feature_names)]
    fits = [fitting.fit(family, params, train, schema, seed=0, threads=threads) for threads in (1, 2)]
    assert families.prediction_digest(fits[0], X) == families.prediction_digest(fits[1], X)


def test_what_cannot_be_learned_from_is_named(schema: Schema) -> None:
    train = clinic_frame(100)
    with pytest.raises(UserError, match="one outcome only"):
        fitting.fit("random_forest", {}, train.assign(__target__=0), schema, seed=0)
    with pytest.raises(UserError, match="no training row has a value in glucose, stage"):
        fitting.fit("random_forest", {}, train.assign(glucose=np.nan, stage=np.nan), schema, seed=0)
