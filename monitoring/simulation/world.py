"""A simulated service: people of a scenario come, the model answers, the sidecar's real counters count.

Nothing here opens a connection or looks at a clock: a past of days is played in seconds, from the cohort's
generator, the model itself, the exporter's own metrics and its own counting of rows.
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
# Job, bytes that its process holds, processors that it keeps busy.
PROCESSES = (("prometheus", 3e8, 0.03), ("grafana", 1.5e8, 0.01))
# A call of the model takes so many seconds: the median, and the spread of its logarithm.
CALL_SECONDS, CALL_SPREAD = 0.018, 0.35
AGE_AT_START = 10 * DAY
SPAN_DAYS = 0.25


class World(NamedTuple):
    """What a scenario is played with; `model` has predict_proba, `reference` describes it."""

    schema: Schema
    facts: Facts
    model: Any
    reference: Reference


@dataclass(frozen=True, slots=True)
class Plan:
    """What is played: people a day (before the scenario's own rate), labels for a share of them, when.

    unflagged_share: of the people under the threshold whose outcome comes back; None: as of the others.
    """

    scenario: Scenario
    rows_a_day: float
    label_share: float = 0.5
    label_delay_days: float = 1.0
    seed: int = 1
    unflagged_share: float | None = None


class Pending(NamedTuple):
    """Labels on their way: when each arrives, how late it then is, its score bin, risk, outcome and group."""

    due: NDArray[np.float64]
    delay: NDArray[np.float64]
    places: NDArray[np.int64]
    risks: NDArray[np.float64]
    outcomes: NDArray[np.int64]
    groups: NDArray[np.int64]

    def of(self, chosen: NDArray[np.bool_]) -> Pending:
        """Those of a mask."""
        return Pending._make(part[chosen] for part in self)


class Crowd(NamedTuple):
    """People who came in some time: what the model is asked of those whose request it takes, and the rest.

    `frame` holds float64 columns, or text with None for missing, in the schema's order; `asked` says of every
    person, shape (people,), whether the server takes the request (it refuses text in a number column).
    """

    frame: pd.DataFrame
    outcomes: NDArray[np.int64]
    risks: NDArray[np.float64]
    asked: NDArray[np.bool_]


def people(world: World, plan: Plan, day: float, rows: int, first: int) -> Crowd:
    """People `first` to `first + rows` of the plan's seed as they are on a day of the scenario."""
    drawn = cohort.generate(world.facts, world.schema, rows, plan.seed, plan.scenario, day, first)
    asked = np.ones(rows, dtype=np.bool_)
    for column in world.schema.columns:
        if not column.is_text and drawn[column.name].dtype == object:
            asked &= np.array([not isinstance(value, str) for value in drawn[column.name]], dtype=np.bool_)
    kept = drawn[asked]
    outcomes = kept[world.schema.target.name].isin(list(world.schema.target.positive))
    numbers = [column.name for column in world.schema.columns if not column.is_text]
    frame = kept[list(world.schema.feature_names)].astype(dict.fromkeys(numbers, "float64"))
    risks = families.predict_risk(world.model, frame) if len(frame) else np.empty(0)
    return Crowd(frame, np.asarray(outcomes, dtype=np.int64), risks, asked)


def json_rows(frame: pd.DataFrame) -> list[list[Any]]:
    """Rows as a request holds them: null for missing."""
    return [
        [None if value is None or value != value else value for value in row]
        for row in frame.to_numpy().tolist()
    ]


def play(world: World, plan: Plan, times: Sequence[float], history: History) -> Iterator[float]:
    """Play a scenario into `history`; gives each of the moments `times` (seconds, ascending) when it is done.

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
    for now, crowd in arrivals(world, plan, times):
        _count(metrics, observer, crowd, rng)
        pending = _join(pending, _labels(plan, reference, crowd, now, rng))
        pending = _deliver(metrics, reference.score.threshold_bin, pending, now)
        metrics.upstream_contact.set(now)
        history.scrape(
            metrics.registry,
            now,
            {"job": "exporter", "instance": TARGETS["exporter"]},
            surroundings(now - start),
        )
        yield now


def arrivals(world: World, plan: Plan, times: Sequence[float]) -> Iterator[tuple[float, Crowd]]:
    """Who came up to each moment since the one before; people are drawn for a span of time at once."""
    start = times[0]
    days = [(now - start) / DAY for now in times]
    lengths = [0.0, *(right - left for left, right in pairwise(days))]
    came = np.cumsum(
        [
            length * plan.rows_a_day * plan.scenario.rate(day)
            for length, day in zip(lengths, days, strict=True)
        ]
    ).astype(np.int64)
    spans = np.floor(np.asarray(days) / SPAN_DAYS).astype(np.int64)
    for span in np.unique(spans):
        places = np.flatnonzero(spans == span)
        first = int(came[places[0] - 1]) if places[0] else 0
        crowd = people(world, plan, days[places[len(places) // 2]], int(came[places[-1]]) - first, first)
        taken = np.concatenate([[0], np.cumsum(crowd.asked)])
        low = 0
        for place in places.tolist():
            high = int(came[place]) - first
            rows = slice(taken[low], taken[high])
            part = Crowd(crowd.frame[rows], crowd.outcomes[rows], crowd.risks[rows], crowd.asked[low:high])
            yield times[place], part
            low = high


def surroundings(elapsed: float) -> dict[str, float]:
    """What the other exporters would say after so many seconds: all targets up, a quiet host."""
    found: dict[str, float] = {}

    def add(name: str, job: str, value: float, /, **labels: str) -> None:
        found[series_text(name, {**labels, "job": job, "instance": TARGETS[job]})] = value

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
    return found


def _count(
    metrics: Metrics,
    observer: Observer,
    crowd: Crowd,
    rng: np.random.Generator,
) -> None:
    """Count one person a request, as the sidecar does for what it forwards."""
    rows, refused = json_rows(crowd.frame), int((~crowd.asked).sum())
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
    times, places = np.empty(0), np.empty(0, np.int64)
    return Pending(times, times, places, times, places, places)


def _join(old: Pending, new: Pending) -> Pending:
    return Pending._make(np.concatenate(parts) for parts in zip(old, new, strict=True))


def _labels(
    plan: Plan,
    reference: Reference,
    crowd: Crowd,
    now: float,
    rng: np.random.Generator,
) -> Pending:
    """Outcomes that will be reported, each after a delay that is exponential around the plan's."""
    unflagged = plan.label_share if plan.unflagged_share is None else plan.unflagged_share
    share = np.where(crowd.risks >= reference.score.threshold, plan.label_share, unflagged)
    chosen = rng.random(len(crowd.risks)) < share
    delay = rng.exponential(plan.label_delay_days * DAY, len(chosen))[chosen]
    risks = crowd.risks[chosen]
    return Pending(
        now + delay,
        delay,
        reference.score.bin(risks),
        risks,
        crowd.outcomes[chosen],
        group_places(reference, crowd.frame[chosen]),
    )


def group_places(reference: Reference, frame: pd.DataFrame) -> NDArray[np.int64]:
    """Places of the groups that the monitor counts by, from 1, shape (rows,); 0 for none."""
    if reference.groups is None:
        return np.zeros(len(frame), np.int64)
    values = frame[reference.groups.feature.name].tolist()
    return np.array([group(reference.groups, value) for value in values], np.int64)


def _deliver(metrics: Metrics, threshold_bin: int, pending: Pending, now: float) -> Pending:
    """Count the labels that are due, as the sidecar's /feedback does; the others."""
    due = pending.due <= now
    arrived = pending.of(due)
    for delay, place, risk, outcome, own_group in zip(*(part.tolist() for part in arrived[1:]), strict=True):
        count_label(metrics, Counted(place, outcome, risk, delay, own_group, place >= threshold_bin))
    return pending.of(~due)


def count_label(metrics: Metrics, label: Counted) -> None:
    """Count one late label as the sidecar's /feedback does."""
    counters = metrics.feedback[VERSION]
    place, outcome, risk = label.place, label.outcome, label.risk
    counters.labels[place][outcome].inc()
    counters.risk_sums[place][outcome].inc(risk)
    counters.squared_risk_sums[place][outcome].inc(risk * risk)
    counters.delay.observe(label.delay)
    if label.group:
        by_group = counters.groups[label.group - 1]
        by_group.labels[label.flagged][outcome].inc()
        by_group.risk_sums[label.flagged].inc(risk)
