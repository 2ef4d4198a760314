"""The traffic port: waitress, with what it lacks for a proxy.

* Requests for the container wait in the proxy's own bounded queues, where they are counted and can travel
  together, and hold no thread; waitress' threads serve refusals and /feedback.
* Contradictory lengths are refused before anything is forwarded; errors are JSON and echo nothing.
* After a stop signal, every request whose head was read is answered, up to the end of a grace period.
"""

import contextlib
import functools
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher, WSGITask
from waitress.utilities import Error, build_http_date

from monitoring.exporter.answers import Answer, Headers, refusal
from monitoring.exporter.metrics import Metrics
from monitoring.exporter.proxy import PATHS, Exchange, Proxy, Request
from monitoring.exporter.settings import Settings

THREADS = 4
HEADER_BYTES = 65_536
LARGEST_BUFFER = 2**31 - 1
LINGER_SECONDS = 1.0
FLUSH_SECONDS = 2.0
POLL_SECONDS = 0.05
HEARTBEAT_SECONDS = 10.0
CROWDED = 0.9
BODILESS = (204, 304)
ERROR_REASONS = {413: "too_large", 431: "too_large", 500: "internal", 503: "stopping"}


class StoppingError(Error):  # type: ignore[misc]
    """The grace period ended before the body of a request had arrived."""

    code = 503
    reason = "Service Unavailable"


class Parser(HTTPRequestParser):  # type: ignore[misc]
    """Refuses a message that has two lengths, or a transfer coding in a version that has none: a server
    behind that believed the other length would see two requests."""

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
        reason = ERROR_REASONS.get(self.request.error.code, "malformed")
        answer = refusal(reason)
        metrics: Metrics = self.channel.server.metrics
        metrics.refused[reason].inc()
        metrics.requests["other"][f"{answer.status // 100}xx"].inc()
        self.close_on_finish = True
        self.channel.__class__ = LingeringChannel
        self.channel.lingers_until = time.monotonic() + LINGER_SECONDS
        _write(self, answer)


class Channel(HTTPChannel):  # type: ignore[misc]
    """A client's connection; `exchange` is the request that the proxy has of it."""

    task_class = AnswerTask
    error_task_class = RefusalTask
    parser_class = Parser
    exchange: Exchange | None = None

    def readable(self) -> bool:
        """Whether to read on: not before the request that was read is answered and its answer is sent."""
        return not (self.requests or self.total_outbufs_len or self.will_close or self.close_when_flushed)

    def answer(self, _: Exchange) -> None:
        """Write the answer; called by the proxy, on its thread, when the exchange is settled."""
        self.service()

    @property
    def is_idle(self) -> bool:
        """Whether no head was read whose request is not yet answered and sent."""
        reading = self.request is not None and self.request.headers_finished
        return not (reading or self.requests or self.total_outbufs_len)


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
        crowded = len(self.active_channels) > CROWDED * self.adj.connection_limit
        return self._is_closed or crowded

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

    def _turn(self, seconds: float) -> None:
        self._beat = time.monotonic()
        wasyncore.loop(timeout=seconds, use_poll=True, map=self._map, count=1)

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
            with channel.requests_lock:
                partial = channel.request
                if partial is not None and partial.headers_finished and not channel.requests:
                    partial.error = StoppingError("stopping")
                    channel.request = None
                    channel.requests.append(partial)
                    self.add_task(channel)


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
    connection = request.headers.get("CONNECTION", "").lower()
    ends = connection != "keep-alive" if task.version == "1.0" else connection == "close"
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
