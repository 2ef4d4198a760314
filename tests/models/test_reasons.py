"""Reasons of many risks: the columns that `score` writes say what the document says of each row alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from steps.data import sources
from steps.data.errors import UserError
from steps.models import scoring
from steps.models.reasons import Explainer
from steps.models.served_model import Terms
from tests.made_up.clinic import clinic_schema
from tests.models.test_terms import glass_box, many


def test_ten_thousand_rows_of_every_kind_are_explained_as_each_row_alone() -> None:
    """Missing, unseen and out of range: term, level and effect of each reason, and the sums, within 1e-9."""
    frame = many(10_000)
    explained = Explainer(glass_box(), 2)(frame)
    columns = {name: values.to_pylist() for name, values in explained.columns.items()}
    for row, answer in enumerate(glass_box().answers(frame, 2)):
        assert explained.risk[row] == pytest.approx(answer["risk"], abs=1e-12)
        for number, reason in enumerate(answer["reasons"], 1):
            assert columns[f"term_{number}"][row] == " & ".join(reason["columns"])
            assert columns[f"level_{number}"][row] == " & ".join(reason["levels"])
            assert columns[f"log_odds_{number}"][row] == pytest.approx(reason["log_odds"], abs=1e-9)
        assert columns["other_log_odds"][row] == pytest.approx(answer["other_log_odds"], abs=1e-9)
        assert columns["baseline_log_odds"][row] == answer["baseline_log_odds"]
        assert (columns["missing"][row] or "") == ", ".join(answer["missing"])


def test_more_reasons_than_there_are_terms_leave_columns_empty() -> None:
    explained = Explainer(glass_box(), 5)(many(10))
    assert explained.columns["term_5"].null_count == 10
    assert [field.name for field in Explainer(glass_box(), 5).fields()] == list(explained.columns)
    assert np.abs(explained.columns["other_log_odds"].to_numpy()).max() < 1e-12


def test_a_glass_box_without_terms_has_its_baseline_alone() -> None:
    empty = Terms(glass_box().columns, [], -1.0)
    explained = Explainer(empty, 1)(many(3))
    assert explained.columns["term_1"].null_count == 3
    assert explained.columns["baseline_log_odds"].to_pylist() == [-1.0] * 3


def test_a_scored_file_has_the_reasons_beside_the_risk(tmp_path: Path) -> None:
    """A row that breaks the schema has neither; its place is kept."""
    schema = clinic_schema(tmp_path)
    rows = pd.DataFrame(
        {"glucose": [6.0, 6.0, 900.0], "ward": "A1", "stage": [1, 3, 1], "smoker": 0, "id": 7}
    )
    rows.to_csv(tmp_path / "people.csv", index=False)
    located = sources.locate(str(tmp_path / "people.csv"), schema, tmp_path, tmp_path)
    scoring.score(located, tmp_path / "risks.csv", Explainer(glass_box(), 1), schema)
    written = pd.read_csv(tmp_path / "risks.csv")
    assert list(written) == [
        *("id", "risk", "reason", "term_1", "level_1", "log_odds_1"),
        *("other_log_odds", "baseline_log_odds", "missing"),
    ]
    assert written["level_1"].tolist()[:2] == ["early", "late"]
    assert written["log_odds_1"].tolist()[:2] == [-1.0, 1.4]
    assert written.loc[2, ["risk", "term_1", "log_odds_1"]].isna().all()
    assert "glucose" in str(written["reason"][2])


def test_a_column_with_the_name_of_a_reason_is_refused(tmp_path: Path) -> None:
    schema = clinic_schema(tmp_path)
    pd.DataFrame({"glucose": [6.0], "ward": "A1", "stage": 1, "smoker": 0, "term_1": "x"}).to_csv(
        tmp_path / "people.csv", index=False
    )
    located = sources.locate(str(tmp_path / "people.csv"), schema, tmp_path, tmp_path)
    with pytest.raises(UserError, match="term_1, which the output needs for itself"):
        scoring.score(located, tmp_path / "risks.csv", Explainer(glass_box(), 1), schema)
