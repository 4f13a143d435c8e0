"""Incremental decoders: bytes in, events out, in whatever pieces the bytes arrive.

"Need more" is the value NEED_DATA, never an exception. A fault of the peer raises RemoteProtocolError,
and every later call raises it again. Neither class is safe to use from two threads at once.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from .descriptor import Descriptor
from .errors import RemoteProtocolError, Violation
from .frames import Hello, Hint
from .header import DESCRIPTOR_SIZE, HEADER_SIZE, FrameType, Header
from .messages import MESSAGES, Data, Message


class NeedData(enum.Enum):
    """The type of NEED_DATA."""

    NEED_DATA = enum.auto()


NEED_DATA: Final = NeedData.NEED_DATA


@dataclass(frozen=True, slots=True)
class Real:
    """Some application bytes of a REAL frame, never empty."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Virtual:
    """A descriptor; `head` and `tail` bytes follow as Head and Tail."""

    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class Head:
    """Some of the real bytes before the body, never empty."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Tail:
    """Some of the real bytes behind the body, never empty."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Raw:
    """Some of the raw bytes behind a DATA message, never empty."""

    data: bytes


StreamEvent = Hello | Real | Virtual | Head | Tail | Hint
ChannelEvent = Message | Raw
Event = TypeVar("Event")
Need = Literal[NeedData.NEED_DATA]


class _Decoder(ABC, Generic[Event]):
    """The bytes received, and a coroutine that turns them into events and waits inside for more."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._owed = 0  # bytes of the current frame still to be taken from the buffer
        self._error: RemoteProtocolError | None = None
        self._events = self._parse()

    def receive_data(self, data: bytes) -> None:
        """Append bytes of the peer."""
        self._buffer += data

    def next_event(self) -> Event | Need:
        """The next event, or NEED_DATA; raises RemoteProtocolError, from then on always."""
        if self._error is not None:
            raise RemoteProtocolError(self._error.violation, self._error.detail)
        try:
            return next(self._events)
        except RemoteProtocolError as error:
            self._error = error
            raise

    @property
    def at_boundary(self) -> bool:
        """Between frames and without error: only here is the peer's end of file not a truncation."""
        return self._error is None and not self._owed and not self._buffer

    @abstractmethod
    def _parse(self) -> Generator[Event | Need, None, None]:
        """Yield events and NEED_DATA for ever."""

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _header(self) -> Generator[Event | Need, None, Header]:
        while len(self._buffer) < HEADER_SIZE:
            yield NEED_DATA
        header = Header.decode(self._take(HEADER_SIZE))
        self._owed = header.length
        return header

    def _fixed(self, size: int) -> Generator[Event | Need, None, bytes]:
        while len(self._buffer) < size:
            yield NEED_DATA
        self._owed -= size
        return self._take(size)

    def _slices(self, size: int, event: Callable[[bytes], Event]) -> Generator[Event | Need, None, None]:
        while size > 0:
            while not self._buffer:
                yield NEED_DATA
            data = self._take(size)
            size -= len(data)
            self._owed -= len(data)
            yield event(data)


class StreamDecoder(_Decoder[StreamEvent]):
    """One framed direction of a stream. With `hello_first` the first frame is HELLO; no other may be."""

    def __init__(self, *, hello_first: bool) -> None:
        super().__init__()
        self._hello_next = hello_first

    def _parse(self) -> Generator[StreamEvent | Need, None, None]:
        while True:
            header = yield from self._header()
            if not header.type.is_stream or (header.type is FrameType.HELLO) != self._hello_next:
                raise RemoteProtocolError(Violation.BAD_TYPE, f"{header.type.name} at this place of a stream")
            self._hello_next = False
            if header.type is FrameType.REAL:
                yield from self._slices(header.length, Real)
            elif header.type is FrameType.VIRTUAL:
                yield from self._virtual(header)
            elif header.type is FrameType.HELLO:
                yield Hello.decode((yield from self._fixed(header.length)))
            else:
                yield Hint.decode((yield from self._fixed(header.length)))

    def _virtual(self, header: Header) -> Generator[StreamEvent | Need, None, None]:
        descriptor = Descriptor.decode((yield from self._fixed(DESCRIPTOR_SIZE)))
        if header.length != DESCRIPTOR_SIZE + descriptor.head + descriptor.tail:
            raise RemoteProtocolError(
                Violation.BAD_LENGTH,
                f"VIRTUAL of {header.length} bytes with head {descriptor.head} and tail {descriptor.tail}",
            )
        yield Virtual(descriptor)
        yield from self._slices(descriptor.head, Head)
        yield from self._slices(descriptor.tail, Tail)


class ChannelDecoder(_Decoder[ChannelEvent]):
    """One direction of a fetch channel. A DATA message is followed by its raw bytes as Raw events."""

    def _parse(self) -> Generator[ChannelEvent | Need, None, None]:
        while True:
            header = yield from self._header()
            if header.type not in MESSAGES:
                raise RemoteProtocolError(Violation.BAD_TYPE, f"{header.type.name} on a channel")
            message = MESSAGES[header.type].decode((yield from self._fixed(header.length)))
            if isinstance(message, Data):
                self._owed = message.length
                yield message
                yield from self._slices(message.length, Raw)
            else:
                yield message
