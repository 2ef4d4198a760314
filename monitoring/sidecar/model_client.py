"""The model's container, over pooled keep-alive connections.

A client of its own rather than a library's, for three reasons that matter in a proxy: a request leaves in
one piece and exactly as given; an answer whose framing is not plain is refused, so that nothing of it can be
taken for the next one; and the pool knows whether a connection had been used before. Only a request that got
not one byte of answer on a reused connection is sent again: that is how a connection looks that the container
closed in between. It also takes a fraction of the time that `http.client` spends on an answer's head.
"""

import functools
import re
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from monitoring.sidecar.answers import Answer

HOP_BY_HOP = frozenset(
    (
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    )
)
READ_BYTES = 65_536
LARGEST_HEAD = 65_536
LARGEST_ANSWER = 2**30
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([^\r\n\0]*))?")
HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
DIGITS = re.compile(rb"[0-9]{1,19}")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")
BODYLESS_METHODS = ("GET", "HEAD", "OPTIONS", "DELETE")


class UpstreamError(Exception):
    """The container gave no answer; `cause` is one of refused, timeout, closed, garbled."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Head(NamedTuple):
    """An answer's status line and header fields, and what its framing says."""

    status: int
    phrase: str
    fields: list[tuple[str, str]]
    length: int | None
    chunked: bool
    closes: bool


class Upstream:
    """A pool of connections to one container. Thread-safe; a connection serves one call at a time.

    `answered_at` is the time (seconds since 1970) of the last answer, before the first that of the start.
    """

    def __init__(
        self,
        url: str,
        connect_seconds: float,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._authority = parts.netloc
        self._connect_seconds = connect_seconds
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._idle: list[Connection] = []
        self.answered_at = time.time()

    def send(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        timeout: float | None = None,
    ) -> Answer:
        """Send one request and read its whole answer.

        `headers` are end-to-end headers without Content-Length. Raises UpstreamError, and ValueError for a
        target or header that would not be one line.
        """
        deadline = self._clock() + (timeout or self._timeout_seconds)
        message = _message(method, target, headers, body, self._authority)
        while True:
            connection, reused = self._connection()
            connection.deadline = deadline
            try:
                connection.send(message)
                head = connection.head()
                content = connection.content(head, method)
            except TimeoutError:
                connection.close()
                raise UpstreamError("timeout") from None
            except OSError:
                connection.close()
                if reused and not connection.has_answered:
                    continue
                raise UpstreamError("closed") from None
            except _GarbledError:
                connection.close()
                raise UpstreamError("garbled") from None
            except BaseException:
                connection.close()
                raise
            self.answered_at = time.time()
            if head.closes or not connection.is_clean:
                connection.close()
            else:
                self._idle.append(connection)
            return Answer(head.status, head.phrase, _end_to_end(head.fields, method), content)

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _connection(self) -> "tuple[Connection, bool]":
        try:
            return self._idle.pop(), True
        except IndexError:
            pass
        try:
            connected = socket.create_connection(self._address, self._connect_seconds)
        except TimeoutError:
            raise UpstreamError("timeout") from None
        except OSError:
            raise UpstreamError("refused") from None
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Connection(connected, self._clock), False


class Connection:
    """One connection: a message out, an answer in. Every wait ends at `deadline`: a container that drips is
    late, not alive. Raises OSError where the connection breaks, TimeoutError, _GarbledError."""

    def __init__(self, connected: socket.socket, clock: Callable[[], float]) -> None:
        self._socket = connected
        self._clock = clock
        self._received = b""
        self.deadline = 0.0
        self.has_answered = False

    @property
    def is_clean(self) -> bool:
        """Whether nothing was received beyond the answer."""
        return not self._received

    def send(self, message: bytes) -> None:
        """Send a whole message."""
        self.has_answered = False
        self._socket.settimeout(self._left())
        self._socket.sendall(message)

    def head(self) -> Head:
        """Read the head of the answer, past interim ones."""
        while True:
            head = _head(self._until(b"\r\n\r\n", LARGEST_HEAD))
            if head.status >= 200:
                return head
            if head.status == 101:
                raise _GarbledError

    def content(self, head: Head, method: str) -> bytes:
        """Read the whole body that belongs to this head."""
        if method == "HEAD" or head.status in (204, 304):
            return b""
        if head.chunked:
            return b"".join(self._chunks())
        if head.length is not None:
            return self._exactly(head.length)
        parts = [self._received]
        self._received = b""
        while part := self._socket.recv(READ_BYTES):
            parts.append(part)
            self._socket.settimeout(self._left())
        return b"".join(parts)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _chunks(self) -> Iterable[bytes]:
        total = 0
        while True:
            size = CHUNK_SIZE.fullmatch(self._until(b"\r\n", LARGEST_HEAD))
            if size is None:
                raise _GarbledError
            length = int(size[1], 16)
            total += length
            if total > LARGEST_ANSWER:
                raise _GarbledError
            if length == 0:
                while self._until(b"\r\n", LARGEST_HEAD):
                    pass  # trailers concern this connection only
                return
            yield self._exactly(length)
            if self._exactly(2) != b"\r\n":
                raise _GarbledError

    def _until(self, end: bytes, most: int) -> bytes:
        """What comes before `end`, which is consumed."""
        while (place := self._received.find(end)) < 0:
            if len(self._received) > most:
                raise _GarbledError
            self._receive()
        found, self._received = self._received[:place], self._received[place + len(end) :]
        return found

    def _exactly(self, length: int) -> bytes:
        if length <= len(self._received):
            found, self._received = self._received[:length], self._received[length:]
            return found
        if length > LARGEST_ANSWER:
            raise _GarbledError
        parts = [self._received]
        missing = length - len(self._received)
        self._received = b""
        while missing:
            self._socket.settimeout(self._left())
            part = self._socket.recv(min(missing, READ_BYTES))
            if not part:
                raise ConnectionResetError
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _receive(self) -> None:
        self._socket.settimeout(self._left())
        part = self._socket.recv(READ_BYTES)
        if not part:
            raise ConnectionResetError
        self.has_answered = True
        self._received += part

    def _left(self) -> float:
        left = self.deadline - self._clock()
        if left <= 0:
            raise TimeoutError
        return left


class _GarbledError(Exception):
    """The answer breaks a rule of HTTP/1.1."""


@functools.lru_cache(maxsize=512)
def header_name(name: str) -> str:
    """A WSGI header name as it is written on the wire."""
    return name.replace("_", "-").title()


def _message(
    method: str, target: str, headers: Sequence[tuple[str, str]], body: bytes, authority: str
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1"]
    if all(name.lower() != "host" for name, _ in headers):
        lines.append(f"Host: {authority}")
    lines.extend([f"{name}: {value}" for name, value in headers])
    if body or method not in BODYLESS_METHODS:
        lines.append(f"Content-Length: {len(body)}")
    text = "\r\n".join(lines)
    if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
        raise ValueError("a target or header is not one line")
    return text.encode("latin-1") + b"\r\n\r\n" + body


def _head(received: bytes) -> Head:
    first, *lines = received.split(b"\r\n")
    status_line = STATUS_LINE.fullmatch(first)
    if status_line is None:
        raise _GarbledError
    fields: list[tuple[str, str]] = []
    length: int | None = None
    chunked, closes = False, status_line[1] == b"0"
    for line in lines:
        field = HEADER.fullmatch(line)
        if field is None:
            raise _GarbledError
        name, value = field[1].lower(), field[2]
        if name == b"content-length":
            if not DIGITS.fullmatch(value) or length not in (None, int(value)):
                raise _GarbledError
            length = int(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked" or chunked:
                raise _GarbledError
            chunked = True
        elif name == b"connection" and b"close" in value.lower():
            closes = True
        fields.append((field[1].decode("ascii"), value.decode("latin-1")))
    if chunked and length is not None:
        raise _GarbledError
    framed = chunked or length is not None
    phrase = (status_line[3] or b"").decode("latin-1") or "Unknown"
    return Head(int(status_line[2]), phrase, fields, length, chunked, closes or not framed)


def _end_to_end(fields: list[tuple[str, str]], method: str) -> tuple[tuple[str, str], ...]:
    """Header fields that concern more than the connection; the length is written anew, but for HEAD."""
    dropped = HOP_BY_HOP
    for name, value in fields:
        if name.lower() == "connection":
            dropped = dropped.union(token.strip().lower() for token in value.split(","))
    if method != "HEAD":
        dropped = dropped.union(("content-length",))
    return tuple(field for field in fields if field[0].lower() not in dropped)
