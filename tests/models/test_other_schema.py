"""A model is asked about rows of a schema that has grown; what it does not know counts as missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from monitoring import reference as references
from steps.models import families, fitting
from steps.models.monitor_reference import build_reference
from steps.models.other_schema import CannotAskError, ask
from tests.made_up.clinic import clinic_rows, clinic_schema


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, references.Reference, pd.DataFrame]:
    """A model of the made-up clinic, its reference, and canonical rows."""
    from steps.data import sources, validation

    folder = tmp_path_factory.mktemp("clinic")
    schema = clinic_schema(folder)
    clinic_rows(900).to_csv(folder / "rows.csv", index=False)
    located = sources.locate(str(folder / "rows.csv"), schema, folder, folder)
    frame = validation.check(
        sources.read(located, schema), schema, located.target_column, located.positive
    ).valid
    model = fitting.fit("logistic_regression", {}, frame, schema, seed=0)
    info = {
        "name": "readmission", "version": None, "run_id": "r", "family": "logistic_regression",
        "trained_at": 0, "synthetic": False, "kind": "private", "data_digest": "d",
    }  # fmt: skip
    reference = build_reference(model, frame[:600], frame[600:], schema, threshold=0.3, info=info)
    return model, reference, frame


def test_rows_that_a_model_knows_get_its_own_risks(clinic: Any) -> None:
    """Nothing is unknown, nothing changes, and a column more does not matter."""
    model, reference, frame = clinic
    asked = ask(model, reference, frame.assign(another=1.0), "readmitted")
    assert not asked.unknown.any()
    assert np.array_equal(
        asked.risk, families.predict_risk(model, frame[[f.name for f in reference.features]])
    )


def test_a_new_level_and_a_number_out_of_range_count_as_missing(clinic: Any) -> None:
    """The row is marked, and its risk is that of the same person without the answer."""
    model, reference, frame = clinic
    rows = frame.head(3).copy()
    rows["ward"] = rows["ward"].astype(object)
    rows.loc[rows.index[0], "ward"] = "C3"
    rows.loc[rows.index[1], "glucose"] = 55.0
    asked = ask(model, reference, rows, "readmitted")
    assert asked.unknown.tolist() == [True, True, False]
    blank = rows.copy()
    blank.loc[blank.index[0], "ward"] = None
    blank.loc[blank.index[1], "glucose"] = np.nan
    assert np.array_equal(asked.risk, ask(model, reference, blank, "readmitted").risk)


def test_what_the_rows_lack_is_said(clinic: Any) -> None:
    """A column, a kind of value, the outcome."""
    model, reference, frame = clinic
    with pytest.raises(CannotAskError, match="needs stage"):
        ask(model, reference, frame.drop(columns="stage"), "readmitted")
    with pytest.raises(CannotAskError, match="takes ward as text"):
        ask(model, reference, frame.assign(ward=1.0), "readmitted")
    with pytest.raises(CannotAskError, match="outcome readmitted, not died"):
        ask(model, reference, frame, "died")
