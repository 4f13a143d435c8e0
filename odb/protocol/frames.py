"""Stream frames: HELLO and HINT as values, and the bytes of REAL and VIRTUAL frames."""

import struct
from dataclasses import dataclass
from typing import ClassVar, Final

from .descriptor import Descriptor
from .errors import LocalProtocolError, RemoteProtocolError, Violation
from .header import DESCRIPTOR_SIZE, HEADER_SIZE, LENGTHS, FrameType, Header
from .limits import require_size, require_uint

COOKIE: Final = bytes.fromhex("c57e1b93af60d248")
_HELLO: Final = struct.Struct(">8sHHI")
_HINT: Final = struct.Struct(">IHH")


@dataclass(frozen=True, slots=True)
class Hello:
    """Opens a framed direction. Unknown capabilities are ignored; port 0: the sender accepts no channels."""

    TYPE: ClassVar = FrameType.HELLO
    capabilities: int
    channel_port: int

    def encode(self) -> bytes:
        """The whole frame, 24 bytes."""
        require_uint("capabilities", self.capabilities, 16)
        require_uint("channel_port", self.channel_port, 16)
        return Header(self.TYPE, _HELLO.size).encode() + _HELLO.pack(
            COOKIE, self.capabilities, self.channel_port, 0
        )

    @classmethod
    def decode(cls, body: bytes) -> "Hello":
        """Read the 16 bytes behind the header."""
        require_size("HELLO", body, _HELLO.size)
        cookie, capabilities, channel_port, reserved = _HELLO.unpack(body)
        if cookie != COOKIE:
            raise RemoteProtocolError(Violation.BAD_COOKIE, cookie.hex())
        if reserved != 0:
            raise RemoteProtocolError(Violation.BAD_FIELD, "reserved bytes of HELLO")
        return cls(capabilities, channel_port)


_OPENING: Final = Header(FrameType.HELLO, LENGTHS[FrameType.HELLO].minimum).encode() + COOKIE
assert len(_OPENING) == HEADER_SIZE + len(COOKIE)


def hello_prefix(data: bytes) -> bool:
    """Could these first bytes of a connection still become HELLO? Compares header and cookie, 16 bytes."""
    return data[: len(_OPENING)] == _OPENING[: len(data)]


@dataclass(frozen=True, slots=True)
class Hint:
    """Advice on how this side receives: buffer size, its offset in the page, wanted strategy (0: any).

    Strategy 5 wants real bytes only; with 6 the other fields are the 48 bits of a consumer's number.
    """

    TYPE: ClassVar = FrameType.HINT
    buffer_size: int
    page_offset: int
    strategy: int

    def encode(self) -> bytes:
        """The whole frame, 16 bytes."""
        require_uint("buffer_size", self.buffer_size, 32)
        require_uint("page_offset", self.page_offset, 16)
        require_uint("strategy", self.strategy, 16)
        return Header(self.TYPE, _HINT.size).encode() + _HINT.pack(
            self.buffer_size, self.page_offset, self.strategy
        )

    @classmethod
    def decode(cls, body: bytes) -> "Hint":
        """Read the 8 bytes behind the header; any content is acceptable."""
        require_size("HINT", body, _HINT.size)
        return cls(*_HINT.unpack(body))


def encode_real(data: bytes) -> bytes:
    """One REAL frame around 1 byte to 16 MiB of application data."""
    return Header(FrameType.REAL, len(data)).encode() + data


def encode_virtual(descriptor: Descriptor, head: bytes = b"", tail: bytes = b"") -> bytes:
    """One VIRTUAL frame; `head` and `tail` are as long as the descriptor says."""
    if (len(head), len(tail)) != (descriptor.head, descriptor.tail):
        raise LocalProtocolError(
            f"head and tail are {len(head)} and {len(tail)} bytes long, "
            f"the descriptor announces {descriptor.head} and {descriptor.tail}"
        )
    raw = descriptor.encode()
    return Header(FrameType.VIRTUAL, DESCRIPTOR_SIZE + len(head) + len(tail)).encode() + raw + head + tail
