"""Reasons are the same wherever they are asked for: document, pyfunc, `score`, MLflow's server, sidecar."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
import pytest

from monitoring.reference import Reference
from steps.data import sources
from steps.data.schema import NumericColumn, Schema
from steps.models import saved, scoring
from steps.models.monitor_reference import build_reference
from steps.models.reasons import Explainer
from tests.made_up.clinic import clinic_schema
from tests.made_up.clinic_models import clinic_frame
from tests.made_up.glass_box import glass_box, people
from tests.made_up.ports import free_port
from tests.made_up.reasons import Answers, assert_same, body
from tests.made_up.sidecars import Start, ask, eventually

ROWS, REASONS = 10_000, 3


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return clinic_schema(tmp_path_factory.mktemp("schema"))


@pytest.fixture(scope="module")
def frame(schema: Schema) -> pd.DataFrame:
    """Answered, missing, never seen, out of range."""
    made = people(schema, ROWS, seed=3)
    for column in schema.columns:
        values = made[column.name]
        assert values.isna().any()
        if isinstance(column, NumericColumn):
            assert ((values < column.minimum) | (values > column.maximum)).any()
        else:
            assert (~values.dropna().isin(list(column.codes))).any()
    return made


@pytest.fixture(scope="module")
def folder(schema: Schema, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The glass box, saved."""
    path = tmp_path_factory.mktemp("model") / "model"
    saved.save(glass_box(schema), path, schema, {})
    return path


@pytest.fixture(scope="module")
def expected(schema: Schema, frame: pd.DataFrame) -> Answers:
    """What the document says of each row."""
    answers: Answers = glass_box(schema).answers(frame, REASONS)
    return answers


def test_pyfunc_answers_as_the_document(folder: Path, frame: pd.DataFrame, expected: Answers) -> None:
    served = mlflow.pyfunc.load_model(str(folder))
    assert_same(served.predict(frame, params={"reasons": REASONS}), expected)


def test_score_writes_as_the_document(
    schema: Schema, frame: pd.DataFrame, expected: Answers, tmp_path: Path
) -> None:
    """Of rows that break no rule of the schema; the others have no risk and therefore no reason."""
    frame.assign(row=range(ROWS)).to_parquet(tmp_path / "rows.parquet", index=False)
    located = sources.locate(str(tmp_path / "rows.parquet"), schema, tmp_path, tmp_path)
    scoring.score(located, tmp_path / "risks.parquet", Explainer(glass_box(schema), REASONS), schema)
    written = pd.read_parquet(tmp_path / "risks.parquet")
    whole = written[written["risk"].notna()]
    assert 500 < len(whole) < ROWS
    given = [_from_columns(row) for row in whole.to_dict("records")]
    assert_same(given, [_as_written(expected[row]) for row in whole["row"]])


def _from_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    reasons = [
        {"columns": row[f"term_{n}"], "levels": row[f"level_{n}"], "log_odds": row[f"log_odds_{n}"]}
        for n in range(1, REASONS + 1)
    ]
    kept = {name: row[name] for name in ("risk", "baseline_log_odds", "other_log_odds")}
    return {**kept, "reasons": reasons, "missing": row["missing"] if isinstance(row["missing"], str) else ""}


def _as_written(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Names of several columns, or of levels, in one cell."""
    reasons = [
        {**reason, "columns": " & ".join(reason["columns"]), "levels": " & ".join(reason["levels"])}
        for reason in answer["reasons"]
    ]
    return {**answer, "reasons": reasons, "missing": ", ".join(answer["missing"])}


@contextmanager
def mlflows_server(folder: Path, log: Path) -> Iterator[int]:
    """The port of MLflow's own server, as a container runs it."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port)]
    command.append("mlflow.pyfunc.scoring_server.app:app")
    environment = {**os.environ, "__pyfunc_model_path__": str(folder)}
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        eventually(lambda: _answers(port), f"MLflow's server: {log.read_text()[-2000:]}")
        yield port
    finally:
        process.terminate()
        process.wait(60)


def _answers(port: int) -> bool:
    try:
        return ask(port, "GET", "/ping").status == 200
    except OSError:
        return False


def test_mlflows_server_and_the_sidecar_answer_as_the_document(
    schema: Schema, folder: Path, frame: pd.DataFrame, expected: Answers, start: Start, tmp_path: Path
) -> None:
    """In requests of 500 rows, to the server itself and through the sidecar."""
    with mlflows_server(folder, tmp_path / "server.log") as port:
        sidecar = start(port, _reference(schema))
        for first in range(0, ROWS, 500):
            asked = body(frame.iloc[first : first + 500], REASONS)
            answers = [ask(at, body=asked).json["predictions"] for at in (port, sidecar.port)]
            assert answers[0] == answers[1]
            assert_same(answers[1], expected[first : first + 500])


def _reference(schema: Schema) -> Reference:
    info = {
        "name": schema.name, "version": "1", "run_id": "r", "family": "explainable_boosting", "trained_at": 0,
        "synthetic": True, "kind": "synthetic", "data_digest": "d",
    }  # fmt: skip
    train, validation = clinic_frame(600, 1), clinic_frame(400, 2)
    return build_reference(glass_box(schema), train, validation, schema, threshold=0.2, info=info)


def test_rows_without_any_answer_have_a_risk_and_name_all_that_is_missing(
    schema: Schema, folder: Path
) -> None:
    """The ends of every kind of row: all missing, all never seen or out of range."""
    nothing = pd.DataFrame({c.name: [None if c.is_text else math.nan] for c in schema.columns})
    served = mlflow.pyfunc.load_model(str(folder))
    answer = served.predict(nothing, params={"reasons": REASONS})[0]
    assert answer["missing"] == list(schema.feature_names)
    assert 0 < answer["risk"] < 1
