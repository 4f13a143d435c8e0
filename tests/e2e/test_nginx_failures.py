"""Whatever breaks (a BE, a client, a file), nobody sees a wrong byte, nobody waits for ever, and the other tiers live on."""

from __future__ import annotations

import os
import random
import signal
import socket
import struct
import time
from pathlib import Path

import pytest

from tests.e2e.chain import Chain, Settings, wait_gone
from tests.e2e.client import Connection, Load, Tally, get, judge
from tests.e2e.conftest import MakeChain

LARGE = ("/65536.bin", "/262144.bin", "/1048576.bin", "/5000001.bin")
FAILURES = {"short", "reset", "502", "504", "ConnectionResetError", "ConnectionRefusedError"}


def contents(files: dict[str, bytes], paths: tuple[str, ...] = LARGE) -> dict[str, list[bytes]]:
    return {path: [files[path]] for path in paths}


def check_honest(tally: Tally) -> None:
    """No wrong bytes, no stall, and no other failure than plain TCP or nginx would cause."""
    assert tally.wrong == []
    assert tally.stalled == 0
    assert set(tally.problems) <= FAILURES


def check_whole(chain: Chain, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        answer = get(chain.port, path)
        assert (answer.status, answer.problem, answer.body == content) == (200, "", True), path


@pytest.mark.parametrize("buffering", [False, True], ids=["unbuffered", "buffered"])
def test_a_killed_backend_worker_costs_requests_but_no_wrong_byte(
    make_chain: MakeChain, files: dict[str, bytes], buffering: bool
) -> None:
    chain = make_chain(Settings(buffering=buffering))
    others = [chain.fe.workers(), chain.middle.workers()]
    with Load(chain.port, contents(files)) as load:
        for _ in range(3):
            load.wait(15)
            victims = chain.be.workers()
            chain.be.expected_deaths.update(victims)
            for victim in victims:
                os.kill(victim, signal.SIGKILL)
            chain.be.wait_workers(victims)
        load.wait(30)
    check_honest(load.tally)
    assert [chain.fe.workers(), chain.middle.workers()] == others
    check_whole(chain, files)


@pytest.mark.parametrize("libraries", [{"fe", "is", "be"}, {"is", "be"}], ids=["whole-chain", "without-fe"])
def test_a_killed_backend_costs_requests_until_it_is_back(
    make_chain: MakeChain, files: dict[str, bytes], libraries: set[str]
) -> None:
    chain = make_chain(Settings(libraries=frozenset(libraries)))
    others = [chain.fe.workers(), chain.middle.workers()]
    with Load(chain.port, contents(files)) as load:
        load.wait(20)
        chain.be.kill()
        load.wait_problem()
        chain.be.start()
        load.wait(40)
    check_honest(load.tally)
    assert load.tally.problems
    assert [chain.fe.workers(), chain.middle.workers()] == others
    check_whole(chain, files)


def test_a_killed_intermediary_costs_requests_until_it_is_back(
    make_chain: MakeChain, files: dict[str, bytes]
) -> None:
    chain = make_chain()
    front = chain.fe.workers()
    with Load(chain.port, contents(files)) as load:
        load.wait(20)
        chain.middle.kill()
        load.wait_problem()
        chain.middle.start()
        load.wait(40)
    check_honest(load.tally)
    assert chain.fe.workers() == front
    check_whole(chain, files)


def test_a_frozen_backend_ends_requests_after_the_deadline(
    make_chain: MakeChain, files: dict[str, bytes]
) -> None:
    timeouts = "proxy_read_timeout 2s; proxy_send_timeout 2s;"
    chain = make_chain(
        Settings(options={"deadline_ms": "1000"}, location={"fe": timeouts, "is": timeouts}, buffer="64k")
    )
    front = chain.fe.workers()
    with Connection(chain.port, receive_buffer=4096) as slow:
        slow.send("/5000001.bin")
        start = slow.socket.recv(4096, socket.MSG_WAITALL)
        frozen = chain.be.workers()
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            answer = slow.answer_behind(start)
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
    problem, wrong = judge(answer, [files["/5000001.bin"]])
    assert (problem in {"short", "reset"}, wrong) == (True, "")
    assert chain.fe.workers() == front
    check_whole(chain, files)


@pytest.mark.parametrize("buffering", [False, True], ids=["unbuffered", "buffered"])
def test_clients_that_go_away_leave_nothing_behind(
    make_chain: MakeChain, files: dict[str, bytes], buffering: bool
) -> None:
    chain = make_chain(Settings(buffering=buffering))
    check_whole(chain, files)
    workers = [tier.workers() for tier in chain]
    numbers = random.Random(37)
    for _ in range(120):
        path = numbers.choice(LARGE)
        connection = Connection(chain.port, receive_buffer=numbers.choice((0, 4096, 65536)))
        connection.send(path)
        wanted = numbers.choice((0, 1, numbers.randrange(len(files[path])), numbers.randrange(8192)))
        got = connection.socket.recv(wanted, socket.MSG_WAITALL) if wanted else b""
        body = got.partition(b"\r\n\r\n")[2]
        assert files[path].startswith(body), path
        if numbers.random() < 0.5:  # a reset instead of an ordinary end
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    check_whole(chain, files)
    assert [tier.workers() for tier in chain] == workers


def test_slow_clients_do_not_hold_up_fast_ones(make_chain: MakeChain, files: dict[str, bytes]) -> None:
    chain = make_chain()
    path, rate = "/1048576.bin", 10 * 1024  # bytes per second
    slow = [Connection(chain.port, receive_buffer=4096) for _ in range(10)]
    for connection in slow:
        connection.send(path)
    received = [bytearray() for _ in slow]
    with Load(chain.port, contents(files), clients=4) as load:
        begun = time.monotonic()
        while (elapsed := time.monotonic() - begun) < 3:
            for connection, body in zip(slow, received, strict=True):
                if len(body) < elapsed * rate:
                    body += connection.socket.recv(1024)
        load.wait(20, seconds=10)
    assert (load.tally.wrong, load.tally.problems.total()) == ([], 0)
    for connection, body in zip(slow, received, strict=True):
        answer = connection.answer_behind(bytes(body))
        connection.close()
        assert (answer.problem, answer.body == files[path]) == ("", True)


def test_two_hundred_clients_at_once_get_the_bytes_of_the_file(
    make_chain: MakeChain, files: dict[str, bytes]
) -> None:
    chain = make_chain()
    paths = ("/1.bin", "/8192.bin", "/65536.bin", "/100000.bin", "/262144.bin")
    with Load(chain.port, contents(files, paths), clients=200) as load:
        load.wait(1500)
    assert (load.tally.wrong, load.tally.problems.total()) == ([], 0)


def begin(chain: Chain, path: str, head: int = 100_000) -> tuple[Connection, bytes]:
    """A transfer under way: the connection and its first `head` bytes; the client's small window holds the rest up."""
    connection = Connection(chain.port, receive_buffer=4096)
    connection.send(path)
    return connection, connection.socket.recv(head, socket.MSG_WAITALL)


@pytest.mark.parametrize("how", ["replaced", "deleted"])
def test_a_transfer_under_way_ends_with_the_file_it_began_with(
    make_chain: MakeChain, own_content: Path, files: dict[str, bytes], how: str
) -> None:
    chain = make_chain(content=own_content)
    path = "/5000001.bin"
    connection, start = begin(chain, path)
    target, fresh = own_content / path.lstrip("/"), random.Random(41).randbytes(len(files[path]))
    if how == "replaced":
        (own_content / "fresh").write_bytes(fresh)
        (own_content / "fresh").rename(target)
    else:
        target.unlink()
    answer = connection.answer_behind(start)
    connection.close()
    assert (answer.problem, answer.body == files[path]) == ("", True)
    later = get(chain.port, path)
    assert (later.status, later.body) == (200, fresh) if how == "replaced" else later.status == 404


def test_a_file_that_shrinks_cuts_transfers_short(
    make_chain: MakeChain, own_content: Path, files: dict[str, bytes]
) -> None:
    chain = make_chain(content=own_content)
    path = "/5000001.bin"
    connection, start = begin(chain, path)
    os.truncate(own_content / path.lstrip("/"), 1_000_000)
    answer = connection.answer_behind(start)
    connection.close()
    problem, wrong = judge(answer, [files[path]])
    assert (problem in {"short", "reset"}, wrong) == (True, "")
    later = get(chain.port, path)
    assert (later.status, later.body == files[path][:1_000_000]) == (200, True)


def test_files_that_change_under_load_are_old_new_or_an_error(
    make_chain: MakeChain, own_content: Path, files: dict[str, bytes]
) -> None:
    chain = make_chain(content=own_content)
    numbers = random.Random(43)
    allowed = {path: [files[path], numbers.randbytes(len(files[path]) // 2 + 77)] for path in LARGE}
    with Load(chain.port, allowed) as load:
        for turn in range(12):
            for path in LARGE:
                (own_content / "fresh").write_bytes(allowed[path][(turn + 1) % 2])
                (own_content / "fresh").rename(own_content / path.lstrip("/"))
            load.wait(10)
    assert (load.tally.wrong, load.tally.problems.total()) == ([], 0)


def test_a_killed_client_with_the_library_does_not_disturb_the_others(
    make_chain: MakeChain, files: dict[str, bytes]
) -> None:
    chain = make_chain()
    with Load(chain.middle.port, contents(files), clients=4) as load:
        load.wait(10)
        victims = chain.fe.workers()
        chain.fe.expected_deaths.update(victims)
        connection, _ = begin(chain, "/5000001.bin")
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
            assert wait_gone(victim)
        connection.close()
        chain.fe.wait_workers(victims)
        load.wait(30)
    assert (load.tally.wrong, load.tally.problems.total()) == ([], 0)
    check_whole(chain, files)
