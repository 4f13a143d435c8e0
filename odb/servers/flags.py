"""What can be chosen about how a test server moves bytes, validated."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

from odb.errors import UsageError

PAGE = mmap.PAGESIZE
FRESH = ("recv", "recvmsg", "read")
"""Receive calls that return memory of their own."""
INTO = ("recv_into", "recvfrom_into", "recvmsg_into", "readv")
"""Receive calls that fill the server's buffer."""
RECEIVE = FRESH + INTO
SCATTER = ("recvmsg_into", "readv")
GATHER = ("sendmsg", "writev")
FILE = ("sendfile", "splice")
"""Send calls that take a file; bytes that are not in a file are given to send."""
SEND = ("send", "sendall", "sendmsg", "write", "writev", "sendfile", "splice")
MEMORY = ("heap", "mmap")
READINESS = ("blocking", "threads", "select", "poll", "epoll", "epoll-edge", "epoll-oneshot", "asyncio")
WITHOUT_LOOP = ("blocking", "threads")
KINDS = ("get", "head", "range", "missing", "echo", "digest", "half", "cut", "abandon", "quit")
"""What a client can ask for. get: check the payload; head: only its head; range: a part of it; missing: a path that does not
exist; echo, digest: an upload that comes back, or whose hash does; half: get, but the client ends its direction behind the
request; cut: a response that the origin breaks off; abandon: the client does; quit: an upload that the client breaks off."""
LAST = ("half", "cut", "abandon", "quit")
"""Kinds after which the connection is over."""

BUFFER_MAX = 1 << 28
VECTORS_MAX = 64


@dataclass(frozen=True, slots=True)
class Flags:
    """Sizes in bytes; 0 as a chunk means as much as there is, as a send buffer what the system gives.

    `odb serve fe --help` says what each means."""

    receive: str = "recv_into"
    send: str = "send"
    memory: str = "heap"
    readiness: str = "threads"
    buffer: int = 65536
    buffers: int = 1
    offset: int = 0
    receive_chunk: int = 0
    send_chunk: int = 0
    head_chunk: int = 0
    vectors: int = 1
    fill: bool = False
    recycle: bool = False
    touch: float = 0.0
    overwrite: bool = False
    send_buffer: int = 0
    seed: int = 0

    def check(self) -> None:
        """Raises UsageError for what contradicts itself; single values are checked where they are read."""
        if self.send == "sendall" and self.readiness not in WITHOUT_LOOP:
            raise UsageError(
                f"--send sendall and --readiness {self.readiness} exclude each other: on a non-blocking socket nobody "
                "can tell how much sendall has sent; use --send send, or --readiness threads."
            )
        if self.fill and self.receive in FRESH:
            raise UsageError(
                f"--fill needs a receive call that fills the server's buffer, and {self.receive} returns memory of its own: "
                f"use --receive {' or '.join(INTO)}."
            )
        if self.overwrite and self.receive in FRESH:
            raise UsageError(
                f"--overwrite needs memory that can be written, and {self.receive} returns bytes: use --receive recv_into."
            )
        if self.vectors > 1 and self.receive not in SCATTER and self.send not in GATHER:
            raise UsageError(
                f"--vectors {self.vectors} has no effect on {self.receive} and {self.send}: "
                f"use --receive {' or '.join(SCATTER)}, or --send {' or '.join(GATHER)}."
            )
