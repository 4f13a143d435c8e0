"""What was encoded decodes to itself; what must not travel is not encoded; arbitrary bytes are refused politely."""

import struct
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odb.protocol import (
    BODY_MAX,
    HEADER_SIZE,
    LENGTHS,
    MESSAGES,
    REAL_MAX,
    RELEASE_COUNT_MAX,
    Auth,
    ChannelDecoder,
    Data,
    Descriptor,
    Fail,
    Fetch,
    FrameType,
    Header,
    Hello,
    Hint,
    LocalProtocolError,
    Message,
    Push,
    Query,
    Reason,
    Release,
    RemoteProtocolError,
    StreamDecoder,
    Violation,
    encode_real,
    encode_virtual,
    hello_prefix,
)
from tests.unit.protocol_samples import (
    channels,
    descriptors,
    hellos,
    hints,
    messages,
    mutated,
    push_bodies,
    streams,
    transcript,
)

pytestmark = pytest.mark.unit
thorough = settings(deadline=None, max_examples=200)

PLAIN = Descriptor(7, bytes(16), 0, 0, 65536, 0, 30000, IPv6Address("::ffff:10.0.0.3"), 7411)
NAMED = Push(consumer=1, channel=0, credits=0, position=0, skipped=0)


@thorough
@given(st.sampled_from(FrameType), st.data())
def test_header_round_trips(frame_type: FrameType, data: st.DataObject) -> None:
    bounds = LENGTHS[frame_type]
    units = data.draw(st.integers(-(-bounds.minimum // bounds.unit), bounds.maximum // bounds.unit))
    header = Header(frame_type, units * bounds.unit)
    assert Header.decode(header.encode()) == header


@thorough
@given(descriptors())
def test_descriptor_round_trips(descriptor: Descriptor) -> None:
    assert Descriptor.decode(descriptor.encode()) == descriptor


@thorough
@given(messages)
def test_message_round_trips(message: Message) -> None:
    raw = message.encode()
    header = Header.decode(raw[:HEADER_SIZE])
    assert header == Header(message.TYPE, len(raw) - HEADER_SIZE)
    assert MESSAGES[header.type].decode(raw[HEADER_SIZE:]) == message


@thorough
@given(push_bodies())
def test_push_is_accepted_exactly_if_it_names_a_consumer_and_more_only_with_a_channel(body: bytes) -> None:
    consumer, channel, reserved, *amounts = struct.unpack(">QIIQQQ", body)
    if consumer != 0 and reserved == 0 and (channel != 0 or amounts == [0, 0, 0]):
        push = Push.decode(body)
        assert push == Push(consumer, channel, *amounts)
        assert push.encode()[HEADER_SIZE:] == body
        return
    with pytest.raises(RemoteProtocolError) as caught:
        Push.decode(body)
    assert caught.value.violation is Violation.BAD_FIELD


@thorough
@given(hellos, hints)
def test_hello_and_hint_round_trip(hello: Hello, hint: Hint) -> None:
    assert Hello.decode(hello.encode()[HEADER_SIZE:]) == hello
    assert Hint.decode(hint.encode()[HEADER_SIZE:]) == hint
    assert all(hello_prefix(hello.encode()[:n]) for n in range(25))
    assert not hello_prefix(hint.encode())


@thorough
@given(descriptors(), st.integers(0, 84 * 8 - 1))
def test_descriptor_with_any_bit_flipped_is_refused(descriptor: Descriptor, bit: int) -> None:
    raw = bytearray(descriptor.encode())
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteProtocolError) as caught:
        Descriptor.decode(bytes(raw))
    assert caught.value.violation is Violation.BAD_CRC


@thorough
@given(messages, st.integers(0, 63))
def test_header_with_any_bit_flipped_is_refused(message: Message, bit: int) -> None:
    raw = bytearray(message.encode()[:HEADER_SIZE])
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteProtocolError):
        Header.decode(bytes(raw))


@thorough
@given(streams(), st.integers(1, 40))
def test_stream_means_the_same_however_it_is_cut(stream: tuple[bool, bytes, list[Any]], step: int) -> None:
    hello_first, raw, events = stream
    for size in (1, step, len(raw) + 1):
        decoder = StreamDecoder(hello_first=hello_first)
        assert transcript(decoder, raw, size) == events
        assert decoder.at_boundary


@thorough
@given(channels, st.integers(1, 40))
def test_channel_means_the_same_however_it_is_cut(channel: tuple[bytes, list[Any]], step: int) -> None:
    raw, events = channel
    for size in (1, step, len(raw) + 1):
        decoder = ChannelDecoder()
        assert transcript(decoder, raw, size) == events
        assert decoder.at_boundary


@thorough
@given(st.data())
def test_mutated_stream_is_parsed_refused_or_unfinished(data: st.DataObject) -> None:
    hello_first, raw, _ = data.draw(streams())
    broken = data.draw(mutated(raw))
    whole, bytewise = StreamDecoder(hello_first=hello_first), StreamDecoder(hello_first=hello_first)
    assert transcript(whole, broken, len(broken) + 1) == transcript(bytewise, broken, 1)


@thorough
@given(st.data())
def test_mutated_channel_is_parsed_refused_or_unfinished(data: st.DataObject) -> None:
    raw, _ = data.draw(channels)
    broken = data.draw(mutated(raw))
    assert transcript(ChannelDecoder(), broken, len(broken) + 1) == transcript(ChannelDecoder(), broken, 1)


@thorough
@given(st.binary(max_size=300), st.booleans())
def test_arbitrary_bytes_are_parsed_refused_or_unfinished(raw: bytes, hello_first: bool) -> None:
    for decoder in (StreamDecoder(hello_first=hello_first), ChannelDecoder()):
        events = transcript(decoder, raw, len(raw) + 1)
        assert events == [] if len(raw) < HEADER_SIZE else isinstance(events[-1], Violation)


@pytest.mark.parametrize(
    "decoder", [StreamDecoder(hello_first=True), ChannelDecoder()], ids=["stream", "channel"]
)
def test_error_of_the_peer_is_sticky(decoder: StreamDecoder | ChannelDecoder) -> None:
    decoder.receive_data(b"GET / HTTP/1.1\r\n")
    for _ in range(3):
        with pytest.raises(RemoteProtocolError) as caught:
            decoder.next_event()
        assert caught.value.violation is Violation.BAD_MAGIC
        decoder.receive_data(Hello(0, 0).encode() + NAMED.encode())
    assert not decoder.at_boundary


@pytest.mark.parametrize(
    "frame", [Hello(1, 2).encode(), encode_real(b"x"), encode_virtual(PLAIN), Hint(1, 2, 3).encode()]
)
def test_stream_frame_on_a_channel_is_refused(frame: bytes) -> None:
    assert transcript(ChannelDecoder(), frame, 1000) == [Violation.BAD_TYPE]


def test_data_above_4_gib_keeps_the_channel_open_for_its_raw_bytes() -> None:
    message = Data(1, 0, 5 << 32)
    decoder = ChannelDecoder()
    events = transcript(decoder, message.encode() + NAMED.encode(), 1000)
    assert events[0] == message
    assert events[1].data == NAMED.encode()
    assert not decoder.at_boundary


@pytest.mark.parametrize(
    "changes",
    [
        {"head": (1 << 20) + 1},
        {"body": BODY_MAX + 1},
        {"tail": (1 << 20) + 1},
        {"body": 0},
        {"body": -1},
        {"offset": 2**64 - 1},
        {"offset": 2**64},
        {"payload": -1},
        {"token": bytes(15)},
        {"port": 65536},
        {"flags": 4},
        {"flags": 65536},
        {"flags": 2},
        {"push_channel": 1},
        {"push_position": 1},
        {"flags": 2, "push_channel": 1, "push_position": 2**64 - 1},
        {"lease_ms": 2**32},
    ],
    ids=str,
)
def test_descriptor_that_must_not_travel_is_not_encoded(changes: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError):
        replace(PLAIN, **changes).encode()


@pytest.mark.parametrize(
    "value",
    [
        Hello(65536, 0),
        Hello(0, -1),
        Hint(2**32, 0, 0),
        Hint(0, 65536, 0),
        Auth(bytes(15), bytes(32)),
        Auth(bytes(16), bytes(33)),
        Fetch(1, bytes(16), 0, 0),
        Fetch(1, bytes(16), 2**64 - 1, 1),
        Fetch(1, bytes(17), 0, 1),
        Data(1, 0, 0),
        Data(2**64, 0, 1),
        Fail(-1, Reason.GONE),
        Release(()),
        Release(tuple(range(RELEASE_COUNT_MAX + 1))),
        Release((2**64,)),
        Query(IPv6Address("::1"), 65536),
        Push(0, 0, 0, 0, 0),
        Push(0, 1, 1, 1, 1),
        Push(1, 0, 1, 0, 0),
        Push(1, 0, 0, 1, 0),
        Push(1, 0, 0, 0, 1),
        Push(2**64, 1, 0, 0, 0),
        Push(1, 2**32, 0, 0, 0),
        Push(1, 1, 2**64, 0, 0),
        Push(1, 1, 0, -1, 0),
        Push(1, 1, 0, 0, 2**64),
        Header(FrameType.REAL, 0),
        Header(FrameType.REAL, REAL_MAX + 1),
        Header(FrameType.RELEASE, 12),
    ],
    ids=str,
)
def test_value_that_must_not_travel_is_not_encoded(value: Any) -> None:
    with pytest.raises(LocalProtocolError):
        value.encode()


def test_virtual_frame_needs_the_announced_head_and_tail() -> None:
    with pytest.raises(LocalProtocolError):
        encode_virtual(PLAIN, b"x")
    with pytest.raises(LocalProtocolError):
        encode_virtual(replace(PLAIN, tail=2), tail=b"x")


@pytest.mark.parametrize(
    "kind", [Header, Descriptor, Hello, Hint, *MESSAGES.values()], ids=lambda kind: kind.__name__
)
def test_decoding_the_wrong_size_is_the_callers_mistake(kind: Any) -> None:
    with pytest.raises(LocalProtocolError):
        kind.decode(bytes(7))
