"""Echo servers, clients and discovery services for the tests of mode `standalone`."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import IPv6Address
from pathlib import Path

from odb import stats
from odb.protocol import Answer, FrameType, Header, Query
from tests.ports import free_port
from tests.preload.harness import Preload

HERE = Path(__file__).resolve().parent
PATIENCE = 20.0


class Program:
    """A program of this directory under one environment, spoken to by lines. Ends with the test."""

    def __init__(
        self,
        stack: ExitStack,
        name: str,
        *arguments: object,
        environment: dict[str, str],
        prefix: tuple[str, ...] = (),
    ) -> None:
        """prefix: words in front of the command. They must exec it, so that its pid is the process's."""
        self.statistics = _statistics_of(environment)
        self.process = stack.enter_context(
            subprocess.Popen(
                [*prefix, sys.executable, str(HERE / name), *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
        )
        stack.callback(self.process.kill)

    def line(self) -> str:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], PATIENCE)[0], "the program says nothing"
        return self.process.stdout.readline().rstrip("\n")

    def ask(self, text: str = "") -> str:
        """Sends a line and returns the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.line()

    def talk(self) -> int:
        """One connection of a client that must work; the milliseconds that connect() took."""
        word, _, took = self.ask().partition(" ")
        assert word == "ok", word
        return int(took)

    def counters(self) -> dict[str, int]:
        return stats.read(self.statistics, self.process.pid).totals() if self.statistics else {}

    def wait_for(self, name: str, value: int) -> None:
        """Until a counter has reached a value."""
        deadline = time.monotonic() + PATIENCE
        while self.counters().get(name, 0) < value:
            assert time.monotonic() < deadline, f"{name} stays below {value}: {self.counters()}"
            select.select([], [], [], 0.005)


def _statistics_of(environment: dict[str, str]) -> Path | None:
    if "ODB_OPTIONS" not in environment:
        return None
    lines = Path(environment["ODB_OPTIONS"]).read_text().splitlines()
    return next(Path(line.partition(" = ")[2]) for line in lines if line.startswith("stats_dir"))


class Scene:
    """Programs of one test, with a discovery port of its own."""

    def __init__(self, preload: Preload, stack: ExitStack) -> None:
        self.preload = preload
        self.stack = stack
        self.discovery_port = free_port()

    def environment(self, odb: bool, registry: str = "statistics", **options: str) -> dict[str, str]:
        """registry: a directory below the test's; programs with different ones find each other by asking only."""
        if not odb:
            return self.preload.plain_environment()
        directory = self.preload.directory / registry
        directory.mkdir(exist_ok=True)
        return self.preload.environment(
            mode="standalone",
            stats_dir=str(directory),
            discovery_port=str(self.discovery_port),
            **options,
        )

    def server(self, way: str, *greeting: str, environment: dict[str, str]) -> tuple[Program, int]:
        program = Program(self.stack, "standalone_server.py", way, *greeting, environment=environment)
        return program, int(program.line().removeprefix("port "))

    def client(self, port: int, size: int, *words: str, environment: dict[str, str]) -> Program:
        return Program(
            self.stack, "standalone_client.py", "127.0.0.1", port, size, *words, environment=environment
        )


@contextmanager
def listening(port: int, handle: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """Serves each connection to 127.0.0.1:`port` (0: any) in a thread of its own, without the library."""
    listener = socket.create_server(("127.0.0.1", port))

    def handle_and_close(connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):
            handle(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=handle_and_close, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def read_query(connection: socket.socket) -> Query:
    data = connection.recv(28, socket.MSG_WAITALL)
    header = Header.decode(data[:8])
    assert header.type is FrameType.QUERY
    return Query.decode(data[8:])


def ask_service(port: int, address: IPv6Address, asked: int) -> bool:
    """Asks a discovery service on 127.0.0.1, as a connecting side does."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
        connection.sendall(Query(address, asked).encode())
        data = connection.recv(32, socket.MSG_WAITALL)
        answer = Answer.decode(data[8:])
        assert (answer.address, answer.port) == (address, asked)
        return answer.framed
