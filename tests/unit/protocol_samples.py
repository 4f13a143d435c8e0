"""What the protocol's tests share: the vectors, hypothesis strategies for values and streams, and transcripts."""

import json
import struct
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from odb.protocol import (
    BODY_MAX,
    NEED_DATA,
    RELEASE_COUNT_MAX,
    Answer,
    Auth,
    ChannelDecoder,
    Data,
    Descriptor,
    Fail,
    Fetch,
    FrameType,
    Head,
    Hello,
    Hint,
    Message,
    Push,
    Query,
    Raw,
    Real,
    Reason,
    Release,
    RemoteProtocolError,
    StreamDecoder,
    Tail,
    Violation,
    Virtual,
    encode_real,
    encode_virtual,
)

VECTORS = Path(__file__).resolve().parent.parent / "vectors"
TYPES: dict[str, Any] = {
    "hello": Hello,
    "hint": Hint,
    "auth": Auth,
    "fetch": Fetch,
    "data": Data,
    "fail": Fail,
    "release": Release,
    "query": Query,
    "answer": Answer,
    "push": Push,
}
Slice = Real | Head | Tail | Raw

_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "address": IPv6Address,
    "token": bytes.fromhex,
    "nonce": bytes.fromhex,
    "proof": bytes.fromhex,
    "payloads": tuple,
    "framed": bool,
    "reason": Reason,
    "type": FrameType,
}


def cases(kind: str) -> list[dict[str, Any]]:
    """The vectors of one file."""
    document = json.loads((VECTORS / f"{kind}.json").read_text(encoding="utf-8"))
    assert document["kind"] == kind
    assert document["cases"]
    return list(document["cases"])


def convert(fields: dict[str, Any]) -> dict[str, Any]:
    """A vector's fields as Python values."""
    return {name: _CONVERSIONS.get(name, lambda value: value)(value) for name, value in fields.items()}


def violation(text: str) -> Violation:
    """``bad crc`` as the enumeration has it."""
    return Violation[text.upper().replace(" ", "_")]


def joined(events: Iterable[Any]) -> list[Any]:
    """Adjacent slices of one kind become one: how a section was cut has no meaning."""
    result: list[Any] = []
    for event in events:
        if result and isinstance(event, Slice) and type(result[-1]) is type(event):
            result[-1] = type(event)(result[-1].data + event.data)
        else:
            result.append(event)
    return result


def transcript(decoder: StreamDecoder | ChannelDecoder, data: bytes, step: int) -> list[Any]:
    """Feed `data` in pieces of `step` bytes; the joined events, a Violation last if there was one."""
    events: list[Any] = []
    for at in range(0, len(data), step):
        decoder.receive_data(data[at : at + step])
        try:
            while (event := decoder.next_event()) is not NEED_DATA:
                events.append(event)
        except RemoteProtocolError as error:
            events.append(error.violation)
            break
    return joined(events)


def uint(bits: int) -> st.SearchStrategy[int]:
    """Unsigned integers, the ends of the range included more often than chance would."""
    return st.one_of(st.sampled_from([0, 1, 2**bits - 1]), st.integers(0, 2**bits - 1))


def above_0(bits: int) -> st.SearchStrategy[int]:
    """As `uint`, without 0."""
    return uint(bits).filter(bool)


addresses = st.one_of(
    uint(128).map(IPv6Address), uint(32).map(lambda value: IPv6Address(0xFFFF << 32 | value))
)
hellos = st.builds(Hello, uint(16), uint(16))
hints = st.builds(Hint, uint(32), uint(16), uint(16))


@st.composite
def descriptors(draw: st.DrawFn, head: int | None = None, tail: int | None = None) -> Descriptor:
    """Valid descriptors; `head` and `tail` fix these lengths."""
    head = draw(st.integers(0, 1 << 20)) if head is None else head
    tail = draw(st.integers(0, 1 << 20)) if tail is None else tail
    body = draw(st.one_of(st.sampled_from([1, BODY_MAX]), st.integers(1, BODY_MAX)))
    pushed = draw(st.booleans())
    return Descriptor(
        payload=draw(uint(64)),
        token=draw(st.binary(min_size=16, max_size=16)),
        offset=draw(st.integers(0, 2**64 - 1 - head - body - tail)),
        head=head,
        body=body,
        tail=tail,
        lease_ms=draw(uint(32)),
        address=draw(addresses),
        port=draw(uint(16)),
        flags=draw(st.integers(0, 1)) | (2 if pushed else 0),
        push_channel=draw(st.integers(1, 2**32 - 1)) if pushed else 0,
        push_position=draw(st.integers(0, 2**64 - 1 - body)) if pushed else 0,
    )


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, int]:
    """(offset, length) with length > 0 and without overflow."""
    length = draw(st.one_of(st.just(1), st.integers(1, 2**64 - 1)))
    return draw(st.integers(0, 2**64 - 1 - length)), length


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Auth, st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32)),
    st.builds(lambda p, t, r: Fetch(p, t, *r), uint(64), st.binary(min_size=16, max_size=16), ranges()),
    st.builds(lambda p, r: Data(p, *r), uint(64), ranges()),
    st.builds(Fail, uint(64), st.sampled_from(Reason)),
    st.builds(Release, st.lists(uint(64), min_size=1, max_size=20).map(tuple)),
    st.builds(Release, st.just(tuple(range(RELEASE_COUNT_MAX)))),
    st.builds(Query, addresses, uint(16)),
    st.builds(Answer, addresses, uint(16), st.booleans(), uint(32)),
    st.builds(Push, above_0(64), st.just(0), st.just(0), st.just(0), st.just(0)),
    st.builds(Push, above_0(64), above_0(32), uint(64), uint(64), uint(64)),
)


@st.composite
def push_bodies(draw: st.DrawFn) -> bytes:
    """Bodies of PUSH, valid or not: every field is 0 in many of them."""
    fields = [draw(st.one_of(st.just(0), uint(bits))) for bits in (64, 32, 32, 64, 64, 64)]
    fields[2] = draw(st.sampled_from([0, fields[2]]))
    return struct.pack(">QIIQQQ", *fields)


@st.composite
def _virtual(draw: st.DrawFn) -> tuple[bytes, list[Any]]:
    head, tail = draw(st.binary(max_size=20)), draw(st.binary(max_size=20))
    descriptor = draw(descriptors(len(head), len(tail)))
    events = [Virtual(descriptor), *([Head(head)] if head else []), *([Tail(tail)] if tail else [])]
    return encode_virtual(descriptor, head, tail), events


_stream_frames = st.one_of(
    st.binary(min_size=1, max_size=60).map(lambda data: (encode_real(data), [Real(data)])),
    hints.map(lambda hint: (hint.encode(), [hint])),
    _virtual(),
)


def _concatenate(parts: Sequence[tuple[bytes, list[Any]]]) -> tuple[bytes, list[Any]]:
    return b"".join(part[0] for part in parts), joined(event for part in parts for event in part[1])


@st.composite
def streams(draw: st.DrawFn) -> tuple[bool, bytes, list[Any]]:
    """(hello_first, bytes, joined events) of a valid framed direction."""
    hello_first = draw(st.booleans())
    frames = draw(st.lists(_stream_frames, max_size=6))
    if hello_first:
        hello = draw(hellos)
        frames.insert(0, (hello.encode(), [hello]))
    return hello_first, *_concatenate(frames)


def _with_raw(message: Message, raw: bytes) -> tuple[bytes, list[Any]]:
    if not isinstance(message, Data):
        return message.encode(), [message]
    data = Data(message.payload, min(message.offset, 2**64 - 1 - len(raw)), len(raw))
    return data.encode() + raw, [data, Raw(raw)]


channels = st.lists(st.builds(_with_raw, messages, st.binary(min_size=1, max_size=60)), max_size=6).map(
    _concatenate
)


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with up to three bytes changed, removed or inserted, or cut off."""
    result = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(result) - 1, 0)))
        how = draw(st.sampled_from(["change", "remove", "insert", "cut"]))
        if how == "change" and result:
            result[at] ^= draw(st.integers(1, 255))
        elif how == "remove":
            del result[at : at + draw(st.integers(1, 8))]
        elif how == "insert":
            result[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif how == "cut":
            del result[at:]
    return bytes(result)
