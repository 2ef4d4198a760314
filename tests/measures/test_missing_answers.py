"""One answer less: who is measured, what is taken away, and what it costs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from steps.data.schema import Schema
from steps.measures import metrics, missing_answers
from tests.made_up.clinic import clinic_schema


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return clinic_schema(tmp_path_factory.mktemp("schema"))


@pytest.fixture(scope="module")
def people() -> tuple[pd.DataFrame, np.ndarray]:
    """Patients whose outcome depends on glucose alone."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "glucose": rng.normal(6, 1, 4000),
            "ward": pd.Series(rng.choice(["A1", "B2"], 4000), dtype="str"),
            "stage": rng.integers(1, 4, 4000).astype(float),
            "smoker": rng.integers(0, 2, 4000).astype(float),
        }
    )
    return frame, (rng.random(4000) < _risk(frame)).astype(np.int8)


def _risk(frame: pd.DataFrame) -> np.ndarray:
    """A right model that takes a missing glucose for a low one."""
    return 1 / (1 + np.exp(6 - frame["glucose"].fillna(4).to_numpy()))


def test_each_column_is_taken_away_alone_and_what_is_missing_together_at_last(
    schema: Schema, people: tuple[pd.DataFrame, np.ndarray]
) -> None:
    """The column that decides costs everything, the others nothing, and the risks without it are too low."""
    frame, y = people
    found = missing_answers.measure(_risk, y, frame, schema, 0.5, seed=0)
    assert [entry.columns for entry in found.entries] == [
        *((name,) for name in schema.feature_names),
        *missing_answers.missing_together(schema),
    ]
    assert found.rows == 4000
    assert found.complete.roc_auc == pytest.approx(metrics.roc_auc(y, _risk(frame)))
    assert found.complete.observed_expected.value == pytest.approx(1, abs=0.06)
    by_column = {entry.columns: entry for entry in found.entries}
    glucose, ward = by_column["glucose",], by_column["ward",]
    assert glucose.roc_auc == 0.5
    assert glucose.observed_expected.value is not None
    assert glucose.observed_expected.low is not None
    assert glucose.observed_expected.value > glucose.observed_expected.low > 3
    assert glucose.flagged == 0
    assert (ward.roc_auc, ward.flagged) == (found.complete.roc_auc, found.complete.flagged)


def test_pairs_are_those_that_a_scenario_leaves_out(tmp_path: pytest.TempPathFactory) -> None:
    """Two columns that one scenario leaves out; a scenario that leaves out one adds nothing."""
    from steps.data.schema_file import load
    from tests.conftest import ROOT

    survey = load(ROOT / "data" / "brfss2015.yaml")
    assert missing_answers.missing_together(survey) == (("Income", "GenHlth"),)


def test_the_frame_and_its_kinds_stay_as_they_are(
    schema: Schema, people: tuple[pd.DataFrame, np.ndarray]
) -> None:
    """The model is given the columns and kinds that it was fitted on, and at most so many rows."""
    frame, y = people
    before, seen = frame.copy(), []

    def predict(asked: pd.DataFrame) -> np.ndarray:
        seen.append((list(asked.columns), [str(kind) for kind in asked.dtypes], len(asked)))
        return _risk(asked)

    missing_answers.measure(predict, y, frame, schema, 0.5, seed=0, rows=100)
    assert set(map(str, seen)) == {str((list(frame.columns), [str(kind) for kind in frame.dtypes], 100))}
    pd.testing.assert_frame_equal(frame, before)
