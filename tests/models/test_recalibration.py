"""A recalibrated model of every family: the same ranking, the risks that two numbers make of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steps.data.files import TARGET_COLUMN
from steps.data.schema import Schema
from steps.measures.recalibration import Recalibration
from steps.models import families, fitting, recalibration, saved
from steps.models.families import Family
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
    fitted = fitting.fit_model(family, {}, train, validation, schema, recall=0.8, seed=0, threads=1)
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
    fitted = fitting.fit_model("random_forest", {}, train, validation, schema, recall=0.8, seed=0, threads=1)
    changed = recalibration.recalibrate(fitted.model, BY, new[names], new[TARGET_COLUMN].to_numpy())
    before, after = (families.predict_risk(model, new[names]) for model in (fitted.model, changed))
    order = np.argsort(before, kind="stable")
    assert (np.diff(after[order]) >= -1e-12).all()
