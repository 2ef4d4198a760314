"""Late labels: count the outcomes that callers report for predictions of this model or an older version.

Labels reach the metrics in lots, like rows (`lots`), one lot for each version. The counts by group wait
again, for as many labels of the same group. Labels of a token with other groups than the reference's have no
group.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from monitoring.sidecar import feedback_tokens
from monitoring.sidecar.lots import Lot
from monitoring.sidecar.metrics import OTHER_VERSION, FeedbackCounters, GroupLabelCounters, Metrics

KEYS = {"token", "row", "outcome"}
LABEL_BYTES = 16_384
PLACES_NAMED = 100
TEXT_OUTCOMES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
MOST_HELD = 10_000


class Label(NamedTuple):
    """A reported outcome of the right types, not verified yet. `row` may be None for an answer of one row."""

    token: str
    row: int | None
    outcome: int


class Result(NamedTuple):
    """Result of the labels of a request; `refused` has index and reason of each refused label."""

    accepted: int
    refused: tuple[tuple[int, str], ...]


class Counted(NamedTuple):
    """An accepted label: index of the score bin, outcome, predicted risk, seconds since the prediction, index
    of the group from 1 (0 for none), whether the row was flagged."""

    score_bin: int
    outcome: int
    risk: float
    delay: float
    group: int = 0
    flagged: bool = False


class MalformedError(ValueError):
    """The body is neither a label nor a list of labels."""


Identity = tuple[bytes, int]


class VersionLot:
    """Labels of a version that wait for others. `is_read`: its series have been scraped at 0."""

    def __init__(self, lot_rows: int, *, is_read: bool) -> None:
        self.is_read = is_read
        self.labels: dict[Identity, Counted] = {}
        self._lot_rows = lot_rows
        self._lot = Lot(0)
        self._group_lots: dict[int, Lot] = {}

    @property
    def waiting_by_group(self) -> int:
        """Labels that are in the metrics, but still wait for others of their group."""
        return sum(lot.rows for lot in self._group_lots.values())

    @property
    def is_full(self) -> bool:
        """Whether to add the labels to the metrics now; new series wait to be scraped, up to a limit."""
        return len(self.labels) >= (self._lot_rows if self.is_read else MOST_HELD)

    def empty(self, counters: FeedbackCounters) -> None:
        """Add the labels to the metrics."""
        for label in self.labels.values():
            score_bin, outcome, risk = label.score_bin, label.outcome, label.risk
            self._lot.count(counters.labels[score_bin][outcome], 1)
            self._lot.sum(counters.risk_sums[score_bin][outcome], risk)
            self._lot.sum(counters.squared_risk_sums[score_bin][outcome], risk * risk)
            counters.delay.observe(round(label.delay))
            if label.group:
                self._hold_by_group(label, counters.groups[label.group - 1])
        self._lot.offer()
        for lot in self._group_lots.values():
            lot.offer()
        self.labels.clear()

    def _hold_by_group(self, label: Counted, counters: GroupLabelCounters) -> None:
        lot = self._group_lots.setdefault(label.group, Lot(self._lot_rows))
        lot.rows += 1
        lot.count(counters.labels[label.flagged][label.outcome], 1)
        lot.sum(counters.risk_sums[label.flagged], label.risk)


class Feedback:
    """Verifies labels and counts them under the version that predicted.

    Each label counts once within this process, which remembers at least the latest half of `memory` labels; a
    later label for the same row replaces one that still waits in its lot. Up to `versions` older versions get
    their own series; the others count as `other`. New series must be scraped at 0 before they count, or
    Prometheus would not see the increase: `unseen` and `seen` are called before and after a scrape, and
    labels wait in between.
    """

    def __init__(
        self,
        metrics: Metrics,
        name: str,
        keys: tuple[str, ...],
        *,
        lifetime: float,
        versions: int,
        memory: int,
        lot_rows: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._name = name
        self._keys = keys
        self._lifetime = lifetime
        self._versions = versions
        self._memory = memory
        self._clock = clock
        self._lock = threading.Lock()
        self._lot_rows = lot_rows
        self._counted: set[bytes] = set()
        self._counted_before: set[bytes] = set()
        self._lots = {version: VersionLot(lot_rows, is_read=True) for version in metrics.feedback}

    def take(self, labels: Iterable[Label | None]) -> Result:
        """Count labels; None is a malformed label. Every refusal is counted by its reason."""
        accepted, refused = 0, []
        for index, label in enumerate(labels):
            reason = "malformed" if label is None else self._refusal(label)
            if reason is None:
                accepted += 1
            else:
                self._metrics.feedback_refused[reason].inc()
                refused.append((index, reason))
        return Result(accepted, tuple(refused))

    def _refusal(self, label: Label) -> str | None:
        """Why a label is refused, or None after it has been counted."""
        now = self._clock()
        try:
            issued = feedback_tokens.read(
                self._keys, self._name, label.token, now=now, lifetime=self._lifetime
            )
        except feedback_tokens.TokenError as error:
            return error.reason
        row = label.row
        if row is None:
            if len(issued) != 1:
                return "row_missing"
            row = 0
        if not 0 <= row < len(issued):
            return "no_such_row"
        predicted = issued.row(row)
        with self._lock:
            version = self._version(issued.version)
            lot = self._lots[version]
            identity = (issued.identity, row)
            if identity not in lot.labels and self._is_repeated(identity):
                return "repeated"
            is_known_group = (
                issued.groups_key == self._metrics.groups_key and predicted.group <= self._metrics.group_count
            )
            lot.labels[identity] = Counted(
                score_bin=min(predicted.bin, self._metrics.score_bins - 1),
                outcome=label.outcome,
                risk=predicted.risk,
                delay=max(0.0, now - issued.issued_at),
                group=predicted.group if is_known_group else 0,
                flagged=predicted.flagged,
            )
            if lot.is_full:
                lot.empty(self._metrics.feedback[version])
        return None

    def unseen(self) -> tuple[str, ...]:
        """Versions whose series have not been scraped yet."""
        with self._lock:
            return tuple(version for version, lot in self._lots.items() if not lot.is_read)

    def seen(self, versions: Iterable[str]) -> None:
        """Count the labels that waited for a scrape of the series of these versions."""
        with self._lock:
            for version in versions:
                self._lots[version].is_read = True
                if self._lots[version].is_full:
                    self._lots[version].empty(self._metrics.feedback[version])

    def stop(self) -> None:
        """Drop the labels of unfilled lots."""
        with self._lock:
            self._metrics.dropped["labels"].inc(sum(len(lot.labels) for lot in self._lots.values()))
            self._metrics.dropped["group_labels"].inc(
                sum(lot.waiting_by_group for lot in self._lots.values())
            )

    def _is_repeated(self, identity: Identity) -> bool:
        """Whether a label was counted before; remembers it in two sets, of which the older is dropped."""
        packed = identity[0] + identity[1].to_bytes(4, "big")
        if packed in self._counted or packed in self._counted_before:
            return True
        if len(self._counted) >= self._memory / 2:
            self._counted, self._counted_before = set(), self._counted
        self._counted.add(packed)
        return False

    def _version(self, version: str) -> str:
        """The version under which a label counts; its series are created if there is room."""
        counters = self._metrics.feedback
        if version not in counters and len(counters) < self._versions + 2:
            counters[version] = self._metrics.feedback_version(version)
            self._lots[version] = VersionLot(self._lot_rows, is_read=False)
        return version if version in counters else OTHER_VERSION


def parse(body: bytes, limit: int) -> list[Label | None]:
    """The labels of a request: one object or a list of at most `limit`; None for each malformed label.

    A label is `{"token": text, "row": whole number from 0, "outcome": 0 or 1}`, the outcome also as pandas
    and JSON write it: 1.0, "1", "1.0", true; `row` may be left out for an answer of one row. Raises
    MalformedError.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedError("the body is not JSON") from None
    labels = document if isinstance(document, list) else [document]
    if not labels or len(labels) > limit:
        raise MalformedError(f"send from 1 to {limit} labels in a request")
    return [_label(label) for label in labels]


def reply(result: Result) -> dict[str, object]:
    """The JSON answer: the number of accepted labels, and the places and reasons of refused labels."""
    named = [{"place": index, "reason": reason} for index, reason in result.refused[:PLACES_NAMED]]
    return {"accepted": result.accepted, "refused": len(result.refused), "reasons": named}


def _label(value: Any) -> Label | None:
    if not isinstance(value, dict) or not {"token", "outcome"} <= value.keys() <= KEYS:
        return None
    token, row, outcome = value["token"], value.get("row"), value["outcome"]
    if type(token) is not str or len(token) > LABEL_BYTES or type(row) not in (int, type(None)):
        return None
    if type(outcome) is str:
        outcome = TEXT_OUTCOMES.get(outcome)
    if type(outcome) not in (int, float, bool) or outcome not in (0, 1):
        return None
    return Label(token, row, int(outcome))
