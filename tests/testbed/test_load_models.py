"""The models of load beside the ramp: a fixed rate that a slow server cannot bend, and wrk in Locust's stead."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from testbed.load import LoadPlan, LoadResult, build_command, build_wrk_command, read_result

ROOT = Path(__file__).resolve().parents[2]
LOCUST = (sys.executable, "-m", "locust")
SIZE = 4096
STALL_SECONDS = 1.0


class Server(ThreadingHTTPServer):
    """Answers every GET with SIZE bytes and notes when it came; once, `stall_at` requests later, all answers wait."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.arrivals: list[float] = []
        self.stall_at: int | None = None
        self.turn = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """One connection, kept."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        with self.server.turn:
            self.server.arrivals.append(time.monotonic())
            if len(self.server.arrivals) == self.server.stall_at:
                time.sleep(STALL_SECONDS)  # the disturbance that is measured, not a way to wait for something
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n".encode()
        self.wfile.write(head + bytes(SIZE))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join(10)


def measured(plan: LoadPlan, directory: Path, *more: str) -> LoadResult:
    """Run a load here and read its result."""
    place = directory / "result.json"
    if plan.seconds is not None:
        wrk = (sys.executable, str(ROOT / "loadgen" / "wrk.py"))
        command = build_wrk_command(plan, result=str(place), wrk=wrk)
    else:
        locustfile = str(ROOT / "loadgen" / "odb.py")
        command = build_command(plan, result=str(place), locust=LOCUST, locustfile=locustfile)
    done = subprocess.run(
        [*command, *more], cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return read_result(place)


def slow(result: LoadResult) -> int:
    """Requests that took longer than a tenth of the stall."""
    return sum(count for latency, count in result.distribution_us() if latency > STALL_SECONDS * 1e5)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_rate_is_kept_and_not_exceeded(server: Server, tmp_path: Path, processes: int) -> None:
    plan = LoadPlan(
        server.url, (SIZE,), users=10, spawn_rate=50, requests_per_user=10, rate=50.0, processes=processes
    )
    result = measured(plan, tmp_path)
    assert (result.complete, result.requests, result.errors) == (True, 100, 0)
    assert len(server.arrivals) == 100
    # No request is sent before it is due: 100 of them at 50 per second take two seconds, a period more or less.
    assert server.arrivals[-1] - server.arrivals[0] > 1.6
    assert max(count_within(server.arrivals, 0.2), 10) <= 30
    assert len(result.part_histograms) == processes


def count_within(arrivals: list[float], seconds: float) -> int:
    """The most arrivals within any interval of that length that begins with one of the first fifty."""
    return max(sum(first <= one < first + seconds for one in arrivals) for first in arrivals[:50])


def test_clients_that_begin_together_wait_for_the_last_one(server: Server, tmp_path: Path) -> None:
    plan = LoadPlan(server.url, (SIZE,), users=10, spawn_rate=5, requests_per_user=3, together=True)
    result = measured(plan, tmp_path)
    assert (result.complete, result.requests) == (True, 30)
    assert len(server.arrivals) == 30
    # The ten clients take two seconds to arrive; without waiting the first one would have been done long before.
    assert server.arrivals[-1] - server.arrivals[0] < 1.5


def test_latency_at_a_rate_counts_the_time_that_requests_had_to_wait_for_their_client(
    server: Server, tmp_path: Path
) -> None:
    """A server that stalls for a second delays the requests that are due meanwhile; clients that only ask again when
    they were answered do not notice more than one each."""
    server.stall_at = 20
    open_loop = measured(LoadPlan(server.url, (SIZE,), 4, 50, 25, rate=50.0), tmp_path)
    server.arrivals.clear()
    closed_loop = measured(LoadPlan(server.url, (SIZE,), 4, 50, 25), tmp_path)
    assert open_loop.requests == closed_loop.requests == 100
    assert slow(open_loop) >= 25
    assert slow(closed_loop) < slow(open_loop) / 2
    assert open_loop.latency_us["max"] >= STALL_SECONDS * 0.9e6


def test_wrk_leaves_a_result_of_the_same_form(server: Server, tmp_path: Path) -> None:
    result = measured(LoadPlan(server.url, (SIZE,), users=3, seconds=1.0), tmp_path)
    assert (result.complete, result.errors, result.users) == (True, 0, 3)
    assert 0 <= len(server.arrivals) - result.requests <= 3, "requests under way at the end do not count"
    assert result.body_bytes == result.requests * SIZE
    assert 0.9 < result.wall_seconds < 5
    assert 0 < result.latency_us["p50"] <= result.latency_us["p99"] <= result.latency_us["max"] * 1.01
    assert 0 < result.cpu_share <= 1.1


def test_wrk_without_a_server_is_one_sentence(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "loadgen" / "wrk.py"),
        "--host",
        "http://127.0.0.1:1",
        "--payload",
        "1",
    ]
    command += ["--connections", "1", "--seconds", "1", "--result", str(tmp_path / "r.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert not (tmp_path / "r.json").exists()
