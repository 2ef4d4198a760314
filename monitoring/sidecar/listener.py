"""The traffic port: waitress, with what it lacks for a proxy.

* Requests for the container wait in the proxy's own bounded queues, where they are counted and can travel
  together, and hold no thread; waitress' threads serve refusals and /feedback.
* Contradictory lengths are refused before anything is forwarded; errors are JSON and echo nothing.
* What callers can make it hold is bounded: connections (idle ones give way to new ones) and bytes of bodies
  (the greatest unfinished one is refused; one without the bearer token is not read at all).
* After a stop signal, every request whose head was read is answered, up to the end of a grace period.
"""

import contextlib
import functools
import logging
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask
from waitress.utilities import Error, build_http_date

from monitoring.sidecar.answers import Answer, Headers, refusal
from monitoring.sidecar.feedback import bearer_matches
from monitoring.sidecar.metrics import Metrics
from monitoring.sidecar.proxy import FEEDBACK_PATH, PATHS, Exchange, Proxy, Request
from monitoring.sidecar.settings import Settings

THREADS = 4
HEADER_BYTES = 65_536
LARGEST_BUFFER = 2**31 - 1
LINGER_SECONDS = 1.0
FLUSH_SECONDS = 2.0
POLL_SECONDS = 0.05
HEARTBEAT_SECONDS = 10.0
CROWDED = 0.9
BODILESS = (204, 304)
ERROR_REASONS = {413: "too_large", 431: "too_large", 500: "internal"}
# A smaller body is read before anything is decided, so that its connection can go on after a refusal.
SMALL_BODY = 65_536


class UnreadError(Error):  # type: ignore[misc]
    """A request that is refused before it was read in full; `body` is the reason, one of answers.REFUSALS."""

    code = 400
    reason = "Bad Request"


class Parser(HTTPRequestParser):  # type: ignore[misc]
    """Refuses a message that has two lengths, or a transfer coding in a version that has none: a server
    behind that believed the other length would see two requests. Of a large body whose head is enough to
    refuse it, `refuses` says why."""

    def __init__(self, adj: Adjustments, refuses: Callable[[HTTPRequestParser], str | None]) -> None:
        super().__init__(adj)
        self._refuses = refuses

    def received(self, data: bytes) -> int:
        """Take data; returns how much of it belonged to this request."""
        in_head: bool = not self.headers_finished
        taken: int = super().received(data)
        is_large = self.chunked or self.content_length > SMALL_BODY
        if in_head and self.headers_finished and is_large and not self.completed:  # type: ignore[has-type]
            reason = self._refuses(self)
            if reason is not None:
                self.error = UnreadError(reason)
                self.completed = True
        if self.error is not None:
            self.expect_continue = False  # the answer is known: nobody is asked to send the body
        return taken

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the head; raises ParsingError."""
        super().parse_header(header_plus)
        two_lengths = self.chunked and "CONTENT_LENGTH" in self.headers
        if two_lengths or "TRANSFER_ENCODING" in self.headers:
            raise ParsingError("contradictory lengths")


class AnswerTask(WSGITask):  # type: ignore[misc]
    """Writes the answer of a settled exchange; what is no exchange goes through the WSGI application."""

    def execute(self) -> None:
        """Write status, headers and body."""
        exchange: Exchange | None = self.channel.exchange
        self.channel.exchange = None
        if exchange is None:
            if _ends_connection(self.channel):
                self.set_close_on_finish()
            super().execute()
            return
        _write(self, exchange.answer or refusal("internal"))


class RefusalTask(ErrorTask):  # type: ignore[misc]
    """Answers a request that could not be read, as JSON and without a word of it."""

    def execute(self) -> None:
        """Write the refusal and close."""
        error = self.request.error
        reason = error.body if isinstance(error, UnreadError) else ERROR_REASONS.get(error.code, "malformed")
        answer = refusal(reason)
        metrics: Metrics = self.channel.server.metrics
        path = getattr(self.request, "path", "")  # what could not be read has none
        endpoint = "feedback" if path == FEEDBACK_PATH else PATHS.get(path, "other")
        metrics.refused[reason].inc()
        metrics.requests[endpoint][f"{answer.status // 100}xx"].inc()
        if endpoint == "feedback" and reason in metrics.feedback_refused:
            metrics.feedback_refused[reason].inc()
        self.close_on_finish = True
        self.channel.__class__ = LingeringChannel
        self.channel.lingers_until = time.monotonic() + LINGER_SECONDS
        _write(self, answer)


class Channel(HTTPChannel):  # type: ignore[misc]
    """A client's connection; `exchange` is its request that the proxy has, `held` its bytes of bodies."""

    task_class = AnswerTask
    error_task_class = RefusalTask
    exchange: Exchange | None = None
    held = 0
    request: Parser | None

    def parser_class(self, adj: Adjustments) -> Parser:
        """The parser of one request."""
        return Parser(adj, self.server.refuses_head)

    def received(self, data: bytes) -> bool:
        """Take data; too much of it in memory, here and elsewhere, is given up."""
        taken: bool = super().received(data)
        self.server.weigh(self)
        return taken

    def service(self) -> None:
        """Answer the first request."""
        super().service()
        self.server.weigh(self)

    def del_channel(self, *arguments: Any) -> None:
        """Closed, perhaps with locks held: the loop weighs it when it comes by."""
        super().del_channel(*arguments)
        self.server.closed.append(self)

    def refuse(self, reason: str) -> None:
        """Answer the request that is being read without reading on."""
        with self.requests_lock:
            partial = self.request
            if partial is None or not self.is_reading_body:
                return
            self.request = None
            partial.close()
            partial.body_rcv = None
            partial.error = UnreadError(reason)
            self.requests.append(partial)
            self.server.add_task(self)
        self.server.weigh(self)

    def readable(self) -> bool:
        """Whether to read on: not before the request that was read is answered and its answer is sent."""
        return not (self.requests or self.total_outbufs_len or self.will_close or self.close_when_flushed)

    def answer(self, _: Exchange) -> None:
        """Write the answer; called by the proxy, on its thread, when the exchange is settled."""
        self.service()

    @property
    def is_idle(self) -> bool:
        """Whether no head was read whose request is not yet answered and sent."""
        has_head = self.request is not None and self.request.headers_finished
        return not (has_head or self.requests or self.total_outbufs_len)

    @property
    def is_reading_body(self) -> bool:
        """Whether a head was read whose body has not all come, and no request before it waits."""
        return self.request is not None and self.request.headers_finished and not self.requests


class LingeringChannel(Channel):
    """A channel whose request was refused before all of it was read. It reads and drops, for a moment, what
    the client is still sending: closed at once, the connection would be reset and the client might never see
    its answer. A channel that has to linger takes this class."""

    close_when_flushed: bool
    lingers_until = 0.0

    def readable(self) -> bool:
        """Until it ends."""
        return not self.will_close

    def writable(self) -> bool:
        """Whether there is something to send or to end."""
        if time.monotonic() > self.lingers_until:
            self.will_close = True
        return bool(super().writable())

    def handle_write(self) -> None:
        """Send what is to be sent, then end this side of the connection."""
        if self.close_when_flushed and not self.total_outbufs_len:
            self.close_when_flushed = False
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
        super().handle_write()

    def handle_read(self) -> None:
        """Drop what comes; the client's end of the connection ends it."""
        try:
            if not self.recv(self.adj.recv_bytes):
                self.will_close = True
        except OSError:
            self.will_close = True


class Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]
    """Gives the container's paths to the proxy and everything else to waitress' threads."""

    queue_logger = logging.getLogger(f"{__name__}.queue")

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self.queue_logger.disabled = True
        self._proxy = proxy
        self.set_thread_count(THREADS)

    def add_task(self, channel: Channel) -> None:
        """Take the first request of a channel. Called with its lock held, so nothing is answered in here."""
        request = channel.requests[0]
        if request.error is None and request.path in PATHS:
            received = request.body_rcv
            channel.exchange = Exchange(
                Request(
                    request.command,
                    request.path,
                    request.query,
                    request.headers,
                    b"" if received is None else received.getfile().read(),
                    channel.addr,
                ),
                channel.answer,
            )
            if self._proxy.submit(channel.exchange):
                return
        super().add_task(channel)


class Server(TcpWSGIServer):  # type: ignore[misc]
    """The listener and its loop. `run` returns after `stop`, when everything that was read is answered."""

    channel_class = Channel

    def __init__(
        self,
        application: Callable[..., Any],
        settings: Settings,
        metrics: Metrics,
        proxy: Proxy,
    ) -> None:
        self.metrics = metrics
        self.is_stopping = False
        self._is_closed = False
        self._has_ended = False
        self._ending = threading.RLock()  # reentrant: a signal handler may interrupt who holds it
        self._proxy = proxy
        self._grace = settings.grace_seconds
        self._deadline = float("inf")
        self._beat = time.monotonic()
        self.closed: deque[Channel] = deque()
        self._weighing = threading.Lock()
        self._held = 0
        self._most_held = settings.buffer_bytes
        self._comfortable = int(CROWDED * settings.connections)
        self._bearers = {
            FEEDBACK_PATH: settings.feedback_bearer_token,
            **dict.fromkeys(PATHS, settings.bearer_token),
        }
        metrics.connections.set_function(lambda: len(self.active_channels))
        super().__init__(
            application,
            dispatcher=Dispatcher(proxy),
            adj=Adjustments(
                host=settings.host,
                port=settings.port,
                backlog=min(settings.connections, 4096),
                connection_limit=settings.connections + 2,
                max_request_header_size=HEADER_BYTES,
                max_request_body_size=settings.body_bytes + 1,
                inbuf_overflow=LARGEST_BUFFER,
                outbuf_overflow=LARGEST_BUFFER,
                asyncore_use_poll=True,
                clear_untrusted_proxy_headers=False,
                log_socket_errors=False,
                ident=None,
            ),
        )

    @property
    def closes_connections(self) -> bool:
        """Whether answers end their connection: once the port is closed (a client that was sent away before
        would come back to a listener that drops it), and while idle ones leave no room for new."""
        return self._is_closed or self._surplus > 0

    @property
    def _surplus(self) -> int:
        """How many connections there are beyond those that leave room for new ones."""
        return len(self.active_channels) - self._comfortable

    @property
    def is_alive(self) -> bool:
        """Whether the loop has turned lately."""
        return time.monotonic() - self._beat < HEARTBEAT_SECONDS

    def stop(self) -> None:
        """Begin to stop; called by a signal handler. A second call ends the grace period."""
        grace = 0.0 if self.is_stopping else self._grace
        self._deadline = time.monotonic() + grace
        self.is_stopping = True
        with self._ending:
            if not self._has_ended:
                self.pull_trigger()

    def run(self) -> None:
        """Serve until stopped."""
        while not self.is_stopping:
            self._turn(1.0)
        self._accept_waiting()
        wasyncore.dispatcher.close(self)
        self._is_closed = True
        while time.monotonic() < self._deadline and not (self._proxy.is_idle and not self.active_channels):
            self._close_idle()
            self._turn(POLL_SECONDS)
        self._refuse_rest()
        flushed = time.monotonic() + FLUSH_SECONDS
        while self.active_channels and time.monotonic() < flushed:
            self._close_idle(0.0)
            self._turn(POLL_SECONDS)
        with self._ending:
            self._has_ended = True
        self.task_dispatcher.shutdown(timeout=1)
        wasyncore.close_all(self._map, ignore_all=True)

    def refuses_head(self, head: HTTPRequestParser) -> str | None:
        """Why a request need not be read in full, or None."""
        bearer = self._bearers.get(head.path)
        if bearer and not bearer_matches(head.headers.get("AUTHORIZATION", ""), bearer):
            return "unauthorized"
        return None

    def weigh(self, channel: Channel) -> None:
        """Note the bytes of bodies that a channel keeps; if all keep too many, the greatest unread goes."""
        with self._weighing, channel.requests_lock:
            reading = channel.request if channel.connected else None
            bodies = [request.body_rcv for request in (*channel.requests, reading) if request is not None]
            held = sum(body.__len__() for body in bodies if body is not None)
            self._held += held - channel.held
            grown, channel.held = held > channel.held, held
        if grown and self._held > self._most_held:
            self._shed()

    def _shed(self) -> None:
        """Refuse the greatest body that is still being read. Called by the loop's thread."""
        unfinished = [channel for channel in self.active_channels.values() if channel.is_reading_body]
        greatest = max(unfinished, key=lambda channel: channel.held, default=None)
        if greatest is not None:
            greatest.refuse("overload")

    def _turn(self, seconds: float) -> None:
        self._beat = time.monotonic()
        while self.closed:
            self.weigh(self.closed.popleft())
        self._make_room()
        wasyncore.loop(timeout=seconds, use_poll=True, map=self._map, count=1)

    def _make_room(self) -> None:
        """While nearly all connections are taken, close those that have been between requests for longest."""
        if self._surplus > 0:
            now = time.time()
            idle = [
                channel
                for channel in self.active_channels.values()
                if channel.is_idle
                and now - channel.last_activity >= LINGER_SECONDS
                and not _has_arrived(channel)
            ]
            for channel in sorted(idle, key=lambda channel: channel.last_activity)[: self._surplus]:
                channel.will_close = True

    def _accept_waiting(self) -> None:
        """Take the connections that the system has already accepted for this socket."""
        known = -1
        while len(self.active_channels) > known:
            known = len(self.active_channels)
            self.handle_accept()

    def _close_idle(self, after: float = LINGER_SECONDS) -> None:
        """Close connections between requests; those just used get a moment, their clients may be sending, and
        what has arrived is read first, however long ago that was."""
        now = time.time()
        for channel in list(self.active_channels.values()):
            if channel.is_idle and now - channel.last_activity >= after and not _has_arrived(channel):
                channel.will_close = True

    def _refuse_rest(self) -> None:
        """End of the grace period: answer what is with the proxy, and requests whose body never came."""
        self._proxy.abandon()
        for channel in list(self.active_channels.values()):
            channel.refuse("stopping")


def _has_arrived(channel: Channel) -> bool:
    poll = select.poll()
    poll.register(channel.socket, select.POLLIN)
    return bool(poll.poll(0))


class QuietRecords(logging.Filter):
    """Cuts waitress' log records down to what happened: its messages quote paths and header lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record; always keeps it."""
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else "no exception"
        record.msg, record.args = f"waitress, {record.funcName}: {kind}", ()
        record.exc_info = record.exc_text = None
        return True


def _write(task: AnswerTask | RefusalTask, answer: Answer) -> None:
    """Write an answer in one piece."""
    channel, request = task.channel, task.request
    wishes = {wish.strip() for wish in request.headers.get("CONNECTION", "").lower().split(",")}
    ends = "keep-alive" not in wishes if task.version == "1.0" else "close" in wishes
    if ends or _ends_connection(channel):
        task.close_on_finish = True
    head = _head(task.version, answer.status, answer.phrase, answer.headers, int(time.time()))
    for name, value in answer.added:
        head += f"{name}: {value}\r\n"
    if task.close_on_finish:
        head += "Connection: close\r\n"
    elif task.version == "1.0":
        head += "Connection: Keep-Alive\r\n"
    asks_for_head = getattr(request, "command", "GET") == "HEAD"  # what could not be read has no command
    has_body = answer.status not in BODILESS
    if has_body and not (asks_for_head and not answer.body):
        head += f"Content-Length: {len(answer.body)}\r\n"
    body = answer.body if has_body and not asks_for_head else b""
    task.wrote_header = True
    channel.write_soon((head + "\r\n").encode("latin-1") + body)


def _ends_connection(channel: Channel) -> bool:
    """Whether the answer to this channel's first request is its last, for the server's sake."""
    return bool(channel.server.closes_connections and len(channel.requests) <= 1)


@functools.lru_cache(maxsize=64)
def _head(version: str, status: int, phrase: str, headers: Headers, now: int) -> str:
    """Status line and header fields; the answers of a batch, and most of a second, have them in common."""
    lines = [f"HTTP/{version} {status} {phrase}", *[f"{name}: {value}" for name, value in headers]]
    names = {name.lower() for name, _ in headers}
    if "date" not in names:
        lines.append(f"Date: {build_http_date(now)}")
    if "server" in names:
        lines.append("Via: waitress")
    return "\r\n".join(lines) + "\r\n"
