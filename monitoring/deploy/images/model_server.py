"""The server in the model's image: MLflow's own, with plain rows of numbers answered before they reach it.

MLflow's server makes a frame of a request column by column, checks it against the signature and hands it to
a thread, which takes twenty times as long as a glass box takes to answer (docs/decisions.md). Here a request
is answered directly if it is `POST /invocations` with `Content-Type: application/json`, has at most
`MOST_BYTES`, and holds `dataframe_split` or `dataframe_records` with all the model's columns and nothing in
them but numbers, booleans and null. The answer is the same, byte for byte. MLflow answers everything else,
errors among it; the stock image (`mlflow models build-docker`) has MLflow's server alone.

The image holds this one file, so it imports nothing else of this project.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, load_model, scoring_server
from mlflow.types import DataType

# Rows of larger bodies would keep the health check waiting: MLflow gives them a thread.
MOST_BYTES = 65_536
NUMBERS = frozenset((int, float, bool, type(None)))

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]
Answer = Callable[[bytes], bytes | None]


def create() -> Application:
    """The application for the model in the folder MODEL_FOLDER."""
    return application(load_model(os.environ["MODEL_FOLDER"]))


def application(model: PyFuncModel) -> Application:
    """The application for a model: MLflow's own if the model is none of this project's or takes texts."""
    mlflow_server: Application = scoring_server.init(model)
    answer = direct_answers(model)
    if answer is None:
        return mlflow_server

    async def serve(scope: Message, receive: Receive, send: Send) -> None:
        if may_be_plain(scope):
            body = await read_body(receive)
            if body is None:
                return
            answered = answer(body)
            if answered is not None:
                await respond(answered, send)
                return
            receive = replay(body, receive)
        await mlflow_server(scope, receive, send)

    return serve


def may_be_plain(scope: Message) -> bool:
    """Whether a request's head is that of a short prediction in JSON."""
    if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != "/invocations":
        return False
    types, lengths = (
        [value for name, value in scope["headers"] if name == wanted]
        for wanted in (b"content-type", b"content-length")
    )
    return (
        types == [b"application/json"]
        and len(lengths) == 1
        and lengths[0].isdigit()
        and int(lengths[0]) <= MOST_BYTES
    )


async def read_body(receive: Receive) -> bytes | None:
    """A request's whole body; None if the caller has gone."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def replay(body: bytes, receive: Receive) -> Receive:
    """`receive` as if nobody had read the body yet."""
    unread = [body]

    async def again() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        return await receive()

    return again


async def respond(body: bytes, send: Send) -> None:
    """Send an answer as MLflow's server does."""
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def direct_answers(model: Any) -> Answer | None:
    """What answers a body of plain rows, and None to any other; None if MLflow has to answer them all."""
    schema = model.metadata.signature.inputs if model.metadata.signature else None
    try:
        served = model.unwrap_python_model().served
    except (MlflowException, AttributeError):
        return None
    if schema is None or schema.optional_input_names() or set(schema.input_types()) != {DataType.double}:
        return None
    names = schema.input_names()

    def answer(body: bytes) -> bytes | None:
        try:
            rows = plain_rows(json.loads(body), names)
            if rows is None:
                return None
            frame = pd.DataFrame(np.array(rows, dtype=np.float64), columns=names)
        except (ValueError, OverflowError, RecursionError):  # no JSON, or a number that no double holds
            return None
        return json.dumps({"predictions": served.answer(frame, None).tolist()}).encode()

    return answer


def plain_rows(document: Any, names: Sequence[str]) -> list[list[Any]] | None:
    """The rows of a parsed body, their values in the order of `names`; None unless all is as expected."""
    match document:
        case {"dataframe_split": {"columns": [*columns], "data": [_, *_] as rows, **rest}, **others}:
            if rest or others or not all(type(row) is list and len(row) == len(columns) for row in rows):
                return None
            if columns != names:
                places = {name: place for place, name in enumerate(columns) if isinstance(name, str)}
                if not len(columns) == len(names) == len(places) or places.keys() != set(names):
                    return None
                order = [places[name] for name in names]
                rows = [[row[place] for place in order] for row in rows]
        case {"dataframe_records": [_, *_] as records, **others}:
            if others or not all(type(row) is dict and row.keys() == set(names) for row in records):
                return None
            rows = [[row[name] for name in names] for row in records]
        case _:
            return None
    return rows if {type(value) for row in rows for value in row} <= NUMBERS else None
