"""Mode `standalone`, the accepting side and whole chains: who has the library makes no difference to anybody."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from odb.protocol import Hello
from tests.preload.harness import TROUBLE, Preload
from tests.preload.standalone import PATIENCE, Program, Scene
from tests.preload.test_chain import Chain, counters_of

WAYS = ("blocking", "select", "poll", "epoll", "edge")
HELLO = Hello(capabilities=0, channel_port=1).encode()
SIZE = 300_000


@pytest.fixture
def scene(preload: Preload) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(preload, stack)


def no_trouble(program: Program) -> None:
    counters = program.counters()
    assert not {name: counters[name] for name in TROUBLE if counters.get(name)}


@pytest.mark.parametrize(("client", "relay", "origin"), list(itertools.product([True, False], repeat=3)))
def test_mixture_of_roles_delivers_every_body_without_rules(
    scene: Scene, client: bool, relay: bool, origin: bool
) -> None:
    preload = scene.preload
    chain = Chain(preload, scene.stack)
    origin_port, origin_pid = chain.serve("origin", environment=scene.environment(origin))
    relay_port, relay_pid = chain.serve("relay", origin_port, environment=scene.environment(relay))
    outcome = preload.run("chain", "client", relay_port, environment=scene.environment(client))
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.count("bytes") == 24
    of_origin, of_relay = counters_of(preload, origin_pid), counters_of(preload, relay_pid)
    assert (of_origin.get("spans_sent", 0) > 0) == (origin and relay)
    assert (of_relay.get("spans_received", 0) > 0) == (origin and relay)
    assert (of_relay.get("spans_sent", 0) > 0) == (relay and client)
    assert not outcome.trouble


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("greeting", ["", "hello\n"])
@pytest.mark.parametrize("style", ["blocking", "nonblocking"])
def test_two_programs_that_know_nothing_of_each_other_speak_frames(
    scene: Scene, way: str, greeting: str, style: str
) -> None:
    server, port = scene.server(way, greeting, environment=scene.environment(True))
    words = [style, "greeting"] if greeting else [style]
    client = scene.client(port, SIZE, *words, environment=scene.environment(True))
    for _ in range(3):
        client.talk()
    assert client.counters()["streams_framed"] == 3
    assert server.counters()["spans_received"] > 0
    # Who speaks first cannot know: that direction stays classic.
    assert (server.counters()["spans_sent"] > 0) == (not greeting)
    no_trouble(server)
    no_trouble(client)


def exchange(port: int, parts: list[bytes], greeting: bytes = b"") -> bytes:
    """A classic client: sends part by part and the end; what comes back behind the greeting."""
    got = bytearray()
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if greeting:
            assert connection.recv(len(greeting), socket.MSG_WAITALL) == greeting
        for part in parts:
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        while part := connection.recv(65536):
            got += part
    return bytes(got)


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize("way", WAYS)
def test_classic_clients_get_their_bytes_back_however_much_they_look_like_frames(
    scene: Scene, way: str
) -> None:
    server, port = scene.server(way, environment=scene.environment(True))
    other_cookie = HELLO[:8] + bytes([HELLO[8] ^ 1]) + HELLO[9:]
    payloads = [
        *(HELLO[:length] + b"classic" for length in range(16)),
        *(HELLO[:length] for length in range(16)),
        other_cookie,
        b"x" + HELLO * 100,
        b"GET / HTTP/1.1\r\n\r\n" + HELLO + bytes(70000) + HELLO,
    ]
    for payload in payloads:
        assert exchange(port, [payload]) == payload
        assert exchange(port, bytewise(payload[:40]) + [payload[40:]]) == payload
    assert server.counters()["streams_framed"] == 0
    assert server.counters()["streams_classic"] == 2 * len(payloads)
    no_trouble(server)


@pytest.mark.parametrize("way", WAYS)
def test_client_that_waits_for_an_answer_to_half_a_hello_gets_it(scene: Scene, way: str) -> None:
    """Nothing may hang because its first bytes could become a HELLO: they count as classic after detect_ms."""
    server, port = scene.server(way, environment=scene.environment(True, detect_ms="50"))
    for length in (1, 2, 8, 15):
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            connection.sendall(HELLO[:length])
            assert connection.recv(length, socket.MSG_WAITALL) == HELLO[:length]
            connection.sendall(HELLO[length:])
            assert connection.recv(len(HELLO) - length, socket.MSG_WAITALL) == HELLO[length:]
    assert server.counters()["streams_framed"] == 0


@pytest.mark.parametrize("way", WAYS)
def test_server_that_speaks_first_is_heard_by_clients_that_say_nothing(scene: Scene, way: str) -> None:
    server, port = scene.server(way, "hello\n", environment=scene.environment(True))
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as silent:
        assert silent.recv(6, socket.MSG_WAITALL) == b"hello\n"
    assert exchange(port, bytewise(b"abc"), b"hello\n") == b"abc"
    assert exchange(port, [HELLO[:5]], b"hello\n") == HELLO[:5]
    no_trouble(server)


@pytest.mark.parametrize("way", WAYS)
def test_half_open_and_broken_connections_disturb_nobody(scene: Scene, way: str) -> None:
    server, port = scene.server(way, environment=scene.environment(True))
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE)) for _ in range(5)
        ]
        for connection, begun in zip(silent[1:], (b"", b"x", HELLO[:7], HELLO), strict=True):
            connection.sendall(begun)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()  # resets
        assert exchange(port, []) == b""
        assert exchange(port, [b"still here"]) == b"still here"
        client = scene.client(port, SIZE, environment=scene.environment(True))
        client.talk()
        assert client.counters()["streams_framed"] == 1
        silent[0].sendall(b"late")
        assert silent[0].recv(4, socket.MSG_WAITALL) == b"late"
    assert server.process.poll() is None
