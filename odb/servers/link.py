"""One connection of a test server: receives into its buffers and sends, by the calls that the flags choose."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Sequence

from odb.servers import calls, http
from odb.servers.calls import Bytes
from odb.servers.flags import FRESH, GATHER, Flags
from odb.servers.memory import Toucher, buffer_at
from odb.servers.waiting import Waiter

_STEP = 256


class Link:
    """Owns the socket. What has been received and not consumed is `pending`, valid until the next receive.

    One coroutine may receive while another one sends.
    """

    def __init__(self, sock: socket.socket, flags: Flags, waiter: Waiter) -> None:
        self.sock = sock
        self.flags = flags
        self.waiter = waiter
        self.pending = memoryview(b"")
        self.received = 0
        self.sent = 0
        self._toucher = Toucher(flags)
        self._buffers: list[memoryview] = []
        self._filled = 0
        self._released = False
        sock.setblocking(not waiter.nonblocking)
        if flags.send_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, flags.send_buffer)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Ends the connection; twice does no harm."""
        if self.sock.fileno() >= 0:
            self.waiter.forget(self.sock.fileno())
            self.sock.close()

    async def connect(self, address: tuple[str, int]) -> None:
        """Raises OSError."""
        try:
            self.sock.connect(address)
        except BlockingIOError:
            await self.waiter.writable(self.sock.fileno())
            error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, "cannot connect") from None

    async def receive(self) -> int:
        """Adds to `pending`, by one call, and returns how much; 0 at the end of the stream. Raises OSError."""
        fresh = self.flags.receive in FRESH
        room = self.flags.buffer if fresh else len(self._room())
        wanted = min(room, self.flags.receive_chunk or room)
        fd = self.sock.fileno()
        while True:
            if not self.waiter.may_read(fd):
                await self.waiter.readable(fd)
            try:
                got = self._receive_fresh(wanted) if fresh else self._receive_into(wanted)
                break
            except BlockingIOError:
                await self.waiter.readable(fd)
        self.received += got
        self.waiter.received(fd, wanted, got)
        self._toucher.touch(self.pending[len(self.pending) - got :])
        return got

    def _receive_fresh(self, wanted: int) -> int:
        self.pending = calls.receive_fresh(self.flags.receive, self.sock, wanted)
        return len(self.pending)

    def _receive_into(self, wanted: int) -> int:
        got = calls.receive_into(self.flags.receive, self.sock, self._room()[:wanted], self.flags.vectors)
        begin = self._filled - len(self.pending)
        self._filled += got
        self.pending = self._buffers[0][begin : self._filled]
        return got

    def _room(self) -> memoryview:
        """Where the next bytes go: behind pending ones, else to the start of the next buffer."""
        if not self._buffers:
            self._buffers = [self._new_buffer() for _ in range(self.flags.buffers)]
        elif not self.pending and self._filled:
            used = self._buffers.pop(0)
            self._buffers.append(self._new_buffer() if self._released else used)
            self._released = False
            self._filled = 0
        return self._buffers[0][self._filled :]

    def _new_buffer(self) -> memoryview:
        return buffer_at(self.flags.buffer, self.flags.offset, self.flags.memory)

    def release(self) -> None:
        """Leaves the memory of all views given out so far to their holders: what comes next goes elsewhere."""
        self._released = True

    def consume(self, count: int) -> None:
        """The first `count` pending bytes are done with."""
        self.pending = self.pending[count:]

    async def head(self) -> http.Head | None:
        """The next head, or None when the peer has ended the connection before it. Raises PeerError and OSError.

        Looks at no byte behind the head: what follows may be memory that costs something to look at.
        """
        text = bytearray()
        while True:
            if not self.pending and await self.receive() == 0:
                if text:
                    raise http.PeerError("the peer ended the connection inside a head")
                return None
            step = bytes(self.pending[:_STEP])
            seen = len(text)
            text += step
            end = text.find(http.END, max(0, seen - 3))
            if end >= 0:
                self.consume(end + len(http.END) - seen)
                return http.parse_head(bytes(text[: end + len(http.END)]))
            self.consume(len(step))
            if len(text) > http.HEAD_MAX:
                raise http.PeerError(f"the peer sent a head of more than {http.HEAD_MAX} bytes")

    async def body(self, body: http.Body) -> AsyncIterator[tuple[memoryview, list[memoryview]]]:
        """Yields the body as it arrives: raw bytes, and the content in them. Views are valid until the next one is asked for.

        Raises PeerError when the connection ends before the body does.
        """
        while not body.done:
            if not await self._gather(body):
                if body.until_end:
                    return
                raise http.PeerError("the peer ended the connection inside a body")
            raw = self.pending
            used, parts = body.take(raw)
            yield raw[:used], parts
            self.consume(used)

    async def _gather(self, body: http.Body) -> bool:
        """Makes bytes pending: what one call brings, or with --fill a full buffer or the end of the body."""
        if not self.pending and await self.receive() == 0:
            return False
        while (
            self.flags.fill and body.left is not None and len(self.pending) < body.left and len(self._room())
        ):
            if await self.receive() == 0:
                break
        return True

    async def send(self, parts: Sequence[Bytes], chunk: int | None = None) -> None:
        """Sends everything, at most `chunk` bytes (default: --send-chunk) by one call. Raises OSError."""
        limit = self.flags.send_chunk if chunk is None else chunk
        left = [memoryview(part) for part in parts if len(part)]
        while left:
            sent = await self._send_once(left, limit)
            while left and sent >= len(left[0]):
                sent -= len(left.pop(0))
            if sent:
                left[0] = left[0][sent:]

    async def _send_once(self, left: list[memoryview], limit: int) -> int:
        offered = left if self.flags.send in GATHER else left[:1]
        if limit:
            offered = _beginning(offered, limit)
        while True:
            try:
                sent = calls.send_bytes(self.flags.send, self.sock, offered, self.flags.vectors)
                self.sent += sent
                return sent
            except BlockingIOError:
                await self.waiter.writable(self.sock.fileno())

    def end(self) -> None:
        """Ends the sending direction. Raises OSError."""
        self.sock.shutdown(socket.SHUT_WR)

    async def finish(self) -> None:
        """Ends the sending direction and reads on until the peer has ended its own, so that nothing sent is lost by a reset."""
        with contextlib.suppress(OSError):
            self.end()
            self.pending = memoryview(b"")
            while await self.receive():
                self.consume(len(self.pending))


def _beginning(parts: Sequence[memoryview], limit: int) -> list[memoryview]:
    chosen = []
    for part in parts:
        if limit <= 0:
            break
        chosen.append(part[:limit])
        limit -= len(part)
    return chosen
