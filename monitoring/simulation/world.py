"""A simulated service: people of a scenario arrive, the model answers, the sidecar's real counters count.

It opens no connection and reads no clock: days are simulated in seconds, with the cohort's generator, the
model itself, and the sidecar's own metrics and counting of rows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from monitoring.reference import Reference
from monitoring.sidecar.counting import Observer, Seen
from monitoring.sidecar.feedback import Counted
from monitoring.sidecar.metrics import Metrics
from monitoring.sidecar.payloads import Prediction, Table
from monitoring.sidecar.rows import group
from monitoring.simulation import people as cohort
from monitoring.simulation.history import History, series_text
from monitoring.simulation.people import Facts
from steps.data.schema import Scenario, Schema
from steps.models import families

if TYPE_CHECKING:
    import pandas as pd

DAY = 86_400.0
VERSION = "1"
TARGETS = {
    "exporter": "exporter:9101",
    "prometheus": "localhost:9090",
    "node-exporter": "node-exporter:9100",
    "grafana": "grafana:3000",
}
# Job, resident memory in bytes, mean number of busy processors.
PROCESSES = (("prometheus", 3e8, 0.03), ("grafana", 1.5e8, 0.01))
# Seconds of a call of the model: the median, and the spread of the logarithm.
CALL_SECONDS, CALL_SPREAD = 0.018, 0.35
AGE_AT_START = 10 * DAY
SPAN_DAYS = 0.25


class World(NamedTuple):
    """The setting of a scenario; `model` has predict_proba, `reference` describes it."""

    schema: Schema
    facts: Facts
    model: Any
    reference: Reference


@dataclass(frozen=True, slots=True)
class Plan:
    """A scenario, people a day (before the scenario's own rate), the share with labels, and their delay.

    unflagged_share: share of the people under the threshold whose outcome comes back; None: `label_share`.
    """

    scenario: Scenario
    rows_a_day: float
    label_share: float = 0.5
    label_delay_days: float = 1.0
    seed: int = 1
    unflagged_share: float | None = None


class Pending(NamedTuple):
    """Labels to come: time of arrival, delay, score bin, risk, outcome and group of each."""

    due: NDArray[np.float64]
    delay: NDArray[np.float64]
    score_bins: NDArray[np.int64]
    risks: NDArray[np.float64]
    outcomes: NDArray[np.int64]
    groups: NDArray[np.int64]

    def of(self, chosen: NDArray[np.bool_]) -> Pending:
        """The labels of a mask."""
        return Pending._make(part[chosen] for part in self)


class Crowd(NamedTuple):
    """People who arrived in a span of time, and the answers for those whose request the server accepts.

    `frame` holds float64 columns, or text with None for missing, in the schema's order; `accepted`, shape
    (people,), is false where the server refuses the request, which has text in a number column.
    """

    frame: pd.DataFrame
    outcomes: NDArray[np.int64]
    risks: NDArray[np.float64]
    accepted: NDArray[np.bool_]


def people(world: World, plan: Plan, day: float, rows: int, first: int) -> Crowd:
    """People `first` to `first + rows` of the plan's seed as they are on a day of the scenario."""
    drawn = cohort.generate(world.facts, world.schema, rows, plan.seed, plan.scenario, day, first)
    accepted = np.ones(rows, dtype=np.bool_)
    for column in world.schema.columns:
        if not column.is_text and drawn[column.name].dtype == object:
            accepted &= np.array([not isinstance(value, str) for value in drawn[column.name]], dtype=np.bool_)
    accepted_people = drawn[accepted]
    outcomes = accepted_people[world.schema.target.name].isin(list(world.schema.target.positive))
    numbers = [column.name for column in world.schema.columns if not column.is_text]
    frame = accepted_people[list(world.schema.feature_names)].astype(dict.fromkeys(numbers, "float64"))
    risks = families.predict_risk(world.model, frame) if len(frame) else np.empty(0)
    return Crowd(frame, np.asarray(outcomes, dtype=np.int64), risks, accepted)


def json_rows(frame: pd.DataFrame) -> list[list[Any]]:
    """Rows of a request: null for missing."""
    return [
        [None if value is None or value != value else value for value in row]
        for row in frame.to_numpy().tolist()
    ]


def play(world: World, plan: Plan, times: Sequence[float], history: History) -> Iterator[float]:
    """Play a scenario into `history`; yields each of `times` (seconds, ascending) when it is done.

    Day 0 of the scenario is `times[0]`.
    """
    start = times[0]
    trained = dataclasses.replace(world.reference.model, trained_at=start - AGE_AT_START)
    reference = dataclasses.replace(world.reference, model=trained)
    metrics = Metrics(CollectorRegistry(), reference, VERSION)
    observer = Observer(metrics, reference, limit=1_000_000)
    metrics.set_golden_rows_match(True)
    rng = np.random.default_rng([plan.seed, len(times)])
    pending = _nothing()
    for time, crowd in arrivals(world, plan, times):
        _count(metrics, observer, crowd, rng)
        pending = _join(pending, _labels(plan, reference, crowd, time, rng))
        pending = _deliver(metrics, reference.score.threshold_bin, pending, time)
        metrics.upstream_contact.set(time)
        history.scrape(
            metrics.registry,
            time,
            {"job": "exporter", "instance": TARGETS["exporter"]},
            surroundings(time - start),
        )
        yield time


def arrivals(world: World, plan: Plan, times: Sequence[float]) -> Iterator[tuple[float, Crowd]]:
    """The people who arrived by each time since the time before; drawn for a span of time at once."""
    start = times[0]
    days = [(time - start) / DAY for time in times]
    lengths = [0.0, *(later - earlier for earlier, later in pairwise(days))]
    arrived = np.cumsum(
        [
            length * plan.rows_a_day * plan.scenario.rate(day)
            for length, day in zip(lengths, days, strict=True)
        ]
    ).astype(np.int64)
    spans = np.floor(np.asarray(days) / SPAN_DAYS).astype(np.int64)
    for span in np.unique(spans):
        indices = np.flatnonzero(spans == span)
        first = int(arrived[indices[0] - 1]) if indices[0] else 0
        crowd = people(
            world, plan, days[indices[len(indices) // 2]], int(arrived[indices[-1]]) - first, first
        )
        accepted_before = np.concatenate([[0], np.cumsum(crowd.accepted)])
        low = 0
        for index in indices.tolist():
            high = int(arrived[index]) - first
            rows = slice(accepted_before[low], accepted_before[high])
            part = Crowd(crowd.frame[rows], crowd.outcomes[rows], crowd.risks[rows], crowd.accepted[low:high])
            yield times[index], part
            low = high


def surroundings(elapsed: float) -> dict[str, float]:
    """Series of the other exporters after `elapsed` seconds: all targets up, a quiet host."""
    series: dict[str, float] = {}

    def add(name: str, job: str, value: float, /, **labels: str) -> None:
        series[series_text(name, {**labels, "job": job, "instance": TARGETS[job]})] = value

    for job in TARGETS:
        add("up", job, 1.0)
    add("node_memory_MemTotal_bytes", "node-exporter", 8e9)
    add("node_memory_MemAvailable_bytes", "node-exporter", 5e9 + 2e8 * math.sin(elapsed / 7000))
    disk = {"device": "/dev/vda1", "fstype": "ext4", "mountpoint": "/"}
    add("node_filesystem_size_bytes", "node-exporter", 1e11, **disk)
    add("node_filesystem_avail_bytes", "node-exporter", 6e10 - 1e4 * elapsed, **disk)
    for mode, share in (("idle", 0.85), ("user", 0.12), ("system", 0.03)):
        add("node_cpu_seconds_total", "node-exporter", share * elapsed, cpu="0", mode=mode)
    for job, memory, load in PROCESSES:
        add("process_start_time_seconds", job, 1.7e9)
        add("process_resident_memory_bytes", job, memory)
        add("process_cpu_seconds_total", job, load * elapsed)
    return series


def _count(
    metrics: Metrics,
    observer: Observer,
    crowd: Crowd,
    rng: np.random.Generator,
) -> None:
    """Count one person per request, as the sidecar counts forwarded requests."""
    rows, refused = json_rows(crowd.frame), int((~crowd.accepted).sum())
    if rows:
        table = Table("dataframe_split", tuple(crowd.frame.columns), rows)
        predictions = [Prediction("", risk) for risk in crowd.risks.tolist()]
        observer.put(Seen("application/json", b"", True, b"", [table], predictions))
        observer.drain()
    metrics.requests["invocations"]["2xx"].inc(len(rows))
    metrics.requests["invocations"]["4xx"].inc(refused)
    sizes = rng.integers(1, 4, len(rows) + refused)
    for seconds in rng.lognormal(np.log(CALL_SECONDS), CALL_SPREAD, len(rows) + refused).tolist():
        metrics.upstream_duration.observe(seconds)
        metrics.duration.observe(seconds + 0.002)
        metrics.batch_size.observe(1)
    metrics.batches["idle"].inc(int((sizes == 1).sum()))
    metrics.batches["upstream_free"].inc(int((sizes > 1).sum()))
    metrics.tokens.inc(len(rows))


def _nothing() -> Pending:
    numbers, indices = np.empty(0), np.empty(0, np.int64)
    return Pending(numbers, numbers, indices, numbers, indices, indices)


def _join(old: Pending, new: Pending) -> Pending:
    return Pending._make(np.concatenate(parts) for parts in zip(old, new, strict=True))


def _labels(
    plan: Plan,
    reference: Reference,
    crowd: Crowd,
    time: float,
    rng: np.random.Generator,
) -> Pending:
    """The outcomes that will be reported, each after a delay with the plan's mean (exponential)."""
    unflagged = plan.label_share if plan.unflagged_share is None else plan.unflagged_share
    share = np.where(crowd.risks >= reference.score.threshold, plan.label_share, unflagged)
    chosen = rng.random(len(crowd.risks)) < share
    delay = rng.exponential(plan.label_delay_days * DAY, len(chosen))[chosen]
    risks = crowd.risks[chosen]
    return Pending(
        time + delay,
        delay,
        reference.score.bin(risks),
        risks,
        crowd.outcomes[chosen],
        group_indices(reference, crowd.frame[chosen]),
    )


def group_indices(reference: Reference, frame: pd.DataFrame) -> NDArray[np.int64]:
    """Indices of the groups that the monitor counts by, from 1, shape (rows,); 0 for none."""
    if reference.groups is None:
        return np.zeros(len(frame), np.int64)
    values = frame[reference.groups.feature.name].tolist()
    return np.array([group(reference.groups, value) for value in values], np.int64)


def _deliver(metrics: Metrics, threshold_bin: int, pending: Pending, time: float) -> Pending:
    """Count the labels that are due, as the sidecar's /feedback does; returns the other labels."""
    due = pending.due <= time
    arrived = pending.of(due)
    for delay, score_bin, risk, outcome, own_group in zip(
        *(part.tolist() for part in arrived[1:]), strict=True
    ):
        count_label(metrics, Counted(score_bin, outcome, risk, delay, own_group, score_bin >= threshold_bin))
    return pending.of(~due)


def count_label(metrics: Metrics, label: Counted) -> None:
    """Count one late label as the sidecar's /feedback does."""
    counters = metrics.feedback[VERSION]
    score_bin, outcome, risk = label.score_bin, label.outcome, label.risk
    counters.labels[score_bin][outcome].inc()
    counters.risk_sums[score_bin][outcome].inc(risk)
    counters.squared_risk_sums[score_bin][outcome].inc(risk * risk)
    counters.delay.observe(label.delay)
    if label.group:
        by_group = counters.groups[label.group - 1]
        by_group.labels[label.flagged][outcome].inc()
        by_group.risk_sums[label.flagged].inc(risk)
