"""Programs that were not made for this: they do their work with the library loaded, as servers, clients and neither."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from odb import stats
from tests.ports import free_port
from tests.preload.harness import EVERYWHERE, TROUBLE, Preload

SIZES = [1, 5000, 65536, 700_001, 3_000_000]

ASYNCIO = """
import asyncio, hashlib, os
body = bytes(range(256)) * 8192
async def answer(reader, writer):
    size = int(await reader.readline())
    writer.write(b"%d\\n" % size)
    writer.write(body[:size])
    await writer.drain()
    writer.write_eof()
    await reader.read()
    writer.close()
async def ask(port, size):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"%d\\n" % size)
    length = int(await reader.readline())
    got = await reader.readexactly(length)
    assert await reader.read() == b""
    writer.close()
    return hashlib.sha256(got).hexdigest() == hashlib.sha256(body[:size]).hexdigest()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(await asyncio.gather(*[ask(port, size) for size in [1, 4096, 100_000, 2_000_000] * 5]))
    print("end", flush=True)
    input()
asyncio.run(main())
"""

THREADED = """
import hashlib, socketserver, socket, threading
body = bytes(range(256)) * 8192
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            size = int(line)
            self.wfile.write(body[:size])
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
def ask(port, results):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        file = connection.makefile("rb")
        for size in [1, 4096, 100_000, 2_000_000, 33]:
            connection.sendall(b"%d\\n" % size)
            results.append(file.read(size) == body[:size])
with Server(("127.0.0.1", 0), Handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    results = []
    threads = [threading.Thread(target=ask, args=(server.server_address[1], results)) for _ in range(6)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(results)
    print("end", flush=True)
    input()
    server.shutdown()
"""


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def finish(
    command: Sequence[str | Path], environment: dict[str, str], directory: Path, stdin: str = ""
) -> tuple[int, str, str]:
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        cwd=directory,
    )
    return done.returncode, done.stdout, done.stderr


def counters_while(process: subprocess.Popen[str], directory: Path) -> tuple[str, dict[str, int]]:
    """Output up to the line "end", and the counters of `process` at that moment."""
    lines = []
    assert process.stdout is not None
    for line in process.stdout:
        if line == "end\n":
            break
        lines.append(line)
    return "".join(lines), stats.read(directory, process.pid).totals()


@pytest.mark.parametrize("script", [ASYNCIO, THREADED], ids=["asyncio", "threaded"])
def test_python_server_and_clients_exchange_bodies(preload: Preload, script: str) -> None:
    def run(environment: dict[str, str]) -> tuple[str, str, int, dict[str, int]]:
        with subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process:
            out, counters = counters_while(process, preload.directory / "statistics")
            rest, err = process.communicate("\n", timeout=30)
            return out + rest, err, process.returncode, counters

    plain = run(preload.plain_environment())
    assert plain[1:3] == ("", 0)
    assert "True" in plain[0] and "False" not in plain[0]
    with_library = run(preload.environment(listen=EVERYWHERE, connect=EVERYWHERE))
    assert with_library[:3] == plain[:3]
    counters = with_library[3]
    assert counters["spans_sent"] > 0 and counters["spans_received"] > 0
    assert not any(counters[name] for name in TROUBLE)


@pytest.mark.parametrize("client_speaks_odb", [True, False])
def test_curl_fetches_from_the_http_server_of_python(preload: Preload, client_speaks_odb: bool) -> None:
    needs("curl")
    content = preload.directory / "content"
    content.mkdir()
    for size in SIZES:
        (content / str(size)).write_bytes(os.urandom(size))
    server_environment = preload.environment(listen=EVERYWHERE)
    client_environment = (
        preload.environment(connect=EVERYWHERE) if client_speaks_odb else preload.plain_environment()
    )
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(
        [*command, "--directory", str(content)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=server_environment,
    ) as server:
        assert server.stdout is not None
        port = re.search(r"port (\d+)", server.stdout.readline())
        assert port is not None
        for size in SIZES:
            target = preload.directory / "fetched"
            url = f"http://127.0.0.1:{port[1]}/{size}"
            outcome = finish(
                ["curl", "--silent", "--show-error", "--max-time", "20", "--output", target, url],
                client_environment,
                preload.directory,
            )
            assert outcome == (0, "", "")
            assert (
                hashlib.sha256(target.read_bytes()).digest()
                == hashlib.sha256((content / str(size)).read_bytes()).digest()
            )
        counters = stats.read(preload.directory / "statistics", server.pid).totals()
        server.terminate()
    assert (counters["spans_sent"] > 0) == client_speaks_odb
    assert not any(counters[name] for name in TROUBLE)


def test_redis_keeps_large_values(preload: Preload) -> None:
    needs("redis-server", "redis-cli")
    odb = preload.environment(listen=EVERYWHERE, connect=EVERYWHERE)
    plain = preload.plain_environment()
    value = "0123456789abcdef" * 40_000
    port = str(free_port())
    server_command = ["redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", "."]
    client_command = ["redis-cli", "-h", "127.0.0.1", "-p", port]

    def ask(environment: dict[str, str], *words: str, stdin: str = "") -> str:
        status, out, err = finish([*client_command, *words], environment, preload.directory, stdin)
        assert (status, err) == (0, "")
        return out.removesuffix("\n")

    with (
        subprocess.Popen(
            server_command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=odb,
            cwd=preload.directory,
        ) as server,
        ExitStack() as stack,
    ):
        stack.callback(server.kill)
        assert server.stdout is not None
        assert any("eady to accept connections" in line for line in server.stdout)
        assert ask(plain, "-x", "set", "plain", stdin=value) == "OK"
        writer = stack.enter_context(
            subprocess.Popen(
                client_command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=odb
            )
        )
        assert writer.stdin is not None and writer.stdout is not None
        writer.stdin.write(f"set spoken {value}\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "OK\n"
        for key in ("plain", "spoken"):
            assert ask(odb, "get", key) == ask(plain, "get", key) == value
            assert ask(odb, "strlen", key) == str(len(value))
            assert ask(odb, "copy", key, f"{key} copy") == "1"
            assert ask(odb, "append", f"{key} copy", "end") == str(len(value) + 3)
            assert ask(odb, "getrange", f"{key} copy", "-5", "-1") == "efend"
        assert ask(odb, "save") == "OK"
        counters = stats.read(preload.directory / "statistics", server.pid).totals()
        writer.stdin.close()
        assert writer.wait(20) == 0
        assert ask(odb, "get", "spoken copy") == value + "end"
        finish([*client_command, "shutdown", "nosave"], odb, preload.directory)
        server.stdout.read()
        assert server.wait(20) == 0
    assert counters["spans_received"] > 0 and counters["spans_sent"] > 0
    assert not any(counters[name] for name in TROUBLE)


COMMANDS = {
    "ls": ["ls", "-lR", "/etc/default"],
    "tar": ["sh", "-c", "tar -C /etc -cf - default | tar -tf - | sort"],
    "gzip": ["sh", "-c", "seq 100000 | gzip -n | gunzip | sha256sum"],
    "sort": ["sh", "-c", "seq 100000 | sort -R --random-source=/etc/passwd | sort -n | sha256sum"],
    "git": [
        "sh",
        "-c",
        "git init -q repository && cd repository && seq 20000 > file && git add file"
        " && git -c user.name=n -c user.email=e commit -q -m first && git clone -q . ../clone"
        " && git -C ../clone log --format=%s && git -C ../clone fsck 2>&1 && sha256sum ../clone/file",
    ],
    "find": ["find", "/etc/default", "-type", "f", "-exec", "sha256sum", "{}", ";"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_everyday_program_shows_the_same(preload: Preload, name: str) -> None:
    needs(COMMANDS[name][0], *({"sh": [name]}.get(COMMANDS[name][0], [])))
    outcomes = []
    for kind in ("plain", "odb"):
        directory = preload.directory / kind
        directory.mkdir()
        environment = (
            preload.environment(listen=EVERYWHERE, connect=EVERYWHERE)
            if kind == "odb"
            else preload.plain_environment()
        )
        outcomes.append(finish(COMMANDS[name], {**environment, "HOME": str(directory)}, directory))
    assert outcomes[0][0] == 0
    assert outcomes[0][1]
    assert outcomes[1] == outcomes[0]
