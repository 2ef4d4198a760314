"""Late labels: counts outcomes that callers report for rows that this model, or an older one, predicted."""

import hmac
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from monitoring.exporter import tokens
from monitoring.exporter.metrics import OTHER_VERSION, FeedbackCounters, Metrics

KEYS = {"token", "row", "outcome"}
LABEL_BYTES = 16_384
PLACES_NAMED = 100


class Label(NamedTuple):
    """One reported outcome, of the right types; nothing about it is verified yet."""

    token: str
    row: int
    outcome: int


class Result(NamedTuple):
    """What became of the labels of one request; refused ones by place in the list and reason."""

    accepted: int
    refused: tuple[tuple[int, str], ...]


class MalformedError(ValueError):
    """The body is no label and no list of labels."""


class Feedback:
    """Verifies labels and counts them under the version that predicted.

    Each label counts once within this process; it remembers the latest `memory` of them. Older versions get
    series of their own, up to `versions` of them; the rest count as `other`.
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
            issued = tokens.read(self._keys, self._name, label.token, now=now, lifetime=self._lifetime)
        except tokens.TokenError as error:
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
            counters = self._counters(issued.version)
        place = min(int(issued.bins[label.row]), self._metrics.score_bins - 1)
        risk = float(issued.risks[label.row])
        counters.labels[place][label.outcome].inc()
        counters.risk_sums[place][label.outcome].inc(risk)
        counters.squared_risk_sums[place][label.outcome].inc(risk * risk)
        counters.delay.observe(max(0.0, now - issued.issued_at))
        return None

    def _counters(self, version: str) -> FeedbackCounters:
        known = self._metrics.feedback
        if version not in known and len(known) < self._versions + 2:
            known[version] = self._metrics.feedback_version(version)
        return known.get(version) or known[OTHER_VERSION]


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


def _label(value: Any) -> Label | None:
    if not isinstance(value, dict) or not {"token", "outcome"} <= value.keys() <= KEYS:
        return None
    token, row, outcome = value["token"], value.get("row", 0), value["outcome"]
    if type(token) is not str or len(token) > LABEL_BYTES or type(row) is not int:
        return None
    if type(outcome) not in (int, bool) or outcome not in (0, 1):
        return None
    return Label(token, row, int(outcome))
