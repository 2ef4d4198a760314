"""Live traffic of a scenario through the sidecar: requests at a rate, late labels after a delay.

Every answer is counted as the sidecar counts it, so that the report can name the alerts to expect.
"""

from __future__ import annotations

import http.client
import json
import queue
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from prometheus_client import CollectorRegistry

from monitoring.reference import Reference
from monitoring.sidecar import payloads
from monitoring.sidecar.counting import Observer, Seen
from monitoring.sidecar.feedback import Counted
from monitoring.sidecar.metrics import Metrics
from monitoring.sidecar.proxy import TOKEN_HEADER
from monitoring.simulation import expected
from monitoring.simulation import people as cohort
from monitoring.simulation.history import History
from monitoring.simulation.world import DAY, TARGETS, VERSION, count_label
from steps.data.errors import UserError

if TYPE_CHECKING:
    from monitoring.simulation.people import Facts
    from steps.data.schema import Scenario, Schema

LABELS_A_REQUEST = 200
TIMEOUT_SECONDS = 60.0
# Tokens come from the sidecar's own environment variables: every user of a machine can read command lines.
BEARER = "MODEL_EXPORTER_BEARER_TOKEN"
FEEDBACK_BEARER = "MODEL_EXPORTER_FEEDBACK_BEARER_TOKEN"


class Traffic(NamedTuple):
    """Address, rate (requests a second), duration, connections and labels of the traffic to send.

    The tokens are for a sidecar that requires them; empty is none.
    """

    url: str
    rate: float
    seconds: float
    clients: int
    label_share: float
    label_delay: float
    seed: int
    token: str = ""
    feedback_token: str = ""


class Report(NamedTuple):
    """Figures of requests and answers, and the alerts to expect."""

    figures: dict[str, Any]
    alerts: expected.Alerts
    answered: int


@dataclass
class _Tally:
    """Counts of all clients, behind one lock."""

    observer: Observer
    metrics: Metrics
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    late: list[tuple[float, str, int, float]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def send(schema: Schema, facts: Facts, scenario: Scenario, reference: Reference, traffic: Traffic) -> Report:
    """Send the traffic, the scenario in full strength, with a progress bar; UserError if nothing answers."""
    from tqdm import tqdm

    total = max(1, int(traffic.rate * scenario.rate() * traffic.seconds))
    people = cohort.generate(facts, schema, total, traffic.seed, scenario)
    outcomes = people[schema.target.name].isin(list(schema.target.positive)).to_numpy()
    columns = list(schema.feature_names)
    rows = people[columns].astype(object).where(people[columns].notna(), None).to_numpy().tolist()
    metrics = Metrics(CollectorRegistry(), reference, VERSION)
    tally = _Tally(Observer(metrics, reference, limit=total + 1), metrics)
    _check_listening(traffic)
    due: queue.Queue[int | None] = queue.Queue()
    chosen = np.random.default_rng(traffic.seed).random(total) < traffic.label_share
    started = time.monotonic()
    with tqdm(total=total, unit=" requests", disable=None) as bar:

        def work() -> None:
            connection = _connect(traffic.url)
            while (index := due.get()) is not None:
                body = json.dumps({"dataframe_split": {"columns": columns, "data": [_plain(rows[index])]}})
                label = int(outcomes[index]) if chosen[index] else None
                connection = _ask(connection, traffic, body.encode(), label, tally)
                with tally.lock:
                    bar.update()
            connection.close()

        threads = [threading.Thread(target=work) for _ in range(traffic.clients)]
        for thread in threads:
            thread.start()
        for index in range(total):
            wait = started + index / total * traffic.seconds - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            due.put(index)
            if index % LABELS_A_REQUEST == 0:
                _send_labels(traffic, tally, reference, time.monotonic())
        for _ in threads:
            due.put(None)
        for thread in threads:
            thread.join()
    last = max((at for at, *_ in tally.late), default=0.0)
    time.sleep(max(0.0, min(last - time.monotonic(), traffic.label_delay)))
    _send_labels(traffic, tally, reference, float("inf"))
    return _report(tally, reference, total, time.monotonic() - started)


def _plain(row: list[Any]) -> list[Any]:
    return [value.item() if isinstance(value, np.generic) else value for value in row]


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=TIMEOUT_SECONDS)


def _headers(token: str) -> dict[str, str]:
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})


def _check_listening(traffic: Traffic) -> None:
    parts = urlsplit(traffic.url)
    try:
        if parts.scheme != "http" or not parts.hostname:
            raise OSError("it should be http://host:port")
        connection = _connect(traffic.url)
        connection.request("GET", "/ping", headers=_headers(traffic.token))
        answer = connection.getresponse()
        answer.read()
        connection.close()
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"nothing answers at {traffic.url} ({error}): `make serve` or `make stack` starts it"
        ) from None
    if answer.status == 401:
        raise UserError(
            f"the sidecar at {traffic.url} asks for a bearer token, and "
            + (f"that of {BEARER} is another" if traffic.token else f"{BEARER} is not set")
        )


def _ask(
    connection: http.client.HTTPConnection, traffic: Traffic, body: bytes, label: int | None, tally: _Tally
) -> http.client.HTTPConnection:
    """Send a request and count its answer; returns the connection for the next request."""
    started = time.monotonic()
    try:
        connection.request("POST", "/invocations", body, _headers(traffic.token))
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        with tally.lock:
            tally.statuses["no answer"] += 1
        return _connect(traffic.url)
    ended = time.monotonic()
    token = answer.getheader(TOKEN_HEADER)
    predictions = payloads.predictions(content) if answer.status == 200 else None
    with tally.lock:
        tally.statuses[str(answer.status)] += 1
        tally.metrics.requests["invocations"][f"{answer.status // 100}xx"].inc()
        tally.metrics.duration.observe(ended - started)
        tally.seconds.append(ended - started)
        tally.observer.put(Seen("application/json", body, answer.status == 200, content))
        risk = payloads.risk(predictions[0].value) if predictions else None
        if label is not None and token is not None and risk is not None:
            tally.late.append((ended + traffic.label_delay, token, label, risk))
    return connection


def _send_labels(traffic: Traffic, tally: _Tally, reference: Reference, now: float) -> None:
    """Post the labels that are due, and count those that were accepted."""
    with tally.lock:
        due = [late for late in tally.late if late[0] <= now]
        tally.late = [late for late in tally.late if late[0] > now]
    for start in range(0, len(due), LABELS_A_REQUEST):
        batch = due[start : start + LABELS_A_REQUEST]
        connection = _connect(traffic.url)
        labels = [{"token": token, "row": 0, "outcome": outcome} for _, token, outcome, _ in batch]
        try:
            connection.request("POST", "/feedback", json.dumps(labels), _headers(traffic.feedback_token))
            answer = connection.getresponse()
            accepted = int(json.loads(answer.read()).get("accepted", 0))
        except (OSError, ValueError, http.client.HTTPException):
            accepted = 0
        connection.close()
        tally.labels["accepted"] += accepted
        tally.labels["refused"] += len(batch) - accepted
        if accepted == len(batch):
            for _, _, outcome, risk in batch:
                score_bin = reference.score.bin_value(risk)
                count_label(tally.metrics, Counted(score_bin, outcome, risk, traffic.label_delay))


def _report(tally: _Tally, reference: Reference, sent: int, took: float) -> Report:
    tally.observer.drain()
    history = History()
    target = {"job": "exporter", "instance": TARGETS["exporter"]}
    history.scrape(CollectorRegistry(), 0.0, target, {})
    history.scrape(tally.metrics.registry, DAY, target, {})
    times = np.sort(tally.seconds) * 1000 if tally.seconds else np.array([np.nan])
    figures = {
        "requests": sent,
        "answers": dict(sorted(tally.statuses.items())),
        "requests a second": round(sent / took, 1),
        "milliseconds, half within": round(float(np.quantile(times, 0.5)), 1),
        "milliseconds, 99 of 100 within": round(float(np.quantile(times, 0.99)), 1),
        "labels": dict(tally.labels),
    }
    return Report(figures, expected.breaching(history, reference, DAY), tally.statuses["200"])
