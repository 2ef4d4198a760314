"""One connection as bytes that come when they are asked for, with a bounded number of them waiting."""

import asyncio
import select
import socket
from collections.abc import Callable

from monitoring.sidecar import http1
from monitoring.sidecar.budget import SMALL_BODY, SYSTEM_BYTES

READ_BYTES = 16_384
MOST_UNREAD = http1.HEAD_BYTES
MOST_TRAILERS = 100
PIECE_BYTES = 1_048_576


class EndedError(ConnectionError):
    """The other side ended the connection before what was asked for had come."""


class TooLargeError(Exception):
    """More came than may come."""


def bound_buffers(each: socket.socket) -> None:
    """Bound what the system holds for a socket, or for those that a listening one accepts: megabytes, if
    nothing is said."""
    for direction in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        each.setsockopt(socket.SOL_SOCKET, direction, SYSTEM_BYTES // 2)


class Wire(asyncio.BufferedProtocol):
    """A connection of either side. Everything here runs on the event loop's thread.

    `scratch`, of READ_BYTES, is what the socket is read into; the wires of one loop may share it.
    """

    transport: asyncio.Transport

    def __init__(self, scratch: memoryview) -> None:
        self._scratch = scratch
        self._buffer = bytearray()
        self._wanted = 0
        self._coming: asyncio.Future[None] | None = None
        self._going: asyncio.Future[None] | None = None
        self._is_broken = False
        self.discards = False
        self.has_ended = False
        self.is_lost = False
        self.received_bytes = 0

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; what cannot be sent at once is known to `flushed`."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(0)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the socket is read into."""
        return self._scratch

    def buffer_updated(self, count: int) -> None:
        """Keep what came, and read no more before it is asked for."""
        self.received_bytes += count
        if self.discards:
            return
        self._buffer += self._scratch[:count]
        if len(self._buffer) >= max(self._wanted, MOST_UNREAD):
            self.transport.pause_reading()
        if len(self._buffer) >= self._wanted:
            self._wake()

    def eof_received(self) -> bool:
        """The other side sends no more; it may still read."""
        self.has_ended = True
        self._wake()
        return not self.discards

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing comes or goes any more."""
        self.has_ended = self.is_lost = True
        self._is_broken = error is not None
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Something waits to be sent."""
        self._going = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Everything was sent."""
        if self._going is not None and not self._going.done():
            self._going.set_result(None)
        self._going = None

    # Called by the owner of the connection

    @property
    def is_quiet(self) -> bool:
        """Whether nothing came that was not asked for: bytes, or the connection's end."""
        if self.has_ended or self._buffer or self.transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket"), select.POLLIN)
        return not poll.poll(0)

    @property
    def has_begun(self) -> bool:
        """Whether something came that nobody has taken yet."""
        return bool(self._buffer)

    async def more(self, wanted: int = 0) -> None:
        """Wait until something comes, or until `wanted` bytes are there. Raises EndedError."""
        if self.has_ended:
            raise EndedError
        self._wanted = wanted
        self.transport.resume_reading()
        self._coming = asyncio.get_running_loop().create_future()
        await self._coming

    async def until(self, end: bytes, most: int = http1.HEAD_BYTES) -> bytes:
        """What comes before `end`, which is taken off too. Raises EndedError, TooLargeError."""
        start = 0
        while (place := self._buffer.find(end, start)) < 0:
            if len(self._buffer) > most:
                raise TooLargeError
            start = max(0, len(self._buffer) - len(end) + 1)
            await self.more()
        if place > most:
            raise TooLargeError
        return self._take(place + len(end))[:place]

    async def exactly(self, count: int) -> bytes:
        """The next `count` bytes. Raises EndedError."""
        while len(self._buffer) < count:
            await self.more(count)
        return self._take(count)

    async def pieces(self, count: int, grow: Callable[[int], None]) -> bytes:
        """The next `count` bytes; `grow` is told of each piece before it is read. Raises EndedError and what
        `grow` raises."""
        if count <= PIECE_BYTES:
            grow(count)
            return await self.exactly(count)
        body = bytearray()
        while size := min(PIECE_BYTES, count - len(body)):
            grow(size)
            body += await self.exactly(size)
        return bytes(body)

    async def chunks(self, most: int, grow: Callable[[int], None]) -> bytes:
        """A chunked body of at most `most` bytes; `grow` is told of each chunk's size before it is read.

        Raises EndedError, TooLargeError, http1.MalformedError and what `grow` raises.
        """
        body = bytearray()
        while size := http1.chunk_size(await self.until(b"\r\n", 1024)):
            if len(body) + size > most:
                raise TooLargeError
            grow(size)
            body += await self.exactly(size)
            if await self.exactly(2) != b"\r\n":
                raise http1.MalformedError
        for _ in range(MOST_TRAILERS):  # they concern this connection only
            if not await self.until(b"\r\n"):
                return bytes(body)
        raise TooLargeError

    async def rest(self, most: int, grow: Callable[[int], None]) -> bytes:
        """Everything up to the end of the connection. Raises EndedError if it breaks, TooLargeError and what
        `grow` raises."""
        size = 0
        while True:
            grow(len(self._buffer) - size)
            size = len(self._buffer)
            if size > most:
                raise TooLargeError
            try:
                await self.more(size + 1)
            except EndedError:
                if self._is_broken:
                    raise
                return self._take(size)

    def write(self, head: bytes, body: bytes) -> None:
        """Send a message, a small one in one piece; of a large body only what the socket does not take at
        once is copied."""
        if len(body) <= SMALL_BODY:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(memoryview(body))

    async def flushed(self) -> None:
        """Wait until everything was sent, or the connection is gone."""
        if self._going is not None:
            await self._going

    def discard(self) -> None:
        """Send no more, and drop what still comes: closed at once, the connection would be reset, and the
        other side might never see what was sent last."""
        self.discards = True
        self._buffer.clear()
        if not self.is_lost:
            self.transport.resume_reading()
            self.transport.write_eof()

    def interrupt(self, error: Exception) -> None:
        """Raise this where the connection's owner waits for more."""
        if self._coming is not None and not self._coming.done():
            self._coming.set_exception(error)

    def _take(self, count: int) -> bytes:
        taken = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        self._wanted = 0
        return taken

    def _wake(self) -> None:
        if self._coming is not None and not self._coming.done():
            self._coming.set_result(None)
