"""The Python codec holds every shared vector, both ways; tests/native/test_wire.c holds them in C."""

from typing import Any

import pytest

from odb.protocol import (
    HEADER_SIZE,
    Descriptor,
    Head,
    Header,
    Real,
    RemoteProtocolError,
    StreamDecoder,
    Tail,
    Violation,
    Virtual,
    crc8,
    crc32c,
    hello_prefix,
)
from tests.unit.protocol_samples import TYPES, VECTORS, cases, convert, joined, transcript, violation

pytestmark = pytest.mark.unit


def each(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases(kind), ids=lambda case: case["name"])


@pytest.mark.parametrize(("kind", "function"), [("crc8", crc8), ("crc32c", crc32c)])
def test_checksums_hold_their_vectors(kind: str, function: Any) -> None:
    for case in cases(kind):
        assert function(bytes.fromhex(case["bytes"])) == case["value"], case["name"]


@each("header")
def test_header_holds_its_vector(case: dict[str, Any]) -> None:
    raw = bytes.fromhex(case["bytes"])
    if case["result"] != "ok":
        with pytest.raises(RemoteProtocolError) as caught:
            Header.decode(raw)
        assert caught.value.violation is violation(case["result"])
        return
    header = Header(**convert(case["fields"]))
    assert Header.decode(raw) == header
    assert header.encode() == raw


@each("descriptor")
def test_descriptor_holds_its_vector(case: dict[str, Any]) -> None:
    raw = bytes.fromhex(case["bytes"])
    if case["result"] != "ok":
        with pytest.raises(RemoteProtocolError) as caught:
            Descriptor.decode(raw)
        assert caught.value.violation is violation(case["result"])
        return
    descriptor = Descriptor(**convert(case["fields"]))
    assert Descriptor.decode(raw) == descriptor
    assert descriptor.encode() == raw


def decode_frame(frame: Any, raw: bytes) -> Any:
    assert Header.decode(raw[:HEADER_SIZE]) == Header(frame.TYPE, len(raw) - HEADER_SIZE)
    return frame.decode(raw[HEADER_SIZE:])


@pytest.mark.parametrize(
    ("kind", "case"),
    [pytest.param(kind, case, id=f"{kind}-{case['name']}") for kind in TYPES for case in cases(kind)],
)
def test_frame_holds_its_vector(kind: str, case: dict[str, Any]) -> None:
    raw = bytes.fromhex(case["bytes"])
    frame = TYPES[kind]
    if case["result"] != "ok":
        with pytest.raises(RemoteProtocolError) as caught:
            decode_frame(frame, raw)
        assert caught.value.violation is violation(case["result"])
        return
    value = frame(**convert(case["fields"]))
    assert decode_frame(frame, raw) == value
    assert value.encode() == raw


@each("hello_prefix")
def test_hello_prefix_holds_its_vector(case: dict[str, Any]) -> None:
    assert hello_prefix(bytes.fromhex(case["bytes"])) is case["could_be"]


def expected_event(kind: str, value: Any) -> Any:
    if kind == "error":
        return violation(value)
    if kind == "virtual":
        return Virtual(Descriptor(**convert(value)))
    slices = {"real": Real, "head": Head, "tail": Tail}
    return slices[kind](bytes.fromhex(value)) if kind in slices else TYPES[kind](**convert(value))


@each("stream")
@pytest.mark.parametrize("step", [1, 2, 3, 7, 1 << 20])
def test_stream_holds_its_vector(case: dict[str, Any], step: int) -> None:
    decoder = StreamDecoder(hello_first=case["hello_first"])
    events = transcript(decoder, bytes.fromhex(case["bytes"]), step)
    assert events == joined(expected_event(*event) for event in case["events"])
    assert decoder.at_boundary is case["boundary"]


def test_every_vector_file_is_read() -> None:
    read = {"crc8", "crc32c", "header", "descriptor", "hello_prefix", "stream", *TYPES}
    assert {path.stem for path in VECTORS.glob("*.json")} == read


def test_every_violation_has_a_vector() -> None:
    kinds = ["header", "descriptor", *TYPES]
    seen = {case["result"] for kind in kinds for case in cases(kind)} - {"ok"}
    assert {violation(text) for text in seen} == set(Violation)
