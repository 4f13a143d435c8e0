"""redis as a bystander under `odb run`: it forks to save, replicates, and restarts from its file, with what it was given."""

from __future__ import annotations

import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.chain import missing_tools
from tests.e2e.others import Other, new_port, program

KEYS = 48
RULES = {
    "no rules": {},
    "ruled ports": {"listen": "127.0.0.1", "connect": "127.0.0.1"},
}


class Client:
    """Speaks to a redis in its protocol, over a plain socket."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, *words: bytes | str | int) -> None:
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self._socket.sendall(
            b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        )

    def wait_loaded(self) -> None:
        while True:
            self.send("PING")
            if self._file.readline() == b"+PONG\r\n":
                return

    def answer(self) -> bytes:
        line = self._file.readline().rstrip(b"\r\n")
        assert not line.startswith(b"-"), line
        if not line.startswith(b"$"):
            return line[1:]
        return self._file.read(int(line[1:]) + 2)[:-2]

    def ask(self, *words: bytes | str | int) -> bytes:
        self.send(*words)
        return self.answer()


@pytest.fixture
def values() -> dict[str, bytes]:
    numbers = random.Random(47)
    return {
        f"key {number}": numbers.randbytes(numbers.choice((10, 5000, 70_000, 400_000)))
        for number in range(KEYS)
    }


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def start(folder: Path, library: Path, options: dict[str, str], *more: object) -> Other:
    port = new_port(folder)
    words = [
        "--port",
        port,
        "--bind",
        "127.0.0.1",
        "--dir",
        folder,
        "--save",
        "",
        "--repl-diskless-sync-delay",
        0,
        *more,
    ]
    return Other(folder, port, [program("redis-server"), *map(str, words)], library=library, options=options)


def check(port: int, values: dict[str, bytes]) -> None:
    with Client(port) as client:
        for key in values:  # all questions first, then all answers
            client.send("GET", key)
        for key, value in values.items():
            assert client.answer() == value, key


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES.keys())
def test_redis_saves_replicates_and_restarts_with_its_values(
    open_folder: Path, library: Path, stack: ExitStack, values: dict[str, bytes], rules: dict[str, str]
) -> None:
    missing = missing_tools("redis-server", "redis-cli")
    if missing:
        pytest.skip(f"{missing} is not installed")
    first = stack.enter_context(start(open_folder / "first", library, rules))
    with Client(first.port) as client:
        for key, value in values.items():
            assert client.ask("SET", key, value) == b"OK"
        check(first.port, values)
        second = stack.enter_context(
            start(open_folder / "second", library, rules, "--replicaof", f"127.0.0.1 {first.port}")
        )
        assert client.ask("SET", "last", b"x" * 300_000) == b"OK"
        values["last"] = b"x" * 300_000
        with Client(second.port) as other:
            while b"master_link_status:up" not in other.ask("INFO", "replication"):
                continue
        assert client.ask("WAIT", 1, 20_000) == b"1"
        check(second.port, values)
        saved = client.ask("LASTSAVE")
        assert client.ask("BGSAVE").startswith(b"Background saving")
        for key in list(values)[:10]:
            values[key] = values[key][::-1]
            client.ask("SET", key, values[key])
        while b"rdb_bgsave_in_progress:1" in client.ask("INFO", "persistence"):
            continue
        assert b"rdb_last_bgsave_status:ok" in client.ask("INFO", "persistence")
        assert int(client.ask("LASTSAVE")) >= int(saved)
        assert client.ask("SAVE") == b"OK"
    check(first.port, values)
    third = open_folder / "third"
    port = new_port(third)
    (third / "dump.rdb").write_bytes((open_folder / "first" / "dump.rdb").read_bytes())
    command = [program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(third)]
    stack.enter_context(Other(third, port, command, library=library, options=rules))
    with Client(port) as client:
        client.wait_loaded()
    check(port, values)
    through = subprocess.run(
        [program("redis-cli"), "-p", str(port), "dbsize"], capture_output=True, text=True, timeout=20
    )
    assert through.stdout.split() == [str(KEYS + 1)]
