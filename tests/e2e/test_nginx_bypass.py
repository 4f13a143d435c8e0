"""ODB is truly on: payloads go from the BE to the FE, and the IS neither holds nor carries them."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.e2e.chain import Chain, Settings, Tier, missing_tools
from tests.e2e.client import Connection
from tests.e2e.conftest import MakeChain

ROUNDS = 10
PAGE = 4096
PAGES = ("/16384.bin", "/65536.bin", "/262144.bin", "/1048576.bin")
HEADERS = 1024  # bytes, more than request and response headers of these tests together
DESCRIPTOR = 128  # bytes, more than a descriptor with its frame header


def ask(chain: Chain, files: dict[str, bytes], paths: tuple[str, ...]) -> tuple[int, int]:
    """Gets each path ROUNDS times; (requests, body bytes)."""
    with Connection(chain.port) as kept:
        for path in paths * ROUNDS:
            assert kept.get(path).body == files[path], path
        assert kept.get(
            "/0.bin"
        ).whole  # what is sent is counted when it has been sent: the worker has done so
    return ROUNDS * len(paths), ROUNDS * sum(len(files[path]) for path in paths)


def carried(tier: Tier) -> int:
    """Bytes that the open connections of a tier have received, as the kernel counts them."""
    listing = subprocess.run(
        ["ss", "--tcp", "--info", "--processes", "--numeric", "--oneline"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    owners = [f"pid={pid}," for pid in tier.workers()]
    lines = [line for line in listing.splitlines() if any(owner in line for owner in owners)]
    assert lines
    return sum(int(number) for line in lines for number in re.findall(r"bytes_received:(\d+)", line))


def had(counters: dict[str, int]) -> int:
    """Payload bytes that a tier got from origins, by asking or unasked."""
    return counters["fetch_bytes"] + counters["push_bytes_taken"]


def check_undisturbed(chain: Chain) -> None:
    for tier in chain:
        counters = tier.statistics()
        assert (counters["protocol_errors"], counters["resets"], counters["fetch_failures"]) == (0, 0, 0), (
            tier.name
        )
        assert counters["faults"] == 0, tier.name


@pytest.mark.parametrize("buffer", ["4k", "16k", "64k"])
def test_the_intermediary_forwards_spans_and_fetches_nothing(
    make_chain: MakeChain, files: dict[str, bytes], buffer: str
) -> None:
    chain = make_chain(Settings(buffer=buffer))
    requests, size = ask(chain, files, PAGES)
    fe, middle, be = (tier.statistics() for tier in (chain.fe, chain.middle, chain.be))
    assert be["payload_bytes_captured"] == be["span_bytes_sent"] == size
    assert middle["spans_received"] > 0
    assert middle["span_bytes_received"] == middle["span_bytes_sent"] == size
    assert (middle["fetches"], middle["materialised_bytes"]) == (0, 0)
    assert middle["real_bytes_received"] < requests * HEADERS
    assert middle["real_bytes_sent"] < requests * HEADERS
    assert fe["span_bytes_received"] == had(fe) == size
    assert be["serve_bytes"] + be["push_bytes"] >= size
    check_undisturbed(chain)


@pytest.mark.parametrize("buffer", ["4k", "16k", "64k"])
def test_with_proxy_buffering_only_the_page_beside_the_header_is_fetched(
    make_chain: MakeChain, files: dict[str, bytes], buffer: str
) -> None:
    in_memory = {"is": "proxy_max_temp_file_size 0;"}
    chain = make_chain(Settings(buffering=True, buffer=buffer, location=in_memory))
    requests, size = ask(chain, files, PAGES)
    middle = chain.middle.statistics()
    assert middle["span_bytes_received"] >= size - requests * 2 * PAGE
    assert middle["span_bytes_sent"] >= size - requests * 2 * PAGE
    assert middle["fetch_bytes"] <= requests * 2 * PAGE
    check_undisturbed(chain)


@pytest.mark.parametrize("buffer", ["16k", "64k"])
def test_an_intermediary_that_buffers_is_known_after_one_response(
    make_chain: MakeChain, files: dict[str, bytes], buffer: str
) -> None:
    """Bodies that its buffers hold, behind headers of several lengths: it fetches nothing and is sent a page for real."""
    paths = ("/65536.bin", "/100000.bin")
    location = "add_header X-Some $arg_some;"
    chain = make_chain(Settings(buffering=True, buffer=buffer, location={"be": location}))
    with Connection(chain.port) as kept:
        assert kept.get(paths[0]).body == files[paths[0]]
        before = chain.middle.statistics()
        asked = [f"{path}?some={'x' * length}" for path in paths for length in (1, 50, 3, 700)]
        for path in asked:
            assert kept.get(path).body == files[path.partition("?")[0]], path
    middle = chain.middle.statistics()
    assert before["fetches"] > 0 and middle["fetches"] == before["fetches"]
    assert middle["real_bytes_received"] - before["real_bytes_received"] < len(asked) * (HEADERS + PAGE)
    assert middle["edge_fetches"] == before["edge_fetches"]
    check_undisturbed(chain)


def test_a_body_that_ends_within_a_page_costs_the_intermediary_that_page_at_most(
    make_chain: MakeChain, files: dict[str, bytes]
) -> None:
    chain = make_chain()
    requests, size = ask(chain, files, ("/100000.bin", "/5000001.bin"))
    middle = chain.middle.statistics()
    assert middle["span_bytes_sent"] >= size - requests * PAGE
    assert middle["fetch_bytes"] <= requests * PAGE
    assert middle["real_bytes_received"] < requests * (HEADERS + PAGE)
    check_undisturbed(chain)


@pytest.mark.parametrize("buffer", ["4k", "16k"])
def test_the_front_end_sends_parts_together(
    make_chain: MakeChain, files: dict[str, bytes], buffer: str
) -> None:
    chain = make_chain(Settings(buffer=buffer, options={"gather": "on"}))
    requests, _ = ask(chain, files, ("/16384.bin", "/65536.bin", "/1048576.bin"))
    assert chain.fe.statistics()["sends_gathered"] >= requests
    assert {tier.statistics()["sends_gathered"] for tier in (chain.middle, chain.be)} == {0}
    check_undisturbed(chain)


def test_small_bodies_travel_for_real(make_chain: MakeChain, files: dict[str, bytes]) -> None:
    chain = make_chain()
    ask(chain, files, ("/0.bin", "/1.bin", "/4095.bin", "/4096.bin"))
    assert chain.be.statistics()["spans_sent"] == 0
    assert chain.middle.statistics()["streams_framed"] > 0


def test_the_kernel_sees_few_bytes_at_the_intermediary(
    make_chain: MakeChain, files: dict[str, bytes]
) -> None:
    missing = missing_tools("ss")
    if missing:
        pytest.skip(f"{missing} is not installed")
    with_library, without = make_chain(), make_chain(Settings(libraries=frozenset()))
    requests, size = ask(with_library, files, PAGES)
    ask(without, files, PAGES)
    spans = with_library.middle.statistics()["spans_received"]
    bypassed, whole = carried(with_library.middle), carried(without.middle)
    assert whole >= size
    assert bypassed <= requests * HEADERS + spans * DESCRIPTOR
    assert bypassed <= 0.05 * whole


def test_without_the_library_there_are_no_statistics(make_chain: MakeChain, files: dict[str, bytes]) -> None:
    chain = make_chain(Settings(libraries=frozenset({"fe", "be"})))
    ask(chain, files, PAGES)
    assert chain.middle.statistics() == {}
    assert chain.be.statistics()["spans_sent"] == 0
    assert chain.fe.statistics()["spans_received"] == 0


def test_two_tiers_bypass_where_the_third_has_no_library(
    make_chain: MakeChain, files: dict[str, bytes]
) -> None:
    chain = make_chain(Settings(libraries=frozenset({"is", "be"})))
    _, size = ask(chain, files, PAGES)
    assert chain.be.statistics()["span_bytes_sent"] == size
    assert had(chain.middle.statistics()) == size
    assert chain.fe.statistics() == {}
