"""Send requests that differ only in their rows as one call.

At most `calls` calls are under way; requests that arrive meanwhile wait and leave together. Clients that each
wait for their answer would then form groups that take turns and never join. Therefore the next call waits,
for a few milliseconds, for as many requests as the last call had and left behind. If they do not arrive, the
next call does not wait, then the next two, then four: random arrivals lose almost no time, a single client
none.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar

MOST_SKIPPED = 64


class Member(Protocol):
    """A request that may be sent with others of the same `key`; `started` is on the loop's clock."""

    key: Hashable
    row_count: int
    started: float


M = TypeVar("M", bound=Member)
Send = Callable[[Sequence[M], str, Callable[[], None]], Awaitable[None]]


class Batcher(Generic[M]):
    """Queue of members on one event loop, and the calls that send them.

    `send(members, reason, release)` answers the members; it calls `release()` as soon as the container has
    answered, so that the next call can leave while the answers are handed out. Seconds throughout.
    """

    def __init__(self, send: Send[M], *, most_requests: int, most_rows: int, calls: int, wait: float) -> None:
        self._send = send
        self._most_requests = most_requests
        self._most_rows = most_rows
        self._calls = calls
        self._wait = wait
        self._waiting: dict[Hashable, deque[M]] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._free = calls
        self._left_behind = False
        self._expected = 0
        self._timer: asyncio.TimerHandle | None = None
        self._vain = 0
        self._skip = 0
        self.length = 0

    def put(self, member: M) -> None:
        """Queue a member."""
        self._waiting.setdefault(member.key, deque()).append(member)
        self.length += 1
        self._consider()

    @property
    def oldest_start(self) -> float | None:
        """Start of the member that has waited longest; None if none waits. Callable from any thread."""
        oldest = [member for queue in list(self._waiting.values()) for member in islice(queue, 1)]
        return min((member.started for member in oldest), default=None)

    def _consider(self) -> None:
        """Start the calls that may leave now."""
        while self.length and self._free:
            if self._expected > self.length and not self._is_full():
                return
            if self._expected:
                reason, self._vain = "clients_back", 0
            else:
                reason = "upstream_free" if self._left_behind else "idle"
            self._leave("full" if self._is_full() else reason)

    def _is_full(self) -> bool:
        return any(len(queue) >= self._most_requests for queue in self._waiting.values())

    def _leave(self, reason: str) -> None:
        self._stop_waiting()
        members = self._take()
        self._free -= 1
        task = asyncio.get_running_loop().create_task(self._call(members, reason))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _call(self, members: Sequence[M], reason: str) -> None:
        is_released = False

        def release() -> None:
            nonlocal is_released
            if not is_released:
                is_released = True
                self._release(len(members))

        try:
            await self._send(members, reason, release)
        finally:
            release()
            if self._expected and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._wait, self._wait_over)

    def _release(self, members: int) -> None:
        """Note that the container has answered a call of `members` members."""
        self._free += 1
        self._left_behind = self.length > 0
        expected = min(members + self.length, self._most_requests)
        if self._wait and expected > 1 and not self._expected:
            if self._skip:
                self._skip -= 1
            else:
                self._expected = expected
        self._consider()

    def _wait_over(self) -> None:
        """End the wait: fewer members arrived than expected."""
        self._stop_waiting()
        self._vain = self._skip = min(MOST_SKIPPED, max(1, 2 * self._vain))
        if self.length and self._free:
            self._leave("wait_over")

    def _stop_waiting(self) -> None:
        self._expected = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take(self) -> list[M]:
        """Members of the group whose first member has waited longest."""
        key, queue = min(self._waiting.items(), key=lambda item: item[1][0].started)
        members = [queue.popleft()]
        rows = members[0].row_count
        while queue and len(members) < self._most_requests and rows + queue[0].row_count <= self._most_rows:
            rows += queue[0].row_count
            members.append(queue.popleft())
        if not queue:
            del self._waiting[key]
        self.length -= len(members)
        return members
