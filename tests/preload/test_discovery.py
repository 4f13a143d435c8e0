"""Mode `standalone`, the connecting side: whom it speaks frames to, and that finding out costs nobody anything."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv6Address

import pytest

from odb.protocol import Answer, Query
from tests.namespaces import Network
from tests.preload.harness import Preload
from tests.preload.standalone import PATIENCE, Program, Scene, ask_service, listening, read_query

LOOPBACK = IPv6Address("::ffff:127.0.0.1")
SIZE = 100_000
QUICK = 400  # milliseconds: less than the second after which silence counts as no


@pytest.fixture
def scene(preload: Preload) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(preload, stack)


class ClassicEcho:
    """An echo server without the library that remembers every byte it was sent."""

    def __init__(self, stack: ExitStack) -> None:
        self.heard = bytearray()
        self._lock = threading.Lock()
        listener = stack.enter_context(listening(0, self._echo))
        self.port: int = listener.getsockname()[1]

    def _echo(self, connection: socket.socket) -> None:
        while got := connection.recv(65536):
            with self._lock:
                self.heard += got
            connection.sendall(got)

    def expect(self, times: int) -> None:
        """Nothing but payloads: no frame."""
        assert bytes(self.heard) == bytes(number * 31 % 251 for number in range(SIZE)) * times


def silent(connection: socket.socket) -> None:
    while connection.recv(100):
        pass


def answers(make: Callable[[Query], bytes]) -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        connection.sendall(make(read_query(connection)))
        silent(connection)

    return handle


def resets(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


SERVICES: dict[str, Callable[[socket.socket], None]] = {
    "silent": silent,
    "no": answers(lambda query: Answer(query.address, query.port, False, 60000).encode()),
    "another port": answers(lambda query: Answer(query.address, query.port ^ 1, True, 60000).encode()),
    "another address": answers(
        lambda query: Answer(IPv6Address(int(query.address) ^ 1), query.port, True, 60000).encode()
    ),
    "half": answers(lambda query: Answer(query.address, query.port, True, 60000).encode()[:20]),
    "nonsense": answers(lambda query: b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "question": answers(lambda query: query.encode() + bytes(8)),
    "closes": lambda connection: None,
    "resets": resets,
}


@pytest.mark.parametrize("service", [*SERVICES, "refused"])
def test_peer_that_is_not_known_to_speak_odb_never_sees_a_frame(scene: Scene, service: str) -> None:
    echo = ClassicEcho(scene.stack)
    if service != "refused":
        scene.stack.enter_context(listening(scene.discovery_port, SERVICES[service]))
    client = scene.client(echo.port, SIZE, environment=scene.environment(True))
    times = [client.talk()]
    if service != "half":  # of which a second of silence makes a no
        client.wait_for("discovery_answers_no", 1)
    times += [client.talk() for _ in range(3)]
    assert max(times) < QUICK
    counters = client.counters()
    assert counters["discovery_queries"] == 1
    assert counters["discovery_answers_yes"] == counters["streams_framed"] == counters["spans_sent"] == 0
    echo.expect(4)


def test_full_backlog_of_the_discovery_port_delays_nothing(scene: Scene) -> None:
    """As behind a packet filter that drops: the query never connects."""
    echo = ClassicEcho(scene.stack)
    deaf = scene.stack.enter_context(socket.create_server(("127.0.0.1", scene.discovery_port), backlog=0))
    for _ in range(4):
        waiting = scene.stack.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(deaf.getsockname())
    client = scene.client(echo.port, SIZE, environment=scene.environment(True))
    assert max(client.talk() for _ in range(5)) < QUICK
    client.wait_for("discovery_answers_no", 1)
    assert client.talk() < QUICK
    echo.expect(6)


def test_peer_that_answers_yes_is_spoken_to_in_frames_from_the_next_connection_on(scene: Scene) -> None:
    """Two registries, so that the loopback interface is like any other."""
    server, port = scene.server("epoll", environment=scene.environment(True, "there"))
    client = scene.client(port, SIZE, environment=scene.environment(True, "here"))
    client.talk()
    client.wait_for("discovery_answers_yes", 1)
    client.talk()
    assert client.counters()["streams_framed"] == 1
    assert server.counters()["spans_received"] > 0
    assert server.counters()["discovery_served"] == 1


@pytest.mark.parametrize("networks", ["", "10.0.0.0/8"])
def test_servers_outside_the_discovery_networks_are_not_asked(scene: Scene, networks: str) -> None:
    echo = ClassicEcho(scene.stack)
    client = scene.client(echo.port, SIZE, environment=scene.environment(True, discovery_networks=networks))
    client.talk()
    client.talk()
    assert client.counters()["discovery_queries"] == 0
    echo.expect(2)


def test_port_that_passes_from_odb_to_a_classic_server_gets_no_frames(scene: Scene) -> None:
    server, port = scene.server("epoll", environment=scene.environment(True))
    client = scene.client(port, SIZE, environment=scene.environment(True))
    client.talk()
    assert client.counters()["streams_framed"] == 1
    server.process.kill()
    server.process.wait()
    assert client.ask() == "ECONNREFUSED"
    heard = bytearray()

    def echo(connection: socket.socket) -> None:
        while got := connection.recv(65536):
            heard.extend(got)
            connection.sendall(got)

    with listening(port, echo):
        client.talk()
    assert client.counters()["streams_framed"] == 1
    assert bytes(heard) == bytes(number * 31 % 251 for number in range(SIZE))


def test_refused_connections_are_refused_as_ever(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for words in ((), ("nonblocking",)):
        client = scene.client(port, SIZE, *words, environment=scene.environment(True))
        assert [client.ask() for _ in range(3)] == ["ECONNREFUSED"] * 3


def test_service_says_yes_for_listening_ports_of_programs_with_odb_only(scene: Scene) -> None:
    server, port = scene.server("epoll", environment=scene.environment(True))
    _, classic = scene.server("epoll", environment=scene.environment(False))
    asked = [
        ask_service(scene.discovery_port, LOOPBACK, port),
        ask_service(scene.discovery_port, LOOPBACK, classic),
        ask_service(scene.discovery_port, LOOPBACK, 1),
        ask_service(scene.discovery_port, IPv6Address("::ffff:127.0.0.2"), port),
    ]
    assert asked == [True, False, False, False]
    with socket.create_connection(("127.0.0.1", scene.discovery_port), PATIENCE) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 3)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(100) == b""
    assert ask_service(scene.discovery_port, LOOPBACK, port)
    assert server.counters()["protocol_errors"] == 1


def test_service_outlives_the_program_that_ran_it(scene: Scene) -> None:
    first, first_port = scene.server("epoll", environment=scene.environment(True))
    second, second_port = scene.server("epoll", environment=scene.environment(True))
    assert ask_service(scene.discovery_port, LOOPBACK, second_port)
    first.process.kill()
    first.process.wait()
    assert ask_service(scene.discovery_port, LOOPBACK, second_port)
    assert not ask_service(scene.discovery_port, LOOPBACK, first_port)
    assert second.process.poll() is None


def test_hosts_find_each_other(scene: Scene, network: Network) -> None:
    """Two network namespaces: the client asks the server's host, and speaks frames when the answer is there."""
    near, far = network.namespace(), network.namespace()
    near_address, far_address = network.link(near, far)
    assert near_address != far_address

    server = Program(
        scene.stack,
        "standalone_server.py",
        "epoll",
        environment={**scene.environment(True, "there"), "ADDRESS": far_address},
        prefix=("ip", "netns", "exec", far.name),
    )
    port = int(server.line().removeprefix("port "))
    client = Program(
        scene.stack,
        "standalone_client.py",
        far_address,
        port,
        SIZE,
        environment=scene.environment(True, "here"),
        prefix=("ip", "netns", "exec", near.name),
    )
    client.talk()
    client.wait_for("discovery_answers_yes", 1)
    client.talk()
    assert client.counters()["streams_framed"] == 1
    assert server.counters()["spans_received"] > 0
