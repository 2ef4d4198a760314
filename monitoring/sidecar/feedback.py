"""Late labels: counts outcomes that callers report for rows that this model, or an older one, predicted."""

import hmac
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from monitoring.sidecar import feedback_tokens
from monitoring.sidecar.metrics import OTHER_VERSION, FeedbackCounters, Metrics

KEYS = {"token", "row", "outcome"}
LABEL_BYTES = 16_384
PLACES_NAMED = 100
MOST_HELD = 10_000


class Label(NamedTuple):
    """One reported outcome, of the right types; nothing about it is verified yet."""

    token: str
    row: int
    outcome: int


class Result(NamedTuple):
    """What became of the labels of one request; refused ones by place in the list and reason."""

    accepted: int
    refused: tuple[tuple[int, str], ...]


class Counted(NamedTuple):
    """What one accepted label adds: place of its score bin, outcome, predicted risk, seconds since then."""

    place: int
    outcome: int
    risk: float
    delay: float


class MalformedError(ValueError):
    """The body is no label and no list of labels."""


class Feedback:
    """Verifies labels and counts them under the version that predicted.

    Each label counts once within this process; it remembers the latest `memory` of them. Older versions get
    series of their own, up to `versions` of them; the rest count as `other`. Series that are new must be read
    at 0 before they count, or Prometheus would never see the increase: `unseen` and `seen` are called before
    and after they are read, and labels wait in between.
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
        self._counted: OrderedDict[tuple[bytes, int], None] = OrderedDict()
        self._unseen: dict[str, list[Counted]] = {}

    def take(self, labels: Iterable[Label | None]) -> Result:
        """Count labels; None stands for one that was malformed. Every refusal is counted by its reason."""
        accepted, refused = 0, []
        for place, label in enumerate(labels):
            reason = "malformed" if label is None else self._refusal(label)
            if reason is None:
                accepted += 1
            else:
                self._metrics.feedback_refused[reason].inc()
                refused.append((place, reason))
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
        if not 0 <= label.row < len(issued.bins):
            return "no_such_row"
        with self._lock:
            identity = (issued.identity, label.row)
            if identity in self._counted:
                return "repeated"
            self._counted[identity] = None
            if len(self._counted) > self._memory:
                self._counted.popitem(last=False)
            version = self._version(issued.version)
            risk = float(issued.risks[label.row])
            place = min(int(issued.bins[label.row]), self._metrics.score_bins - 1)
            counted = Counted(place, label.outcome, risk, max(0.0, now - issued.issued_at))
            waiting = self._unseen.get(version)
            if waiting is not None and len(waiting) < MOST_HELD:
                waiting.append(counted)
            else:
                _add(self._metrics.feedback[version], counted)
        return None

    def unseen(self) -> tuple[str, ...]:
        """Versions whose series nobody has read yet."""
        with self._lock:
            return tuple(self._unseen)

    def seen(self, versions: Iterable[str]) -> None:
        """Count the labels that waited for the series of these versions to be read."""
        with self._lock:
            for version in versions:
                for counted in self._unseen.pop(version, ()):
                    _add(self._metrics.feedback[version], counted)

    def _version(self, version: str) -> str:
        """The version that a label counts under; its series are made if there is room for them."""
        known = self._metrics.feedback
        if version not in known and len(known) < self._versions + 2:
            known[version] = self._metrics.feedback_version(version)
            self._unseen[version] = []
        return version if version in known else OTHER_VERSION


def parse(body: bytes, most: int) -> list[Label | None]:
    """The labels of a request: one object or a list of at most `most`; None for each that is malformed.

    A label is `{"token": text, "row": whole number from 0, "outcome": 0 or 1}`; `row` may be left out for an
    answer of one row. Raises MalformedError.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedError("the body is not JSON") from None
    labels = document if isinstance(document, list) else [document]
    if not labels or len(labels) > most:
        raise MalformedError(f"send from 1 to {most} labels in a request")
    return [_label(label) for label in labels]


def reply(result: Result) -> dict[str, object]:
    """The JSON answer: how many were accepted, and the places and reasons of those that were not."""
    named = [{"place": place, "reason": reason} for place, reason in result.refused[:PLACES_NAMED]]
    return {"accepted": result.accepted, "refused": len(result.refused), "reasons": named}


def bearer_matches(authorization: str, token: str) -> bool:
    """Whether an Authorization header carries exactly this bearer token; takes the same time either way."""
    scheme, _, credential = authorization.partition(" ")
    given = credential.strip().encode("utf-8", "surrogateescape")
    return hmac.compare_digest(given, token.encode()) and scheme.lower() == "bearer"


def _add(counters: FeedbackCounters, counted: Counted) -> None:
    place, outcome, risk, delay = counted
    counters.labels[place][outcome].inc()
    counters.risk_sums[place][outcome].inc(risk)
    counters.squared_risk_sums[place][outcome].inc(risk * risk)
    counters.delay.observe(delay)


def _label(value: Any) -> Label | None:
    if not isinstance(value, dict) or not {"token", "outcome"} <= value.keys() <= KEYS:
        return None
    token, row, outcome = value["token"], value.get("row", 0), value["outcome"]
    if type(token) is not str or len(token) > LABEL_BYTES or type(row) is not int:
        return None
    if type(outcome) not in (int, bool) or outcome not in (0, 1):
        return None
    return Label(token, row, int(outcome))
