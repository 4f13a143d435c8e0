"""The channel messages. `encode` gives the whole frame, `decode` reads the body behind a checked header.

Reserved bytes travel as zero and are checked.
"""

import enum
import struct
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import ClassVar, Final

from .descriptor import TOKEN_SIZE
from .errors import LocalProtocolError, RemoteProtocolError, Violation
from .header import RELEASE_COUNT_MAX, FrameType, Header
from .limits import UINT64_MAX, require_size, require_uint

NONCE_SIZE: Final = 16
PROOF_SIZE: Final = 32

_FETCH: Final = struct.Struct(">Q16sQQ")
_DATA: Final = struct.Struct(">QQQ")
_FAIL: Final = struct.Struct(">QHH")
_QUERY: Final = struct.Struct(">16sHH")
_ANSWER: Final = struct.Struct(">16sHBBI")
_PUSH: Final = struct.Struct(">QIIQQQ")


def _frame(frame_type: FrameType, body: bytes) -> bytes:
    return Header(frame_type, len(body)).encode() + body


def _range_is_valid(offset: int, length: int) -> bool:
    return length > 0 and offset <= UINT64_MAX - length


@dataclass(frozen=True, slots=True)
class Auth:
    """Proof of the shared key: the sender's fresh nonce (16 bytes) and an HMAC-SHA-256 (32 bytes)."""

    TYPE: ClassVar = FrameType.AUTH
    nonce: bytes
    proof: bytes

    def encode(self) -> bytes:
        """The whole frame."""
        require_size("nonce", self.nonce, NONCE_SIZE)
        require_size("proof", self.proof, PROOF_SIZE)
        return _frame(self.TYPE, self.nonce + self.proof)

    @classmethod
    def decode(cls, body: bytes) -> "Auth":
        """Read the body."""
        require_size("AUTH", body, NONCE_SIZE + PROOF_SIZE)
        return cls(body[:NONCE_SIZE], body[NONCE_SIZE:])


@dataclass(frozen=True, slots=True)
class Fetch:
    """The consumer asks for `length` > 0 bytes of a payload from `offset` on."""

    TYPE: ClassVar = FrameType.FETCH
    payload: int
    token: bytes
    offset: int
    length: int

    def encode(self) -> bytes:
        """The whole frame."""
        for name in ("payload", "offset", "length"):
            require_uint(name, getattr(self, name), 64)
        require_size("token", self.token, TOKEN_SIZE)
        if not _range_is_valid(self.offset, self.length):
            raise LocalProtocolError(f"cannot fetch {self.length} bytes at {self.offset}")
        return _frame(self.TYPE, _FETCH.pack(self.payload, self.token, self.offset, self.length))

    @classmethod
    def decode(cls, body: bytes) -> "Fetch":
        """Read the body."""
        require_size("FETCH", body, _FETCH.size)
        fetch = cls(*_FETCH.unpack(body))
        if not _range_is_valid(fetch.offset, fetch.length):
            raise RemoteProtocolError(
                Violation.BAD_LENGTH, f"FETCH of {fetch.length} bytes at {fetch.offset}"
            )
        return fetch


@dataclass(frozen=True, slots=True)
class Data:
    """The answer to FETCH: `length` > 0 raw bytes follow the frame, not counted in the frame's own length."""

    TYPE: ClassVar = FrameType.DATA
    payload: int
    offset: int
    length: int

    def encode(self) -> bytes:
        """The frame without the raw bytes."""
        for name in ("payload", "offset", "length"):
            require_uint(name, getattr(self, name), 64)
        if not _range_is_valid(self.offset, self.length):
            raise LocalProtocolError(f"cannot send {self.length} bytes at {self.offset}")
        return _frame(self.TYPE, _DATA.pack(self.payload, self.offset, self.length))

    @classmethod
    def decode(cls, body: bytes) -> "Data":
        """Read the body."""
        require_size("DATA", body, _DATA.size)
        data = cls(*_DATA.unpack(body))
        if not _range_is_valid(data.offset, data.length):
            raise RemoteProtocolError(Violation.BAD_LENGTH, f"DATA of {data.length} bytes at {data.offset}")
        return data


class Reason(enum.IntEnum):
    """Why a FETCH failed."""

    GONE = 1  # released, or its lease ran out
    CHANGED = 2  # the file behind the payload is not the one that was announced
    DENIED = 3  # wrong token, or outside the announced range
    OVERLOADED = 4  # the origin cannot serve now


@dataclass(frozen=True, slots=True)
class Fail:
    """The other answer to FETCH."""

    TYPE: ClassVar = FrameType.FAIL
    payload: int
    reason: Reason

    def encode(self) -> bytes:
        """The whole frame."""
        require_uint("payload", self.payload, 64)
        return _frame(self.TYPE, _FAIL.pack(self.payload, self.reason, 0))

    @classmethod
    def decode(cls, body: bytes) -> "Fail":
        """Read the body."""
        require_size("FAIL", body, _FAIL.size)
        payload, reason, reserved = _FAIL.unpack(body)
        if reserved != 0:
            raise RemoteProtocolError(Violation.BAD_FIELD, "reserved bytes of FAIL")
        try:
            return cls(payload, Reason(reason))
        except ValueError:
            raise RemoteProtocolError(Violation.BAD_FIELD, f"FAIL with reason {reason}") from None


@dataclass(frozen=True, slots=True)
class Release:
    """The consumer will not ask for these payloads again; 1 to 1024 of them."""

    TYPE: ClassVar = FrameType.RELEASE
    payloads: tuple[int, ...]

    def encode(self) -> bytes:
        """The whole frame."""
        if not 1 <= len(self.payloads) <= RELEASE_COUNT_MAX:
            raise LocalProtocolError(
                f"a RELEASE names 1 to {RELEASE_COUNT_MAX} payloads, not {len(self.payloads)}"
            )
        for payload in self.payloads:
            require_uint("payload", payload, 64)
        return _frame(self.TYPE, struct.pack(f">{len(self.payloads)}Q", *self.payloads))

    @classmethod
    def decode(cls, body: bytes) -> "Release":
        """Read the body, a multiple of 8 bytes."""
        if not body or len(body) % 8:
            raise LocalProtocolError(f"a RELEASE body cannot be {len(body)} bytes long")
        return cls(struct.unpack(f">{len(body) // 8}Q", body))


@dataclass(frozen=True, slots=True)
class Query:
    """Does whoever listens at this address and port speak frames?"""

    TYPE: ClassVar = FrameType.QUERY
    address: IPv6Address
    port: int

    def encode(self) -> bytes:
        """The whole frame."""
        require_uint("port", self.port, 16)
        return _frame(self.TYPE, _QUERY.pack(self.address.packed, self.port, 0))

    @classmethod
    def decode(cls, body: bytes) -> "Query":
        """Read the body."""
        require_size("QUERY", body, _QUERY.size)
        address, port, reserved = _QUERY.unpack(body)
        if reserved != 0:
            raise RemoteProtocolError(Violation.BAD_FIELD, "reserved bytes of QUERY")
        return cls(IPv6Address(address), port)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to QUERY; it may be cached for `ttl_ms` milliseconds."""

    TYPE: ClassVar = FrameType.ANSWER
    address: IPv6Address
    port: int
    framed: bool
    ttl_ms: int

    def encode(self) -> bytes:
        """The whole frame."""
        require_uint("port", self.port, 16)
        require_uint("ttl_ms", self.ttl_ms, 32)
        return _frame(self.TYPE, _ANSWER.pack(self.address.packed, self.port, self.framed, 0, self.ttl_ms))

    @classmethod
    def decode(cls, body: bytes) -> "Answer":
        """Read the body."""
        require_size("ANSWER", body, _ANSWER.size)
        address, port, framed, reserved, ttl_ms = _ANSWER.unpack(body)
        if framed > 1 or reserved != 0:
            raise RemoteProtocolError(
                Violation.BAD_FIELD, f"ANSWER with verdict {framed}, reserved {reserved}"
            )
        return cls(IPv6Address(address), port, framed == 1, ttl_ms)


@dataclass(frozen=True, slots=True)
class Push:
    """Names the consumer of a fetch channel (`channel` 0), or dedicates the connection to pushes and reports on them.

    `consumer` is never 0. With `channel` 0 the rest is 0. `credits`, `position` and `skipped` are in bytes:
    the first message says where the push stream begins, later ones up to where everything was taken or skipped.
    """

    TYPE: ClassVar = FrameType.PUSH
    consumer: int
    channel: int
    credits: int
    position: int
    skipped: int

    def _is_valid(self) -> bool:
        names_only = self.credits == self.position == self.skipped == 0
        return self.consumer != 0 and (self.channel != 0 or names_only)

    def encode(self) -> bytes:
        """The whole frame."""
        for name in ("consumer", "credits", "position", "skipped"):
            require_uint(name, getattr(self, name), 64)
        require_uint("channel", self.channel, 32)
        if not self._is_valid():
            raise LocalProtocolError("a PUSH needs a consumer above 0, and without a channel nothing else")
        return _frame(
            self.TYPE,
            _PUSH.pack(self.consumer, self.channel, 0, self.credits, self.position, self.skipped),
        )

    @classmethod
    def decode(cls, body: bytes) -> "Push":
        """Read the body."""
        require_size("PUSH", body, _PUSH.size)
        consumer, channel, reserved, *amounts = _PUSH.unpack(body)
        push = cls(consumer, channel, *amounts)
        if reserved != 0:
            raise RemoteProtocolError(Violation.BAD_FIELD, "reserved bytes of PUSH")
        if not push._is_valid():
            raise RemoteProtocolError(Violation.BAD_FIELD, f"PUSH of consumer {consumer}, channel {channel}")
        return push


Message = Auth | Fetch | Data | Fail | Release | Query | Answer | Push

MESSAGES: Final[dict[FrameType, type[Message]]] = {
    FrameType.AUTH: Auth,
    FrameType.FETCH: Fetch,
    FrameType.DATA: Data,
    FrameType.FAIL: Fail,
    FrameType.RELEASE: Release,
    FrameType.QUERY: Query,
    FrameType.ANSWER: Answer,
    FrameType.PUSH: Push,
}
