"""Sends messages whose content the server makes: from memory at a chosen place, through a recycled buffer, or from a file."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from odb.servers.calls import Pipe
from odb.servers.content import content, file_of
from odb.servers.flags import FILE, Flags
from odb.servers.link import Link
from odb.servers.memory import buffer_at

_CHUNK = 16384


@dataclass(frozen=True, slots=True)
class Payload:
    """`size` bytes of which those from `start` to before `stop` are sent."""

    seed: int
    size: int
    tag: str
    stop: int
    start: int = 0

    def data(self) -> memoryview:
        return memoryview(content(self.seed, self.size, self.tag))[self.start : self.stop]


async def send_message(link: Link, head: bytes, payload: Payload, *, chunked: bool = False) -> None:
    """Sends a head and a payload. chunked: as HTTP chunks of --send-chunk (or 16 KiB) bytes. Raises OSError."""
    if link.flags.send in FILE and payload.stop > payload.start and not chunked:
        await link.send([head], link.flags.head_chunk)
        await _send_file(link, payload)
        return
    if link.flags.head_chunk:
        await link.send([head], link.flags.head_chunk)
        head = b""
    for piece in _pieces(payload, link.flags, chunked=chunked):
        if chunked:
            await link.send([head, b"%x\r\n" % len(piece), piece, b"\r\n"])
        else:
            await link.send([head, piece])
        head = b""
    if head or chunked:
        await link.send([head, b"0\r\n\r\n" if chunked else b""])


def _pieces(payload: Payload, flags: Flags, *, chunked: bool) -> Iterator[memoryview]:
    """The payload in memory of its own, or piece by piece in one buffer that is overwritten for the next piece."""
    data = payload.data()
    size = (flags.send_chunk or _CHUNK) if chunked else len(data)
    if flags.recycle:
        size = min(size, flags.buffer) or flags.buffer
        buffer = buffer_at(size, flags.offset, flags.memory)
        for at in range(0, len(data), size):
            piece = data[at : at + size]
            buffer[: len(piece)] = piece
            yield buffer[: len(piece)]
        return
    buffer = buffer_at(len(data), flags.offset, flags.memory)
    buffer[:] = data
    for at in range(0, len(data), size or 1):
        yield buffer[at : at + size]


async def _send_file(link: Link, payload: Payload) -> None:
    file = file_of(payload.seed, payload.size, payload.tag)
    await send_range(link, file.fileno(), payload.start, payload.stop - payload.start)


async def send_range(link: Link, file: int, offset: int, size: int) -> None:
    """Sends a range of a file by sendfile or splice. Raises OSError."""
    pipe = Pipe() if link.flags.send == "splice" else None
    try:
        while size:
            wanted = min(size, link.flags.send_chunk or size)
            if pipe is None:
                sent = await retry(
                    link, functools.partial(os.sendfile, link.sock.fileno(), file, offset, wanted)
                )
            else:
                sent = pipe.take(file, wanted, offset)
                await empty(link, pipe)
            if sent == 0:
                raise OSError("the file is shorter than it was")
            link.sent += sent
            offset += sent
            size -= sent
    finally:
        if pipe is not None:
            pipe.close()


async def empty(link: Link, pipe: Pipe) -> None:
    """Moves what the pipe holds into the socket; by reading and sending if the socket refuses splice."""
    while pipe.held:
        try:
            await retry(link, lambda: pipe.give(link.sock.fileno()))
        except OSError as error:
            if not refuses_splice(error):
                raise
            await link.send([pipe.drain()])


async def retry(link: Link, call: Callable[[], int]) -> int:
    """Makes a call that sends, when the socket has room for it."""
    while True:
        try:
            return call()
        except BlockingIOError:
            await link.waiter.writable(link.sock.fileno())


def refuses_splice(error: OSError) -> bool:
    """Does the kernel say that it cannot splice these descriptors?"""
    return error.errno in {errno.EINVAL, errno.ENOSYS}
