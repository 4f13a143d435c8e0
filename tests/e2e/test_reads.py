"""Servers that read files and write them to sockets: what they only forward is neither read nor copied."""

from __future__ import annotations

import pytest

from tests.e2e.chain import Settings
from tests.e2e.client import Connection
from tests.e2e.conftest import MakeChain

# The files were written a moment ago.
READS = {"capture": "file,memory,reads", "settled_ms": "0"}
LARGE = ("/65536.bin", "/100000.bin", "/262144.bin", "/1048576.bin", "/5000001.bin")


@pytest.mark.parametrize("buffers", ["2 32k", "1 64k", "4 40000"])
def test_nginx_without_sendfile_sends_files_that_it_has_not_read(
    make_chain: MakeChain, files: dict[str, bytes], buffers: str
) -> None:
    chain = make_chain(Settings(sendfile=False, options=READS, http={"be": f"output_buffers {buffers};"}))
    size = 0
    with Connection(chain.port) as kept:
        for path in ("/0.bin", "/4096.bin", *LARGE) * 3:
            assert kept.get(path).body == files[path], path
            size += len(files[path])
    be = chain.be.statistics()
    assert be["reads_mapped"] > 0
    assert be["span_bytes_sent"] > 0.9 * size
    assert be["materialised_bytes"] < 0.1 * size
    assert be["faults"] == 0
    for tier in chain:
        counters = tier.statistics()
        assert (counters["protocol_errors"], counters["resets"], counters["fetch_failures"]) == (0, 0, 0)


def test_ranges_of_a_file_that_is_not_read_arrive_as_they_are(
    make_chain: MakeChain, files: dict[str, bytes]
) -> None:
    chain = make_chain(Settings(sendfile=False, options=READS))
    body = files["/5000001.bin"]
    with Connection(chain.port) as kept:
        for first, last in ((0, 99_999), (77, 200_076), (1_000_000, 4_999_999), (4_900_001, 5_000_000)):
            answer = kept.get("/5000001.bin", headers={"Range": f"bytes={first}-{last}"})
            assert (answer.status, answer.body == body[first : last + 1]) == (206, True)
    assert chain.be.statistics()["reads_mapped"] > 0


def test_a_server_that_looks_at_what_it_reads_goes_back_to_reading(
    make_chain: MakeChain, files: dict[str, bytes]
) -> None:
    substitution = "sub_filter MARK mark; sub_filter_once off; sub_filter_types *;"
    chain = make_chain(Settings(sendfile=False, options=READS, server={"be": substitution}))
    size = 0
    with Connection(chain.port) as kept:
        for path in LARGE * 2:
            assert kept.get(path).body == files[path].replace(b"MARK", b"mark"), path
            size += len(files[path])
    assert chain.be.statistics()["reads_mapped"] * 32768 < size / 4
