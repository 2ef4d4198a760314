"""Feedback tokens and late labels."""

import base64
import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from werkzeug.test import Client

from monitoring.reference import Reference
from monitoring.sidecar import feedback, feedback_tokens
from monitoring.sidecar.endpoints import create_metrics_app
from monitoring.sidecar.feedback import Feedback, Label, MalformedError
from monitoring.sidecar.metrics import FEEDBACK_REFUSALS, Metrics
from tests.made_up.sidecars import JSON, KEYS, Start, people

NOW = 1_800_000_000.0
DAY = 86_400


def issue(version: str = "7", name: str = "risk", key: str = KEYS[0], now: float = NOW) -> str:
    """A token for three rows."""
    return feedback_tokens.issue(
        [key], name, version, [0, 1, 2], [0.1, 0.3, 0.75], now=now, random=os.urandom
    )


def read(token: str, now: float = NOW, keys: tuple[str, ...] = KEYS) -> feedback_tokens.Issued:
    return feedback_tokens.read(keys, "risk", token, now=now, lifetime=30 * DAY)


def reason(token: str, **more: Any) -> str:
    with pytest.raises(feedback_tokens.TokenError) as raised:
        read(token, **more)
    return raised.value.reason


def test_a_token_says_what_was_predicted() -> None:
    """Version, time, bins exactly; risks to one part in 65,535."""
    issued = read(issue(version="7é"))
    assert (issued.version, issued.issued_at, issued.bins.tolist()) == ("7é", int(NOW), [0, 1, 2])
    assert issued.risks == pytest.approx([0.1, 0.3, 0.75], abs=1 / 65535)


def test_two_answers_never_have_the_same_token() -> None:
    """Two people with the same answers in the same second are two people."""
    assert issue() != issue()
    assert read(issue()).identity != read(issue()).identity


def test_any_key_of_the_list_is_accepted_and_the_first_signs() -> None:
    """Keys can be rotated without losing the labels that are still to come."""
    old = issue(key=KEYS[1])
    assert read(old).version == "7"
    assert reason(old, keys=KEYS[:1]) == "forged"


def test_a_forged_token_is_refused() -> None:
    """Every single bit is signed."""
    genuine = base64.urlsafe_b64decode(issue())
    for place in range(len(genuine)):
        forged = bytearray(genuine)
        forged[place] ^= 1
        assert reason(base64.urlsafe_b64encode(bytes(forged)).decode()) == "forged"


def test_a_token_that_was_cut_is_refused() -> None:
    """At any place, and so is one that was lengthened."""
    genuine = issue()
    for length in range(len(genuine)):
        assert reason(genuine[:length]) == "forged"
    assert reason(genuine + "AAAA") == "forged"


@given(st.text(max_size=200))
def test_any_other_text_is_refused(text: str) -> None:
    """And never breaks the reading."""
    assert reason(text) == "forged"


def test_an_old_token_and_one_from_the_future_are_expired() -> None:
    """With five minutes for clocks that disagree."""
    assert read(issue(), now=NOW + 30 * DAY)
    assert reason(issue(), now=NOW + 30 * DAY + 1) == "expired"
    assert read(issue(), now=NOW - 299)
    assert reason(issue(), now=NOW - 301) == "expired"


def test_a_token_for_another_model_is_refused() -> None:
    """The name is part of what is signed."""
    assert reason(issue(name="other-risk")) == "other_model"


class Counted:
    """Feedback on a registry of its own."""

    def __init__(self, reference: Reference, **limits: Any) -> None:
        self.metrics = Metrics(CollectorRegistry(), reference, "7")
        chosen = {"lifetime": 30 * DAY, "versions": 2, "memory": 1000, **limits}
        self.labels = Feedback(self.metrics, "risk", KEYS, clock=lambda: NOW, **chosen)

    def take(self, *labels: Label | None) -> feedback.Result:
        return self.labels.take(labels)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def counted(reference: Reference) -> Counted:
    return Counted(reference)


def test_a_label_counts_in_the_bin_and_under_the_version_that_predicted(counted: Counted) -> None:
    """With the predicted risk, its square and the delay."""
    issued_at = NOW - 3 * DAY - 5
    result = counted.take(Label(issue(now=issued_at), 2, 1), Label(issue(now=issued_at), 0, 0))
    assert result == feedback.Result(2, ())
    labels = {"bin": "02", "outcome": "1", "model_name": "risk", "model_version": "7"}
    assert counted.value("model_feedback_total", **labels) == 1
    assert counted.value("model_feedback_risk_sum_total", **labels) == pytest.approx(0.75, abs=1e-4)
    assert counted.value("model_feedback_squared_risk_sum_total", **labels) == pytest.approx(0.5625, abs=1e-4)
    assert (
        counted.value("model_feedback_total", bin="00", outcome="0", model_name="risk", model_version="7")
        == 1
    )
    assert counted.value("model_feedback_delay_seconds_count", model_name="risk", model_version="7") == 2
    assert (
        counted.value(
            "model_feedback_delay_seconds_bucket", model_name="risk", model_version="7", le="259200.0"
        )
        == 0
    )
    assert (
        counted.value(
            "model_feedback_delay_seconds_bucket", model_name="risk", model_version="7", le="604800.0"
        )
        == 2
    )


def test_labels_of_older_versions_have_series_of_their_own_up_to_a_number(counted: Counted) -> None:
    """Two here; the third counts as other. All their bins are there from the first label on."""
    for version in ("6", "5", "4"):
        assert counted.take(Label(issue(version=version), 1, 1)).accepted == 1
    counted.labels.seen(counted.labels.unseen())
    counts = {
        version: counted.value(
            "model_feedback_total", bin="01", outcome="1", model_name="risk", model_version=version
        )
        for version in ("7", "6", "5", "4", "other")
    }
    assert counts == {"7": 0, "6": 1, "5": 1, "4": None, "other": 1}
    assert (
        counted.value("model_feedback_total", bin="00", outcome="0", model_name="risk", model_version="6")
        == 0
    )


def test_the_first_labels_of_an_older_version_are_an_increase_for_whoever_reads_the_metrics(
    counted: Counted,
) -> None:
    """Its series are read at 0 once before they count: one that was born with its labels would hide them."""
    metrics = Client(create_metrics_app(counted.metrics, counted.labels, lambda: True, lambda: True))

    def labels_of_version_6() -> float | None:
        line = 'model_feedback_total{bin="01",model_name="risk",model_version="6",outcome="1"} '
        text = metrics.get("/metrics").get_data(as_text=True)
        return next((float(found.removeprefix(line)) for found in text.splitlines() if line in found), None)

    assert labels_of_version_6() is None
    for _ in range(3):
        counted.take(Label(issue(version="6"), 1, 1))
    assert [labels_of_version_6() for _ in range(3)] == [0, 3, 3]
    counted.take(Label(issue(version="6"), 1, 1))
    assert labels_of_version_6() == 4


def test_labels_that_nobody_reads_do_not_pile_up(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number they count at once."""
    monkeypatch.setattr(feedback, "MOST_HELD", 2)
    for _ in range(5):
        counted.take(Label(issue(version="6"), 1, 1))
    assert (
        counted.value("model_feedback_total", bin="01", outcome="1", model_name="risk", model_version="6")
        == 3
    )
    counted.labels.seen(counted.labels.unseen())
    assert (
        counted.value("model_feedback_total", bin="01", outcome="1", model_name="risk", model_version="6")
        == 5
    )


def test_a_repeated_label_is_refused(counted: Counted) -> None:
    """Whatever the outcome it now claims; another row of the same answer is no repeat."""
    token = issue()
    result = counted.take(Label(token, 0, 1), Label(token, 0, 0), Label(token, 1, 1))
    assert result == feedback.Result(2, ((1, "repeated"),))
    assert counted.value("sidecar_feedback_refused_total", reason="repeated") == 1


def test_the_labels_remembered_are_bounded(reference: Reference) -> None:
    """The oldest is forgotten first."""
    counted = Counted(reference, memory=2)
    token = issue()
    assert counted.take(*(Label(token, row, 0) for row in range(3))).accepted == 3
    assert counted.take(Label(token, 2, 0)).accepted == 0
    assert counted.take(Label(token, 0, 0)).accepted == 1


def test_every_refusal_is_counted_by_its_reason(counted: Counted) -> None:
    """Forged, expired, another model, a row that the answer did not have, malformed."""
    counted.take(
        Label("x", 0, 1),
        Label(issue(now=NOW - 31 * DAY), 0, 1),
        Label(issue(name="else"), 0, 1),
        Label(issue(), 3, 1),
        Label(issue(), -1, 1),
        None,
    )
    refused = {
        name: counted.value("sidecar_feedback_refused_total", reason=name) for name in FEEDBACK_REFUSALS
    }
    assert {name: count for name, count in refused.items() if count} == {
        "forged": 1,
        "expired": 1,
        "other_model": 1,
        "no_such_row": 2,
        "malformed": 1,
    }


@pytest.mark.parametrize(
    "label",
    [
        {},
        [],
        3,
        {"token": "a"},
        {"token": "a", "outcome": 2},
        {"token": "a", "outcome": "1"},
        {"token": "a", "outcome": 0.5},
        {"token": 1, "outcome": 1},
        {"token": "a", "outcome": 1, "row": "0"},
        {"token": "a", "outcome": 1, "row": True},
        {"token": "a", "outcome": 1, "extra": 1},
        {"token": "a" * 20_000, "outcome": 1},
    ],
)
def test_a_malformed_label_does_not_spoil_the_list(label: Any) -> None:
    """It is None in its place."""
    good = {"token": "t", "row": 1, "outcome": 1}
    assert feedback.parse(json.dumps([label, good]).encode(), 10) == [None, Label("t", 1, 1)]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[1, 2, 3]", b"[" * 100_000])
def test_what_is_no_list_of_labels_is_refused_as_a_whole(body: bytes) -> None:
    """No JSON, nothing in it, or more than the limit (2 here)."""
    with pytest.raises(MalformedError):
        feedback.parse(body, 2)


def test_one_label_may_come_without_a_list_and_without_a_row() -> None:
    """The common case: one person, one answer."""
    assert feedback.parse(b'{"token": "t", "outcome": true}', 10) == [Label("t", 0, 1)]


def test_a_token_comes_with_an_answer_and_goes_back_with_an_outcome(
    start: Start, scripted: Any, reference: Reference
) -> None:
    """Through two replicas that share keys and nothing else."""
    container = scripted()
    first = start(container.port, reference, feedback_keys=KEYS)
    second = start(container.port, reference, feedback_keys=(KEYS[1], KEYS[0]))
    answer = first.ask(body=people(15, 60))
    token = answer.headers["model-feedback-token"]
    reply = second.ask(
        path="/feedback",
        body=json.dumps([{"token": token, "row": 1, "outcome": 1}, {"token": token, "row": 2, "outcome": 1}]),
    )
    assert (reply.status, reply.json["accepted"], reply.json["reasons"]) == (
        200,
        1,
        [{"place": 1, "reason": "no_such_row"}],
    )
    assert (
        second.value("model_feedback_total", bin="02", outcome="1", model_name="risk", model_version="7") == 1
    )
    assert first.value("sidecar_feedback_tokens_total") == 1
    again = second.ask(path="/feedback", body=json.dumps({"token": token, "row": 1, "outcome": 1}))
    assert (again.status, again.json["reasons"][0]["reason"]) == (422, "repeated")


def test_no_token_is_given_for_many_rows_and_that_is_counted(
    start: Start, scripted: Any, reference: Reference
) -> None:
    """Two rows are the limit here."""
    sidecar = start(scripted().port, reference, feedback_keys=KEYS, feedback_token_rows=2)
    assert "model-feedback-token" in sidecar.ask(body=people(15, 60)).headers
    assert "model-feedback-token" not in sidecar.ask(body=people(15, 60, 70)).headers
    assert sidecar.value("sidecar_feedback_tokens_omitted_total", reason="too_many_rows") == 1


def test_feedback_asks_for_its_bearer_token(start: Start, scripted: Any, reference: Reference) -> None:
    """And the body is not even read without."""
    secret = "feedback-secret-0123"
    sidecar = start(scripted().port, reference, feedback_keys=KEYS, feedback_bearer_token=secret)
    assert sidecar.ask(path="/feedback", body="{}").status == 401
    assert sidecar.ask(path="/feedback", body="{", headers={"Authorization": "Bearer x"}).status == 401
    given = {**JSON, "Authorization": f"Bearer {secret}"}
    assert sidecar.ask(path="/feedback", body="{", headers=given).status == 400
    assert sidecar.value("sidecar_feedback_refused_total", reason="unauthorized") == 2


def test_without_keys_there_is_no_feedback(start: Start, scripted: Any, reference: Reference) -> None:
    """Neither tokens nor the path."""
    sidecar = start(scripted().port, reference)
    assert "model-feedback-token" not in sidecar.ask(body=people(15)).headers
    assert sidecar.ask(path="/feedback", body="{}").status == 404
