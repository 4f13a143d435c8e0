"""The C codec and the Python codec agree on whatever arrives: same events, same refusals, same bytes."""

import ctypes
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odb.protocol import (
    HEADER_SIZE,
    MESSAGES,
    Descriptor,
    FrameType,
    Head,
    Header,
    Hello,
    Hint,
    Real,
    Release,
    RemoteProtocolError,
    StreamDecoder,
    Tail,
    Violation,
    Virtual,
)
from tests.unit.protocol_samples import (
    descriptors,
    hellos,
    hints,
    joined,
    messages,
    mutated,
    push_bodies,
    streams,
    transcript,
)

pytestmark = pytest.mark.native
thorough = settings(deadline=None, max_examples=300)

ROOT = Path(__file__).resolve().parent.parent.parent
FIXED: dict[FrameType, Any] = {FrameType.HELLO: Hello, FrameType.HINT: Hint, **MESSAGES}
ERROR = 7


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The C codec as a shared library of its own."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("a C compiler is not installed")
    runtime = ROOT / "odb" / "runtime"
    output = tmp_path_factory.mktemp("twin") / "twin.so"
    sources = [ROOT / "tests" / "native" / "twin_wire.c", *sorted((runtime / "wire").glob("*.c"))]
    flags = [
        "-std=gnu11",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Wshadow",
        "-Wconversion",
        "-Werror",
        "-shared",
        "-fPIC",
    ]
    command = [compiler, *flags, "-I", str(runtime), *map(str, sources), "-o", str(output)]
    subprocess.run(command, check=True, timeout=60)
    library = ctypes.CDLL(str(output))
    library.twin_frame.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p]
    library.twin_frame.restype = ctypes.c_int
    library.twin_stream.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_bool,
        ctypes.c_size_t,
        ctypes.c_char_p,
    ]
    library.twin_stream.restype = ctypes.c_size_t
    return library


def c_transcript(twin: ctypes.CDLL, raw: bytes, hello_first: bool, step: int) -> tuple[list[Any], bool]:
    out = ctypes.create_string_buffer(100 * len(raw) + 100)
    size = twin.twin_stream(raw, len(raw), hello_first, step, out)
    data = out.raw[:size]
    events: list[Any] = []
    at = 0
    while at < size - 1:
        kind, length = struct.unpack_from(">BI", data, at)
        content = data[at + 5 : at + 5 + length]
        at += 5 + length
        match kind:
            case 1:
                events.append(Hello.decode(content[HEADER_SIZE:]))
            case 2:
                events.append(Real(content))
            case 3:
                events.append(Virtual(Descriptor.decode(content)))
            case 4:
                events.append(Head(content))
            case 5:
                events.append(Tail(content))
            case 6:
                events.append(Hint.decode(content[HEADER_SIZE:]))
            case _:
                assert kind == ERROR
                events.append(Violation(content[0]))
    return joined(events), data[-1] == 1


def agree_on_stream(twin: ctypes.CDLL, raw: bytes, hello_first: bool, step: int) -> None:
    decoder = StreamDecoder(hello_first=hello_first)
    events = transcript(decoder, raw, step)
    assert c_transcript(twin, raw, hello_first, step) == (events, decoder.at_boundary)


@thorough
@given(stream=streams(), step=st.integers(1, 50))
def test_twins_agree_on_valid_streams(
    twin: ctypes.CDLL, stream: tuple[bool, bytes, list[Any]], step: int
) -> None:
    hello_first, raw, events = stream
    assert c_transcript(twin, raw, hello_first, step) == (events, True)


@thorough
@given(data=st.data(), step=st.integers(1, 50))
def test_twins_agree_on_mutated_streams(twin: ctypes.CDLL, data: st.DataObject, step: int) -> None:
    hello_first, raw, _ = data.draw(streams())
    agree_on_stream(twin, data.draw(mutated(raw)), hello_first, step)


@thorough
@given(data=st.data(), head=st.integers(0, 3), tail=st.integers(0, 3))
def test_twins_agree_on_descriptors_with_a_right_checksum_and_wrong_fields(
    twin: ctypes.CDLL, data: st.DataObject, head: int, tail: int
) -> None:
    raw = bytearray(data.draw(descriptors(head, tail)).encode()[:80])
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(24, 79))
        raw[at] = data.draw(st.sampled_from([0, 1, 2, 3, 0x7F, 0x80, 0xFF]))
    sealed = bytes(raw) + struct.pack(">I", bitwise_crc32c(bytes(raw)))
    frame = Header(FrameType.VIRTUAL, 84 + head + tail).encode() + sealed + bytes(head + tail)
    agree_on_stream(twin, frame, False, len(frame))


def bitwise_crc32c(data: bytes) -> int:
    """By definition, without a table: a third opinion."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def python_result(raw: bytes) -> int:
    try:
        header = Header.decode(raw[:HEADER_SIZE])
        FIXED[header.type].decode(raw[HEADER_SIZE:])
    except RemoteProtocolError as error:
        return int(error.violation)
    return 0


@thorough
@given(data=st.data())
def test_twins_agree_on_frames_with_changed_bytes(twin: ctypes.CDLL, data: st.DataObject) -> None:
    fixed = st.one_of(hellos, hints, messages.filter(lambda message: not isinstance(message, Release)))
    raw = bytearray(data.draw(fixed).encode())
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(HEADER_SIZE, len(raw) - 1))] = data.draw(
            st.sampled_from([0, 1, 4, 5, 0xFF])
        )
    out = ctypes.create_string_buffer(len(raw))
    result = twin.twin_frame(bytes(raw), len(raw), out)
    assert result == python_result(bytes(raw))
    if result == 0:
        assert out.raw == bytes(raw)


@thorough
@given(body=push_bodies())
def test_twins_agree_on_pushes_of_any_content(twin: ctypes.CDLL, body: bytes) -> None:
    raw = Header(FrameType.PUSH, len(body)).encode() + body
    out = ctypes.create_string_buffer(len(raw))
    result = twin.twin_frame(raw, len(raw), out)
    assert result == python_result(raw)
    if result == 0:
        assert out.raw == raw


@thorough
@given(raw=st.binary(min_size=8, max_size=8))
def test_twins_agree_on_arbitrary_headers_with_a_right_checksum(twin: ctypes.CDLL, raw: bytes) -> None:
    version_and_type, length = 0x10 | raw[2] & 0x0F, raw[4:]
    crc = 0
    for byte in b"\x9d\x0b" + bytes([version_and_type]) + length:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x07 if crc & 0x80 else 0)) & 0xFF
    header = b"\x9d\x0b" + bytes([version_and_type, crc]) + length
    out = ctypes.create_string_buffer(HEADER_SIZE)
    result = twin.twin_frame(header, HEADER_SIZE, out)
    try:
        Header.decode(header)
        expected = -1  # accepted; the body is missing
    except RemoteProtocolError as error:
        expected = int(error.violation)
    assert result == expected
