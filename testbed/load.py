"""Runs Locust on the client host, as a subprocess behind a caller's `run`, and reads what it measured.

Locust is never imported here, since importing it replaces the process's sockets. The load generator and this module
meet in a command line and a JSON file.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from hdrh.histogram import HdrHistogram

from testbed.errors import TestbedError

SCHEMA = 1
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9}


class LoadError(TestbedError):
    """The load could not be run to its end, or its result cannot be read."""

    kind: ClassVar[str] = "load"


class Outcome(Protocol):
    """What a finished command left."""

    @property
    def stdout(self) -> str: ...
    @property
    def stderr(self) -> str: ...
    @property
    def exit_code(self) -> int: ...


class Run(Protocol):
    """Runs a command on the client host and waits for it, at most `timeout` seconds; raises when it cannot."""

    def __call__(self, command: Sequence[str], *, timeout: float) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """One load: `users` clients arriving at `spawn_rate` per second, each with `requests_per_user` GETs.

    `payloads` are sizes in bytes, asked for in turn; `check` is "none", "length" or "hash"; `sha256` is the expected
    digest for one size, otherwise the server's manifest is asked; `processes` above 1 spreads the clients.
    With `rate` all clients together make that many requests per second; `together` lets no client begin before all
    have arrived.  With `seconds` the generator is wrk, which takes `users` as its connections and makes as many
    requests as it can.  `hosts` above 1: Locust with a master and, on each client host, `processes` workers.
    For wrk only: `headers` ("NAME: VALUE") go with every request; `encoded` bodies may be shorter than their sizes.
    """

    url: str
    payloads: tuple[int, ...]
    users: int = 1000
    spawn_rate: float = 50.0
    requests_per_user: int = 30
    check: str = "length"
    sha256: str | None = None
    path_template: str | None = None
    processes: int = 1
    rate: float | None = None
    together: bool = False
    seconds: float | None = None
    hosts: int = 1
    headers: tuple[str, ...] = ()
    encoded: bool = False

    @property
    def requests(self) -> int:
        """Requests that the load makes in all, if it makes a number of them."""
        return self.users * self.requests_per_user

    @property
    def longest_seconds(self) -> float:
        """A generous bound on how long the load may take: its ramp, 50 requests per second, and a minute."""
        if self.seconds is not None:
            return self.seconds + 120
        at_rate = self.requests / self.rate if self.rate is not None else 0.0
        return self.users / self.spawn_rate + max(self.requests / 50, 2 * at_rate) + 60


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What a load measured. Times in seconds (since the epoch where they end in ``_at``), latencies in microseconds.

    `started_at` and `ended_at` bracket the first request's start and the last response's end on the client host's
    clock. `latency_us` has p50, p90, p99, p999, max and mean over all requests, failed ones included; `histogram` is
    their HDR histogram in its base64 form. `cpu_share` is the highest share of a core that one generator process
    used: near 1, the generator set the pace and the latencies say nothing about the server. `part_histograms` are those
    of its processes; they have been found to add up to the whole.
    """

    complete: bool
    requests: int
    errors: int
    error_kinds: Mapping[str, int]
    body_bytes: int
    users: int
    started_at: float
    ended_at: float
    wall_seconds: float
    latency_us: Mapping[str, float]
    histogram: str
    cpu_seconds: float
    cpu_share: float
    processes: int
    part_histograms: tuple[str, ...]
    _counts: Any = field(repr=False, compare=False)

    @property
    def throughput_rps(self) -> float:
        """Requests per second that ended well."""
        return (self.requests - self.errors) / self.wall_seconds if self.wall_seconds else 0.0

    def percentile_us(self, percent: float) -> float:
        """The latency that `percent` (0 to 100) of the requests are at or below, in microseconds."""
        return min(float(self._counts.get_value_at_percentile(percent)), self.latency_us["max"])

    def distribution_us(self) -> tuple[tuple[int, int], ...]:
        """The recorded latencies with their counts, ascending, within the histogram's three digits."""
        return tuple(
            (int(item.value_iterated_to), int(item.count_at_value_iterated_to))
            for item in self._counts.get_recorded_iterator()
        )


def build_command(
    plan: LoadPlan, *, result: str, locust: Sequence[str] = ("locust",), locustfile: str = "loadgen/odb.py"
) -> list[str]:
    """The command line that runs `plan` and writes to the file `result`, both named as the client host sees them."""
    command = [*locust, "-f", locustfile, "--headless", "--only-summary", "--host", plan.url]
    command += ["--users", str(plan.users), "--spawn-rate", f"{plan.spawn_rate:g}"]
    command += ["--requests-per-user", str(plan.requests_per_user)]
    command += ["--payload", ",".join(str(size) for size in plan.payloads), "--check", plan.check]
    if plan.sha256 is not None:
        command += ["--sha256", plan.sha256]
    if plan.path_template is not None:
        command += ["--path-template", plan.path_template]
    if plan.rate is not None:
        command += ["--rate", f"{plan.rate:g}"]
    if plan.together:
        command.append("--together")
    if plan.hosts > 1:
        workers = plan.hosts * plan.processes
        command += ["--master", "--expect-workers", str(workers), "--expect-workers-max-wait", "60"]
    elif plan.processes > 1:
        command += ["--processes", str(plan.processes)]
    return [*command, "--result", result]


def build_worker_command(plan: LoadPlan, *, master: str, locust: Sequence[str], locustfile: str) -> list[str]:
    """The command line of the workers on one client host; `master` is the address of the first one."""
    command = [*locust, "-f", locustfile, "--worker", "--master-host", master]
    return [*command, "--processes", str(plan.processes)] if plan.processes > 1 else command


def build_wrk_command(plan: LoadPlan, *, result: str, wrk: Sequence[str]) -> list[str]:
    """The command line that runs `plan` with wrk; `wrk` is how the client host runs loadgen/wrk.py."""
    command = [*wrk, "--host", plan.url, "--payload", str(plan.payloads[0])]
    command += ["--connections", str(plan.users), "--threads", str(plan.processes)]
    if plan.path_template is not None:
        command += ["--path-template", plan.path_template]
    for header in plan.headers:
        command += ["--header", header]
    if plan.encoded:
        command.append("--encoded")
    return [*command, "--seconds", f"{plan.seconds:g}", "--result", result]


def run_load(
    run: Run,
    plan: LoadPlan,
    *,
    locust: Sequence[str] = ("locust",),
    locustfile: str = "loadgen/odb.py",
    wrk: Sequence[str] = ("python3", "loadgen/wrk.py"),
    directory: str = "/tmp",
    timeout: float | None = None,
) -> LoadResult:
    """Run `plan` through `run` and return its result; failed requests are counted in it, not raised.

    The result passes through a new file in the client host's `directory`, which is removed again. LoadError tells
    why a load did not make all of its requests.
    """
    place = f"{directory.rstrip('/')}/odb-load-{uuid.uuid4().hex}.json"
    if plan.seconds is not None:
        command = build_wrk_command(plan, result=place, wrk=wrk)
    else:
        command = build_command(plan, result=place, locust=locust, locustfile=locustfile)
    try:
        outcome = run(command, timeout=plan.longest_seconds if timeout is None else timeout)
        written = run(["cat", place], timeout=30)
    finally:
        run(["rm", "-f", place], timeout=30)
    if written.exit_code != 0:
        raise LoadError(f"the load on {plan.url} failed: {_reason(outcome)}")
    result = parse_result(written.stdout, place)
    if not result.complete or (plan.seconds is None and result.requests != plan.requests):
        raise LoadError(f"the load on {plan.url} ended early: {_reason(outcome)}")
    return result


def read_result(path: Path) -> LoadResult:
    """The result in a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(f"cannot read the load result {path}", "run the load again") from error
    return parse_result(text, str(path))


def parse_result(text: str, source: str) -> LoadResult:
    """The result in JSON text; `source` names it in errors. Counts that contradict each other are refused."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise _corrupt(source, "is not JSON") from error
    if not isinstance(content, dict):
        raise _corrupt(source, "is not a JSON object")
    if content.get("schema") != SCHEMA:
        raise LoadError(
            f"the load result {source} has schema {content.get('schema')!r} instead of {SCHEMA}",
            "use the load generator of this version",
        )
    reader = _Reader(content, source)
    result = LoadResult(
        complete=reader.boolean("complete"),
        requests=reader.count("requests"),
        errors=reader.count("errors"),
        error_kinds=reader.counts("error_kinds"),
        body_bytes=reader.count("bytes"),
        users=reader.count("users"),
        started_at=reader.number("started_at"),
        ended_at=reader.number("ended_at"),
        wall_seconds=reader.number("wall_seconds"),
        latency_us=reader.latencies("latency_us"),
        histogram=reader.text("histogram"),
        cpu_seconds=reader.number("cpu_seconds"),
        cpu_share=reader.number("cpu_share"),
        processes=reader.count("processes"),
        part_histograms=reader.parts("parts"),
        _counts=reader.histogram("histogram"),
    )
    _check_agreement(result, source)
    return result


def _check_agreement(result: LoadResult, source: str) -> None:
    counted = int(result._counts.get_total_count())
    if counted != result.requests:
        raise _corrupt(source, f"has {result.requests} requests but {counted} latencies")
    if result.errors > result.requests or sum(result.error_kinds.values()) != result.errors:
        raise _corrupt(source, "has an error count that does not fit its kinds of errors")
    if result.ended_at < result.started_at:
        raise _corrupt(source, "ends before it starts")
    if result.part_histograms:
        merged = HdrHistogram(1, 3_600_000_000, 3)
        for part in result.part_histograms:
            merged.decode_and_add(part)
        if merged.encode() != result._counts.encode():
            raise _corrupt(source, "has a histogram that is not the sum of its processes'")
    for name, percent in PERCENTILES.items():
        if result.percentile_us(percent) != result.latency_us[name]:
            raise _corrupt(source, f"has a {name} that its histogram does not have")


def _corrupt(source: str, defect: str) -> LoadError:
    return LoadError(f"the load result {source} is corrupt: it {defect}", "run the load again")


def _reason(outcome: Outcome) -> str:
    """Why Locust failed: its own error line, else the last line it wrote."""
    lines = [line.strip() for line in outcome.stderr.splitlines() if line.strip()]
    named = [line for line in lines if line.startswith(("error: ", "locust: error: "))]
    if named:
        return named[-1].split("error: ", 1)[1]
    return lines[-1] if lines else f"locust ended with exit code {outcome.exit_code} and said nothing"


class _Reader:
    """Takes typed values out of a result; what is missing or of another type makes the result corrupt."""

    def __init__(self, content: dict[str, Any], source: str) -> None:
        self._content = content
        self._source = source

    def boolean(self, key: str) -> bool:
        value = self._content.get(key)
        if not isinstance(value, bool):
            raise self._bad(key, value)
        return value

    def count(self, key: str) -> int:
        return self._count(key, self._content.get(key))

    def number(self, key: str) -> float:
        return self._number(key, self._content.get(key))

    def text(self, key: str) -> str:
        value = self._content.get(key)
        if not isinstance(value, str):
            raise self._bad(key, value)
        return value

    def counts(self, key: str) -> dict[str, int]:
        return {name: self._count(f"{key}.{name}", value) for name, value in self._object(key).items()}

    def latencies(self, key: str) -> dict[str, float]:
        values = self._object(key)
        return {
            name: self._number(f"{key}.{name}", values.get(name)) for name in (*PERCENTILES, "max", "mean")
        }

    def parts(self, key: str) -> tuple[str, ...]:
        """The histograms of the processes; none in a result that does not tell them apart."""
        parts = self._content.get(key, [])
        if not isinstance(parts, list) or not all(
            isinstance(part, dict) and isinstance(part.get("histogram"), str) for part in parts
        ):
            raise self._bad(key, parts)
        return tuple(part["histogram"] for part in parts)

    def histogram(self, key: str) -> Any:
        try:
            return HdrHistogram.decode(self.text(key))
        except LoadError:
            raise
        except Exception as error:  # the decoder has no base for its errors
            raise _corrupt(self._source, f"has no readable {key}") from error

    def _object(self, key: str) -> dict[str, Any]:
        value = self._content.get(key)
        if not isinstance(value, dict):
            raise self._bad(key, value)
        return value

    def _count(self, key: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._bad(key, value)
        return value

    def _number(self, key: str, value: object) -> float:
        usable = isinstance(value, int | float) and not isinstance(value, bool)
        if not isinstance(value, int | float) or not usable or not math.isfinite(value) or value < 0:
            raise self._bad(key, value)
        return float(value)

    def _bad(self, key: str, value: object) -> LoadError:
        return _corrupt(self._source, f"has {value!r} as {key}")
