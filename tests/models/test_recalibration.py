"""A recalibrated model of every family: the same ranking, the risks that two numbers make of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steps.data.errors import UserError
from steps.data.files import TARGET_COLUMN
from steps.data.schema import Schema
from steps.measures import metrics
from steps.measures.recalibration import Recalibration
from steps.models import families, fitting, recalibration, saved
from steps.models.families import Family
from steps.models.monitor_reference import build_reference, recalibrated_reference
from steps.models.served_model import Terms
from tests.made_up.clinic import clinic_schema
from tests.made_up.clinic_models import clinic_frame

BY = Recalibration(intercept=0.7, slope=0.8)


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return clinic_schema(tmp_path_factory.mktemp("schema"))


@pytest.mark.parametrize("family", families.FAMILIES)
def test_risks_are_those_of_two_numbers_also_after_saving(
    family: Family, schema: Schema, tmp_path: Path
) -> None:
    """Saved and loaded as any other model; a glass box stays one, and so does a second recalibration."""
    train, validation, new = clinic_frame(900, 1), clinic_frame(500, 2), clinic_frame(300, 3)
    names = list(schema.feature_names)
    fitted = fitting.fit_model(
        family, {}, fitting.Parts(train, validation), schema, recall=0.8, seed=0, threads=1
    )
    before = families.predict_risk(fitted.model, new[names])
    changed = recalibration.recalibrate(fitted.model, BY, new[names], new[TARGET_COLUMN].to_numpy())
    assert families.predict_risk(changed, new[names]) == pytest.approx(BY.apply(before), abs=2e-5)
    assert isinstance(changed, Terms) is isinstance(fitted.model, Terms)
    saved.save(changed, tmp_path / "model", schema, {})
    again = saved.load(tmp_path / "model")
    assert families.predict_risk(again, new[names]) == pytest.approx(
        families.predict_risk(changed, new[names]), abs=1e-12
    )
    back = recalibration.recalibrate(
        changed, Recalibration(-0.7 / 0.8, 1 / 0.8), new[names], new[TARGET_COLUMN].to_numpy()
    )
    assert families.predict_risk(back, new[names]) == pytest.approx(before, abs=1e-4)


def test_the_ranking_stays(schema: Schema) -> None:
    """Nobody overtakes anybody, whatever the slope above 0."""
    train, validation, new = clinic_frame(900, 1), clinic_frame(500, 2), clinic_frame(300, 3)
    names = list(schema.feature_names)
    fitted = fitting.fit_model(
        "random_forest", {}, fitting.Parts(train, validation), schema, recall=0.8, seed=0, threads=1
    )
    changed = recalibration.recalibrate(fitted.model, BY, new[names], new[TARGET_COLUMN].to_numpy())
    before, after = (families.predict_risk(model, new[names]) for model in (fitted.model, changed))
    order = np.argsort(before, kind="stable")
    assert (np.diff(after[order]) >= -1e-12).all()


@pytest.fixture(scope="module")
def champion(schema: Schema) -> fitting.Fitted:
    parts = fitting.Parts(clinic_frame(2000, 1), clinic_frame(800, 2))
    return fitting.fit_model("logistic_regression", {}, parts, schema, recall=0.8, seed=0)


def _changed(champion: fitting.Fitted, schema: Schema, rows: int) -> pd.DataFrame:
    """New people whose outcome comes 1.2 log odds more often than the champion says."""
    frame = clinic_frame(rows, 9)
    risk = Recalibration(1.2, 1.0).apply(
        families.predict_risk(champion.model, frame[list(schema.feature_names)])
    )
    happens = np.random.default_rng(0).random(rows) < risk
    return frame.assign(**{TARGET_COLUMN: happens.astype(np.int8)})


def test_one_half_of_new_labels_mends_the_risks_of_the_other(
    champion: fitting.Fitted, schema: Schema
) -> None:
    """Observed / expected of the judging half is right, no row is in both halves, and the same people are
    flagged."""
    rows, names = _changed(champion, schema, 12_000), list(schema.feature_names)
    made = recalibration.on_new_labels(champion.model, rows, schema, champion.threshold)
    assert made.fitted_rows + len(made.judge) == 12_000
    assert made.changes_something
    assert 0.4 < len(made.judge) / 12_000 < 0.6
    before, after = (families.predict_risk(m, made.judge[names]) for m in (champion.model, made.model))
    y = made.judge[TARGET_COLUMN].to_numpy()
    assert metrics.observed_expected(y, before) > 1.5
    assert metrics.observed_expected(y, after) == pytest.approx(1, abs=0.05)
    flagged = (before >= champion.threshold, after >= made.threshold)
    assert (flagged[0] == flagged[1]).mean() > 0.999


def test_rows_that_the_model_was_trained_on_are_left_out(champion: fitting.Fitted, schema: Schema) -> None:
    """They stay with all their repeats, whatever their outcome."""
    rows = _changed(champion, schema, 4000)
    trained_on = rows.iloc[:1000].assign(**{TARGET_COLUMN: 0})
    made = recalibration.on_new_labels(champion.model, rows, schema, champion.threshold, trained_on)
    assert made.known_rows >= 1000
    assert made.fitted_rows + len(made.judge) + made.known_rows == 4000


def test_labels_that_nothing_can_be_fitted_on_are_refused_in_words(
    champion: fitting.Fitted, schema: Schema
) -> None:
    """One outcome only, no rows at all, or risks that stand on their head."""
    rows, names = _changed(champion, schema, 3000), list(schema.feature_names)
    for some in (rows[rows[TARGET_COLUMN] == 1], rows.iloc[:0]):
        with pytest.raises(UserError, match="labelled rows are left"):
            recalibration.on_new_labels(champion.model, some, schema, champion.threshold)
    risk = families.predict_risk(champion.model, rows[names])
    reversed_rows = rows.assign(**{TARGET_COLUMN: (risk < np.median(risk)).astype(np.int8)})
    noise = np.random.default_rng(0).random(len(rows)) < 0.2
    reversed_rows.loc[noise, TARGET_COLUMN] = 1 - reversed_rows.loc[noise, TARGET_COLUMN]
    with pytest.raises(UserError, match="higher risks have the outcome less often"):
        recalibration.on_new_labels(champion.model, reversed_rows, schema, champion.threshold)


def test_its_reference_keeps_the_features_and_counts_the_new_risks(
    champion: fitting.Fitted, schema: Schema
) -> None:
    """What a monitor compares rows with stays; what it compares risks with are the judging half's."""
    info = {
        "name": "readmission",
        "version": "3",
        "run_id": "a" * 32,
        "family": "logistic_regression",
        "trained_at": 1,
        "synthetic": True,
        "kind": "synthetic",
        "data_digest": "d",
    }
    before = build_reference(
        champion.model,
        clinic_frame(2000, 1),
        clinic_frame(800, 2),
        schema,
        threshold=champion.threshold,
        info=info,
    )
    rows = _changed(champion, schema, 4000)
    made = recalibration.on_new_labels(champion.model, rows, schema, champion.threshold)
    after = recalibrated_reference(
        before, made.model, made.judge, schema, threshold=made.threshold, run_id="b" * 32, trained_at=2
    )
    assert after.features == before.features
    assert after.model.digest != before.model.digest
    assert (after.model.run_id, after.model.version) == ("b" * 32, None)
    assert after.score.threshold == made.threshold
    assert after.validation["rows"] == len(made.judge)
    assert after.validation["observed_expected"] == pytest.approx(1, abs=0.1)
