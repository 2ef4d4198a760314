"""The listener of a port: an HTTP/1.1 server on one event loop, safe against hostile callers.

* A head is parsed strictly (`http1`), and an unknown path is refused before its body is read.
* Head and body must arrive within a time limit, and an answer must be read within one.
* An address has at most half of the connections. If there are too many connections, the one that has waited
  longest for a complete request is closed.
* Bytes are reserved (`budget`) before they are read. If there is no room, callers whose large body or answer
  moves too slowly make some, the slowest first.
* Every request whose head was read before a stop is answered, until the end of a grace period.
"""

import asyncio
import functools
import hmac
import ipaddress
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import CancelledError
from email.utils import formatdate
from typing import Any, NamedTuple

from monitoring.sidecar import http1
from monitoring.sidecar.answers import Answer, refusal
from monitoring.sidecar.budget import COPIES, SMALL_BODY, Budget, NeverFitsError, OverBudgetError, Reservation
from monitoring.sidecar.wire import READ_BYTES, EndedError, TooLargeError, Wire, bound_buffers

SWEEP_SECONDS = 0.25
HEARTBEAT_SECONDS = 10.0
# Time for a head and a small body to arrive, or for an answer to be read; large bodies get more.
MOVE_SECONDS = 10.0
SLOWEST_BYTES_A_SECOND = 262_144
# Until a large body or answer has moved for this long, its pace does not count.
PACE_SECONDS = 3.0
LINGER_SECONDS = 1.0
ADDRESS_SHARE = 0.5
BODILESS = (204, 304)

log = logging.getLogger(__name__)


class Request(NamedTuple):
    """A complete request. `held` is the reservation of its bytes."""

    head: http1.RequestHead
    body: bytes
    held: Reservation


class Route(NamedTuple):
    """A path of the server. `name` is its name in the metrics; a caller must present one of the tokens
    `bearers`, if there are any."""

    name: str
    methods: tuple[str, ...]
    handle: Callable[[Request], Awaitable[Answer]]
    bearers: tuple[str, ...] = ()


class Limits(NamedTuple):
    """Limits for callers: connections, concurrent requests, bytes of a body, seconds after a stop."""

    connections: int
    requests: int
    body_bytes: int
    grace_seconds: float


Count = Callable[[str, Answer], None]


class Connection(Wire):
    """A caller's connection, which serves requests in turn."""

    def __init__(self, server: "Server") -> None:
        super().__init__(server.scratch)
        self._server = server
        self.late_at = float("inf")
        self.quiet_since = time.monotonic()
        self.is_busy = False
        self.address = ""
        self._move: tuple[float, int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve the connection, if there is room for it."""
        super().connection_made(transport)
        self.address = subscriber((transport.get_extra_info("peername") or ("",))[0])
        if self._server.admit(self):
            self._task = asyncio.get_running_loop().create_task(self._serve())
        else:
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(error)
        self._server.forget(self)

    async def _serve(self) -> None:
        try:
            while await self._exchange():
                pass
        except (EndedError, asyncio.CancelledError):
            pass
        except Exception as error:
            log.error("a connection failed: %s", type(error).__name__)
        if not self.discards:
            self.transport.close()

    async def _exchange(self) -> bool:
        """Serve a request; returns whether another may follow."""
        name, head, answer, is_complete = "other", None, None, False
        self.quiet_since, self.late_at, self.is_busy = time.monotonic(), float("inf"), False
        with Reservation(self._server.budget) as reservation:
            try:
                head = await self._head()
                route = self._server.routes.get(head.path)
                name = route.name if route else "other"
                answer = self._server.refuses(head, route)
                if answer is None and route is not None:
                    request = Request(head, await self._body(head, reservation), reservation)
                    is_complete = True
                    self.late_at, self.is_busy, self._move = float("inf"), True, None
                    answer = await self._handle(route, request)
                    del request
                is_complete = is_complete or head.length == 0
            except http1.MalformedError:
                answer = refusal("malformed")
            except TooLargeError:
                answer = refusal("too_large")
            except OverBudgetError:
                answer = refusal("overload")
            except TimeoutError:
                answer = refusal("late")
            except asyncio.CancelledError:
                answer = refusal("stopping")
            assert answer is not None
            self._server.count(name, answer)
            keeps = bool(head and head.keeps_alive and is_complete and not self._server.closes_connections)
            is_large = len(answer.body) > SMALL_BODY
            if is_large:
                self._begin_move()
            self._write(head, answer, keeps)
            self.is_busy, self.late_at = True, time.monotonic() + allowed_seconds(len(answer.body))
            del answer
            if is_large:
                await self.flushed()
        self._move = None
        await self.flushed()  # a small unread answer is within the connection's own memory
        if not keeps and not is_complete and not self.has_ended:
            self.late_at = time.monotonic() + LINGER_SECONDS
            self.discard()
        return keeps

    async def _head(self) -> http1.RequestHead:
        """Read a request's head; its time limit starts with its first byte."""
        if not self.has_begun:
            await self.more()
        self.late_at = time.monotonic() + MOVE_SECONDS
        received = await self.until(b"\r\n\r\n")
        return http1.request_head(received.removeprefix(b"\r\n"))

    async def _body(self, head: http1.RequestHead, reservation: Reservation) -> bytes:
        """Read a request's body. A small body is reserved when it has arrived: before, it is within the
        memory of a connection. Each piece of a large body is reserved, and gets time, just before it is read.
        Otherwise clients that send nothing could use up the budget."""
        limit, total = self._server.limits.body_bytes, 0

        def grow(count: int) -> None:
            nonlocal total
            is_first = total <= SMALL_BODY
            total += count
            if total > SMALL_BODY:
                reservation.grow(total if is_first else count)
                if self._move is None:
                    self._begin_move()
                self.late_at += count / SLOWEST_BYTES_A_SECOND

        if head.length == 0:
            return b""
        if head.length is not None and head.length > limit:
            raise TooLargeError
        if head.waits and not self.has_begun:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if head.length is None:
            body = await self.chunks(limit, grow)
        else:
            body = await self.pieces(head.length, grow)
        if len(body) <= SMALL_BODY:
            reservation.grow(len(body))
        return body

    async def _handle(self, route: Route, request: Request) -> Answer:
        """The route's answer; a failure of the sidecar becomes an answer too."""
        try:
            return await route.handle(request)
        except NeverFitsError:
            return refusal("too_large")
        except OverBudgetError:
            return refusal("overload")
        except Exception as error:
            log.error("%s failed: %s", route.name, type(error).__name__)
            return refusal("internal")

    def _write(self, head: http1.RequestHead | None, answer: Answer, keeps: bool) -> None:
        """Write an answer as one message."""
        if self.is_lost:
            return
        wire_head = _answer_head(answer.status, answer.phrase, tuple(answer.fields), int(time.time()), keeps)
        if answer.status not in BODILESS:
            wire_head += f"Content-Length: {len(answer.body)}\r\n"
        has_body = answer.status not in BODILESS and not (head and head.method == "HEAD")
        self.write((wire_head + "\r\n").encode("latin-1"), answer.body if has_body else b"")

    def _begin_move(self) -> None:
        """Note that a large body or answer begins to move."""
        self._move = (time.monotonic(), self.moved_bytes)

    def pace(self, now: float) -> float:
        """Bytes a second of the large body or answer that is under way; infinite if there is none, or if it
        began less than PACE_SECONDS ago."""
        if self._move is None or now < self._move[0] + PACE_SECONDS:
            return float("inf")
        return (self.moved_bytes - self._move[1]) / (now - self._move[0])

    def sweep(self, now: float) -> None:
        """Give up an exchange that has taken too long."""
        if now < self.late_at:
            return
        if self.is_busy or self.discards:
            self.transport.abort()
        else:
            self.late_at = float("inf")
            self.interrupt(TimeoutError())

    def give_way(self) -> None:
        """Close at once, to make room for others."""
        self.transport.abort()

    def make_room(self) -> None:
        """End a large body or answer that is under way; the sender of a body is refused."""
        if self.is_busy:
            self.transport.abort()
        else:
            self.interrupt(OverBudgetError())

    @property
    def is_idle(self) -> bool:
        """Whether no part of an unanswered request has arrived."""
        return not self.is_busy and not self.has_begun and self.late_at == float("inf")

    def abandon(self) -> None:
        """Refuse the present request: the grace period is over."""
        if not self.is_idle and not self.discards:
            self._task.cancel()


class Server:
    """The listener of a port. `run` returns after `stop`, when every request that was read is answered."""

    def __init__(
        self,
        listener: socket.socket,
        routes: Mapping[str, Route],
        limits: Limits,
        budget: Budget,
        count: Count,
    ) -> None:
        self.routes = routes
        self.limits = limits
        self.budget = budget
        self.count = count
        self.scratch = memoryview(bytearray(READ_BYTES))
        self.port = int(listener.getsockname()[1])
        self.is_stopping = False
        self._listener = listener
        self._has_closed = False
        self._connections: dict[Connection, None] = {}
        self._addresses: Counter[str] = Counter()
        self._beat = time.monotonic()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._deadline = float("inf")

    @property
    def connections(self) -> int:
        """Number of connections of callers."""
        return len(self._connections)

    @property
    def closes_connections(self) -> bool:
        """Whether an answer ends its connection. It does not before the port is closed, or the client would
        reconnect to a listener that is about to close."""
        return self._has_closed

    @property
    def is_alive(self) -> bool:
        """Whether the event loop has run recently."""
        return time.monotonic() - self._beat < HEARTBEAT_SECONDS

    def ask(self, question: Callable[[], Coroutine[Any, Any, bool]], seconds: float) -> bool:
        """Ask on the event loop, from another thread; False if the loop does not run or answer in time."""
        if self._loop is None or self._loop.is_closed():
            return False
        try:
            return asyncio.run_coroutine_threadsafe(question(), self._loop).result(seconds)
        except (TimeoutError, CancelledError):
            return False

    def stop(self) -> None:
        """Begin to stop; a second call ends the grace period. Callable from any thread."""
        grace = 0.0 if self.is_stopping else self.limits.grace_seconds
        self._deadline = time.monotonic() + grace
        self.is_stopping = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)

    async def run(self) -> None:
        """Serve until stopped."""
        self._loop = asyncio.get_running_loop()
        backlog = min(self.limits.connections, 4096)
        listening = await self._loop.create_server(
            lambda: Connection(self), sock=self._listener, backlog=backlog
        )
        sweeping = asyncio.create_task(self._sweep())
        if not self.is_stopping:
            await self._stop.wait()
        await asyncio.sleep(0)  # connections that the system has accepted are taken first
        await asyncio.sleep(0)
        listening.close()
        self._has_closed = True
        while self._connections and time.monotonic() < self._deadline:
            self._close_quiet(LINGER_SECONDS)
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.abandon()
        end = time.monotonic() + 2 * LINGER_SECONDS
        while self._connections and time.monotonic() < end:
            self._close_quiet(0.0)
            await asyncio.sleep(0.02)
        for connection in list(self._connections):
            connection.give_way()
        sweeping.cancel()

    def refuses(self, head: http1.RequestHead, route: Route | None) -> Answer | None:
        """The refusal of a request by its head, or None."""
        if route is None:
            return refusal("not_found")
        if route.bearers and not bearer_matches(head.values.get("authorization", ""), route.bearers):
            return refusal("unauthorized")
        if head.method not in route.methods:
            answer = refusal("method")
            return answer._replace(fields=(*answer.fields, ("Allow", ", ".join(route.methods))))
        return None

    def admit(self, connection: Connection) -> bool:
        """Admit a new connection if there is room; the longest waiting connection may be closed for it."""
        address, limit = connection.address, self.limits.connections
        share = max(1, int(ADDRESS_SHARE * limit))
        if self._addresses[address] >= share:
            longest = self._longest_quiet(address)
        elif len(self._connections) >= limit:
            longest = self._longest_quiet(None)
        else:
            longest = connection
        if longest is None:
            return False
        if longest is not connection:
            longest.give_way()
            self.forget(longest)
        self._connections[connection] = None
        self._addresses[address] += 1
        return True

    def forget(self, connection: Connection) -> None:
        """Remove a connection that is gone."""
        if connection in self._connections:
            del self._connections[connection]
            self._addresses[connection.address] -= 1
            if not self._addresses[connection.address]:
                del self._addresses[connection.address]

    def _longest_quiet(self, address: str | None) -> Connection | None:
        """The connection that has waited longest for a complete request, of all or of one address."""
        quiet = [
            connection
            for connection in self._connections
            if not connection.is_busy and (address is None or connection.address == address)
        ]
        return min(quiet, key=lambda connection: connection.quiet_since, default=None)

    def _close_slowest(self, now: float) -> bool:
        """End the slowest large body or answer, unless none is too slow; returns whether one was ended."""
        slowest = min(self._connections, key=lambda connection: connection.pace(now), default=None)
        if slowest is None or slowest.pace(now) >= SLOWEST_BYTES_A_SECOND:
            return False
        slowest.make_room()
        return True

    def _close_quiet(self, seconds: float) -> None:
        """Close connections between requests that have been quiet for this long."""
        now = time.monotonic()
        for connection in list(self._connections):
            if connection.is_idle and now - connection.quiet_since >= seconds and connection.is_quiet:
                connection.transport.close()

    async def _sweep(self) -> None:
        largest, lacks = COPIES * self.limits.body_bytes, False
        while True:
            self._beat = now = time.monotonic()
            for connection in list(self._connections):
                connection.sweep(now)
            lacks = self.budget.was_full or (lacks and not self.budget.has_room(largest, large=True))
            self.budget.was_full = False
            lacks = lacks and not self.is_stopping and self._close_slowest(now)
            await asyncio.sleep(SWEEP_SECONDS)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; `*` is every address of IPv4 and, where the system has it, IPv6. Raises OSError."""
    if host != "*":
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    elif socket.has_dualstack_ipv6():
        listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        listener = socket.create_server(("", port))
    bound_buffers(listener)
    return listener


def subscriber(address: str) -> str:
    """The part of an address that belongs to one subscriber: all of IPv4, the first half of IPv6."""
    if ":" not in address or address.startswith("::ffff:"):
        return address
    return ":".join(ipaddress.ip_address(address.partition("%")[0]).exploded.split(":")[:4])


def bearer_matches(authorization: str, tokens: tuple[str, ...]) -> bool:
    """Whether an Authorization field has one of these bearer tokens; compares in constant time."""
    scheme, _, credential = authorization.partition(" ")
    credential_bytes = credential.strip().encode("latin-1")
    matches = [hmac.compare_digest(credential_bytes, token.encode()) for token in tokens]
    return any(matches) and scheme.lower() == "bearer"


def allowed_seconds(size: int) -> float:
    """How long a body of this many bytes may take to arrive, or an answer to be read."""
    return MOVE_SECONDS + max(0, size - SMALL_BODY) / SLOWEST_BYTES_A_SECOND


@functools.lru_cache(maxsize=64)
def _answer_head(status: int, phrase: str, fields: tuple[tuple[str, str], ...], now: int, keeps: bool) -> str:
    """Status line and fields without the length; cached, as most answers of a second share them."""
    lines = [f"HTTP/1.1 {status} {phrase}", *[f"{name}: {value}" for name, value in fields]]
    if all(name.lower() != "date" for name, _ in fields):
        lines.append(f"Date: {formatdate(now, usegmt=True)}")
    lines.append("Connection: keep-alive" if keeps else "Connection: close")
    return "\r\n".join(lines) + "\r\n"
