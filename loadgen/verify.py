"""Checks of what came back, and the names under which failures are counted."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping

from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError

_KINDS_BY_ERRNO = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.ETIMEDOUT: "timeout",
    errno.EHOSTUNREACH: "host unreachable",
    errno.ENETUNREACH: "host unreachable",
    errno.EADDRNOTAVAIL: "no local port free",
    errno.EMFILE: "too many open files",
    errno.ENFILE: "too many open files",
}


class BodyError(Exception):
    """A body that is not the payload asked for; `kind` is what it is counted as."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class StatusError(Exception):
    """An answer with another status than 200."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.kind = f"status {status}"


class Verifier:
    """Checks bodies by `check` ("none", "length" or "hash").

    `digests` gives the SHA-256 in hex per size, for "hash". The first body of a size whose digest is right is kept,
    and later bodies are compared with it: the same certainty for a fraction of the time.
    """

    def __init__(self, check: str, digests: Mapping[int, str]) -> None:
        self._check = check
        self._digests = digests
        self._known: dict[int, bytes] = {}

    def check(self, size: int, body: bytes | None) -> None:
        """Raise BodyError unless `body` is the payload of `size` bytes."""
        if self._check == "none":
            return
        length = len(body) if body else 0
        if length != size:
            raise BodyError("wrong length", f"wrong length: {length} bytes instead of {size}")
        if self._check != "hash" or body == self._known.get(size):
            return
        digest = hashlib.sha256(body or b"").hexdigest()
        if digest != self._digests[size]:
            raise BodyError("wrong hash", f"wrong hash: the {size} bytes differ from the payload")
        self._known[size] = bytes(body or b"")


def error_kind(error: BaseException) -> str:
    """The name under which a failed request is counted."""
    if isinstance(error, BodyError | StatusError):
        return error.kind
    status = getattr(error, "code", None)
    if isinstance(status, int):
        return f"status {status}"
    if isinstance(error, HTTPConnectionClosed):
        return "connection closed"
    if isinstance(error, HTTPParseError):
        return "broken response"
    if isinstance(error, TimeoutError):
        return "timeout"
    number = getattr(error, "errno", None)
    if number in _KINDS_BY_ERRNO:
        return _KINDS_BY_ERRNO[number]
    return type(error).__name__
