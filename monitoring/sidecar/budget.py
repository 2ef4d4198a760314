"""The memory limit of the sidecar: bytes are reserved before they are used, and refused beyond the limit.

`most_bytes` sums everything that callers can make it hold. The sum is logged at the start and explained in
docs/serving.md.
"""

import threading
from types import TracebackType
from typing import NamedTuple

from monitoring.sidecar.settings import Settings

MEGABYTE = 1_000_000
# The process with its libraries, the metrics and a page of them.
BASE_BYTES = 90 * MEGABYTE
# A small body that is arriving with what is read at once, or a small answer that is not read, an eighth more
# for what such a buffer grows by, and the objects that stand for a connection.
CONNECTION_BYTES = 114_688
# What the system holds of a connection in either direction; Linux grants twice what it is asked for. Control
# groups count it as the container's memory.
SYSTEM_BYTES = 65_536
# A body, and the copy of it that waits in a socket's buffer.
COPIES = 2
# Memory of a counted label, which is remembered so that it does not count twice.
LABEL_BYTES = 130
# A parsed body may take this many times `body_bytes`; one at a time is parsed.
PARSED_FACTOR = 16
SMALL_BODY = 65_536
# Share of the budget that is reserved for small bodies.
SPARE_SHARE = 0.25


class OverBudgetError(Exception):
    """The budget has no room for these bytes now."""


class NeverFitsError(OverBudgetError):
    """The bytes of one request are more than the budget has."""


class Budget:
    """A shared number of bytes to reserve from. Thread-safe.

    `was_full` is set when a request is refused that would fit by itself, and is left to others to reset.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self.reserved = 0
        self.was_full = False

    def limit(self, *, large: bool) -> float:
        """The bytes for all; `large` requests leave a quarter to small requests."""
        return self._most * (1 - SPARE_SHARE) if large else self._most

    def has_room(self, count: int, *, large: bool) -> bool:
        """Whether there is room for these bytes."""
        return self.reserved + count <= self.limit(large=large)

    def reserve(self, count: int, *, large: bool) -> None:
        """Take bytes. Raises OverBudgetError."""
        with self._lock:
            if not self.has_room(count, large=large):
                raise OverBudgetError
            self.reserved += count

    def release(self, count: int) -> None:
        """Give bytes back."""
        with self._lock:
            self.reserved -= count


class Reservation:
    """The bytes of one request, from its head to the end of its answer; a context manager.

    If it is `small`, such as that of small requests in one call, it may use the share for small bodies.
    """

    def __init__(self, budget: Budget, *, small: bool = False) -> None:
        self._budget = budget
        self._is_small = small
        self._held = 0

    def __enter__(self) -> "Reservation":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._budget.release(self._held)
        self._held = 0

    def grow(self, count: int) -> None:
        """Reserve bytes of a body. Raises OverBudgetError, or NeverFitsError, its subclass."""
        bytes_held = COPIES * count
        is_large = not self._is_small and max(count, self._held // COPIES) > SMALL_BODY
        if self._held + bytes_held > self._budget.limit(large=is_large):
            raise NeverFitsError
        try:
            self._budget.reserve(bytes_held, large=is_large)
        except OverBudgetError:
            self._budget.was_full = True
            raise
        self._held += bytes_held


class Bound(NamedTuple):
    """A part of the sum."""

    name: str
    most: int


def bounds(settings: Settings) -> list[Bound]:
    """The parts of the largest memory of the sidecar, in bytes."""
    return [
        Bound("process, libraries, metrics", BASE_BYTES),
        Bound(f"{settings.connections} connections", settings.connections * CONNECTION_BYTES),
        Bound("the system's buffers of them", 2 * settings.connections * SYSTEM_BYTES),
        Bound("bodies, answers, rows waiting to be counted", settings.buffer_bytes),
        Bound("the one body that is being parsed", PARSED_FACTOR * settings.body_bytes),
        Bound(f"{settings.feedback_memory} labels", settings.feedback_memory * LABEL_BYTES),
    ]


def most_bytes(settings: Settings) -> int:
    """The sum of all bounds."""
    return sum(bound.most for bound in bounds(settings))


def describe(settings: Settings) -> str:
    """The sum in words, in megabytes."""
    parts = " + ".join(f"{bound.most / MEGABYTE:.0f} ({bound.name})" for bound in bounds(settings))
    return f"memory: at most {most_bytes(settings) / MEGABYTE:.0f} MB = {parts}"
