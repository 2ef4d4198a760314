"""Whether the container is there, and whether it is the reference's model."""

import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from monitoring.reference import parse
from monitoring.sidecar import model_check
from tests.made_up.sidecars import Scripted, Start, answer_json, eventually, predict

Begin = Callable[..., Scripted]


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sidecar looks after a twentieth of a second, not after 15."""
    monkeypatch.setattr(model_check, "SILENCE_SECONDS", 0.05)
    monkeypatch.setattr(model_check, "RETRY_SECONDS", 0.05)


def test_a_container_that_nobody_asks_is_pinged(start: Start, scripted: Begin) -> None:
    """So the time of its last answer moves on, and an idle model is no dead one."""
    running = start(scripted().port)
    before = running.value("sidecar_upstream_contact_timestamp_seconds")
    eventually(lambda: running.value("sidecar_upstream_contact_timestamp_seconds") > before, "it is pinged")


def test_before_the_first_answer_the_last_contact_is_the_start(start: Start) -> None:
    """A sidecar that has just come up does not say that its model has been away since 1970."""
    running = start(9)
    assert running.value("sidecar_upstream_contact_timestamp_seconds") > 1_700_000_000


def test_a_match_that_is_not_known_has_no_series(
    start: Start, scripted: Begin, document: dict[str, Any]
) -> None:
    """Not before the first answer, and not while the container is away; it may come back as another model."""
    document["golden"].update(rows=[[25, 1, "Oslo"]], scores=[0.25])
    state = {"away": True, "wrong": False}

    def script(connection: socket.socket, head: bytes, body: bytes) -> bool:
        if state["away"]:
            return False
        if state["wrong"]:
            return answer_json(connection, json.dumps({"predictions": [[0.5, 0.5]]}).encode())
        return predict(connection, head, body)

    running = start(scripted(script).port, parse(document))

    def series() -> list[float]:
        name = "model_golden_rows_match"
        found = [family for family in running.sidecar.metrics.registry.collect() if family.name == name]
        return [sample.value for sample in found[0].samples]

    assert series() == []
    state["away"] = False
    eventually(lambda: series() == [1], "it answers as it should")
    state["away"] = True
    eventually(lambda: series() == [], "it is away")
    state.update(away=False, wrong=True)
    eventually(lambda: series() == [0], "another model came back")


def test_one_wrong_answer_is_asked_about_again_at_once(
    start: Start, scripted: Begin, document: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A model that fails once, as while it loads, is no wrong model for five minutes; logged once."""
    caplog.set_level("INFO")
    document["golden"].update(rows=[[25, 1, "Oslo"]], scores=[0.25])
    wrong = threading.Event()
    wrong.set()

    def script(connection: socket.socket, head: bytes, body: bytes) -> bool:
        if wrong.is_set():
            return answer_json(connection, json.dumps({"predictions": [[0.5, 0.5]]}).encode())
        return predict(connection, head, body)

    running = start(scripted(script).port, parse(document))
    labels = {"model_name": document["model"]["name"], "model_version": running.sidecar.metrics.version}
    failures = "sidecar_observation_failures_total"
    eventually(lambda: running.value(failures, part="golden") >= 3, "it asks again while the answer is wrong")
    assert running.value("model_golden_rows_match", **labels) == 0
    wrong.clear()
    eventually(lambda: running.value("model_golden_rows_match", **labels) == 1, "it answers as it should")
    assert [record.levelname for record in caplog.records if "golden rows" in record.message] == [
        "ERROR",
        "INFO",
    ]
