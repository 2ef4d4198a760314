"""Gathers requests that are alike in everything but their rows, so that they travel as one call.

At most `calls` calls are under way; what arrives meanwhile waits and leaves together. A closed loop of
clients would so fall into two groups that take turns and never meet. Therefore the next call may wait, for a
few milliseconds, for clients of the last one that have been coming back at once; whoever does not come back
is not waited for again, so a lone client and random arrivals lose nothing. Where so many clients share a
call that they cannot all be back in time, groups that take turns are the better arrangement, for answers are
handed out while the other group's call is under way: after a wait in vain the next one is left out, after a
second two, then four.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

FAITHFUL_AFTER = 2
REMEMBERED_CLIENTS = 10_000
MOST_SKIPPED = 64


class Member(Protocol):
    """A request that may travel with others of the same `key`."""

    key: Hashable
    client: Hashable
    row_count: int
    started: float


class Batcher:
    """Queue of members and the threads that send them.

    `send(members, reason, release)` is called on one of the threads; it calls `release()` as soon as the
    container has answered, so that the next call leaves while the answers are handed out, and `returned` for
    each client that has its answer. Seconds throughout.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Any], str, Callable[[], None]], None],
        *,
        most_requests: int,
        most_rows: int,
        calls: int,
        wait: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._send = send
        self._most_requests = most_requests
        self._most_rows = most_rows
        self._calls = calls
        self._wait = wait
        self._clock = clock
        self._ready = threading.Condition(threading.Lock())
        self._waiting: OrderedDict[Hashable, deque[Any]] = OrderedDict()
        self._length = 0
        self._under_way = 0
        self._found_waiting = False
        self._held_since: float | None = None
        self._expected: set[Hashable] = set()
        self._vain = 0
        self._skip = 0
        self._last_answered = 0.0
        self._seen: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        self._closed = False

    def start(self) -> None:
        """Start the sending threads, one more than there are calls, so that handing out delays none."""
        for number in range(self._calls + 1):
            threading.Thread(target=self._run, name=f"batch-{number}", daemon=True).start()

    def submit(self, member: Any) -> None:
        """Queue a member; never blocks for longer than the queue's own bookkeeping."""
        with self._ready:
            client = member.client
            seen = self._seen.get(client)
            if seen is not None:
                answered, streak = seen
                streak = streak + 1 if member.started - answered <= self._wait else 0
                self._seen[client] = (answered, streak)
            self._expected.discard(client)
            queue = self._waiting.get(member.key)
            if queue is None:
                self._waiting[member.key] = queue = deque()
            queue.append(member)
            self._length += 1
            if self._under_way < self._calls and (self._held_since is None or not self._expected):
                self._ready.notify()

    def returned(self, client: Hashable) -> None:
        """Note that a client is being given its answer; call it before the answer can reach the client."""
        now = self._clock()
        self._last_answered = now
        _, streak = self._seen.get(client, (0.0, 0))
        self._seen[client] = (now, streak)

    @property
    def length(self) -> int:
        """Members waiting to be sent."""
        return self._length

    @property
    def oldest_wait(self) -> float:
        """Seconds that the oldest waiting member has waited; 0 if none waits."""
        with self._ready:
            starts = [queue[0].started for queue in self._waiting.values() if queue]
        return self._clock() - min(starts) if starts else 0.0

    def close(self) -> None:
        """Stop the threads once nothing waits any more."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def _run(self) -> None:
        while True:
            with self._ready:
                reason = self._await_turn()
                if reason is None:
                    return
                members = self._take()
                self._under_way += 1
                if self._length and self._under_way < self._calls:
                    self._ready.notify()
            released = threading.Event()

            def release(members: Sequence[Any] = members, released: threading.Event = released) -> None:
                if not released.is_set():
                    released.set()
                    self._release(members)

            try:
                self._send(members, reason, release)
            finally:
                release()

    def _await_turn(self) -> str | None:
        """Wait, holding the lock, until a call may leave; why it leaves now, None if closed and empty."""
        while True:
            if self._length and self._under_way < self._calls:
                if self._is_full():
                    return self._leave("full")
                held = self._held_since is not None
                if self._expected and not held and self._skip:
                    self._skip -= 1
                    self._expected.clear()
                if not self._expected:
                    if held:
                        self._vain = 0
                    reason = "clients_back" if held else "upstream_free" if self._found_waiting else "idle"
                    return self._leave(reason)
                now = self._clock()
                if self._held_since is None:
                    self._held_since = now
                left = min(self._held_since, self._last_answered) + self._wait - now
                if left <= 0:
                    for client in self._expected:
                        self._seen.pop(client, None)
                    self._expected.clear()
                    if not held:
                        return self._leave("idle")
                    self._vain = self._skip = min(MOST_SKIPPED, max(1, 2 * self._vain))
                    return self._leave("wait_over")
                self._ready.wait(left)
            elif self._closed and not self._length:
                return None
            else:
                self._ready.wait()

    def _leave(self, reason: str) -> str:
        self._held_since = None
        self._found_waiting = False
        return reason

    def _is_full(self) -> bool:
        queue = next(iter(self._waiting.values()))
        return len(queue) >= self._most_requests

    def _take(self) -> list[Any]:
        """Members of the group whose first member has waited longest."""
        key, queue = min(self._waiting.items(), key=lambda item: item[1][0].started)
        members = [queue.popleft()]
        rows = members[0].row_count
        while queue and len(members) < self._most_requests and rows + queue[0].row_count <= self._most_rows:
            rows += queue[0].row_count
            members.append(queue.popleft())
        if not queue:
            del self._waiting[key]
        self._length -= len(members)
        return members

    def _release(self, members: Sequence[Any]) -> None:
        with self._ready:
            self._under_way -= 1
            self._found_waiting = self._length > 0
            self._last_answered = self._clock()
            if self._wait and len(members) + self._length > 1:
                for member in members:
                    seen = self._seen.pop(member.client, None)
                    if seen is not None:
                        self._seen[member.client] = seen
                        if seen[1] >= FAITHFUL_AFTER:
                            self._expected.add(member.client)
                while len(self._seen) > REMEMBERED_CLIENTS:
                    self._seen.popitem(last=False)
            if self._length:
                self._ready.notify()
