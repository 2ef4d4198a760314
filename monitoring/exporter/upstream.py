"""The model's container, over pooled keep-alive connections of the standard library's HTTP client.

`http.client` sends target and headers exactly as given and lets the pool see whether a connection had been
used before, which is what makes a retry safe: only a request that got not one byte of answer on a reused
connection is sent again, because that is how a connection that the container closed in between looks.
"""

import http.client
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from monitoring.exporter.answers import Answer

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
LARGEST_ANSWER = 2**30
READ_BYTES = 65536


class UpstreamError(Exception):
    """The container gave no answer; `cause` is one of refused, timeout, closed, garbled."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Upstream:
    """A pool of connections to one container. Thread-safe; a connection serves one call at a time."""

    def __init__(
        self,
        url: str,
        connect_seconds: float,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._connect_seconds = connect_seconds
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._idle: list[http.client.HTTPConnection] = []

    def send(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        timeout: float | None = None,
    ) -> Answer:
        """Send one request and read its whole answer.

        `headers` are end-to-end headers without Content-Length. Raises UpstreamError.
        """
        deadline = self._clock() + (timeout or self._timeout_seconds)
        while True:
            connection, reused = self._connection()
            try:
                answer = self._exchange(connection, method, target, headers, body, deadline)
            except (ConnectionError, http.client.RemoteDisconnected) as error:
                connection.close()
                if reused and not isinstance(error, _PartialAnswerError):
                    continue  # the pool held a connection that the container had closed
                raise UpstreamError("closed") from None
            except TimeoutError:
                connection.close()
                raise UpstreamError("timeout") from None
            except http.client.IncompleteRead:
                connection.close()
                raise UpstreamError("closed") from None
            except (http.client.HTTPException, ValueError, OSError):
                connection.close()
                raise UpstreamError("garbled") from None
            except BaseException:
                connection.close()
                raise
            return answer

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        try:
            return self._idle.pop(), True
        except IndexError:
            pass
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._connect_seconds)
        try:
            connection.connect()
        except TimeoutError:
            raise UpstreamError("timeout") from None
        except OSError:
            raise UpstreamError("refused") from None
        return connection, False

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        deadline: float,
    ) -> Answer:
        connection.sock.settimeout(self._left(deadline))
        names = {name.lower() for name, _ in headers}
        connection.putrequest(method, target, skip_host="host" in names, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if body or method not in ("GET", "HEAD", "OPTIONS", "TRACE", "DELETE"):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        response = connection.getresponse()
        try:
            content = self._content(connection, response, deadline)
        except ConnectionError as error:
            raise _PartialAnswerError from error
        fields = response.getheaders()
        named = {
            token.strip().lower()
            for name, value in fields
            if name.lower() == "connection"
            for token in value.split(",")
        }
        if not 200 <= response.status < 600:
            raise http.client.HTTPException
        dropped = HOP_BY_HOP | named | (set() if method == "HEAD" else {"content-length"})
        if response.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        kept = tuple((name, _unfolded(value)) for name, value in fields if name.lower() not in dropped)
        return Answer(response.status, response.reason or "Unknown", kept, content)

    def _content(
        self,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
        deadline: float,
    ) -> bytes:
        """The whole body. The deadline is for all of it: a container that drips is late, not alive."""
        parts, size = [], 0
        while part := response.read1(READ_BYTES):
            parts.append(part)
            size += len(part)
            if size > LARGEST_ANSWER:
                raise http.client.HTTPException
            if connection.sock is not None:
                connection.sock.settimeout(self._left(deadline))
        if response.length:
            raise http.client.IncompleteRead(b"")
        response.close()  # a body of known length leaves it open, and the connection not ready for the next
        return b"".join(parts)

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock()
        if left <= 0:
            raise TimeoutError
        return left


def _unfolded(value: str) -> str:
    """A header value on one line: old servers may fold it, and a fold must not become a header here."""
    return " ".join(value.split()) if "\n" in value or "\r" in value else value


class _PartialAnswerError(ConnectionError):
    """The connection broke after the answer had begun: never a reason to send again."""
