"""What a threshold is worth, and how far chance moves what it finds."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from steps.data.files import LEVEL_COLUMN
from steps.data.schema import Target
from steps.measures import decisions, outcome_levels
from steps.measures.point_scores import TrainingRows, on_rows, refit
from steps.measures.scored_rows import scored_rows
from tests.made_up import made_up_study as study


def test_flagging_everybody_pays_exactly_below_the_prevalence():
    """Its net benefit is 0 at a threshold of the prevalence; flagging nobody's always."""
    y, risk, frame = study.rows()
    rows = scored_rows(y, risk, frame)
    model, everybody, nobody = decisions.policies(rows, rows.prevalence)
    assert everybody.net_benefit.value == pytest.approx(0, abs=1e-12)
    assert nobody.net_benefit.value == 0
    assert model.net_benefit.low > 0


def test_net_benefit_has_the_spread_of_its_bootstrap():
    """The standard error of a mean over people agrees with resampling them."""
    y, risk, frame = study.rows()
    model = decisions.policies(scored_rows(y, risk, frame), 0.3)[0].net_benefit
    generator, worth = np.random.default_rng(3), np.where(risk >= 0.3, np.where(y == 1, 1.0, -3 / 7), 0.0)
    draws = [worth[generator.integers(len(y), size=len(y))].mean() for _ in range(400)]
    assert model.value == pytest.approx(worth.mean())
    assert (model.high - model.low) / (2 * 1.96) == pytest.approx(np.std(draws), rel=0.12)


def test_chance_of_recall_holds_what_it_says():
    """Thresholds chosen for 80 % on 60 people find between the ends of the range in 95 of 100 samples."""
    generator = np.random.default_rng(5)
    promised = decisions.chance_of_recall(0.8, 60, 90)
    found = []
    for _ in range(4000):
        chosen, others = generator.random(60), generator.random(90)
        found.append(float(np.mean(others >= np.sort(chosen)[12])))
    held = np.mean([promised.low <= recall <= promised.high for recall in found])
    assert 0.92 < held < 0.98


def test_new_weights_show_what_the_questions_can_do():
    """A score of one question, refitted, ranks like that question; the model adds what it knows more."""
    y, risk, frame = study.rows(3000)
    train_y, _, train = study.rows(3000, seed=8)
    rows, training = scored_rows(y, risk, frame), TrainingRows(train_y, train)
    score = study.SCHEMA.point_scores[0]
    found = refit(score, rows, training, study.SCHEMA)
    by_points = on_rows(score, rows, training)
    assert found.rows == 3000
    assert found.roc_auc.value == pytest.approx(0.68, abs=0.04)
    assert found.roc_auc_difference.low > 0
    assert by_points.risk is not None
    assert by_points.risk.mean() == pytest.approx(y.mean(), abs=0.04)
    assert refit(score, rows, None, study.SCHEMA) is None


def test_a_level_that_training_never_saw_still_gets_a_risk():
    """It counts as the commonest level, a missing answer likewise where training has none."""
    y, risk, frame = study.rows()
    train_y, _, train = study.rows(900, seed=8)
    train = train.assign(grade=train["grade"].replace(2.0, 1.0))
    frame = frame.assign(grade=frame["grade"].where(np.arange(len(frame)) % 50 != 0))
    found = refit(
        study.SCHEMA.point_scores[0], scored_rows(y, risk, frame), TrainingRows(train_y, train), study.SCHEMA
    )
    assert found is not None
    assert found.roc_auc.value is not None


def test_what_lies_between_no_and_yes_is_judged_apart():
    """Rows, mean risk and share flagged of each level; ROC AUC without a small level that counts as no."""
    generator = np.random.default_rng(4)
    level = generator.choice([0.0, 1.0, 2.0], 900, p=[0.6, 0.2, 0.2])
    risk = np.clip(level / 4 + generator.uniform(0, 0.4, 900), 0, 1)
    levels = MappingProxyType({0.0: "no", 1.0: "nearly", 2.0: "yes"})
    schema = replace(study.SCHEMA, target=Target("ill", "Ill", levels, (2.0,)))
    rows = scored_rows(level == 2, risk, pd.DataFrame({LEVEL_COLUMN: level}))
    found = outcome_levels.measure(rows, schema, 0.5)
    assert [one.name for one in found] == ["no", "nearly", "yes"]
    assert [one.rows for one in found] == [int((level == place).sum()) for place in range(3)]
    assert found[1].mean_risk == pytest.approx(risk[level == 1].mean())
    everybody = roc_auc_score(level == 2, risk)
    assert found[1].roc_auc_without is not None
    assert found[1].roc_auc_without.value > everybody
    assert [found[0].roc_auc_without, found[2].roc_auc_without] == [None, None]
    few = level.copy()
    few[np.flatnonzero(level == 1)[5:]] = 0
    for name in (LEVEL_COLUMN, "another column"):
        hidden = scored_rows(few == 2, risk, pd.DataFrame({name: few}))
        assert outcome_levels.measure(hidden, schema, 0.5) == ()
