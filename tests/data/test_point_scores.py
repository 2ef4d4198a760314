"""The point scores of the bundled schema give what their published forms give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from steps.data.schema import PointScore, Schema
from steps.data.schema_file import SchemaError, load

ROOT = Path(__file__).parents[2]
# The lowest code of an age group whose form is asked at that age.
AGE = {30: 3, 37: 4, 42: 5, 47: 6, 52: 7, 57: 8, 62: 9, 67: 10, 82: 13}


@pytest.fixture(scope="module")
def bundled() -> Schema:
    return load(ROOT / "data" / "brfss2015.yaml")


def _points(schema: Schema, name: str, **answers: float) -> int:
    score: PointScore = next(score for score in schema.point_scores if score.name == name)
    person = {"Age": AGE[30], "BMI": 22, "Sex": 0, "HighBP": 0, "PhysActivity": 1, "Fruits": 1, "Veggies": 1}
    frame = pd.DataFrame([person | answers], dtype="float64")
    return int(score.points(frame)[0])


@pytest.mark.parametrize(
    ("age", "answers", "points"),
    [
        (30, {}, 0),
        (42, {}, 0),
        (47, {}, 2),
        (52, {}, 2),
        (57, {}, 3),
        (62, {}, 3),
        (67, {}, 4),
        (30, {"BMI": 24}, 0),
        (30, {"BMI": 25}, 1),
        (30, {"BMI": 30}, 1),  # the form: 25 to 30; 3 points above 30
        (30, {"BMI": 31}, 3),
        (30, {"PhysActivity": 0}, 2),
        (30, {"HighBP": 1}, 2),
        (30, {"Fruits": 0}, 0),  # vegetables, fruit or berries every day: one of them is enough
        (30, {"Veggies": 0}, 0),
        (30, {"Fruits": 0, "Veggies": 0}, 1),
        (52, {"BMI": 28, "PhysActivity": 0, "Fruits": 0, "Veggies": 0, "HighBP": 1}, 8),
        (82, {"BMI": 35, "PhysActivity": 0, "Fruits": 0, "Veggies": 0, "HighBP": 1}, 12),
    ],
)
def test_findrisc_is_scored_as_on_its_form(bundled: Schema, age: int, answers: dict, points: int):
    """Lindström and Tuomilehto 2003, Diabetes Care 26:725; the Finnish Diabetes Association's form."""
    assert _points(bundled, "FINDRISC", Age=AGE[age], **answers) == points


@pytest.mark.parametrize(
    ("age", "answers", "points"),
    [
        (37, {}, 0),
        (42, {}, 1),
        (47, {}, 1),
        (52, {}, 2),
        (57, {}, 2),
        (62, {}, 3),
        (82, {}, 3),
        (30, {"Sex": 1}, 1),
        (30, {"HighBP": 1}, 1),
        (30, {"PhysActivity": 0}, 1),
        (30, {"BMI": 25}, 1),
        (30, {"BMI": 29}, 1),
        (30, {"BMI": 30}, 2),
        (30, {"BMI": 39}, 2),
        (30, {"BMI": 40}, 3),
        (62, {"Sex": 1, "HighBP": 1}, 5),  # from 5 on, the form speaks of an increased risk
        (62, {"Sex": 1, "HighBP": 1, "PhysActivity": 0, "BMI": 40}, 9),
    ],
)
def test_the_ada_risk_test_is_scored_as_on_its_form(bundled: Schema, age: int, answers: dict, points: int):
    """American Diabetes Association, risk test; Bang and others 2009, Ann Intern Med 151:775."""
    assert _points(bundled, "ADA risk test", Age=AGE[age], **answers) == points


def test_no_answer_gives_no_points(bundled: Schema):
    """A missing answer counts as none of the points, also where the smallest of two columns counts."""
    for name in ("FINDRISC", "ADA risk test"):
        assert _points(bundled, name, BMI=np.nan, HighBP=np.nan, Fruits=np.nan, Veggies=0) == 0


def test_figures_on_the_survey(bundled: Schema, survey_path: Path):
    """On all of BRFSS 2015: ROC AUC, and at the cut sensitivity, specificity and share flagged."""
    survey = pd.read_parquet(survey_path)
    outcome = survey[bundled.target.name].isin(bundled.target.positive).to_numpy()
    known = {
        "ADA risk test": (0.7607, 0.8143, 0.5790, 0.4758),
        "FINDRISC": (0.7654, 0.7001, 0.7034, 0.3529),
    }
    for score in bundled.point_scores:
        points = score.points(survey)
        flagged = points >= score.cut
        figures = (
            roc_auc_score(outcome, points),
            flagged[outcome].mean(),
            1 - flagged[~outcome].mean(),
            flagged.mean(),
        )
        assert figures == pytest.approx(known[score.name], abs=0.0001)


def test_every_score_says_where_it_differs_and_why_its_cut(bundled: Schema):
    """A reader learns what the comparison cannot show."""
    for score in bundled.point_scores:
        assert score.lacks
        assert score.differs
        assert str(score.cut) in score.cut_because


def test_taking_the_smallest_needs_several_columns(tmp_path: Path):
    """`take` on one column says nothing, so it is refused with what to write."""
    text = (ROOT / "data" / "brfss2015.yaml").read_text(encoding="utf-8")
    wrong = text.replace(
        "{column: Sex, points: {0: 0, 1: 1}}", "{column: Sex, take: smallest, points: {0: 0, 1: 1}}"
    )
    assert wrong != text
    path = tmp_path / "schema.yaml"
    path.write_text(wrong, encoding="utf-8")
    with pytest.raises(SchemaError, match="take chooses between the points of several columns"):
        load(path)
