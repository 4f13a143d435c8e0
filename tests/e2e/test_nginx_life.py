"""The life of a tier: reload, binary upgrade and stops under load, and no leak over many requests."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time

import pytest

from tests.e2e.chain import START_SECONDS, TIERS, Settings, Tier, wait_gone
from tests.e2e.client import Connection, Load, get
from tests.e2e.conftest import EVERYWHERE, MakeChain

PATHS = ("/8192.bin", "/65536.bin", "/262144.bin", "/1048576.bin")
MEBIBYTE = 1 << 20


def contents(files: dict[str, bytes], paths: tuple[str, ...] = PATHS) -> dict[str, list[bytes]]:
    return {path: [files[path]] for path in paths}


def check_flawless(load: Load) -> None:
    assert (load.tally.wrong, dict(load.tally.problems)) == ([], {})


def reload(tier: Tier) -> None:
    """HUP, and the return of new workers and the end of the old ones."""
    before = tier.workers()
    tier.signal(signal.SIGHUP)
    tier.wait_workers(before)


def reload_with_half_a_request(tier: Tier, load: Load) -> None:
    """As reload(), and half a request keeps the old worker until the requests of `load` that it has are over.

    With proxy_buffering nginx 1.22 by itself deletes the timer of a connection whose last read found exactly what
    FIONREAD had told, and a worker that is to end goes as soon as no connection has a timer.
    """
    before = tier.workers()
    with Connection(tier.port) as half:
        half.socket.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n")
        load.wait(15)
        tier.signal(signal.SIGHUP)
        tier.wait_ending(before)
        load.wait_all()
    tier.wait_workers(before)


@pytest.mark.parametrize("buffering", [False, True], ids=["unbuffered", "buffered"])
def test_no_request_fails_while_every_tier_reloads(
    make_chain: MakeChain, files: dict[str, bytes], buffering: bool
) -> None:
    chain = make_chain(Settings(buffering=buffering))
    with Load(chain.port, contents(files)) as load:
        for name in TIERS if buffering else TIERS * 2:
            load.wait(15)
            if buffering:
                reload_with_half_a_request(chain.tiers[name], load)
            else:
                reload(chain.tiers[name])
                load.wait(15)
    check_flawless(load)
    assert chain.middle.statistics()["span_bytes_sent"] > 0


def test_a_reloaded_backend_waits_for_slow_clients_as_long_as_it_is_told_to(
    make_chain: MakeChain, files: dict[str, bytes]
) -> None:
    chain = make_chain(Settings(options={"drain_ms": "20000"}))
    path, before = "/5000001.bin", chain.be.workers()
    with Connection(chain.port, receive_buffer=4096) as slow:
        slow.send(path)
        start = slow.socket.recv(1000, socket.MSG_WAITALL)
        chain.be.signal(signal.SIGHUP)
        assert not wait_gone(before[0], 1.5)
        answer = slow.answer_behind(start)
    assert (answer.problem, answer.body == files[path]) == ("", True)
    for tier in (chain.fe, chain.middle):
        tier.stop()
    assert wait_gone(before[0])


def upgrade(tier: Tier) -> None:
    """USR2 to the running master, then QUIT to it once the new one has workers."""
    old, pid_file = tier.master, tier.folder / "pid"
    tier.signal(signal.SIGUSR2)
    deadline = time.monotonic() + START_SECONDS
    new = old
    while new == old and time.monotonic() < deadline:
        select.select([], [], [], 0.01)
        with contextlib.suppress(FileNotFoundError, ValueError):
            new = int(pid_file.read_text())
    assert new != old, f"{tier.name}: no new master:\n{tier.log()}"
    before = tier.workers()
    tier.adopt(new)
    tier.wait_workers()
    os.kill(old, signal.SIGQUIT)
    assert wait_gone(old)
    assert all(wait_gone(pid) for pid in before)


@pytest.mark.parametrize("name", TIERS)
def test_no_request_fails_while_the_binary_is_upgraded(
    make_chain: MakeChain, files: dict[str, bytes], name: str
) -> None:
    chain = make_chain()
    tier = chain.tiers[name]
    tier.stop()
    tier.start(daemon=True)
    with Load(chain.port, contents(files)) as load:
        load.wait(15)
        upgrade(tier)
        load.wait(30)
    check_flawless(load)
    fresh = tier.statistics()
    assert fresh["streams_framed"] > 0
    assert fresh["span_bytes_sent"] + fresh["span_bytes_received"] > 0


@pytest.mark.parametrize("name", TIERS)
def test_a_graceful_stop_finishes_transfers_under_way(
    make_chain: MakeChain, files: dict[str, bytes], name: str
) -> None:
    chain = make_chain()
    path = "/5000001.bin"
    connections = [Connection(chain.port, receive_buffer=65536) for _ in range(8)]
    starts = []
    for connection in connections:
        connection.send(path)
        starts.append(connection.socket.recv(1000, socket.MSG_WAITALL))
    chain.tiers[name].signal(signal.SIGQUIT)
    answers = []
    for connection, start in zip(connections, starts, strict=True):
        reader = threading.Thread(target=lambda c=connection, s=start: answers.append(c.answer_behind(s)))  # type: ignore[misc]
        reader.start()
        reader.join(30)
        connection.close()
    assert [(answer.problem, answer.body == files[path]) for answer in answers] == [("", True)] * 8
    chain.tiers[name].stop(signal.SIGQUIT)


@pytest.mark.parametrize("name", TIERS)
def test_a_fast_stop_under_load_ends_within_three_seconds(
    make_chain: MakeChain, files: dict[str, bytes], name: str
) -> None:
    chain = make_chain()
    with Load(chain.port, contents(files, ("/1048576.bin", "/5000001.bin"))) as load:
        load.wait(10)
        assert chain.tiers[name].stop(signal.SIGTERM, 10) < 3
    assert (load.tally.wrong, load.tally.stalled) == ([], 0)


def test_many_requests_leak_neither_descriptors_nor_memory(
    make_chain: MakeChain, files: dict[str, bytes]
) -> None:
    chain = make_chain(EVERYWHERE)
    paths = ("/1.bin", "/4096.bin", "/8191.bin", "/16384.bin", "/65536.bin", "/100000.bin", "/262144.bin")
    with Load(chain.port, contents(files, paths)) as load:
        load.wait(700)
    check_flawless(load)
    get(chain.port, "/1.bin")
    before = [(tier.descriptors(), tier.memory()) for tier in chain]
    opened = chain.fe.statistics()["channels_opened"]
    with Load(chain.port, contents(files, paths), seed=2) as load:
        load.wait(4000)
    check_flawless(load)
    get(chain.port, "/1.bin")
    channels = chain.fe.statistics()["channels_opened"]
    assert channels <= 72  # 64 to be pushed to, the others to ask on; few fetches open them slowly
    for tier, (descriptors, memory) in zip(chain, before, strict=True):
        assert tier.descriptors() <= descriptors + channels - opened + 8, tier.name
        assert tier.memory() <= memory + 2 * MEBIBYTE, tier.name


def test_the_store_of_memory_payloads_stays_bounded_and_is_used_again(
    make_chain: MakeChain, files: dict[str, bytes]
) -> None:
    bound = 8 * MEBIBYTE
    chain = make_chain(Settings(sendfile=False, options={"store_max": str(bound), "lease_ms": "1000"}))
    deadline = time.monotonic() + 30
    with Load(chain.port, contents(files, ("/262144.bin", "/1048576.bin")), clients=4) as load:
        backend = chain.be.statistics()
        while backend["payload_bytes_captured"] < 2.5 * bound and time.monotonic() < deadline:
            load.wait(20)
            backend = chain.be.statistics()
            assert backend["store_bytes_live"] <= bound
    check_flawless(load)
    assert backend["payload_bytes_captured"] >= 2.5 * bound
    assert backend["fallback_store_full"] > 0
