"""Every call that moves data delivers the same bytes through the library, and memory of every kind takes them."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.preload.harness import EVERYWHERE, Preload

OUT = (
    "write",
    "writev",
    "send",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "sendfile",
    "sendfile_offset",
    "sendfile64",
    "splice",
)
IN = ("readv", "recv", "recvfrom", "recvmsg", "recvmmsg", "peek", "splice", "dontwait", "waitall")
PAIRS = (
    [(out, "read") for out in OUT] + [("write", call) for call in IN] + [("sendfile", call) for call in IN]
)


@pytest.mark.parametrize(("out", "call"), PAIRS)
def test_body_arrives_whole_whatever_calls_move_it(preload: Preload, out: str, call: str) -> None:
    outcome = preload.compare("calls", out, call)
    assert outcome.active
    assert outcome.counters["streams_framed"] == 2
    assert not outcome.trouble


def test_fortified_names_are_served_too(preload: Preload) -> None:
    names = subprocess.run(
        ["nm", "-D", "--undefined-only", preload.programs / "fortified"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    called = set(re.findall(r"U __(\w+)_chk", names))
    assert {"read", "recv", "recvfrom", "pread", "poll", "ppoll", "fread"} <= called
    outcome = preload.compare("fortified")
    assert outcome.active
    assert not outcome.trouble


@pytest.mark.parametrize("kind", ["stack", "static", "heap", "mmap", "shared", "thread", "aligned"])
@pytest.mark.parametrize(("offset", "chunk"), [(0, 65536), (77, 10007), (4096, 200000)])
def test_buffer_of_any_kind_at_any_offset_takes_the_body(
    preload: Preload, kind: str, offset: int, chunk: int
) -> None:
    outcome = preload.compare("buffers", kind, str(offset), str(chunk))
    assert outcome.active
    assert not outcome.trouble


@pytest.mark.parametrize("kind", ["heap", "stack"])
def test_body_can_be_received_byte_by_byte(preload: Preload, kind: str) -> None:
    outcome = preload.compare("buffers", kind, "3", "1")
    assert outcome.active
    assert not outcome.trouble


@pytest.mark.parametrize("align", ["on", "off"])
def test_body_is_mapped_and_not_fetched_at_once(preload: Preload, align: str) -> None:
    options = {"listen": EVERYWHERE, "connect": EVERYWHERE, "align": align}
    outcome = preload.compare("buffers", "heap", "0", "65536", **options)
    assert outcome.counters["windows_mapped"] > 0 or align == "off"
    assert outcome.active
    assert not outcome.trouble
