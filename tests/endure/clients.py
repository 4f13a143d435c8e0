"""The clients of an endurance run: fast ones, ones that give up on half of their downloads, and slow ones.

Each is a state machine around one non-blocking socket; `crowd.py` turns them. Every byte of every body is compared.
"""

from __future__ import annotations

import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

STALL_SECONDS = 12.0
CLOSE_SHARE = 0.2
"""The share of a fast client's responses after which it connects anew, perhaps to the other front end."""
ABORT_SHARE = 0.5
ABORT_PERIOD = 0.1
"""Seconds from one download of an aborting client to its next: the same burden for every library."""
SLOW_BYTES_PER_SECOND = 10 * 1024
SLOW_PERIOD = 0.2
SLOW_BUFFER = 8192
READ_SIZE = 262144
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)


@dataclass
class Tally:
    """What clients of one kind saw. `good` counts whole, right responses; `aborted` downloads that were given up on purpose."""

    good: int = 0
    aborted: int = 0
    bytes: int = 0
    mismatches: int = 0
    stalls: int = 0
    problems: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        self.good += other.good
        self.aborted += other.aborted
        self.bytes += other.bytes
        self.mismatches += other.mismatches
        self.stalls += other.stalls
        self.problems += other.problems


@dataclass(frozen=True)
class Place:
    """What can be asked for: the ports of equal front ends, and path -> content."""

    ports: Sequence[int]
    contents: Mapping[str, bytes]


class Client:
    """Asks for one random path after the other. Subclasses say when, and when to stop."""

    reads = READ_SIZE
    receive_buffer = 0

    def __init__(self, place: Place, seed: str) -> None:
        self.place = place
        self.numbers = random.Random(seed)
        self.tally = Tally()
        self.socket: socket.socket | None = None
        self.path = ""
        self._paths = sorted(place.contents)
        self._head = b""
        self._at = -1  # bytes of the body; -1: still in the header
        self._moved = 0.0
        self._used = False  # the connection has carried a whole response

    @property
    def busy(self) -> bool:
        """A response is under way."""
        return self.path != ""

    def begin(self, now: float) -> None:
        """Sends the next request. A server that cannot be reached is a problem that is counted."""
        self._moved, self._head, self._at = now, b"", -1
        try:
            if self.socket is None:
                self._used = False
                self.socket = self._connect()
            self.path = self.numbers.choice(self._paths)
            self.socket.sendall(f"GET {self.path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        except OSError as error:
            self._fail(type(error).__name__)

    def _connect(self) -> socket.socket:
        made = socket.socket()
        try:
            if self.receive_buffer:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
            made.settimeout(STALL_SECONDS)
            made.connect(("127.0.0.1", self.numbers.choice(self.place.ports)))
            made.setblocking(False)
        except BaseException:
            made.close()
            raise
        return made

    def read(self, now: float) -> None:
        """There is something to read: takes it once. An idle connection that the server closes is no problem."""
        assert self.socket is not None
        try:
            data = self.socket.recv(self.reads)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(type(error).__name__)
            return
        self._moved = now
        if not data or not self.busy:
            self._end("short")
        elif self._at < 0:
            self._read_head(data, now)
        else:
            self._read_body(data, now)

    def _end(self, what: str) -> None:
        """The server has ended the connection. It may do so with an idle one, also just when the next request is on its way."""
        if not self.busy or (self._used and self._at < 0 and not self._head):
            self.close()
        else:
            self._fail(what)

    def _read_head(self, data: bytes, now: float) -> None:
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return
        head, rest = self._head[:end].lower(), self._head[end + 4 :]
        length = b"content-length: %d" % len(self.place.contents[self.path])
        if not head.startswith(b"http/1.1 200") or length not in head.split(b"\r\n"):
            self._fail(f"status {head[9:12].decode('latin-1')}")
            return
        self._at = 0
        self._read_body(rest, now)

    def _read_body(self, data: bytes, now: float) -> None:
        content = self.place.contents[self.path]
        if not content.startswith(data, self._at) or self._at + len(data) > len(content):
            self.tally.mismatches += 1
            self._fail("mismatch")
            return
        self._at += len(data)
        self.tally.bytes += len(data)
        if self._at == len(content):
            self.tally.good += 1
            self.path, self._used = "", True
            self.finished(now)
        else:
            self.progressed()

    def check_stall(self, now: float) -> None:
        """To be called now and then: a response that has not moved for STALL_SECONDS is a stall."""
        if self.busy and now - self._moved > STALL_SECONDS:
            self.tally.stalls += 1
            self._fail("stalled")

    def _fail(self, what: str) -> None:
        self.tally.problems[what] += 1
        self.close()

    def close(self, *, reset: bool = False) -> None:
        """Gives up what is under way and the connection."""
        self.path = ""
        if self.socket is not None:
            if reset:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            self.socket.close()
            self.socket = None

    # What kinds of clients differ in

    def due(self, now: float) -> float:
        """When an idle client wants to ask next, on the clock of time.monotonic()."""
        return now

    def finished(self, now: float) -> None:
        """A response has come whole."""

    def progressed(self) -> None:
        """A part of a body has come, and there is more to come."""


class Fast(Client):
    """One request after the other, mostly on the same connection."""

    def finished(self, now: float) -> None:
        if self.numbers.random() < CLOSE_SHARE:
            self.close()


class Aborting(Client):
    """Gives up half of its downloads somewhere in the middle, some of them with a reset."""

    reads = 16384
    receive_buffer = 65536

    def __init__(self, place: Place, seed: str) -> None:
        super().__init__(place, seed)
        self._next = 0.0
        self._enough = -1

    def begin(self, now: float) -> None:
        self._next = now + ABORT_PERIOD
        super().begin(now)
        self._enough = -1
        if self.busy and self.numbers.random() < ABORT_SHARE:
            self._enough = self.numbers.randrange(len(self.place.contents[self.path]))

    def due(self, now: float) -> float:
        return self._next

    def progressed(self) -> None:
        if 0 <= self._enough <= self._at:
            self.tally.aborted += 1
            self.close(reset=self.numbers.random() < 0.5)


class Slow(Client):
    """Takes SLOW_BYTES_PER_SECOND, with a small receive buffer, so that servers have to wait."""

    receive_buffer = SLOW_BUFFER

    def __init__(self, place: Place, seed: str) -> None:
        super().__init__(place, seed)
        self.next_read = 0.0
        self.reads = round(SLOW_BYTES_PER_SECOND * SLOW_PERIOD)

    def read(self, now: float) -> None:
        super().read(now)
        self.next_read = now + SLOW_PERIOD


def monotonic() -> float:
    """The clock of all clients."""
    return time.monotonic()
