"""The 84-byte descriptor: stands for a range of a payload that stayed at its origin."""

import enum
import struct
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from .crc import crc32c
from .errors import LocalProtocolError, RemoteProtocolError, Violation
from .header import BODY_MAX, DESCRIPTOR_SIZE, HEAD_MAX, TAIL_MAX
from .limits import UINT64_MAX, require_size, require_uint

TOKEN_SIZE: Final = 16
_LAYOUT: Final = struct.Struct(">Q16sQIIII16sHHIQ")
_CRC: Final = struct.Struct(">I")


class Flag(enum.IntFlag):
    """Bits of a descriptor's flags; any other bit is refused."""

    FILE = 1  # the payload is backed by a file at the origin
    PUSHED = 2  # the body is on its way on push_channel


_ALL_FLAGS: Final = int(Flag.FILE | Flag.PUSHED)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Application bytes in order: head (real), body (virtual), tail (real); one contiguous range.

    `offset` is the place of the first head byte within the payload; lengths are in bytes; `lease_ms` counts
    from sending. `address` is IPv6, or IPv4-mapped (``::ffff:10.0.0.1``). `push_channel` is 0 unless PUSHED
    is set; `push_position` is the place of the body's first byte in that channel's push stream.
    """

    payload: int
    token: bytes
    offset: int
    head: int
    body: int
    tail: int
    lease_ms: int
    address: IPv6Address
    port: int
    flags: int = 0
    push_channel: int = 0
    push_position: int = 0

    @property
    def application_length(self) -> int:
        """Bytes that the application sees: head, body and tail."""
        return self.head + self.body + self.tail

    def violation(self) -> tuple[Violation, str] | None:
        """Why this descriptor must not travel, or None."""
        if self.head > HEAD_MAX or self.body > BODY_MAX or self.tail > TAIL_MAX:
            return Violation.BAD_LENGTH, f"head {self.head}, body {self.body}, tail {self.tail}"
        if self.application_length == 0:
            return Violation.BAD_LENGTH, "the descriptor is empty"
        if self.offset > UINT64_MAX - self.application_length:
            return Violation.BAD_LENGTH, f"offset {self.offset} and length overflow"
        if self.flags & ~_ALL_FLAGS:
            return Violation.BAD_FIELD, f"flags 0x{self.flags:04x}"
        pushed = bool(self.flags & Flag.PUSHED)
        if pushed != (self.push_channel != 0) or (not pushed and self.push_position != 0):
            return Violation.BAD_FIELD, "push fields and flag disagree"
        if self.push_position > UINT64_MAX - self.body:
            return Violation.BAD_FIELD, f"push position {self.push_position} and body overflow"
        return None

    def encode(self) -> bytes:
        """The 84 bytes; LocalProtocolError if a field does not fit or `violation()` has something to say."""
        for name in ("payload", "offset", "push_position"):
            require_uint(name, getattr(self, name), 64)
        for name in ("head", "body", "tail", "lease_ms", "push_channel"):
            require_uint(name, getattr(self, name), 32)
        for name in ("port", "flags"):
            require_uint(name, getattr(self, name), 16)
        require_size("token", self.token, TOKEN_SIZE)
        if (violation := self.violation()) is not None:
            raise LocalProtocolError(f"{violation[0].text}: {violation[1]}")
        raw = _LAYOUT.pack(
            self.payload, self.token, self.offset, self.head, self.body, self.tail, self.lease_ms,
            self.address.packed, self.port, self.flags, self.push_channel, self.push_position,
        )  # fmt: skip
        return raw + _CRC.pack(crc32c(raw))

    @classmethod
    def decode(cls, data: bytes) -> "Descriptor":
        """Check and read 84 bytes; RemoteProtocolError says what is wrong with them."""
        require_size("descriptor", data, DESCRIPTOR_SIZE)
        if _CRC.unpack_from(data, _LAYOUT.size)[0] != crc32c(data[: _LAYOUT.size]):
            raise RemoteProtocolError(Violation.BAD_CRC, "descriptor")
        (payload, token, offset, head, body, tail, lease_ms,
         address, port, flags, push_channel, push_position) = _LAYOUT.unpack_from(data)  # fmt: skip
        descriptor = cls(
            payload, token, offset, head, body, tail, lease_ms,
            IPv6Address(address), port, flags, push_channel, push_position,
        )  # fmt: skip
        if (violation := descriptor.violation()) is not None:
            raise RemoteProtocolError(*violation)
        return descriptor
