"""The system calls that a flag can choose, each made once: short counts and EAGAIN are the caller's matter."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence

from odb.servers.flags import GATHER, SCATTER

Bytes = bytes | bytearray | memoryview

_FRESH: dict[str, Callable[[socket.socket, int], bytes]] = {
    "recv": lambda sock, size: sock.recv(size),
    "recvmsg": lambda sock, size: sock.recvmsg(size)[0],
    "read": lambda sock, size: os.read(sock.fileno(), size),
}
_INTO: dict[str, Callable[[socket.socket, list[memoryview]], int]] = {
    "recv_into": lambda sock, views: sock.recv_into(views[0]),
    "recvfrom_into": lambda sock, views: sock.recvfrom_into(views[0])[0],
    "recvmsg_into": lambda sock, views: sock.recvmsg_into(views)[0],
    "readv": lambda sock, views: os.readv(sock.fileno(), views),
}


def receive_fresh(name: str, sock: socket.socket, size: int) -> memoryview:
    """At most `size` bytes in memory of their own; empty at the end of the stream."""
    return memoryview(_FRESH[name](sock, size))


def receive_into(name: str, sock: socket.socket, room: memoryview, vectors: int) -> int:
    """Fills `room` from its start, a scattering call as up to `vectors` neighbouring parts; 0 at the end of the stream."""
    part = max(1, -(-len(room) // (vectors if name in SCATTER else 1)))
    return _INTO[name](sock, [room[at : at + part] for at in range(0, len(room), part)])


def send_bytes(name: str, sock: socket.socket, parts: Sequence[Bytes], vectors: int) -> int:
    """Sends a beginning of the non-empty `parts`, which only a gathering call takes all at once, and returns its length.

    A gathering call cuts the first part into `vectors` parts. The names of file calls stand for send.
    """
    first = parts[0]
    if name in GATHER:
        step = max(1, -(-len(first) // vectors))
        whole = memoryview(first)
        pieces = [*(whole[at : at + step] for at in range(0, len(first), step)), *parts[1:]][:1024]
        return sock.sendmsg(pieces) if name == "sendmsg" else os.writev(sock.fileno(), pieces)
    if name == "sendall":
        sock.sendall(first)
        return len(first)
    return os.write(sock.fileno(), first) if name == "write" else sock.send(first)


class Pipe:
    """The pipe that splice needs between a file or socket and a socket. Holds bytes only while one of its users moves them."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        self.held = 0

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)

    def take(self, source: int, size: int, offset: int | None = None) -> int:
        """Moves bytes from a file (at `offset`) or socket into the pipe, which must be empty; 0 at the end."""
        self.held = os.splice(source, self._in, min(size, 65536), offset_src=offset, flags=os.SPLICE_F_MOVE)
        return self.held

    def give(self, target: int) -> int:
        """Moves bytes that the pipe holds into a socket."""
        given = os.splice(self._out, target, self.held, flags=os.SPLICE_F_MOVE)
        self.held -= given
        return given

    def drain(self) -> bytes:
        """What the pipe holds, for a target that refuses splice."""
        data = b""
        while self.held:
            part = os.read(self._out, self.held)
            self.held -= len(part)
            data += part
        return data
