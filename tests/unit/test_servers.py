"""The test servers without the library: every call and way of waiting gives the same bytes; errors are sentences."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from odb.errors import PlatformError, UsageError
from odb.servers import arguments, command
from odb.servers.client import Summary
from odb.servers.flags import FRESH, GATHER, INTO, KINDS, READINESS, SEND, WITHOUT_LOOP
from odb.servers.server import Server

PATIENCE = "--patience=20"


class Chain:
    """Servers in threads of this process."""

    def __init__(self) -> None:
        self._running: list[tuple[Server, threading.Thread]] = []

    def server(self, *words: str) -> str:
        """Starts one and returns its address."""
        parsed = arguments.parse(words)
        server, role = command._server(parsed, arguments.flags_of(parsed))
        thread = threading.Thread(target=server.run, args=(role,), daemon=True)
        thread.start()
        self._running.append((server, thread))
        return f"127.0.0.1:{server.port}"

    def end(self) -> None:
        for server, thread in reversed(self._running):
            server.stop()
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def chain() -> Iterator[Chain]:
    made = Chain()
    yield made
    made.end()


def ask(upstream: str, *words: str) -> Summary:
    parsed = arguments.parse(["fe", "--upstream", upstream, PATIENCE, *words])
    return command._client(parsed, arguments.flags_of(parsed)).run()


def kinds(chosen: Sequence[str] = KINDS) -> list[str]:
    return [f"--kind={kind}" for kind in chosen]


SIZES = ["--size=0", "--size=1", "--size=70001"]


@pytest.mark.parametrize("readiness", READINESS)
def test_every_way_of_waiting_serves_every_kind_of_request(chain: Chain, readiness: str) -> None:
    waiting = f"--readiness={readiness}"
    be = chain.server("be", "--port=0", waiting)
    relay = chain.server("is", "--port=0", "--upstream", be, waiting)
    summary = ask(relay, waiting, *kinds(), *SIZES, "--count=60", "--concurrency=3")
    assert summary.errors == []
    assert summary.ok == summary.requests == 60


@pytest.mark.parametrize("receive", FRESH + INTO)
def test_every_receive_call_gives_the_same_bytes(chain: Chain, receive: str) -> None:
    words = [f"--receive={receive}", "--buffer=5000", "--offset=100", "--receive-chunk=3000", "--touch=0.5"]
    be = chain.server("be", "--port=0", *words)
    relay = chain.server("is", "--port=0", "--upstream", be, *words)
    summary = ask(relay, *words, *kinds(("get", "echo", "digest", "range")), *SIZES, "--count=12")
    assert summary.errors == []


@pytest.mark.parametrize("send", SEND)
def test_every_send_call_gives_the_same_bytes(chain: Chain, send: str) -> None:
    words = [f"--send={send}", "--send-chunk=20000", "--head-chunk=10", "--send-buffer=16K"]
    be = chain.server("be", "--port=0", *words)
    relay = chain.server("is", "--port=0", "--upstream", be, *words)
    summary = ask(relay, *words, *kinds(("get", "echo", "digest", "range")), *SIZES, "--count=12")
    assert summary.errors == []


@pytest.mark.parametrize(
    "words",
    [
        ("--memory=mmap", "--buffers=3", "--recycle", "--offset=4095"),
        ("--receive=readv", "--send=writev", "--vectors=20", "--fill", "--buffer=8K"),
        ("--receive=recvmsg_into", "--send=sendmsg", "--vectors=3", "--touch=1", "--overwrite"),
        ("--buffer=1", "--receive-chunk=1", "--head-chunk=1"),
    ],
)
def test_memory_and_vectors_change_no_byte(chain: Chain, words: tuple[str, ...]) -> None:
    be = chain.server("be", "--port=0", *words)
    relay = chain.server("is", "--port=0", "--upstream", be, *words)
    summary = ask(relay, *words, *kinds(("get", "echo", "digest")), "--size=5000", "--count=6")
    assert summary.errors == []


def test_chunked_answers_pipelines_and_new_connections_are_checked_alike(chain: Chain) -> None:
    be = chain.server("be", "--port=0", "--chunked", "--send-chunk=1000")
    relay = chain.server("is", "--port=0", "--upstream", be)
    assert ask(relay, *kinds(), *SIZES, "--count=40", "--pipeline=5").errors == []
    assert ask(relay, *kinds(), *SIZES, "--count=20", "--close").errors == []


def test_wrong_bytes_are_an_error(chain: Chain) -> None:
    be = chain.server("be", "--port=0", "--seed=1")
    summary = ask(be, "--seed=2", "--size=100")
    assert (summary.ok, summary.requests) == (0, 1)
    assert summary.errors == ["get r0: other bytes than expected"]


def test_silence_is_a_stall_and_not_waited_for(chain: Chain) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        parsed = arguments.parse(
            ["fe", "--upstream", f"127.0.0.1:{silent.getsockname()[1]}", "--patience=0.2"]
        )
        summary = command._client(parsed, arguments.flags_of(parsed)).run()
    assert summary.stalled
    assert summary.errors == ["get r0: stalled"]


def test_relay_without_a_next_hop_says_so(chain: Chain) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    relay = chain.server("is", "--port=0", "--upstream", f"127.0.0.1:{port}")
    assert ask(relay).errors == ["get r0: status 502 instead of 200"]


def test_files_are_served_and_only_those_below_the_directory(chain: Chain, tmp_path: Path) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"a file")
    (folder.parent / "secret").write_bytes(b"no")
    for send in ("send", "sendfile", "splice"):
        be = chain.server("be", "--port=0", f"--directory={folder}", f"--send={send}")
        assert urllib.request.urlopen(f"http://{be}/file/a.txt", timeout=20).read() == b"a file"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{be}/file/../secret", timeout=20)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--send=sendall", "--readiness=epoll"], "--send sendall and --readiness epoll exclude each other"),
        (["--fill", "--receive=recv"], "--fill needs a receive call that fills the server's buffer"),
        (["--overwrite", "--receive=read"], "--overwrite needs memory that can be written"),
        (["--vectors=4"], "--vectors 4 has no effect on recv_into and send"),
        (["--touch=2"], "use a number from 0 to 1"),
        (["--buffer=0"], "use bytes from 1 to"),
        (["--offset=4096"], "use a number from 0 to 4095"),
        (["--receive=recvall"], "invalid choice"),
        (["--port=0"], "unrecognized arguments"),
        (["--upstream=nowhere"], "use HOST:PORT"),
    ],
)
def test_flags_that_make_no_sense_are_refused_with_a_remedy(words: list[str], says: str) -> None:
    with pytest.raises(UsageError, match=says.replace("(", r"\(")):
        arguments.flags_of(arguments.parse(["fe", "--upstream=127.0.0.1:1", *words]))


def test_every_combination_of_calls_is_either_refused_or_made() -> None:
    for send in SEND:
        for readiness in READINESS:
            parsed = arguments.parse(
                ["fe", "--upstream=127.0.0.1:1", f"--send={send}", f"--readiness={readiness}"]
            )
            if send == "sendall" and readiness not in WITHOUT_LOOP:
                with pytest.raises(UsageError):
                    arguments.flags_of(parsed)
            else:
                assert arguments.flags_of(parsed).send == send
    assert set(GATHER) < set(SEND)


def test_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        parsed = arguments.parse(["be", f"--port={port}"])
        with pytest.raises(PlatformError, match=f"--port {port}: cannot listen there"):
            command._server(parsed, arguments.flags_of(parsed))


def serve(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "odb.cli", "serve", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    )


@pytest.mark.parametrize("role", [[], ["be"], ["is"], ["fe"], ["batch"]])
def test_help_of_every_role_has_examples(role: list[str]) -> None:
    process = serve(*role, "--help")
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "example" in out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_server_says_its_port_and_ends_by_signal(number: int, code: int) -> None:
    process = serve("be", "--port=0")
    assert process.stdout is not None
    port = json.loads(process.stdout.readline())["port"]
    assert ask(f"127.0.0.1:{port}", "--size=100").ok == 1
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (code, "")


def test_client_fails_by_exit_code_and_says_why_in_json() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    process = serve("fe", f"--upstream=127.0.0.1:{port}")
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (1, "")
    assert json.loads(out)["errors"] == ["get r0: Connection refused"]


def test_batch_answers_each_line_and_survives_wrong_ones() -> None:
    process = serve("batch")
    assert process.stdin is not None and process.stdout is not None

    def say(line: str) -> dict[str, object]:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
        answer: dict[str, object] = json.loads(process.stdout.readline())
        return answer

    assert "is not a JSON list" in str(say("hello")["error"])
    assert "invalid choice" in str(say('["us"]')["error"])
    assert "cannot hold another one" in str(say('["batch"]')["error"])
    assert "no server to stop" in str(say('["stop", 1]')["error"])
    port = say('["be", "--port", "0"]')["port"]
    assert say(json.dumps(["fe", "--upstream", f"127.0.0.1:{port}", "--count", "3"]))["ok"] == 3
    assert say(json.dumps(["stop", port])) == {"stopped": port}
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
