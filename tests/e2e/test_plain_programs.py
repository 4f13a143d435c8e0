"""Everyday programs under `odb run`: they behave as without it, and where both ends speak ODB the payload bypasses."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from odb import stats

SIZES = (0, 1, 4095, 4096, 8192, 65536, 262144, 3_000_001)

Launch = Callable[..., list[str]]


@dataclass(frozen=True)
class Server:
    """A `python3 -m http.server` on loopback. `url` ends with a slash."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@pytest.fixture
def statistics(tmp_path: Path) -> Path:
    return tmp_path / "statistics"


@pytest.fixture
def odb_run(library: Path, statistics: Path) -> Launch:
    """odb_run("listen=127.0.0.1", ...) -> the words before the command."""

    def words(*assignments: str) -> list[str]:
        settings = [word for each in (f"stats_dir={statistics}", *assignments) for word in ("--set", each)]
        return [sys.executable, "-m", "odb.cli", "run", "--library", str(library), *settings, "--"]

    return words


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of files, each named after its size."""
    folder = tmp_path_factory.mktemp("content")
    numbers = random.Random(7)
    for size in SIZES:
        (folder / str(size)).write_bytes(numbers.randbytes(size))
    return folder


@pytest.fixture
def serve(content: Path) -> Iterator[Callable[[Sequence[str]], Server]]:
    """serve(launcher words) -> a server of `content`, answering; it is ended by its pid after the test."""
    with ExitStack() as stack:

        def start(launcher: Sequence[str]) -> Server:
            command = [*launcher, sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
            process = subprocess.Popen(
                [*command, "--directory", str(content)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            assert process.stdout is not None
            stack.callback(process.stdout.close)
            line = process.stdout.readline()  # printed once it listens
            port = re.search(r"port (\d+)", line)
            assert port is not None, f"the server did not start: {line!r}"
            return Server(process, int(port[1]))

        yield start


def fetch(launcher: Sequence[str], url: str) -> subprocess.CompletedProcess[bytes]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = [*launcher, "curl", "--silent", "--show-error", "--max-time", "20", "--noproxy", "*", url]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=40)


def assert_all_files_arrive(launcher: Sequence[str], server: Server, content: Path) -> None:
    for size in SIZES:
        done = fetch(launcher, f"{server.url}{size}")
        expected = (content / str(size)).read_bytes()
        assert (done.returncode, done.stderr, len(done.stdout)) == (0, b"", size)
        assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(expected).digest()


COMMANDS = {
    "pipeline": ["sh", "-c", "seq 1 20000 | sort -r | tail -n 3; exit 3"],
    "here document and subshell": ["sh", "-c", "(cat <<END\nhello\nEND\n) && ! false"],
    "standard error": ["sh", "-c", "echo out; echo err >&2; exit 1"],
    "death by a signal": ["sh", "-c", "kill -TERM $$"],
    "real crash": [sys.executable, "-c", "import ctypes; ctypes.string_at(8)"],
    "threads and large blocks": [
        sys.executable,
        "-c",
        "from concurrent.futures import ThreadPoolExecutor as P;"
        "print(sum(map(len, P(8).map(lambda n: bytes(n * 4096) * 3, range(200)))))",
    ],
    "children of children": [
        sys.executable,
        "-c",
        "import subprocess as s; print(s.check_output(['sh', '-c', 'echo $((6 * 7))']).decode())",
    ],
    "socket pair with large writes": [
        sys.executable,
        "-c",
        "import socket, threading as t; a, b = socket.socketpair(); d = bytes(range(256)) * 8192;"
        "w = t.Thread(target=lambda: (a.sendall(d), a.close())); w.start();"
        "print(b''.join(iter(lambda: b.recv(70000), b'')) == d)",
    ],
    "missing file": ["cat", "/no/such/file"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_program_behaves_as_without_odb(odb_run: Launch, command: list[str]) -> None:
    def outcome(launcher: Sequence[str]) -> tuple[int, bytes, bytes]:
        done = subprocess.run(
            [*launcher, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=40,
            env={**os.environ, "LC_ALL": "C"},
        )
        return done.returncode, done.stdout, done.stderr

    assert outcome(odb_run("listen=127.0.0.1")) == outcome([])


def test_curl_under_odb_fetches_from_a_plain_server(
    odb_run: Launch, serve: Callable[[Sequence[str]], Server], content: Path
) -> None:
    assert_all_files_arrive(odb_run(), serve([]), content)


def test_curl_under_odb_reports_a_refused_connection_as_without(
    odb_run: Launch, serve: Callable[..., Server]
) -> None:
    server = serve([])
    server.process.terminate()
    server.process.wait(20)
    assert fetch(odb_run(), server.url).returncode == fetch([], server.url).returncode == 7


def test_server_under_odb_serves_plain_clients(
    odb_run: Launch, serve: Callable[[Sequence[str]], Server], content: Path
) -> None:
    server = serve(odb_run("listen=127.0.0.1"))
    assert "libodb.so" in Path(f"/proc/{server.process.pid}/maps").read_text()
    assert_all_files_arrive([], server, content)


def test_payload_bypasses_the_stream_where_both_ends_speak_odb(
    odb_run: Launch, serve: Callable[[Sequence[str]], Server], content: Path, statistics: Path
) -> None:
    server = serve(odb_run("listen=127.0.0.1"))
    assert_all_files_arrive(odb_run(f"connect=127.0.0.1:{server.port}"), server, content)
    counters = stats.read(statistics, server.process.pid).totals()
    assert counters["payloads_captured"] > 0
    assert counters["span_bytes_sent"] > 1_000_000
    assert counters["serve_bytes"] > 1_000_000
    assert counters["protocol_errors"] == counters["serve_failures"] == counters["resets"] == 0


def test_statistics_of_a_program_go_when_it_ends(odb_run: Launch, statistics: Path) -> None:
    done = subprocess.run(
        [*odb_run(), "sh", "-c", f"ls {statistics}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert done.returncode == 0, done.stderr
    assert stats.read(statistics).pages == ()
    assert done.stdout.split(), "the running program was not to be seen"
    assert list(statistics.iterdir()) == []
