"""The load generator against real servers: it makes exactly the requests it says, and reports what came back."""

from __future__ import annotations

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbed.load import LoadError, LoadPlan, read_result, run_load
from tests.ports import free_port

LOCUSTFILE = Path(__file__).resolve().parents[2] / "loadgen" / "odb.py"
LOCUST = [sys.executable, "-m", "locust"]
SIZES = (4096, 65536)
SECONDS = 40


@dataclass(frozen=True)
class Nginx:
    url: str
    log: Path

    def requests(self) -> list[tuple[float, str, str]]:
        """(time, connection, path) of every request so far; nginx writes a line as it ends a request."""
        lines = [line.split(" ") for line in self.log.read_text().splitlines()]
        return [(float(moment), connection, path) for moment, connection, path in lines]

    def forget(self) -> None:
        os.truncate(self.log, 0)


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    program = shutil.which("nginx")
    if program is None:
        pytest.skip("nginx is not installed")
    root = tmp_path_factory.mktemp("nginx")
    root.chmod(0o755)
    for folder in ("payload", "other", "short", "bare"):
        (root / folder).mkdir()
    for size in SIZES:
        body = hashlib.shake_128(str(size).encode()).digest(size)
        (root / "payload" / f"{size}.bin").write_bytes(body)
        (root / "other" / f"{size}.bin").write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
        (root / "short" / f"{size}.bin").write_bytes(body[:-1])
    digests = {
        str(size): hashlib.sha256((root / "payload" / f"{size}.bin").read_bytes()).hexdigest()
        for size in SIZES
    }
    (root / "payload" / "manifest.json").write_text(json.dumps(digests))
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    (root / "nginx.conf").write_text(
        f"""
        {user} daemon off; pid {root}/pid; error_log {root}/error.log; worker_processes 1;
        events {{ worker_connections 1024; }}
        http {{
            log_format times '$msec $connection $uri';
            client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
            uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
            server {{
                listen 127.0.0.1:{port}; root {root}; access_log {root}/access.log times;
                location /gone/ {{ return 444; }}
                location /moved/ {{ return 302 /payload/4096.bin; }}
            }}
        }}
        """
    )
    process = subprocess.Popen([program, "-p", root, "-c", root / "nginx.conf", "-e", root / "error.log"])
    try:
        wait_until_listening(port, process)
        yield Nginx(f"http://127.0.0.1:{port}", root / "access.log")
    finally:
        process.terminate()
        process.wait(20)


def wait_until_listening(port: int, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)  # between attempts to connect, which are the event
    pytest.fail("the server does not listen")


Locust = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def locust(tmp_path: Path) -> Locust:
    """Runs the locustfile headless, in a directory that is not the repository."""

    def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*LOCUST, "-f", str(LOCUSTFILE), "--headless", "--only-summary", *arguments],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            **options,  # type: ignore[call-overload]
        )

    return run


def load(users: int, each: int, *more: str) -> list[str]:
    return ["-u", str(users), "-r", "100", "--requests-per-user", str(each), "--payload", "4096", *more]


def local_run(command: list[str], *, timeout: float) -> object:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)

    class Outcome:
        stdout, stderr, exit_code = done.stdout, done.stderr, done.returncode

    return Outcome()


def test_exactly_the_asked_requests_reach_the_server(nginx: Nginx, locust: Locust, tmp_path: Path) -> None:
    nginx.forget()
    done = locust("--host", nginx.url, *load(20, 7), "--result", "result.json")
    assert done.returncode == 0, done.stderr
    assert [path for _, _, path in nginx.requests()] == ["/payload/4096.bin"] * 140
    assert len({connection for _, connection, _ in nginx.requests()}) == 20
    result = read_result(tmp_path / "result.json")
    assert (result.complete, result.requests, result.errors, result.users) == (True, 140, 0, 20)
    assert result.body_bytes == 140 * 4096
    assert sum(count for _, count in result.distribution_us()) == 140
    assert 0 < result.percentile_us(50) <= result.latency_us["p99"] <= result.latency_us["max"] < 20e6
    assert 0 < result.cpu_seconds < 20
    assert re.search(r"^requests +140$", done.stdout, re.MULTILINE)
    assert re.search(r"^latency .*p999", done.stdout, re.MULTILINE)
    last, first = nginx.requests()[-1][0], nginx.requests()[0][0]
    assert result.started_at <= first + 0.002
    assert result.ended_at >= last - 0.002
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_clients_arrive_one_after_the_other(nginx: Nginx, locust: Locust) -> None:
    nginx.forget()
    locust("--host", nginx.url, "-u", "10", "-r", "20", "--requests-per-user", "1", "--payload", "4096")
    arrivals = sorted(moment for moment, _, _ in nginx.requests())
    assert len(arrivals) == 10
    assert arrivals[-1] - arrivals[0] > 0.3, "10 clients at 20 per second take 0.45 s to arrive"


def test_sizes_are_mixed_evenly_and_hashes_checked(nginx: Nginx, locust: Locust, tmp_path: Path) -> None:
    nginx.forget()
    done = locust(
        "--host", nginx.url, *load(6, 4), "--payload", "4096,65536", "--check", "hash", "--result", "r.json"
    )
    assert done.returncode == 0, done.stderr
    assert Counter(path for _, _, path in nginx.requests()) == {
        "/payload/manifest.json": 1,
        "/payload/4096.bin": 12,
        "/payload/65536.bin": 12,
    }
    assert read_result(tmp_path / "r.json").body_bytes == 12 * (4096 + 65536)


@pytest.mark.parametrize(
    ("path", "check", "kind"),
    [
        ("/other/{size}.bin", "hash", "wrong hash"),
        ("/short/{size}.bin", "length", "wrong length"),
        ("/missing/{size}.bin", "none", "status 404"),
        ("/moved/{size}.bin", "none", "status 302"),
        ("/gone/{size}.bin", "none", "connection closed"),
    ],
)
def test_every_wrong_answer_is_counted_once_as_what_it_is(
    nginx: Nginx, locust: Locust, tmp_path: Path, path: str, check: str, kind: str
) -> None:
    nginx.forget()
    done = locust(
        "--host", nginx.url, *load(4, 3), "--path-template", path, "--check", check, "--result", "r.json"
    )
    assert done.returncode == 1
    result = read_result(tmp_path / "r.json")
    assert (result.complete, result.requests, dict(result.error_kinds)) == (True, 12, {kind: 12})
    asked = [uri for _, _, uri in nginx.requests() if uri != "/payload/manifest.json"]
    assert asked == [path.replace("{size}", "4096")] * 12


def test_a_given_digest_is_checked_without_a_manifest(nginx: Nginx, locust: Locust) -> None:
    nginx.forget()
    done = locust("--host", nginx.url, *load(2, 2), "--check", "hash", "--sha256", "0" * 64)
    assert done.returncode == 1
    assert "4 x wrong hash" in done.stdout
    assert len(nginx.requests()) == 4


def test_processes_are_merged_exactly(nginx: Nginx, locust: Locust, tmp_path: Path) -> None:
    nginx.forget()
    done = locust("--host", nginx.url, *load(21, 5), "--processes", "2", "--result", "result.json")
    assert done.returncode == 0, done.stderr
    assert len(nginx.requests()) == 105
    result = read_result(tmp_path / "result.json")
    assert (result.complete, result.requests, result.errors) == (True, 105, 0)
    assert (result.users, result.processes, result.body_bytes) == (21, 2, 105 * 4096)


def test_a_master_and_its_worker_make_one_result(nginx: Nginx, locust: Locust, tmp_path: Path) -> None:
    nginx.forget()
    port = str(free_port())
    worker = subprocess.Popen(
        [*LOCUST, "-f", str(LOCUSTFILE), "--worker", "--master-port", port],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        bind = (
            "--master",
            "--master-bind-host",
            "127.0.0.1",
            "--master-bind-port",
            port,
            "--expect-workers",
            "1",
        )
        wrong = ("--path-template", "/short/{size}.bin")
        done = locust("--host", nginx.url, *load(5, 4), *bind, *wrong, "--result", "result.json")
        assert worker.wait(20) is not None
    finally:
        worker.kill()
        worker.wait()
    assert done.returncode == 1, done.stderr
    result = read_result(tmp_path / "result.json")
    assert (result.complete, result.requests, dict(result.error_kinds)) == (True, 20, {"wrong length": 20})
    assert len(nginx.requests()) == 20


def test_a_lost_worker_ends_the_run_as_failed(nginx: Nginx, tmp_path: Path) -> None:
    port = str(free_port())
    quiet = {"cwd": tmp_path, "stdin": subprocess.DEVNULL, "text": True}
    plan = ["-u", "2", "-r", "100", "--requests-per-user", "1000000", "--payload", "4096"]
    bind = [
        "--master",
        "--master-bind-host",
        "127.0.0.1",
        "--master-bind-port",
        port,
        "--expect-workers",
        "1",
    ]
    worker = subprocess.Popen(
        [*LOCUST, "-f", str(LOCUSTFILE), "--worker", "--master-port", port],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **quiet,  # type: ignore[call-overload]
    )
    master = subprocess.Popen(
        [*LOCUST, "-f", str(LOCUSTFILE), "--headless", "--only-summary", "--host", nginx.url, *bind, *plan],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        **quiet,  # type: ignore[call-overload]
    )
    try:
        nginx.forget()
        wait_for_growth(nginx.log)
        worker.kill()
        _, complaints = master.communicate(timeout=SECONDS)
    finally:
        for process in (worker, master):
            process.kill()
            process.wait()
    assert master.returncode == 1
    assert "was lost and its clients with it" in complaints


def wait_for_growth(log: Path) -> None:
    """Return when nginx has served something: the event in a run that has no other."""
    deadline = time.monotonic() + 20
    while log.stat().st_size == 0:
        assert time.monotonic() < deadline, "no request has reached the server"
        time.sleep(0.02)


@pytest.mark.parametrize("processes", [(), ("--processes", "2")])
def test_an_unreachable_server_fails_at_once_and_clearly(
    locust: Locust, tmp_path: Path, processes: tuple[str, ...]
) -> None:
    began = time.monotonic()
    url = f"http://127.0.0.1:{free_port()}"
    done = locust("--host", url, *load(4, 3), *processes, "--result", "result.json")
    assert done.returncode == 1
    assert f"error: cannot connect to {url}: Connection refused" in done.stderr
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 15
    assert not (tmp_path / "result.json").exists()


class BrokenServer:
    """A server that takes connections and requests and answers each with fixed bytes, then closes; None: silence."""

    def __init__(self, answer: bytes | None) -> None:
        self.requests = 0
        self._answer = answer
        self._kept: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> BrokenServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        for connection in (self._listener, *self._kept):
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self._answer is None:
                self._kept.append(connection)
                continue
            with connection:
                if connection.recv(65536):
                    self.requests += 1
                    connection.sendall(self._answer)


def test_a_body_cut_short_is_one_error_and_is_not_asked_for_again(locust: Locust, tmp_path: Path) -> None:
    with BrokenServer(b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\nonly this") as server:
        done = locust("--host", server.url, *load(3, 4), "--check", "none", "--result", "r.json")
    assert done.returncode == 1
    assert server.requests == 12
    result = read_result(tmp_path / "r.json")
    assert (result.requests, dict(result.error_kinds)) == (12, {"broken response": 12})


def test_a_silent_server_counts_as_timeouts_and_ends_the_run(locust: Locust) -> None:
    with BrokenServer(None) as server:
        done = locust("--host", server.url, *load(2, 1000), "--read-timeout", "0.2", "--stall-timeout", "1")
    assert done.returncode == 1
    assert f"error: no request to {server.url} has succeeded for 1 s" in done.stderr


def test_a_size_that_the_manifest_lacks_is_named(nginx: Nginx, locust: Locust) -> None:
    done = locust("--host", nginx.url, *load(2, 2), "--payload", "77", "--check", "hash")
    assert done.returncode == 1
    assert "/payload/manifest.json has no SHA-256 for 77 bytes" in done.stderr


def test_too_few_descriptors_are_a_fault_of_the_environment(nginx: Nginx, locust: Locust) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (150, 150))

    done = locust("--host", nginx.url, *load(200, 1), preexec_fn=limit)
    assert done.returncode == 4
    assert (
        "200 clients in one process need 264 open files but the hard limit (RLIMIT_NOFILE) is 150"
        in done.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "http://x", "--payload", "64k"], "--payload 64k: not a list of sizes"),
        (["--host", "http://x", "--check", "hash", "--sha256", "12"], "--sha256 12: not a SHA-256"),
        (["--host", "x:80"], "--host x:80: not a base URL"),
        (["--host", "http://x", "--result", "/no/such/place"], "its directory does not exist"),
        ([], "no server to load: give --host"),
    ],
)
def test_wrong_usage_is_one_sentence(locust: Locust, arguments: list[str], message: str) -> None:
    done = locust(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_run_keeps_its_counts_and_says_so(nginx: Nginx, tmp_path: Path) -> None:
    nginx.forget()
    plan = [
        "-u",
        "2",
        "-r",
        "100",
        "--requests-per-user",
        "1000000",
        "--payload",
        "4096",
        "--result",
        "r.json",
    ]
    process = subprocess.Popen(
        [*LOCUST, "-f", str(LOCUSTFILE), "--headless", "--only-summary", "--host", nginx.url, *plan],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_growth(nginx.log)
    process.send_signal(signal.SIGTERM)
    _, complaints = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "error: the run ended early" in complaints
    result = read_result(tmp_path / "r.json")
    assert not result.complete
    assert 0 < result.requests <= len(nginx.requests())


def test_the_web_page_makes_runs_with_its_own_values(nginx: Nginx, tmp_path: Path) -> None:
    nginx.forget()
    web = free_port()
    page_at = ["--web-host", "127.0.0.1", "--web-port", str(web)]
    process = subprocess.Popen(
        [*LOCUST, "-f", LOCUSTFILE, "--host", nginx.url, "--result", "r.json", *page_at],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until_listening(web, process)
        page = urllib.request.urlopen(f"http://127.0.0.1:{web}/", timeout=20).read().decode()
        assert "requests_per_user" in page
        for payload, each in (("4096", 1), ("65536", 2)):
            form = {"user_count": 3, "spawn_rate": 50, "host": nginx.url, "payload": payload}
            data = urllib.parse.urlencode({**form, "requests_per_user": each}).encode()
            urllib.request.urlopen(f"http://127.0.0.1:{web}/swarm", data=data, timeout=20).read()
            assert process.stderr is not None
            assert any("The run has ended" in line for line in process.stderr), "the run does not end"
            assert read_result(tmp_path / "r.json").requests == 3 * each
            assert any("The test has stopped" in line for line in process.stderr)
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)
    paths = [path for _, _, path in nginx.requests()]
    assert paths == ["/payload/4096.bin"] * 3 + ["/payload/65536.bin"] * 6


def test_a_plan_runs_through_the_callers_runner(nginx: Nginx, tmp_path: Path) -> None:
    plan = LoadPlan(nginx.url, SIZES, users=4, requests_per_user=3, check="hash")
    where = {"locust": LOCUST, "locustfile": str(LOCUSTFILE), "directory": str(tmp_path)}
    result = run_load(local_run, plan, **where)  # type: ignore[arg-type]
    assert (result.requests, result.errors, result.throughput_rps > 0) == (12, 0, True)
    assert list(tmp_path.iterdir()) == []
    dead = LoadPlan(f"http://127.0.0.1:{free_port()}", (4096,), users=2, requests_per_user=1)
    with pytest.raises(LoadError, match=r"cannot connect to http://127.0.0.1:.*Connection refused"):
        run_load(local_run, dead, **where)  # type: ignore[arg-type]
