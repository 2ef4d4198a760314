"""The server in the model's image answers as MLflow's own does, byte for byte, whatever it is asked."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pytest
from mlflow.pyfunc import scoring_server

from monitoring.deploy.build import IMAGES
from steps.data.schema import Schema
from steps.data.schema_file import load
from steps.models import estimators, missing_answers, saved
from steps.models.families import Family
from tests.conftest import ROOT
from tests.made_up.clinic import clinic_schema
from tests.made_up.glass_box import glass_box, people

JSON = "application/json"
Headers = Mapping[str, str] | Sequence[tuple[str, str]]


def module() -> Any:
    """The image's one file, as Python loads it there."""
    spec = importlib.util.spec_from_file_location("model_server", IMAGES / "model_server.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


model_server = module()


@pytest.fixture(scope="module")
def schema() -> Schema:
    return load(ROOT / "data" / "brfss2015.yaml")


@pytest.fixture(scope="module")
def model(schema: Schema, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A glass box, saved and loaded."""
    folder = tmp_path_factory.mktemp("model") / "model"
    saved.save(glass_box(schema), folder, schema, {})
    return mlflow.pyfunc.load_model(str(folder))


def ask(application: Any, body: bytes, headers: Headers, pieces: int = 1) -> tuple[int, Any, bytes]:
    """Status, type and body of an answer to POST /invocations, sent in some pieces."""
    size = max(1, -(-len(body) // pieces))
    parts = [body[start : start + size] for start in range(0, len(body), size)] or [b""]
    received = [{"type": "http.request", "body": part, "more_body": part is not parts[-1]} for part in parts]
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return received.pop(0) if received else {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": "/invocations", "raw_path": b"/invocations", "query_string": b"", "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in pairs],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8080),
    }  # fmt: skip
    asyncio.run(application(scope, receive, send))
    start = sent[0]
    kind = dict(start["headers"]).get(b"content-type")
    return start["status"], kind, b"".join(part.get("body", b"") for part in sent[1:])


def forms(names: list[str]) -> dict[str, Any]:
    """Bodies of every kind; a text stands as it is."""
    ones = [1.0] * len(names)
    split = {"columns": names, "data": [ones]}
    first, last = names[0], names[-1]
    record = dict.fromkeys(names, 1)
    return {
        "split": {"dataframe_split": split},
        "whole numbers, null and booleans": {
            "dataframe_split": {"columns": names, "data": [[None, True, *ones[2:]], [7, None, *ones[2:]]]}
        },
        "records": {"dataframe_records": [record, record | {last: None}]},
        "another order": {"dataframe_split": {"columns": names[::-1], "data": [list(range(len(names)))]}},
        "records in another order": {"dataframe_records": [dict(reversed(record.items())), record]},
        "all null": {"dataframe_records": [dict.fromkeys(names)]},
        "no rows": {"dataframe_split": {"columns": names, "data": []}},
        "an index": {"dataframe_split": split | {"index": [3]}},
        "an unknown key": {"dataframe_split": split | {"rows": 1}},
        "another key beside it": {"dataframe_split": split, "more": 1},
        "both": {"dataframe_split": split, "dataframe_records": [record]},
        "reasons": {"dataframe_split": split, "params": {"reasons": 2}},
        "no reasons": {"dataframe_split": split, "params": {}},
        "a text of digits": {"dataframe_split": {"columns": names, "data": [["5", *ones[1:]]]}},
        "a text": {"dataframe_split": {"columns": names, "data": [["high", *ones[1:]]]}},
        "a list in a cell": {"dataframe_split": {"columns": names, "data": [[[1], *ones[1:]]]}},
        "a short row": {"dataframe_split": {"columns": names, "data": [ones[1:]]}},
        "rows that are objects": {"dataframe_split": {"columns": names, "data": [record]}},
        "a column too few": {"dataframe_split": {"columns": names[1:], "data": [ones[1:]]}},
        "a column too many": {"dataframe_split": {"columns": [*names, "extra"], "data": [[*ones, 2]]}},
        "a column twice": {"dataframe_split": {"columns": [first, *names[:-1]], "data": [ones]}},
        "a column that is a number": {"dataframe_split": {"columns": [1, *names[1:]], "data": [ones]}},
        "a record without a column": {"dataframe_records": [record, {first: 1}]},
        "a record with another column": {"dataframe_records": [record | {"extra": 1}]},
        "instances": {"instances": [record]},
        "inputs": {"inputs": {name: [1.0] for name in names}},
        "a number beyond whole numbers": {"dataframe_records": [record | {first: 2**70}]},
        "a number beyond doubles": {"dataframe_records": [record | {first: 10**400}]},
        "infinity": json.dumps({"dataframe_records": [record | {first: 0}]}).replace(": 0", ": 1e999"),
        "not a number": json.dumps({"dataframe_records": [record | {first: float("nan")}]}),
        "a list": [record],
        "a number": 5,
        "no JSON": "{",
        "nothing": "",
        "a key twice": f'{{"dataframe_records": 5, "dataframe_records": [{json.dumps(record)}]}}',
    }


NAMES = [f"column {number}" for number in range(21)]
DIRECT = {
    "split", "whole numbers, null and booleans", "records", "another order", "records in another order",
    "all null", "a number beyond whole numbers", "infinity", "not a number", "a key twice",
}  # fmt: skip


@pytest.mark.parametrize("form", list(forms(NAMES)))
def test_an_answer_is_mlflows_byte_for_byte(form: str, schema: Schema, model: Any) -> None:
    """Status, type and body; of plain rows without MLflow's own path."""
    content = forms([column.name for column in schema.columns])[form]
    body = (content if isinstance(content, str) else json.dumps(content)).encode()
    headers = {"content-type": JSON, "content-length": str(len(body))}
    expected = ask(scoring_server.init(model), body, headers)
    assert ask(model_server.application(model), body, headers, pieces=3) == expected
    assert (model_server.direct_answers(model)(body) is not None) == (form in DIRECT)
    assert expected[0] == 200 or form not in DIRECT


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/csv"},
        {"content-type": "application/json; charset=utf-8"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "text/html"},
    ],
)
def test_another_type_is_mlflows(headers: dict[str, str], schema: Schema, model: Any) -> None:
    """With and without a length."""
    body = json.dumps(forms([column.name for column in schema.columns])["split"]).encode()
    for more in ({}, {"content-length": str(len(body))}):
        expected = ask(scoring_server.init(model), body, headers | more)
        assert ask(model_server.application(model), body, headers | more) == expected


def test_of_two_types_the_one_that_mlflow_reads_counts(schema: Schema, model: Any) -> None:
    body = json.dumps(forms([column.name for column in schema.columns])["split"]).encode()
    headers = [("content-type", "text/csv"), ("content-type", JSON), ("content-length", str(len(body)))]
    expected = ask(scoring_server.init(model), body, headers)
    assert expected[0] != 200
    assert ask(model_server.application(model), body, headers) == expected


def test_rows_of_every_kind_have_the_same_risk(schema: Schema, model: Any) -> None:
    """Missing, never seen, out of range, in bodies on both sides of the limit."""
    names = [column.name for column in schema.columns]
    for count in (1, 64, 300, 1_500):
        made = people(schema, count, seed=count)
        rows = made[names].astype(object).where(made[names].notna(), None).to_numpy().tolist()
        body = json.dumps({"dataframe_split": {"columns": names, "data": rows}}).encode()
        assert (len(body) > model_server.MOST_BYTES) == (count == 1_500)
        headers = {"content-type": JSON, "content-length": str(len(body))}
        answer = ask(model_server.application(model), body, headers)
        assert answer == ask(scoring_server.init(model), body, headers)
        risks = np.array(json.loads(answer[2])["predictions"])[:, 1]
        np.testing.assert_array_equal(risks, glass_box(schema).risk(made[names]))


@pytest.mark.parametrize("family", ["logistic_regression", "histogram_gradient_boosting"])
def test_another_family_is_answered_alike(family: Family, schema: Schema, tmp_path: Path) -> None:
    """A pipeline takes the same rows."""
    made = people(schema, 300)
    outcome = glass_box(schema).risk(made) > 0.2
    names = [column.name for column in schema.columns]
    rows = missing_answers.with_hidden_answers(made[names], outcome.astype(int), seed=1)
    saved.save(estimators.fit(family, {}, rows, schema, seed=1), tmp_path / "model", schema, {})
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    body = json.dumps(forms(names)["whole numbers, null and booleans"]).encode()
    headers = {"content-type": JSON, "content-length": str(len(body))}
    assert model_server.direct_answers(model) is not None
    assert ask(model_server.application(model), body, headers) == ask(
        scoring_server.init(model), body, headers
    )


def test_a_model_that_takes_texts_is_left_to_mlflow(tmp_path: Path) -> None:
    schema = clinic_schema(tmp_path)
    saved.save(glass_box(schema), tmp_path / "model", schema, {})
    assert model_server.direct_answers(mlflow.pyfunc.load_model(str(tmp_path / "model"))) is None


def test_a_model_of_another_kind_is_left_to_mlflow(tmp_path: Path) -> None:
    """A champion of a release before models were documents."""
    from tests.made_up.serve_models import frame, train

    assert model_server.direct_answers(train(frame(text=False), tmp_path / "old")) is None


def test_a_caller_who_leaves_is_not_answered(model: Any) -> None:
    """Half a body, then nothing."""
    half = {"type": "http.request", "body": b"{", "more_body": True}
    received: list[dict[str, Any]] = [half, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        return received.pop(0)

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError(message)

    headers = [(b"content-type", JSON.encode()), (b"content-length", b"10")]
    scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": headers}
    asyncio.run(model_server.application(model)(scope, receive, send))
