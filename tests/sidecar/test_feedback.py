"""Feedback tokens and late labels."""

import base64
import json
import os
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from monitoring.reference import Reference
from monitoring.sidecar import feedback, feedback_tokens
from monitoring.sidecar.feedback import Feedback, Label, MalformedError
from monitoring.sidecar.feedback_tokens import Row
from monitoring.sidecar.metrics import FEEDBACK_REFUSALS, Metrics
from tests.made_up.sidecars import JSON, KEYS, Start, ask, people

NOW = 1_800_000_000.0
DAY = 86_400


ROWS = (Row(0, 0.1, 2), Row(1, 0.3), Row(2, 0.75, 1, flagged=True))
# What the sidecar of before 2026-11-27 gave for the same rows: format 1, no groups.
FORMER = "AWtJ0gAAAQIDBAUGBwQBcmlzazcAGZoBTMwCv_9aFId8Cp0uSE3M_nmGBbwE"


def issue(
    version: str = "7", name: str = "risk", key: str = KEYS[0], now: float = NOW, groups_key: int = 0
) -> str:
    """A token for three rows."""
    return feedback_tokens.issue(
        [key], name, version, ROWS, groups_key=groups_key, now=now, random=os.urandom
    )


def read(token: str, now: float = NOW, keys: tuple[str, ...] = KEYS) -> feedback_tokens.Issued:
    return feedback_tokens.read(keys, "risk", token, now=now, lifetime=30 * DAY)


def reason(token: str, **more: Any) -> str:
    with pytest.raises(feedback_tokens.TokenError) as raised:
        read(token, **more)
    return raised.value.reason


def test_a_token_says_what_was_predicted() -> None:
    """Version, time, bins, groups exactly; risks to one part in 65,535."""
    issued = read(issue(version="7é", groups_key=4_000_000_000))
    assert (issued.version, issued.issued_at, issued.groups_key) == ("7é", int(NOW), 4_000_000_000)
    rows = [issued.row(place) for place in range(len(issued))]
    assert [row._replace(risk=0) for row in rows] == [row._replace(risk=0) for row in ROWS]
    assert [row.risk for row in rows] == pytest.approx([0.1, 0.3, 0.75], abs=1 / 65535)


def test_a_token_of_the_former_format_stays_readable() -> None:
    """Labels come months later; its rows are in no group."""
    issued = read(FORMER)
    assert (issued.version, issued.issued_at, issued.groups_key) == ("7", int(NOW), 0)
    assert [(row.bin, row.group, row.flagged) for row in map(issued.row, range(3))] == [
        (0, 0, False),
        (1, 0, False),
        (2, 0, False),
    ]
    assert issued.row(2).risk == pytest.approx(0.75, abs=1 / 65535)


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
        chosen = {"lifetime": 30 * DAY, "versions": 2, "memory": 1000, "lot_rows": 10, **limits}
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
    positive = [Label(issue(now=issued_at), 2, 1) for _ in range(6)]
    negative = [Label(issue(now=issued_at), 0, 0) for _ in range(4)]
    assert counted.take(*positive, *negative) == feedback.Result(10, ())
    labels = {"bin": "02", "outcome": "1", "model_name": "risk", "model_version": "7"}
    assert counted.value("model_feedback_total", **labels) == 6
    assert counted.value("model_feedback_risk_sum_total", **labels) == pytest.approx(4.5, abs=0.005)
    assert counted.value("model_feedback_squared_risk_sum_total", **labels) == pytest.approx(3.375, abs=0.006)
    assert (
        counted.value("model_feedback_total", bin="00", outcome="0", model_name="risk", model_version="7")
        == 4
    )
    assert counted.value("model_feedback_delay_seconds_count", model_name="risk", model_version="7") == 10
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
        == 10
    )


def test_labels_of_older_versions_have_series_of_their_own_up_to_a_number(counted: Counted) -> None:
    """Two here; the third counts as other. All their bins are there from the first label on."""
    for version in ("6", "5", "4"):
        assert counted.take(*(Label(issue(version=version), 1, 1) for _ in range(10))).accepted == 10
    counted.labels.seen(counted.labels.unseen())
    counts = {
        version: counted.value(
            "model_feedback_total", bin="01", outcome="1", model_name="risk", model_version=version
        )
        for version in ("7", "6", "5", "4", "other")
    }
    assert counts == {"7": 0, "6": 10, "5": 10, "4": None, "other": 10}
    assert (
        counted.value("model_feedback_total", bin="00", outcome="0", model_name="risk", model_version="6")
        == 0
    )


def test_the_first_labels_of_an_older_version_are_an_increase_for_whoever_reads_the_metrics(
    start: Start, reference: Reference
) -> None:
    """Its series are read at 0 once before they count: one that was born with its labels would hide them."""
    sidecar = start(9, reference, feedback_keys=KEYS)
    labels = sidecar.sidecar.labels

    def labels_of_version_6() -> float | None:
        line = 'model_feedback_total{bin="01",model_name="risk",model_version="6",outcome="1"} '
        text = ask(sidecar.sidecar.metrics_server.port, "GET", "/metrics", headers={}).body.decode()
        return next((float(found.removeprefix(line)) for found in text.splitlines() if line in found), None)

    def take(count: int) -> None:
        assert labels.take([Label(issue(version="6", now=time.time()), 1, 1) for _ in range(count)]).accepted

    assert labels_of_version_6() is None
    take(10)
    assert [labels_of_version_6() for _ in range(3)] == [0, 10, 10]
    take(9)
    assert labels_of_version_6() == 10
    take(1)
    assert labels_of_version_6() == 20


def test_labels_that_nobody_reads_do_not_pile_up(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number they count at once."""
    monkeypatch.setattr(feedback, "MOST_HELD", 20)
    for _ in range(25):
        counted.take(Label(issue(version="6"), 1, 1))

    def labels_of_version_6() -> float | None:
        return counted.value(
            "model_feedback_total", bin="01", outcome="1", model_name="risk", model_version="6"
        )

    assert labels_of_version_6() == 20
    for _ in range(5):
        counted.take(Label(issue(version="6"), 1, 1))
    counted.labels.seen(counted.labels.unseen())
    assert labels_of_version_6() == 30


def test_a_later_label_replaces_an_earlier_one_while_its_lot_is_open(counted: Counted) -> None:
    """After that it is refused as repeated; another row of the same answer is no repeat."""
    token = issue()
    assert counted.take(Label(token, 0, 1), Label(token, 0, 0), Label(token, 1, 1)) == feedback.Result(3, ())
    counted.take(*(Label(issue(), 2, 1) for _ in range(8)))
    outcomes = [
        counted.value("model_feedback_total", bin="00", outcome=outcome, model_name="risk", model_version="7")
        for outcome in ("0", "1")
    ]
    assert outcomes == [1, 0], "the later label counts"
    assert counted.take(Label(token, 0, 1)) == feedback.Result(0, ((0, "repeated"),))
    assert counted.value("sidecar_feedback_refused_total", reason="repeated") == 1


def test_labels_of_an_unfilled_lot_are_dropped_at_the_stop_and_counted(counted: Counted) -> None:
    """Nine of them."""
    counted.take(*(Label(issue(), 2, 1) for _ in range(9)))
    counted.labels.stop()
    assert counted.value("sidecar_lot_rows_dropped_total", kind="labels") == 9


def by_group(counted: Counted, group: str, version: str = "7") -> dict[str, float | None]:
    """Labels by class and outcome, such as flagged and ill: "11"."""
    return {
        predicted + outcome: counted.value(
            "model_group_feedback_total",
            group=group,
            predicted=predicted,
            outcome=outcome,
            model_name="risk",
            model_version=version,
        )
        for predicted in "01"
        for outcome in "01"
    }


def test_labels_count_by_group_once_ten_of_a_group_have_come(counted: Counted) -> None:
    """With the class that the row had when it was predicted, and the sum of the risks."""
    key = counted.metrics.groups_key
    counted.take(*(Label(issue(groups_key=key), 2, number % 2) for number in range(10)))
    counted.take(*(Label(issue(groups_key=key), 0, 1) for _ in range(9)))
    counted.take(Label(issue(groups_key=key), 1, 1), *(Label(issue(), 1, 1) for _ in range(10)))
    assert by_group(counted, "young or middle") == {"00": 0, "01": 0, "10": 5, "11": 5}
    assert set(by_group(counted, "old").values()) == {0}, "nine labels wait for a tenth"
    risks = {"group": "young or middle", "model_name": "risk", "model_version": "7"}
    assert counted.value("model_group_feedback_risk_sum_total", predicted="1", **risks) == pytest.approx(
        7.5, abs=0.01
    )
    counted.take(*(Label(issue(groups_key=key), 0, 1) for _ in range(10)))
    assert by_group(counted, "old") == {"00": 0, "01": 19, "10": 0, "11": 0}
    counted.take(*(Label(issue(groups_key=key), 0, 1) for _ in range(10)))
    counted.take(*(Label(issue(version="other"), 1, 1) for _ in range(3)))
    counted.labels.stop()
    assert counted.value("sidecar_lot_rows_dropped_total", kind="labels") == 3


def test_groups_of_another_schema_and_tokens_of_the_former_format_count_without_a_group(
    counted: Counted,
) -> None:
    """Place 1 may be somebody else there."""
    counted.take(*(Label(issue(groups_key=12345), 2, 1) for _ in range(10)), Label(FORMER, 2, 1))
    counted.take(*(Label(issue(), 0, 1) for _ in range(9)))
    labels = {"outcome": "1", "model_name": "risk", "model_version": "7"}
    assert counted.value("model_feedback_total", bin="02", **labels) == 11
    assert {*by_group(counted, "young or middle").values(), *by_group(counted, "old").values()} == {0}


def test_labels_of_a_group_that_wait_are_dropped_at_the_stop_and_counted(counted: Counted) -> None:
    """Ten labels reach the metrics, and none of them by group."""
    key = counted.metrics.groups_key
    counted.take(*(Label(issue(groups_key=key), row, 1) for row in (0, 2) for _ in range(5)))
    counted.labels.stop()
    assert counted.value("sidecar_lot_rows_dropped_total", kind="labels") == 0
    assert counted.value("sidecar_lot_rows_dropped_total", kind="group_labels") == 10


@pytest.mark.parametrize("form", ["plain", "in another order"])
def test_the_token_of_an_answer_carries_the_group_of_each_row(
    start: Start, scripted: Any, reference: Reference, form: str
) -> None:
    """From the request, whatever its form; an answer without an age has none."""
    sidecar = start(scripted().port, reference, feedback_keys=KEYS)
    body = people(15, 60).replace('60, 1, "Oslo"', '60, 3, "Oslo"')
    if form == "in another order":
        first, second = {"BMI": 15, "Age": 1, "city": "Oslo"}, {"BMI": 60, "city": "Oslo", "Age": 3}
        body = json.dumps({"dataframe_records": [first, second]})
    token = sidecar.ask(body=body).headers["model-feedback-token"]
    issued = feedback_tokens.read(KEYS, "risk", token, now=time.time(), lifetime=DAY)
    assert issued.groups_key == sidecar.sidecar.metrics.groups_key
    assert [issued.row(place).group for place in range(2)] == [1, 2]
    no_age = people(15).replace('15, 1, "Oslo"', '15, null, "Oslo"')
    token = sidecar.ask(body=no_age).headers["model-feedback-token"]
    issued = feedback_tokens.read(KEYS, "risk", token, now=time.time(), lifetime=DAY)
    assert issued.row(0).group == 0


def test_the_labels_remembered_are_bounded(reference: Reference) -> None:
    """The latest half of them at least; then the oldest are forgotten."""
    counted = Counted(reference, memory=4, lot_rows=1)
    token, other = issue(), issue()
    assert counted.take(*(Label(token, row, 0) for row in range(3)), Label(other, 0, 0)).accepted == 4
    assert counted.take(Label(other, 0, 0)).accepted == 0
    assert counted.take(Label(other, 1, 0)).accepted == 1
    assert counted.take(Label(token, 0, 0)).accepted == 1


def test_every_refusal_is_counted_by_its_reason(counted: Counted) -> None:
    """Forged, expired, another model, a row that the answer did not have, malformed."""
    counted.take(
        Label("x", 0, 1),
        Label(issue(now=NOW - 31 * DAY), 0, 1),
        Label(issue(name="else"), 0, 1),
        Label(issue(), 3, 1),
        Label(issue(), -1, 1),
        Label(issue(), None, 1),
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
        "row_missing": 1,
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
        {"token": "a", "outcome": "yes"},
        {"token": "a", "outcome": "2"},
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
    assert feedback.parse(b'{"token": "t", "outcome": true}', 10) == [Label("t", None, 1)]


@pytest.mark.parametrize(
    ("written", "outcome"), [("1.0", 1), ('"1"', 1), ('"1.0"', 1), ("0.0", 0), ('"0"', 0)]
)
def test_an_outcome_may_be_written_as_pandas_writes_it(written: str, outcome: int) -> None:
    """A column of labels with a gap is one of floats."""
    assert feedback.parse(b'{"token": "t", "outcome": %s}' % written.encode(), 1) == [
        Label("t", None, outcome)
    ]


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
    assert first.value("sidecar_feedback_tokens_total") == 1
    assert second.ask(path="/feedback", body="{}" + "x" * 2000).status == 400
    for number in range(9):
        token = first.ask(body=people(60 + number)).headers["model-feedback-token"]
        second.ask(path="/feedback", body=json.dumps({"token": token, "outcome": 1}))
    assert second.value("model_feedback_total", bin="02", outcome="1", model_version="7") == 10
    again = second.ask(path="/feedback", body=json.dumps({"token": token, "outcome": 1}))
    assert (again.status, again.json["reasons"][0]["reason"]) == (422, "repeated")
    whole = first.ask(body=people(20, 30)).headers["model-feedback-token"]
    reply = second.ask(path="/feedback", body=json.dumps({"token": whole, "outcome": 1}))
    assert (reply.status, reply.json["reasons"][0]["reason"]) == (422, "row_missing")


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
    tokens = (secret, "feedback-secret-4567")
    sidecar = start(scripted().port, reference, feedback_keys=KEYS, feedback_bearer_token=tokens)
    assert sidecar.ask(path="/feedback", body="{}").status == 401
    assert sidecar.ask(path="/feedback", body="{", headers={"Authorization": "Bearer x"}).status == 401
    for token in tokens:
        given = {**JSON, "Authorization": f"Bearer {token}"}
        assert sidecar.ask(path="/feedback", body="{", headers=given).status == 400
    assert sidecar.value("sidecar_feedback_refused_total", reason="unauthorized") == 2


def test_without_keys_there_is_no_feedback(start: Start, scripted: Any, reference: Reference) -> None:
    """Neither tokens nor the path."""
    sidecar = start(scripted().port, reference)
    assert "model-feedback-token" not in sidecar.ask(body=people(15)).headers
    assert sidecar.ask(path="/feedback", body="{}").status == 404
