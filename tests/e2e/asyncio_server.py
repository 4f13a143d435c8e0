"""A file server and an HTTP relay in Python's asyncio, as a BE and an IS.

`asyncio_server.py be PORT FOLDER sendfile|write` or `asyncio_server.py is PORT NEXT_PORT`.

The relay copies bytes between a client's connection and one of its own to the next server; it does not look at them.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

CHUNK = 1 << 16

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def file_server(folder: Path, *, by_sendfile: bool) -> Handler:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.split(b" ", 2)
        file = folder / path.decode().lstrip("/")
        if not file.is_file():
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % file.stat().st_size)
        if method != b"HEAD":
            with file.open("rb") as opened:
                if by_sendfile:
                    await writer.drain()
                    await asyncio.get_running_loop().sendfile(writer.transport, opened)
                else:
                    while part := opened.read(CHUNK):
                        writer.write(part)
                        await writer.drain()
        await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                await answer(reader, writer)

    return serve


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(CHUNK):
            writer.write(part)
            await writer.drain()
        writer.write_eof()


def relay(next_port: int) -> Handler:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", next_port)
            with contextlib.closing(far_writer):
                await asyncio.gather(pass_on(reader, far_writer), pass_on(far_reader, writer))

    return serve


async def main(role: str, port: str, target: str, how: str = "") -> None:
    handler = relay(int(target)) if role == "is" else file_server(Path(target), by_sendfile=how == "sendfile")
    server = await asyncio.start_server(handler, "127.0.0.1", int(port), backlog=256)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
