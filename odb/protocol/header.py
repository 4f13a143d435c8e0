"""The 8-byte header of every frame and channel message, and the bounds of each type's length."""

import enum
import struct
from dataclasses import dataclass
from typing import Final, NamedTuple

from .crc import crc8
from .errors import LocalProtocolError, RemoteProtocolError, Violation
from .limits import require_size, require_uint

HEADER_SIZE: Final = 8
MAGIC: Final = b"\x9d\x0b"
VERSION: Final = 1

REAL_MAX: Final = 16 << 20
DESCRIPTOR_SIZE: Final = 84
HEAD_MAX: Final = 1 << 20
TAIL_MAX: Final = 1 << 20
BODY_MAX: Final = 2**31 - 1
RELEASE_COUNT_MAX: Final = 1024


class FrameType(enum.IntEnum):
    """0..3 travel on streams, 8..15 on channels."""

    HELLO = 0
    REAL = 1
    VIRTUAL = 2
    HINT = 3
    AUTH = 8
    FETCH = 9
    DATA = 10
    FAIL = 11
    RELEASE = 12
    QUERY = 13
    ANSWER = 14
    PUSH = 15

    @property
    def is_stream(self) -> bool:
        """Does this type travel on streams (else on channels)?"""
        return self <= FrameType.HINT


class Bounds(NamedTuple):
    """Acceptable lengths in bytes: `minimum` to `maximum`, in multiples of `unit`."""

    minimum: int
    maximum: int
    unit: int = 1

    def admits(self, length: int) -> bool:
        """May a frame have this length?"""
        return self.minimum <= length <= self.maximum and length % self.unit == 0


LENGTHS: Final[dict[FrameType, Bounds]] = {
    FrameType.HELLO: Bounds(16, 16),
    FrameType.REAL: Bounds(1, REAL_MAX),
    FrameType.VIRTUAL: Bounds(DESCRIPTOR_SIZE, DESCRIPTOR_SIZE + HEAD_MAX + TAIL_MAX),
    FrameType.HINT: Bounds(8, 8),
    FrameType.AUTH: Bounds(48, 48),
    FrameType.FETCH: Bounds(40, 40),
    FrameType.DATA: Bounds(24, 24),
    FrameType.FAIL: Bounds(12, 12),
    FrameType.RELEASE: Bounds(8, 8 * RELEASE_COUNT_MAX, 8),
    FrameType.QUERY: Bounds(20, 20),
    FrameType.ANSWER: Bounds(24, 24),
    FrameType.PUSH: Bounds(40, 40),
}

_LAYOUT: Final = struct.Struct(">2sBBI")


def _checksum(header: bytes) -> int:
    """Over the seven bytes beside the checksum itself."""
    return crc8(header[4:8], crc8(header[:3]))


@dataclass(frozen=True, slots=True)
class Header:
    """`length` counts the bytes behind the header; for DATA without the raw bytes."""

    type: FrameType
    length: int

    def encode(self) -> bytes:
        """The 8 bytes; LocalProtocolError if the length is out of the type's bounds."""
        require_uint("length", self.length, 32)
        if not LENGTHS[self.type].admits(self.length):
            raise LocalProtocolError(f"a {self.type.name} frame cannot have length {self.length}")
        raw = _LAYOUT.pack(MAGIC, VERSION << 4 | self.type, 0, self.length)
        return raw[:3] + bytes([_checksum(raw)]) + raw[4:]

    @classmethod
    def decode(cls, data: bytes) -> "Header":
        """Check 8 bytes in the order magic, version, CRC, type, length; the error names the first fault."""
        require_size("header", data, HEADER_SIZE)
        magic, version_and_type, checksum, length = _LAYOUT.unpack(data)
        if magic != MAGIC:
            raise RemoteProtocolError(Violation.BAD_MAGIC, f"0x{magic.hex()}")
        if version_and_type >> 4 != VERSION:
            raise RemoteProtocolError(Violation.BAD_VERSION, str(version_and_type >> 4))
        if checksum != _checksum(data):
            raise RemoteProtocolError(Violation.BAD_CRC, f"header {data.hex()}")
        try:
            frame_type = FrameType(version_and_type & 0x0F)
        except ValueError:
            raise RemoteProtocolError(Violation.BAD_TYPE, str(version_and_type & 0x0F)) from None
        if not LENGTHS[frame_type].admits(length):
            raise RemoteProtocolError(Violation.BAD_LENGTH, f"{frame_type.name} of {length} bytes")
        return cls(frame_type, length)
