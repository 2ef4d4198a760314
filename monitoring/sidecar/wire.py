"""A connection as a stream of bytes that are read on demand, with a bounded buffer."""

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
    """The other side ended the connection before the expected bytes arrived."""


class TooLargeError(Exception):
    """More bytes arrived than the limit."""


def bound_buffers(endpoint: socket.socket) -> None:
    """Bound the system's buffers of a socket, or of those that a listening socket accepts; the default is
    megabytes."""
    for direction in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        endpoint.setsockopt(socket.SOL_SOCKET, direction, SYSTEM_BYTES // 2)


class Wire(asyncio.BufferedProtocol):
    """A connection of either side. Everything here runs on the event loop's thread.

    The socket is read into `scratch`, of READ_BYTES, which the wires of one loop may share.
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
        self._written_bytes = 0

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; `flushed` waits for bytes that cannot be sent at once."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(0)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The buffer that the socket is read into."""
        return self._scratch

    def buffer_updated(self, count: int) -> None:
        """Keep the bytes that arrived, and pause reading when the buffer is full."""
        self.received_bytes += count
        if self.discards:
            return
        self._buffer += self._scratch[:count]
        if len(self._buffer) >= max(self._wanted, MOST_UNREAD):
            self.transport.pause_reading()
        if len(self._buffer) >= self._wanted:
            self._wake()

    def eof_received(self) -> bool:
        """Note that the other side sends no more; it may still read."""
        self.has_ended = True
        self._wake()
        return not self.discards

    def connection_lost(self, error: Exception | None) -> None:
        """Note that the connection is gone."""
        self.has_ended = self.is_lost = True
        self._is_broken = error is not None
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Note that bytes wait to be sent."""
        self._going = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Note that all bytes were sent."""
        if self._going is not None and not self._going.done():
            self._going.set_result(None)
        self._going = None

    # Called by the owner of the connection

    @property
    def is_quiet(self) -> bool:
        """Whether neither unexpected bytes nor the connection's end have arrived."""
        if self.has_ended or self._buffer or self.transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket"), select.POLLIN)
        return not poll.poll(0)

    @property
    def has_begun(self) -> bool:
        """Whether there are bytes in the buffer."""
        return bool(self._buffer)

    @property
    def moved_bytes(self) -> int:
        """Bytes that have been received and sent so far."""
        return self.received_bytes + self._written_bytes - self.transport.get_write_buffer_size()

    async def more(self, count: int = 0) -> None:
        """Wait for more bytes, or until the buffer has `count` bytes. Raises EndedError."""
        if self.has_ended:
            raise EndedError
        self._wanted = count
        self.transport.resume_reading()
        self._coming = asyncio.get_running_loop().create_future()
        await self._coming

    async def until(self, end: bytes, limit: int = http1.HEAD_BYTES) -> bytes:
        """The bytes before `end`, which is consumed too. Raises EndedError, TooLargeError."""
        start = 0
        while (position := self._buffer.find(end, start)) < 0:
            if len(self._buffer) > limit:
                raise TooLargeError
            start = max(0, len(self._buffer) - len(end) + 1)
            await self.more()
        if position > limit:
            raise TooLargeError
        return self._take(position + len(end))[:position]

    async def exactly(self, count: int) -> bytes:
        """The next `count` bytes. Raises EndedError."""
        while len(self._buffer) < count:
            await self.more(count)
        return self._take(count)

    async def pieces(self, count: int, grow: Callable[[int], None]) -> bytes:
        """The next `count` bytes; `grow` is called with the size of each piece before it is read. Raises
        EndedError and what `grow` raises."""
        if count <= PIECE_BYTES:
            grow(count)
            return await self.exactly(count)
        body = bytearray()
        await self._gather(body, count, grow)
        return bytes(body)

    async def chunks(self, limit: int, grow: Callable[[int], None]) -> bytes:
        """A chunked body of at most `limit` bytes; `grow` is called as for `pieces`.

        Raises EndedError, TooLargeError, http1.MalformedError and what `grow` raises.
        """
        body = bytearray()
        while size := http1.chunk_size(await self.until(b"\r\n", 1024)):
            if len(body) + size > limit:
                raise TooLargeError
            await self._gather(body, size, grow)
            if await self.exactly(2) != b"\r\n":
                raise http1.MalformedError
        for _ in range(MOST_TRAILERS):  # they concern this connection only
            if not await self.until(b"\r\n"):
                return bytes(body)
        raise TooLargeError

    async def _gather(self, body: bytearray, count: int, grow: Callable[[int], None]) -> None:
        while size := min(PIECE_BYTES, count):
            grow(size)
            body += await self.exactly(size)
            count -= size

    async def rest(self, limit: int, grow: Callable[[int], None]) -> bytes:
        """Everything up to the end of the connection. Raises EndedError if it breaks, TooLargeError and what
        `grow` raises."""
        size = 0
        while True:
            grow(len(self._buffer) - size)
            size = len(self._buffer)
            if size > limit:
                raise TooLargeError
            try:
                await self.more(size + 1)
            except EndedError:
                if self._is_broken:
                    raise
                return self._take(size)

    def write(self, head: bytes, body: bytes) -> None:
        """Send a message. A small body is sent with its head; of a large body only the part that the socket
        does not take at once is copied."""
        self._written_bytes += len(head) + len(body)
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
        """Send no more, and drop further bytes. If the connection were closed at once, it would be reset, and
        the other side might lose the last answer."""
        self.discards = True
        self._buffer.clear()
        if not self.is_lost:
            self.transport.resume_reading()
            self.transport.write_eof()

    def interrupt(self, error: Exception) -> None:
        """Raise an error in the code that waits for more bytes."""
        if self._coming is not None and not self._coming.done():
            self._coming.set_exception(error)

    def _take(self, count: int) -> bytes:
        received = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        self._wanted = 0
        return received

    def _wake(self) -> None:
        if self._coming is not None and not self._coming.done():
            self._coming.set_result(None)
