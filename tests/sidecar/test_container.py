"""The sidecar before MLflow's real scoring server: the same bytes, whatever is sent."""

import http.client
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from monitoring.sidecar import payloads
from tests.conftest import ROOT
from tests.made_up.sidecars import JSON, Reply, Running, Served, Start, ask, eventually, free_port

CITIES = ["Oslo", "Bergen", "Tromsø", "nowhere"]
NUMBERS = ["BMI", "Age", "HighBP", "GenHlth"]


def row(random_: random.Random, text: bool) -> list[Any]:
    """One person, mostly plausible."""
    bmi = random_.choice([round(random_.uniform(12, 60), 2), random_.randint(12, 60), 1e9, None])
    numbers = [bmi, random_.randint(1, 13), random_.randint(0, 1), random_.choice([1, 2.0, 5, None])]
    return [*numbers, random_.choice(CITIES)] if text else numbers


def request(random_: random.Random, text: bool) -> tuple[str, dict[str, str], bytes]:
    """A path, headers and body: every format of the server, and every way of getting it wrong."""
    columns = [*NUMBERS, "city"] if text else list(NUMBERS)
    rows = [row(random_, text) for _ in range(random_.choice([1, 1, 1, 1, 2, 5]))]
    records = [dict(zip(columns, values, strict=True)) for values in rows]
    split = {"columns": columns, "data": rows}
    bad = [*rows[0][:-1], random_.choice([[], {}, "x", True, "7", 2**70, None])]
    kind = random_.randrange(24)
    content: Any = {"dataframe_split": split}
    if kind in (8, 9, 10, 11):
        content = {"dataframe_records": records}
    elif kind == 12:
        content = {"inputs": {name: [record[name] for record in records] for name in columns}}
    elif kind == 13:
        content = {"instances": records}
    elif kind == 14:
        content = {"dataframe_split": {**split, "index": list(range(len(rows)))}}
    elif kind == 15:
        content = {"dataframe_split": split, "params": {}}
    elif kind == 16:
        content = {"dataframe_split": {"columns": columns, "data": [*rows, bad]}}
    elif kind == 17:
        content = {"dataframe_records": [*records, dict(zip(columns[1:], rows[0][1:], strict=True))]}
    elif kind == 18:
        content = {
            "dataframe_records": [{**record, "extra": random_.choice([1, "a", None])} for record in records]
        }
    elif kind == 19:
        content = random_.choice([{}, [], {"dataframe_split": []}, {"data": rows}, 3, None])
    elif kind == 20:
        content = {"dataframe_split": {"columns": columns[::-1], "data": [values[::-1] for values in rows]}}
    body = json.dumps(content).encode()
    if kind == 21:
        body = random_.choice([b"", b"{", body[:-5], b"\xff\xfe", b'"' + body, body + b" \n"])
    path = "/invocations?x=1" if kind == 22 and random_.random() < 0.5 else "/invocations"
    headers = {"Content-Type": random_.choice(["application/json"] * 6 + ["application/json; charset=utf-8"])}
    if kind == 23:
        table = pd.DataFrame(records).to_csv(index=False).encode()
        headers, body = random_.choice(
            [
                ({"Content-Type": "text/csv"}, table),
                ({"Content-Type": "text/plain"}, table),
                ({"Content-Type": "application/json; version=2"}, body),
                ({"Content-Type": "application/vnd.apache.parquet"}, parquet(records)),
            ]
        )
    if random_.random() < 0.05:
        headers["Cookie"] = "a=1"
    return path, headers, body


def parquet(records: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame(records).astype(dict.fromkeys(NUMBERS, float)).to_parquet(buffer)
    return buffer.getvalue()


def through(port: int, requests: list[tuple[str, dict[str, str], bytes]], clients: int) -> list[Reply]:
    """Answers to requests, in their order, asked by so many clients at once on connections that they keep."""
    answers: list[Any] = [None] * len(requests)

    def client(first: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for place in range(first, len(requests), clients):
            path, headers, body = requests[place]
            try:
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
            except ConnectionError:  # the server closes a connection after a failure of its own
                connection.close()
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
            fields = {name.lower(): value for name, value in answer.getheaders()}
            answers[place] = Reply(answer.status, fields, answer.read())
        connection.close()

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    return answers


@pytest.mark.parametrize("batching", [True, False], ids=["batched", "alone"])
@pytest.mark.parametrize("model", ["numbers", "text"])
@pytest.mark.parametrize("count", [250, pytest.param(1000, marks=pytest.mark.soak)])
def test_answers_have_the_containers_status_and_bytes(
    start: Start, served: dict[str, Served], model: str, batching: bool, count: int
) -> None:
    """Mixed requests in every format, bad ones, nulls, text, missing and extra columns, from 16 clients."""
    each = served[model]
    mixed = random.Random(f"{model}-{count}")
    requests = [request(mixed, model == "text") for _ in range(count)]
    expected = through(each.port, requests, 4)
    sidecar = start(each.port, each.reference, batch_requests=128 if batching else 1)
    got = through(sidecar.port, requests, 16)
    for sent, one, other in zip(requests, expected, got, strict=True):
        assert (other.status, other.body) == (one.status, one.body), sent
        assert other.headers.get("content-type") == one.headers.get("content-type")
    assert {reply.status for reply in expected} >= {200, 400, 415}
    shared = sidecar.value("sidecar_batch_requests_count") < sidecar.value("sidecar_batch_requests_sum")
    assert shared is batching


@pytest.mark.parametrize("count", [1500, pytest.param(10_000, marks=pytest.mark.soak)])
def test_sixty_four_clients_get_the_answers_to_their_own_rows(
    start: Start, served: dict[str, Served], count: int
) -> None:
    """Checked one by one against the container's answer to all rows in one request."""
    each = served["numbers"]
    mixed = random.Random(1)
    rows = [
        [round(mixed.uniform(12, 60), 2), mixed.randint(1, 13), mixed.randint(0, 1), mixed.randint(1, 5)]
        for _ in range(count)
    ]
    whole = ask(each.port, body=json.dumps({"dataframe_split": {"columns": NUMBERS, "data": rows}})).json
    requests = [
        (
            "/invocations",
            JSON,
            json.dumps({"dataframe_split": {"columns": NUMBERS, "data": [values]}}).encode(),
        )
        for values in rows
    ]
    sidecar = start(each.port, each.reference)
    answers = through(sidecar.port, requests, 64)
    assert [reply.json["predictions"][0] for reply in answers] == whole["predictions"]
    assert sidecar.value("sidecar_rows_total") == count
    for feature in each.reference.features:
        place = NUMBERS.index(feature.name)
        counts = feature.count(np.array([values[place] for values in rows], dtype=float))
        counted = [
            sidecar.value("model_feature_values_total", feature=feature.name, bin=label)
            for label in feature.bins
        ]
        waiting = counts.bins - np.array(counted)  # in a lot that is not full
        assert (waiting >= 0).all()
        assert waiting.sum() < sidecar.sidecar.settings.lot_rows


def test_one_poison_row_among_32_clients_fails_alone(start: Start, served: dict[str, Served]) -> None:
    """31 right answers and the container's own error, again and again."""
    each = served["text"]
    names = [*NUMBERS, "city"]

    def body(values: list[Any]) -> tuple[str, dict[str, str], bytes]:
        return (
            "/invocations",
            JSON,
            json.dumps({"dataframe_split": {"columns": names, "data": [values]}}).encode(),
        )

    # A number column takes whole numbers of any size in JSON; this one does not fit a double.
    requests = [
        body([20 + n, 1, 0, 3, "Oslo"]) if n != 5 else body([10**400, 1, 0, 3, "Oslo"]) for n in range(32)
    ]
    expected = through(each.port, requests, 1)
    assert [reply.status for reply in expected] == [200] * 5 + [400] + [200] * 26
    sidecar = start(each.port, each.reference)
    for _ in range(3):
        got = through(sidecar.port, requests, 32)
        assert [(reply.status, reply.body) for reply in got] == [
            (reply.status, reply.body) for reply in expected
        ]


def test_a_linear_model_may_round_differently_in_a_batch_by_less_than_1e_12() -> None:
    """Its matrix product adds up in another order there; trees, as served above, do not differ at all. The
    sidecar passes on what the container answered, whichever it was."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 21))
    model = LogisticRegression().fit(rows, rng.random(500) < 0.3)
    together = model.predict_proba(rows)
    alone = np.vstack([model.predict_proba(rows[[place]]) for place in range(500)])
    assert np.abs(together - alone).max() < 1e-12


def test_golden_rows_of_the_real_model_match(start: Start, served: dict[str, Served]) -> None:
    """Reference and container belong together, and to nothing else."""
    right = start(served["text"].port, served["text"].reference)
    eventually(lambda: right.value("model_golden_rows_match") == 1, "the golden rows match")
    wrong = start(served["text"].port, served["numbers"].reference)
    eventually(lambda: wrong.value("sidecar_observation_failures_total", part="golden") == 1, "they do not")


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from(NUMBERS)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(NUMBERS) | st.text(max_size=3), inner, max_size=4),
    ),
    max_leaves=8,
)
FRAMES = st.fixed_dictionaries(
    {},
    optional={
        "columns": st.lists(st.sampled_from(NUMBERS) | LEAVES, max_size=5),
        "data": st.lists(st.lists(LEAVES, max_size=5) | LEAVES, max_size=4) | VALUES,
        "index": VALUES,
    },
)
DOCUMENTS = st.one_of(
    st.builds(lambda part: {"dataframe_split": part}, FRAMES | VALUES),
    st.builds(
        lambda part: {"dataframe_records": part},
        st.lists(st.dictionaries(st.sampled_from(NUMBERS), LEAVES)) | VALUES,
    ),
    st.dictionaries(
        st.sampled_from(["inputs", "instances", "dataframe_split", "params", "x"]), VALUES, max_size=2
    ),
    VALUES,
)
BODIES = st.one_of(
    DOCUMENTS.map(lambda document: json.dumps(document).encode()),
    DOCUMENTS.map(lambda document: json.dumps(document).encode()[:-1]),
    st.binary(max_size=40),
    st.sampled_from(
        [b"[" * 20_000, b'{"a":' * 20_000, b"1" * 5000, b"\xef\xbb\xbf{}", b"null", b"-", b"NaN"]
    ),
)
TYPES = st.sampled_from(
    ["application/json", "text/csv", "application/json;charset=utf-8", "x/y", "", ";", "application/json; a"]
)


def fuzz(port: int, sidecar: Running, examples: int) -> None:
    """Generated bodies: never a 5xx that the container would not have answered, never another body."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(body=BODIES, content_type=TYPES)
    def check(body: bytes, content_type: str) -> None:
        headers = {"Content-Type": content_type}
        got = ask(sidecar.port, body=body, headers=headers)
        if payloads.fault(content_type, body) is not None:
            assert got.status == 400
            return
        expected = ask(port, body=body, headers=headers)
        assert (got.status, got.body) == (expected.status, expected.body)

    check()
    refused = sidecar.value("sidecar_requests_refused_total")
    assert refused == sidecar.value("sidecar_requests_refused_total", reason="malformed")
    assert sidecar.value("sidecar_observation_failures_total", part="count") == 0


@pytest.mark.parametrize("examples", [200, pytest.param(20_000, marks=pytest.mark.soak)])
def test_malformed_bodies_get_the_containers_own_answers(
    start: Start, served: dict[str, Served], examples: int
) -> None:
    """Whatever is in them."""
    each = served["numbers"]
    fuzz(each.port, start(each.port, each.reference), examples)


@pytest.fixture
def mortal_container() -> Iterator[Any]:
    """A container that can be killed and started again on its port."""
    port = free_port()
    processes: list[subprocess.Popen[bytes]] = []

    class Container:
        def __init__(self) -> None:
            self.port = port

        def begin(self) -> None:
            processes.append(subprocess.Popen([sys.executable, "-c", MINIMAL, str(port)], cwd=ROOT))

        def kill(self) -> None:
            processes[-1].kill()
            processes[-1].wait()

        def answers(self) -> bool:
            try:
                return ask(port, "GET", "/ping").status == 200
            except OSError:
                return False

    yield Container()
    for process in processes:
        process.kill()
        process.wait()


MINIMAL = """
import json, sys
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response
app = FastAPI()
@app.get("/ping")
async def ping(): return Response("\\n", media_type="application/json")
@app.post("/invocations")
async def invocations(request: Request):
    rows = json.loads(await request.body())["dataframe_split"]["data"]
    found = {"predictions": [[1 - r[0] / 100, r[0] / 100] for r in rows]}
    return Response(json.dumps(found), media_type="application/json")
uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""


def test_a_container_that_is_killed_and_started_again(
    start: Start, mortal_container: Any, reference: Any
) -> None:
    """Under load: 502 while it is away, right answers as soon as it answers /ping again, no count lost."""
    mortal_container.begin()
    eventually(mortal_container.answers, "the container answers")
    sidecar = start(mortal_container.port, reference)
    statuses: list[int] = []
    mistaken = threading.Event()
    over = threading.Event()

    def client(number: int) -> None:
        body = json.dumps(
            {"dataframe_split": {"columns": ["BMI", "Age", "city"], "data": [[20 + number, 1, "Oslo"]]}}
        )
        while not over.is_set():
            reply = sidecar.ask(body=body)
            statuses.append(reply.status)
            if reply.status == 200 and reply.json["predictions"][0][1] != (20 + number) / 100:
                mistaken.set()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    eventually(lambda: statuses.count(200) > 50, "answers")
    mortal_container.kill()
    eventually(lambda: 502 in statuses[-3:], "refusals")
    mortal_container.begin()
    eventually(mortal_container.answers, "the container answers again")
    again = sidecar.ask(
        body='{"dataframe_split": {"columns": ["BMI", "Age", "city"], "data": [[33, 1, "Oslo"]]}}'
    )
    statuses.append(again.status)
    assert (again.status, again.json) == (200, {"predictions": [[1 - 33 / 100, 0.33]]})
    over.set()
    for thread in threads:
        thread.join()
    assert not mistaken.is_set(), "somebody got another's answer"
    assert set(statuses) == {200, 502}
    assert sidecar.value("sidecar_rows_total") == statuses.count(200)
    counted = sidecar.value("model_feature_values_total", feature="Age", bin="1")
    assert 0 <= statuses.count(200) - counted < sidecar.sidecar.settings.lot_rows
    assert sidecar.value("sidecar_requests_total", endpoint="invocations", status="5xx") == statuses.count(
        502
    )


@pytest.mark.soak
def test_memory_does_not_grow_with_requests(served: dict[str, Served], tmp_path: Any) -> None:
    """200,000 requests in batches and alone: after the first tenth, resident memory stays within 10 %."""
    import psutil

    each = served["numbers"]
    port = free_port()
    document = tmp_path / "reference.json"
    document.write_text(json.dumps(dict(each.reference.raw)), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "monitoring.sidecar"],
        cwd=ROOT,
        env={
            **os.environ,
            "MODEL_EXPORTER_UPSTREAM": f"http://127.0.0.1:{each.port}",
            "MODEL_EXPORTER_PORT": str(port),
            "MODEL_EXPORTER_METRICS_PORT": str(free_port()),
            "MODEL_EXPORTER_REFERENCE": str(document),
            "MODEL_EXPORTER_FEEDBACK_KEYS": "a-key-for-the-soak-test",
        },
    )
    eventually(lambda: _answers(port), "the sidecar answers")
    mixed = random.Random(3)
    sizes = []
    for _ in range(10):
        requests = [request(mixed, False) for _ in range(2000)] + [
            (
                "/invocations",
                JSON,
                json.dumps({"dataframe_split": {"columns": NUMBERS, "data": [[20, 1, 0, n % 5]]}}).encode(),
            )
            for n in range(18_000)
        ]
        through(port, requests, 32)
        time.sleep(1)
        sizes.append(psutil.Process(process.pid).memory_info().rss)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert max(sizes[1:]) < 1.1 * sizes[0], sizes


def _answers(port: int) -> bool:
    try:
        return ask(port, "GET", "/ping").status == 200
    except OSError:
        return False
