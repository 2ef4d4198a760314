"""Each family takes raw rows of any schema, with whatever a caller may send in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from steps.data.errors import UserError
from steps.data.schema import NumericColumn, Schema
from steps.data.schema_file import load
from steps.models import estimators, families, fitting, missing_answers
from steps.models.families import FAMILIES, Family
from tests.conftest import ROOT
from tests.made_up.clinic import clinic_schema
from tests.made_up.clinic_models import clinic_frame


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return clinic_schema(tmp_path_factory.mktemp("schema"))


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return clinic_frame(1500)


def fitted(family: Family, schema: Schema, frame: pd.DataFrame) -> Any:
    rows = missing_answers.as_they_are(frame[list(schema.feature_names)], frame["__target__"].to_numpy())
    return estimators.fit(family, {}, rows, schema, seed=3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_missing_code_means_the_same_as_null(family: Family, schema: Schema, frame: pd.DataFrame) -> None:
    """A caller may send the code of the schema or a null: the risk is the same to the last bit."""
    model = fitted(family, schema, frame)
    coded = pd.DataFrame({"glucose": [0.0], "ward": ["?"], "stage": [9.0], "smoker": [1.0]})
    null = pd.DataFrame({"glucose": [np.nan], "ward": [None], "stage": [np.nan], "smoker": [1.0]})
    named = null.assign(ward="None")  # what a served model sees of a lone null in a text column
    risks = [float(families.predict_risk(model, rows)[0]) for rows in (coded, null, named)]
    assert risks[0] == risks[1] == risks[2]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_column_moves_the_risk(family: Family, schema: Schema, frame: pd.DataFrame) -> None:
    """No column is lost between the raw row and the estimator, text columns included."""
    model = fitted(family, schema, frame)
    base = pd.DataFrame({"glucose": [5.0], "ward": ["A1"], "stage": [1.0], "smoker": [0.0]})
    other = {"glucose": 38.0, "ward": "B2", "stage": 3.0, "smoker": 1.0}
    before = families.predict_risk(model, base)[0]
    for name, value in other.items():
        changed = base.copy()
        changed[name] = [value]
        assert families.predict_risk(model, changed)[0] > before, name


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_gives_the_same_answers_to_the_last_bit(
    family: Family, schema: Schema, frame: pd.DataFrame
) -> None:
    features = frame[list(schema.feature_names)]
    digests = {families.prediction_digest(fitted(family, schema, frame), features) for _ in range(2)}
    assert len(digests) == 1


def test_examples_come_from_the_schema(schema: Schema) -> None:
    """Every value of an example is a level or lies within the range; together they cover every level."""
    rows = families.example_rows(schema, 8, nulls=True)
    assert rows["glucose"].dropna().between(2, 40).all()
    assert set(rows["ward"].dropna()) == {"A1", "B2", "NA"}
    assert set(rows["stage"].dropna()) == {1.0, 2.0, 3.0}
    assert set(rows["smoker"].dropna()) == {0.0, 1.0}
    assert rows.iloc[-1].isna().any()
    assert not rows.iloc[:-1].isna().any().any()
    assert rows["glucose"][0] == 21  # the middle of 2 to 40


@pytest.mark.parametrize("family", FAMILIES)
def test_somebody_of_whom_nothing_is_known_is_no_extreme(family: Family) -> None:
    """Trained on complete answers, a model takes missing ones for common ones, not for grave ones."""
    rng = np.random.default_rng(3)
    schema = load(ROOT / "data" / "brfss2015.yaml")
    first = {c.name: c.minimum if isinstance(c, NumericColumn) else c.codes[0] for c in schema.columns}
    columns = {name: np.full(4000, value) for name, value in first.items()}
    frame = pd.DataFrame(columns).astype("float64")
    ill = rng.random(4000) < 0.1
    for name in ("Stroke", "HeartDiseaseorAttack", "HighBP"):
        frame[name] = (rng.random(4000) < np.where(ill, 0.5, 0.02)).astype("float64")
    model = fitting.fit(family, {}, frame.assign(__target__=ill.astype("int8")), schema, seed=0)
    unknown = pd.DataFrame({name: [np.nan] for name in schema.feature_names})
    assert families.predict_risk(model, unknown)[0] < 0.25


def test_parameters_that_will_not_do_are_all_named() -> None:
    with pytest.raises(UserError) as raised:
        families.check_params("random_forest", {"trees": 5, "max_features": 7, "min_samples_leaf": 20.5})
    for word in ("trees", "max_features", "min_samples_leaf", "20 to 200"):
        assert word in str(raised.value)
    for value in (float("nan"), float("inf")):
        with pytest.raises(UserError, match="knots should be a whole number from"):
            families.check_params("logistic_regression", {"knots": value})
    with pytest.raises(UserError, match="logistic_regression"):
        families.check_params("svm", {})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_column_that_never_varies_does_no_harm(family: Family, schema: Schema, frame: pd.DataFrame) -> None:
    """Constant columns of each kind still give a model of the others."""
    constant = frame.assign(glucose=7.0, stage=2.0, ward=pd.Series("A1", frame.index, dtype="str"))
    risk = families.predict_risk(fitted(family, schema, constant), constant[list(schema.feature_names)])
    assert np.isfinite(risk).all()
    assert risk.std() > 0
