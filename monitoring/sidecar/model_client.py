"""The model's container, over pooled keep-alive connections.

It is not a library's client, since a proxy needs control that libraries do not give. An answer with ambiguous
framing is refused, and bytes without a request are never taken for an answer. A request is sent again only if
a reused connection gave no byte: the container probably closed it in between. Time and size of an answer are
limited, even if it arrives slowly.
"""

import asyncio
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from monitoring.sidecar import http1
from monitoring.sidecar.answers import Answer
from monitoring.sidecar.wire import READ_BYTES, EndedError, TooLargeError, Wire, bound_buffers

MOST_INTERIM = 10


class UpstreamError(Exception):
    """The container gave no answer; `cause` is one of refused, timeout, closed, garbled, too_large."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Upstream:
    """A pool of connections to one container, for one event loop.

    `answered_at` is the time (seconds since 1970) of the last answer; before the first answer, of the start.
    """

    def __init__(
        self, url: str, *, connect_seconds: float, timeout_seconds: float, answer_bytes: int
    ) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        self._authority = parts.netloc
        self._connect_seconds = connect_seconds
        self._timeout_seconds = timeout_seconds
        self._answer_bytes = answer_bytes
        self._scratch = memoryview(bytearray(READ_BYTES))
        self._idle: list[Wire] = []
        self.answered_at = time.time()

    async def send(
        self,
        method: str,
        target: str,
        fields: http1.Fields,
        body: bytes,
        grow: Callable[[int], None],
        timeout: float | None = None,
    ) -> Answer:
        """Send one request and read its whole answer.

        `fields` are end-to-end fields without Content-Length; `grow` reserves the answer's bytes before they
        are read. Raises UpstreamError and what `grow` raises.
        """
        head = self._head(method, target, fields, len(body))
        try:
            async with asyncio.timeout(timeout or self._timeout_seconds):
                while True:
                    wire, is_new = await self._wire()
                    before = wire.received_bytes
                    try:
                        wire.write(head, body)
                        answer, keeps = await self._answer(wire, grow)
                    except (EndedError, ConnectionError):
                        wire.transport.abort()
                        if is_new or wire.received_bytes > before:
                            raise UpstreamError("closed") from None
                        continue
                    except BaseException:
                        wire.transport.abort()
                        raise
                    break
        except TimeoutError:
            raise UpstreamError("timeout") from None
        except http1.MalformedError:
            raise UpstreamError("garbled") from None
        except TooLargeError:
            raise UpstreamError("too_large") from None
        self.answered_at = time.time()
        if keeps:
            self._idle.append(wire)
        else:
            wire.transport.abort()
        return answer

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().transport.abort()

    async def _wire(self) -> tuple[Wire, bool]:
        """A connection without unexpected bytes since its last answer, and whether it is new."""
        while self._idle:
            wire = self._idle.pop()
            if wire.is_quiet:
                return wire, False
            wire.transport.abort()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_seconds):
                transport, wire = await loop.create_connection(lambda: Wire(self._scratch), *self._address)
        except TimeoutError:
            raise UpstreamError("timeout") from None
        except OSError:
            raise UpstreamError("refused") from None
        bound_buffers(transport.get_extra_info("socket"))
        return wire, True

    def _head(self, method: str, target: str, fields: http1.Fields, length: int) -> bytes:
        """A request's head on the wire. Targets and fields come from a head that was read strictly, or from
        here."""
        lines = [f"{method} {target} HTTP/1.1", *[f"{name}: {value}" for name, value in fields]]
        if all(name.lower() != "host" for name, _ in fields):
            lines.append(f"Host: {self._authority}")
        if length or method != "GET":
            lines.append(f"Content-Length: {length}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    async def _answer(self, wire: Wire, grow: Callable[[int], None]) -> tuple[Answer, bool]:
        """Read an answer; returns it, and whether the connection may be used again."""
        for _ in range(MOST_INTERIM):
            head = http1.answer_head(await wire.until(b"\r\n\r\n"))
            if head.status == 101:
                raise http1.MalformedError
            if head.status >= 200:
                break
        else:
            raise http1.MalformedError
        body = await self._body(wire, head, grow)
        fields = http1.end_to_end(head.fields, head.values)
        return Answer(head.status, head.phrase, fields, body), head.keeps_alive and not wire.has_ended

    async def _body(self, wire: Wire, head: http1.AnswerHead, grow: Callable[[int], None]) -> bytes:
        """The body that belongs to this head."""
        if head.status in (204, 304):
            return b""
        if head.chunked:
            return await wire.chunks(self._answer_bytes, grow)
        if head.length is None:
            return await wire.rest(self._answer_bytes, grow)
        if head.length > self._answer_bytes:
            raise TooLargeError
        grow(head.length)
        return await wire.exactly(head.length)
