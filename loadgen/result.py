"""What a run came to: counts of one process, their sum over processes, and the result file."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadgen.histogram import LatencyHistogram
from loadgen.verify import error_kind

SCHEMA = 1


class Tally:
    """Counts one process's requests. Not thread-safe: Locust's clients are greenlets of one thread."""

    def __init__(self) -> None:
        self.latencies = LatencyHistogram()
        self.errors: Counter[str] = Counter()
        self.body_bytes = 0
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self._cpu_begin = time.process_time()
        self._cpu_seconds: float | None = None

    def begin_cpu(self) -> None:
        """The first request is sent now: CPU time counts from here."""
        self._cpu_begin = time.process_time()

    def end_cpu(self) -> None:
        """A client has ended now; CPU time counts up to the last one."""
        self._cpu_seconds = time.process_time() - self._cpu_begin

    def record(
        self, *, start_time: float, response_ms: float, body_bytes: int, error: BaseException | None
    ) -> None:
        """Count one request: `start_time` in seconds since the epoch, its latency in milliseconds."""
        self.latencies.record(response_ms * 1000)
        self.body_bytes += body_bytes
        end_time = start_time + response_ms / 1000
        self.started_at = start_time if self.started_at is None else min(self.started_at, start_time)
        self.ended_at = end_time if self.ended_at is None else max(self.ended_at, end_time)
        if error is not None:
            self.errors[error_kind(error)] += 1

    def snapshot(self) -> dict[str, Any]:
        """All counts so far, in types that travel between processes."""
        cpu_seconds = self._cpu_seconds
        return {
            "errors": dict(self.errors),
            "bytes": self.body_bytes,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
            "cpu_seconds": time.process_time() - self._cpu_begin if cpu_seconds is None else cpu_seconds,
            "histogram": self.latencies.encode(),
            "sum_us": self.latencies.sum_us,
            "max_us": self.latencies.max_us,
        }


@dataclass(slots=True)
class Total:
    """The sum of snapshots; times in seconds since the epoch, CPU in seconds over all processes.

    ``cpu_share`` is the highest share of one core that a single process used while it had clients: near 1 means
    that the generator, not the server, set the pace.
    """

    latencies: LatencyHistogram = field(default_factory=LatencyHistogram)
    errors: Counter[str] = field(default_factory=Counter)
    body_bytes: int = 0
    started_at: float | None = None
    ended_at: float | None = None
    cpu_seconds: float = 0.0
    cpu_share: float = 0.0
    processes: int = 0

    @property
    def requests(self) -> int:
        """Requests that ended, well or not."""
        return self.latencies.count

    @property
    def wall_seconds(self) -> float:
        """From the first request's start to the last response's end."""
        if self.started_at is None or self.ended_at is None:
            return 0.0
        return self.ended_at - self.started_at

    def add(self, snapshot: dict[str, Any]) -> None:
        """Add one process's snapshot."""
        self.latencies.merge(snapshot["histogram"], sum_us=snapshot["sum_us"], max_us=snapshot["max_us"])
        self.errors.update(snapshot["errors"])
        self.body_bytes += snapshot["bytes"]
        self.cpu_seconds += snapshot["cpu_seconds"]
        self.processes += 1
        started, ended = snapshot["started_at"], snapshot["ended_at"]
        if started is None or ended is None:
            return
        self.started_at = started if self.started_at is None else min(self.started_at, started)
        self.ended_at = ended if self.ended_at is None else max(self.ended_at, ended)
        if ended > started:
            self.cpu_share = max(self.cpu_share, snapshot["cpu_seconds"] / (ended - started))


def merge(snapshots: Iterable[dict[str, Any]]) -> Total:
    """The sum of all processes' snapshots."""
    total = Total()
    for snapshot in snapshots:
        total.add(snapshot)
    return total


def document(
    total: Total, *, users: int, expected: int, parts: Mapping[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The result file's content; ``complete`` says whether all `expected` requests were made.

    `parts` are the snapshots of the processes by name: their histograms add up to the whole.
    """
    latencies = total.latencies
    return {
        "schema": SCHEMA,
        "complete": total.requests == expected,
        "requests": total.requests,
        "errors": sum(total.errors.values()),
        "error_kinds": dict(sorted(total.errors.items())),
        "bytes": total.body_bytes,
        "users": users,
        "started_at": total.started_at,
        "ended_at": total.ended_at,
        "wall_seconds": total.wall_seconds,
        "latency_us": {
            "p50": latencies.percentile_us(50),
            "p90": latencies.percentile_us(90),
            "p99": latencies.percentile_us(99),
            "p999": latencies.percentile_us(99.9),
            "max": latencies.max_us,
            "mean": latencies.mean_us(),
        },
        "histogram": latencies.encode(),
        "cpu_seconds": total.cpu_seconds,
        "cpu_share": total.cpu_share,
        "processes": total.processes,
        "parts": [
            {"name": name, "histogram": part["histogram"], "cpu_seconds": part["cpu_seconds"]}
            for name, part in sorted((parts or {}).items())
        ],
    }


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the result beside its place and rename it there: readers see all of it or nothing."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=2)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def summary(content: dict[str, Any]) -> str:
    """The result on less than one screen."""
    wall = content["wall_seconds"]
    latency = content["latency_us"]
    rate = content["requests"] / wall if wall else 0.0
    lines = [
        f"requests    {content['requests']}{'' if content['complete'] else ' (incomplete)'}",
        f"clients     {content['users']}",
        f"errors      {content['errors']}",
        *(f"            {count} x {kind}" for kind, count in content["error_kinds"].items()),
        f"duration    {wall:.3f} s",
        f"throughput  {rate:.1f} requests/s, {content['bytes'] / wall / 1e6 if wall else 0.0:.1f} MB/s",
        "latency     "
        + ", ".join(f"{name} {latency[name] / 1000:.3f} ms" for name in ("p50", "p90", "p99", "p999", "max")),
        f"generator   {content['cpu_seconds']:.3f} s CPU in {content['processes']} process(es), "
        f"busiest {content['cpu_share'] * 100:.0f} % of a core",
    ]
    return "\n".join(lines)
