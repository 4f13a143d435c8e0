"""Everyday programs under `odb run`: they behave as without it, and where both ends speak ODB the payload bypasses."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
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
    assert counters["serve_bytes"] + counters["push_bytes"] > 1_000_000
    assert counters["protocol_errors"] == counters["serve_failures"] == counters["resets"] == 0


def test_files_that_python_reads_and_sends_are_not_read(
    odb_run: Launch, serve: Callable[[Sequence[str]], Server], content: Path, statistics: Path
) -> None:
    server = serve(odb_run("listen=127.0.0.1", "capture=file,memory,reads", "settled_ms=0"))
    assert_all_files_arrive(odb_run(f"connect=127.0.0.1:{server.port}"), server, content)
    counters = stats.read(statistics, server.process.pid).totals()
    assert counters["reads_mapped"] > 10
    assert counters["materialised_bytes"] < 500_000 < counters["span_bytes_sent"]
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


INPUTS = {
    "cat": ["cat"],
    "cat that is told to stop": ["head", "-c", "100000"],
    "sort": ["sort"],
    "python": [sys.executable, "-c", "import sys; print(len(sys.stdin.buffer.read())); sys.exit(5)"],
}


@pytest.mark.parametrize("command", INPUTS.values(), ids=INPUTS.keys())
def test_standard_input_goes_through_as_without_odb(odb_run: Launch, command: list[str]) -> None:
    given = random.Random(3).randbytes(300_000).hex().encode()

    def outcome(launcher: Sequence[str]) -> tuple[int, bytes, bytes]:
        done = subprocess.run([*launcher, *command], input=given, capture_output=True, timeout=40)
        return done.returncode, done.stdout, done.stderr

    assert outcome(odb_run("listen=127.0.0.1", "connect=127.0.0.1")) == outcome([])


CURLS = {
    "an answer to standard output": (0, ["{url}262144"]),
    "nothing there": (22, ["--fail", "{url}none"]),
    "no such host": (6, ["http://nowhere.invalid/"]),
    "a scheme nobody knows": (1, ["odb://127.0.0.1/"]),
    "too slow": (28, ["--max-time", "0.2", "http://127.0.0.1:{deaf}/"]),
    "no permission to write": (23, ["--output", "/proc/none", "{url}262144"]),
    "heads": (0, ["--head", "--dump-header", "/dev/null", "{url}1"]),
    "several": (
        0,
        [
            "--parallel",
            "--no-progress-meter",
            "{url}262144",
            "{url}65536",
            "-o",
            "/dev/null",
            "-o",
            "/dev/null",
        ],
    ),
}


@pytest.mark.parametrize("name", CURLS)
def test_curl_ends_and_speaks_as_without_odb(
    odb_run: Launch, serve: Callable[[Sequence[str]], Server], name: str
) -> None:
    expected, words = CURLS[name]
    server = serve(odb_run("listen=127.0.0.1"))
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        arguments = [word.format(url=server.url, deaf=deaf.getsockname()[1]) for word in words]
        arguments = ["--silent", "--show-error", "--noproxy", "*", *arguments]

        def outcome(launcher: Sequence[str]) -> tuple[int, bytes, bytes]:
            done = subprocess.run(
                [*launcher, "curl", *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=40
            )
            # How long it waited, and when it was answered, is never the same.
            error = re.sub(rb"after \d+ m.*", b"", done.stderr)
            return done.returncode, re.sub(rb"(?m)^Date: .*$", b"", done.stdout), error

        with_odb = outcome(odb_run(f"connect=127.0.0.1:{server.port}"))
        assert with_odb == outcome([])
        assert with_odb[0] == expected


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_the_http_server_as_without_odb(
    odb_run: Launch, content: Path, ending: signal.Signals
) -> None:
    def outcome(launcher: Sequence[str]) -> tuple[int, str, float]:
        """Status, the last words, and how long the end took."""
        command = [*launcher, sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
        with subprocess.Popen(
            [*command, "--directory", str(content)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
        ) as process:
            assert process.stdout is not None
            port = re.search(r"port (\d+)", process.stdout.readline())
            assert port is not None
            assert fetch([], f"http://127.0.0.1:{port[1]}/65536").returncode == 0
            process.send_signal(ending)
            begun = time.monotonic()
            last = [line for line in process.stdout if "GET" not in line]
            return process.wait(20), "".join(last), time.monotonic() - begun

    status, words, seconds = outcome(odb_run("listen=127.0.0.1"))
    assert (status, words) == outcome([])[:2]
    assert seconds < 3


def test_an_interrupted_curl_ends_by_the_signal(odb_run: Launch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        command = ["curl", "--silent", f"http://127.0.0.1:{port}/"]
        with subprocess.Popen([*odb_run(f"connect=127.0.0.1:{port}"), *command]) as process:
            accepted, _ = deaf.accept()
            with accepted:
                process.send_signal(signal.SIGINT)
                assert process.wait(20) == -signal.SIGINT


def test_a_terminal_stays_a_terminal(odb_run: Launch) -> None:
    """Ctrl-C at a terminal reaches the program, and its process is the one that was started."""
    leader, follower = pty.openpty()
    script = "import os, sys; print(os.isatty(0), os.isatty(1), os.getpid(), flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [*odb_run("listen=127.0.0.1"), sys.executable, "-c", script],
        stdin=follower,
        stdout=follower,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:
        os.close(follower)
        said = b""
        while b"\n" not in said:
            said += os.read(leader, 1000)
        assert said.split() == [b"True", b"True", str(process.pid).encode()]
        os.write(leader, b"\x03")
        assert process.wait(20) == -signal.SIGINT
        assert process.stderr is not None
        assert b"KeyboardInterrupt" in process.stderr.read()
    os.close(leader)
