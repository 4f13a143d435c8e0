"""HTTP/1.1 without input and output: heads, and where a body ends. Enough for tests and for curl and nginx as neighbours."""

from __future__ import annotations

import re
from dataclasses import dataclass

from odb.errors import OdbError

HEAD_MAX = 65536
END = b"\r\n\r\n"


class PeerError(OdbError):
    """The other side broke HTTP, or ended the connection where it must not end."""


@dataclass(frozen=True, slots=True)
class Head:
    """A request or response head: the three words of the first line, the fields, and the bytes as they came."""

    first: tuple[str, str, str]
    fields: tuple[tuple[str, str], ...]
    raw: bytes

    def get(self, name: str) -> str:
        """The value of a field, or an empty text; `name` in lower case."""
        return next((value for key, value in self.fields if key == name), "")

    @property
    def version(self) -> str:
        return self.first[0] if self.first[0].startswith("HTTP/") else self.first[2]

    @property
    def keepalive(self) -> bool:
        """May another message follow on this connection?"""
        wish = self.get("connection").lower()
        return wish == "keep-alive" if self.version == "HTTP/1.0" else wish != "close"

    @property
    def status(self) -> int:
        """Of a response."""
        return int(self.first[1])

    def without(self, name: str) -> bytes:
        """The raw head without a field; `name` in lower case."""
        lines = [
            line for line in self.raw.split(b"\r\n") if not line.lower().startswith(name.encode() + b":")
        ]
        return b"\r\n".join(lines)


def parse_head(raw: bytes) -> Head:
    """The head in `raw`, which ends with an empty line. Raises PeerError."""
    lines = raw.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) == 2 and words[0].startswith("HTTP/"):
        words.append("")
    if len(words) != 3 or not (words[0].startswith("HTTP/1.") or words[2].startswith("HTTP/1.")):
        raise PeerError(f"the peer sent no HTTP/1 head: {lines[0][:80]!r}")
    if words[0].startswith("HTTP/") and not words[1].isdigit():
        raise PeerError(f"the peer sent no status: {lines[0][:80]!r}")
    fields = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if line and not colon:
            raise PeerError(f"the peer sent a field without a colon: {line[:80]!r}")
        if line:
            fields.append((name.strip().lower(), value.strip()))
    return Head((words[0], words[1], words[2]), tuple(fields), raw)


def request(
    method: str,
    path: str,
    host: str,
    *,
    length: int | None = None,
    part: tuple[int, int] | None = None,
    close: bool = False,
) -> bytes:
    """The bytes of a request head. part: the wanted bytes, from and before."""
    wanted = "" if part is None else f"Range: bytes={part[0]}-{part[1] - 1}\r\n"
    size = "" if length is None else f"Content-Length: {length}\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{size}{wanted}{_connection(close)}\r\n".encode(
        "latin-1"
    )


def response(status: int, reason: str, length: int | None, *, extra: str = "", close: bool = False) -> bytes:
    """The bytes of a response head; length None announces a chunked body. extra: one more field."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    kind = "Content-Type: application/octet-stream"
    more = f"{extra}\r\n" if extra else ""
    return f"HTTP/1.1 {status} {reason}\r\n{kind}\r\n{size}\r\n{more}{_connection(close)}\r\n".encode(
        "latin-1"
    )


def wanted_part(head: Head, size: int) -> tuple[int, int] | None:
    """The bytes (from, before) of `size` that a request asks for by one range; None: all of them."""
    match = re.fullmatch(r"bytes=([0-9]{1,12})-([0-9]{0,12})", head.get("range"))
    if match is None:
        return None
    begin, end = int(match[1]), min(int(match[2]) + 1 if match[2] else size, size)
    return (begin, end) if begin < end else None


def _connection(close: bool) -> str:
    return "Connection: close\r\n" if close else ""


class Body:
    """Follows a body through pieces of any size. `until_end`: only the end of the connection ends it."""

    def __init__(self, length: int | None, *, chunked: bool = False) -> None:
        self.length = length
        self.until_end = length is None and not chunked
        self._chunked = chunked
        self._left = length or 0
        self._line = b""
        self._state = "size" if chunked else "data"
        self.done = length == 0 and not chunked

    @property
    def left(self) -> int | None:
        """Bytes that are certain to come, or None."""
        return None if self._chunked or self.until_end else self._left

    def skip(self, count: int) -> None:
        """`count` bytes of a body that is not chunked were moved without being seen."""
        self._left -= count
        self.done = not self.until_end and self._left == 0

    def take(self, view: memoryview) -> tuple[int, list[memoryview]]:
        """How many bytes of `view` belong to the body, and which of them are content. Raises PeerError."""
        if self.done or not self._chunked:
            used = len(view) if self.until_end else min(len(view), self._left)
            self.skip(used)
            return used, [view[:used]] if used else []
        at, parts = 0, []
        while at < len(view) and not self.done:
            if self._state == "data":
                used = min(len(view) - at, self._left)
                parts.append(view[at : at + used])
                at += used
                self._left -= used
                self._state = "data" if self._left else "after"
                continue
            self._line += bytes(view[at : at + 1])
            at += 1
            if self._line.endswith(b"\n"):
                self._end_of_line(self._line.strip())
                self._line = b""
            elif len(self._line) > 4096:
                raise PeerError("the peer sent an endless line in a chunked body")
        return at, parts

    def _end_of_line(self, line: bytes) -> None:
        if self._state == "after":
            if line:
                raise PeerError("the peer sent a chunk that is longer than it said")
            self._state = "size"
        elif self._state == "size":
            try:
                self._left = int(line.split(b";")[0], 16)
            except ValueError as error:
                raise PeerError(f"the peer sent no chunk size: {line[:40]!r}") from error
            self._state = "data" if self._left else "trailer"
        elif not line:
            self.done = True


def request_body(head: Head) -> Body:
    """The body that follows a request head. Raises PeerError."""
    if head.get("transfer-encoding").lower() == "chunked":
        return Body(None, chunked=True)
    return Body(_length(head) or 0)


def response_body(head: Head, method: str) -> Body:
    """The body that follows the response to a request with `method`. Raises PeerError."""
    if method == "HEAD" or head.status in {204, 304} or head.status < 200:
        return Body(0)
    if head.get("transfer-encoding").lower() == "chunked":
        return Body(None, chunked=True)
    return Body(_length(head))


def _length(head: Head) -> int | None:
    text = head.get("content-length")
    if not text:
        return None
    if not text.isdigit():
        raise PeerError(f"the peer sent a wrong Content-Length: {text[:40]!r}")
    return int(text)
