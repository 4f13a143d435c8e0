"""Request bodies reach a BE in Python unchanged, with and without the library, and so do answers it makes up as it goes."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from odb import stats
from tests.e2e.chain import ROOT, TIERS, Settings, odb_run
from tests.e2e.client import Connection, get
from tests.e2e.conftest import MakeChain
from tests.e2e.echo_server import pattern

SIZES = (0, 1, 4095, 4096, 8191, 8192, 16384, 65536, 100000, 262144, 1048576)

StartEcho = Callable[[bool], int]


@pytest.fixture
def start_echo(library: Path, open_folder: Path) -> Iterator[StartEcho]:
    """start_echo(with the library?) -> its port. Its statistics are in open_folder/statistics."""
    with ExitStack() as stack:

        def start(with_library: bool) -> int:
            command = [sys.executable, "-m", "tests.e2e.echo_server"]
            if with_library:
                command = [*odb_run(library, open_folder, {"listen": "127.0.0.1"}), *command]
            process = stack.enter_context(
                subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
                )
            )
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
            assert process.stdout is not None
            return int(process.stdout.readline())

        yield start


def check_uploads(port: int) -> None:
    numbers = random.Random(17)
    with Connection(port) as kept:
        for size in (*SIZES, *SIZES[::-1]):
            body = numbers.randbytes(size)
            counted = kept.get("/count", method="POST", body=body, headers={"Content-Length": str(size)})
            assert counted.whole, (size, counted.problem)
            assert counted.body == f"{size} {hashlib.sha256(body).hexdigest()}".encode(), size
            echoed = kept.get("/echo", method="PUT", body=body, headers={"Content-Length": str(size)})
            assert (echoed.whole, echoed.body == body) == (True, True), size


def check_chunked_upload(port: int) -> None:
    body = random.Random(19).randbytes(300_000)
    with Connection(port) as connection:
        connection.send("/echo", method="POST", headers={"Transfer-Encoding": "chunked"})
        for start in range(0, len(body), 70_000):
            part = body[start : start + 70_000]
            connection.socket.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        connection.socket.sendall(b"0\r\n\r\n")
        answer = connection.answer()
        assert (answer.status, answer.problem, answer.body == body) == (200, "", True)


@pytest.mark.parametrize("request_buffering", [True, False], ids=["stored", "streamed"])
@pytest.mark.parametrize(
    "libraries",
    [set(), {"fe", "is"}, {"fe", "is", "be"}, {"is", "be"}, {"be"}],
    ids=lambda tiers: "+".join(tier for tier in TIERS if tier in tiers) or "vanilla",
)
def test_uploads_reach_the_backend_unchanged(
    make_chain: MakeChain, start_echo: StartEcho, libraries: set[str], request_buffering: bool
) -> None:
    port = start_echo("be" in libraries)
    settings = Settings(libraries=frozenset(libraries), request_buffering=request_buffering)
    chain = make_chain(settings, origin_port=port)
    check_uploads(chain.port)
    check_chunked_upload(chain.port)


@pytest.mark.parametrize("buffering", [False, True], ids=["unbuffered", "buffered"])
def test_chunked_answers_arrive_unchanged(
    make_chain: MakeChain, start_echo: StartEcho, buffering: bool
) -> None:
    chain = make_chain(Settings(buffering=buffering), origin_port=start_echo(True))
    for size in SIZES:
        for chunk in (1000, 8192, 65536, 100_000):
            if size // chunk > 100:
                continue
            answer = get(chain.port, f"/chunked/{size}/{chunk}")
            assert (answer.status, answer.problem) == (200, ""), (size, chunk)
            assert answer.body == pattern(size), (size, chunk)


def test_uploads_bypass_the_intermediary(
    make_chain: MakeChain, start_echo: StartEcho, open_folder: Path
) -> None:
    chain = make_chain(Settings(request_buffering=True), origin_port=start_echo(True))
    body = random.Random(23).randbytes(1 << 20)
    for _ in range(5):
        assert get(chain.port, "/count", method="POST", body=body).status == 200
    front, middle = chain.fe.statistics(), chain.middle.statistics()
    backend = stats.read(open_folder / "statistics").totals()
    assert front["payload_bytes_captured"] > 4 * len(body)
    assert middle["span_bytes_sent"] > 4 * len(body)
    assert backend["span_bytes_received"] > 4 * len(body)
