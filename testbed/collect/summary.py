"""Cuts the interval of one load out of an agent's samples and says what the tier used in it."""

from __future__ import annotations

import bisect
import gzip
import itertools
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from testbed.errors import TestbedError

SCHEMA = 1
CORE_COUNTERS = ("busy", "softirq", "steal")

# The wall clock may drift against the monotonic one by this much within a recording before it counts as set anew.
CLOCK_TOLERANCE_SECONDS = 0.05

# A counter may seem to go back by this much: ticks are rounded apart, and the agent's own CPU, which is taken off the
# cgroup's, is read a moment later.
COUNTER_SLACK = 0.03

Borders = Literal["enclosing", "interpolated"]


class CollectError(TestbedError):
    """Samples cannot be read, or do not cover what is asked of them."""

    kind: ClassVar[str] = "collect"


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: clocks and CPU in seconds, memory and network in bytes; counters are cumulative.

    `cores` has busy, softirq and steal seconds per core, None for a core that is not there; `pace_ns` is how long a
    plain system call took, None in samples of older agents; `reasons` says why a value is None.
    """

    wall: float
    monotonic: float
    cpu_seconds: float | None
    memory_bytes: float | None
    memory_working_bytes: float | None
    rx_bytes: float | None
    tx_bytes: float | None
    cores: Mapping[int, Mapping[str, float] | None]
    agent_cpu_seconds: float
    agent_memory_bytes: float
    agent_inside: bool
    reasons: Mapping[str, str]
    pace_ns: float | None = None


@dataclass(frozen=True, slots=True)
class CoreMetrics:
    """One core in the interval: seconds busy (softirq included, steal not), and shares of the interval (0 to 1)."""

    busy_seconds: float
    softirq_seconds: float
    steal_seconds: float
    busy_share: float
    softirq_share: float
    steal_share: float


@dataclass(frozen=True, slots=True)
class TierMetrics:
    """What a tier used in one interval of `seconds`, from `samples` samples; None is explained in `reasons`.

    `cpu_seconds` is the cgroup's CPU time without the agent's. `memory_*_bytes` is everything charged to the cgroup,
    `working_*_bytes` leaves the page cache of files out; means are over time, the agent's own pages are left out
    of both. `steal_share` is the share of the measured cores' time that the hypervisor took. `agent_share` is the
    agent's own CPU as a share of one core. `pace_ns` is the mean of the samples'.
    """

    start: float
    end: float
    seconds: float
    samples: int
    cpu_seconds: float | None
    memory_mean_bytes: float | None
    memory_peak_bytes: float | None
    working_mean_bytes: float | None
    working_peak_bytes: float | None
    rx_bytes: float | None
    tx_bytes: float | None
    cores: Mapping[int, CoreMetrics]
    busy_seconds: float | None
    softirq_seconds: float | None
    steal_share: float | None
    agent_cpu_seconds: float
    agent_share: float
    reasons: Mapping[str, str]
    pace_ns: float | None = None


def read_samples(path: Path) -> tuple[Sample, ...]:
    """The samples in an agent's output, in order of time. An unfinished last line is left out.

    A name that ends with ".gz" is compressed, as records keep it.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise CollectError(f"cannot read the samples {path}", "collect again") from error
    return parse_samples(text, str(path))


def parse_samples(text: str, source: str) -> tuple[Sample, ...]:
    """The samples in JSON lines; `source` names them in errors."""
    complete, _, _ = text.rpartition("\n")
    header: dict[str, Any] | None = None
    samples = []
    for number, line in enumerate(complete.splitlines(), start=1):
        try:
            content = json.loads(line)
            if content["kind"] == "header":
                header = content
                _check_schema(content, source)
            elif content["kind"] == "sample":
                if header is None:
                    raise CollectError(f"the samples {source} have no header", "collect again")
                samples.append(_sample(content, inside=bool(header["agent_inside"])))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CollectError(
                f"line {number} of the samples {source} is corrupt", "collect again"
            ) from error
    if any(later.wall <= earlier.wall for earlier, later in itertools.pairwise(samples)):
        raise CollectError(f"the samples {source} go back in time", "collect again, with a steady clock")
    return tuple(samples)


def _check_schema(header: Mapping[str, Any], source: str) -> None:
    if header["schema"] != SCHEMA:
        raise CollectError(
            f"the samples {source} have schema {header['schema']!r} instead of {SCHEMA}",
            "use the agent of this version",
        )


def _sample(content: Mapping[str, Any], *, inside: bool) -> Sample:
    cores = {
        int(name): None if times is None else {key: float(times[key]) for key in CORE_COUNTERS}
        for name, times in (content["cores"] or {}).items()
    }
    return Sample(
        wall=float(content["wall"]),
        monotonic=float(content["monotonic"]),
        cpu_seconds=_optional(content["cpu_seconds"]),
        memory_bytes=_optional(content["memory_bytes"]),
        memory_working_bytes=_optional(content["memory_working_bytes"]),
        rx_bytes=_optional(content["rx_bytes"]),
        tx_bytes=_optional(content["tx_bytes"]),
        cores=cores,
        agent_cpu_seconds=float(content["agent_cpu_seconds"]),
        agent_memory_bytes=float(content["agent_memory_bytes"]),
        agent_inside=inside,
        reasons=dict(content.get("reasons", {})),
        pace_ns=_optional(content.get("pace_ns")),
    )


def _optional(value: float | None) -> float | None:
    return None if value is None else float(value)


def summarise(
    samples: Sequence[Sample], start: float, end: float, *, borders: Borders = "enclosing"
) -> TierMetrics:
    """What was used from `start` to `end`, seconds since the epoch on the same clock as the samples' `wall`.

    The samples must reach from before `start` to after `end`. Counters at the borders:

    - "enclosing" takes the last sample at or before `start` and the first at or after `end`. For a load with quiet
      before and after it, that is all of the load's use and nothing else, however short it is.
    - "interpolated" puts a straight line between the samples around each border. That fits an interval cut out of
      steady work; of a load that begins between two samples it would lose a part.
    """
    if not start < end:
        raise CollectError(f"cannot summarise from {start} to {end}: the interval is empty")
    window = _Window(samples, start, end, borders)
    reasons: dict[str, str] = {}

    def used(name: str, reason_name: str, value: Callable[[Sample], float | None]) -> float | None:
        return window.difference(name, reason_name, value, reasons)

    cores = window.cores(reasons)
    agent_cpu = window.difference("agent", "agent", lambda sample: sample.agent_cpu_seconds, reasons) or 0.0
    memory = window.level("memory_bytes", lambda sample: _without_agent(sample, sample.memory_bytes), reasons)
    working = window.level(
        "working_bytes", lambda sample: _without_agent(sample, sample.memory_working_bytes), reasons
    )
    return TierMetrics(
        start=start,
        end=end,
        seconds=window.seconds,
        samples=window.count,
        cpu_seconds=used("cpu_seconds", "cpu", _cpu_without_agent),
        memory_mean_bytes=memory[0],
        memory_peak_bytes=memory[1],
        working_mean_bytes=working[0],
        working_peak_bytes=working[1],
        rx_bytes=used("rx_bytes", "network", lambda sample: sample.rx_bytes),
        tx_bytes=used("tx_bytes", "network", lambda sample: sample.tx_bytes),
        cores=cores,
        busy_seconds=sum(core.busy_seconds for core in cores.values()) if cores else None,
        softirq_seconds=sum(core.softirq_seconds for core in cores.values()) if cores else None,
        steal_share=sum(core.steal_share for core in cores.values()) / len(cores) if cores else None,
        agent_cpu_seconds=agent_cpu,
        agent_share=agent_cpu / window.seconds,
        reasons=reasons,
        pace_ns=window.pace(reasons),
    )


def _cpu_without_agent(sample: Sample) -> float | None:
    if sample.cpu_seconds is None or not sample.agent_inside:
        return sample.cpu_seconds
    return sample.cpu_seconds - sample.agent_cpu_seconds


def _without_agent(sample: Sample, value: float | None) -> float | None:
    if value is None or not sample.agent_inside:
        return value
    return max(0.0, value - sample.agent_memory_bytes)


class _Window:
    """The samples of one interval, with the two borders at which counters are read."""

    def __init__(self, samples: Sequence[Sample], start: float, end: float, borders: Borders) -> None:
        walls = [sample.wall for sample in samples]
        if not samples or walls[0] > start or walls[-1] < end:
            covered = f"from {walls[0]:.3f} to {walls[-1]:.3f}" if samples else "nothing"
            raise CollectError(
                f"the samples cover {covered}, not all from {start:.3f} to {end:.3f}",
                "start the agent before the load and stop it afterwards",
            )
        first = bisect.bisect_right(walls, start) - 1
        last = bisect.bisect_left(walls, end)
        self._samples = tuple(samples[first : last + 1])
        _check_clock(self._samples)
        enclosing = borders == "enclosing"
        self._from = self._samples[0].wall if enclosing else start
        self._to = self._samples[-1].wall if enclosing else end
        self._start, self._end = start, end
        self.count = sum(start <= sample.wall <= end for sample in self._samples)

    @property
    def seconds(self) -> float:
        """Length of the interval between the borders."""
        return self._to - self._from

    def difference(
        self,
        name: str,
        reason_name: str,
        value: Callable[[Sample], float | None],
        reasons: dict[str, str],
    ) -> float | None:
        """How far a cumulative counter went between the borders; None when it is unknown or was reset."""
        first = self._at(self._from, value)
        last = self._at(self._to, value)
        if first is None or last is None:
            reasons[name] = self._reason(reason_name)
            return None
        if last < first - COUNTER_SLACK:
            reasons[name] = "the counter went backwards: it was reset within the interval"
            return None
        return max(0.0, last - first)

    def level(
        self, name: str, value: Callable[[Sample], float | None], reasons: dict[str, str]
    ) -> tuple[float | None, float | None]:
        """Mean over time and peak of a level from start to end, straight lines between samples."""
        points = [(self._start, self._at(self._start, value))]
        points += [(item.wall, value(item)) for item in self._samples if self._start < item.wall < self._end]
        points += [(self._end, self._at(self._end, value))]
        known = [(wall, level) for wall, level in points if level is not None]
        if len(known) < len(points):
            reasons[name] = self._reason("memory")
            return None, None
        area = sum(
            (later[0] - earlier[0]) * (later[1] + earlier[1]) / 2
            for earlier, later in itertools.pairwise(known)
        )
        return area / (self._end - self._start), max(level for _, level in known)

    def cores(self, reasons: dict[str, str]) -> dict[int, CoreMetrics]:
        """Metrics of each core that was there all the time."""
        found = {}
        for number in self._samples[0].cores:
            name = f"cores.{number}"
            used = {
                key: self.difference(name, name, _core_counter(number, key), reasons) for key in CORE_COUNTERS
            }
            busy, softirq, steal = (used[key] for key in CORE_COUNTERS)
            if busy is not None and softirq is not None and steal is not None:
                shares = (busy / self.seconds, softirq / self.seconds, steal / self.seconds)
                found[number] = CoreMetrics(busy, softirq, steal, *shares)
        if not found:
            reasons.setdefault("cores", self._reason("cores"))
        return found

    def pace(self, reasons: dict[str, str]) -> float | None:
        """Mean of the samples between the borders, both included."""
        known = [sample.pace_ns for sample in self._samples if sample.pace_ns is not None]
        if not known:
            reasons["pace_ns"] = self._reason("pace_ns")
            return None
        return sum(known) / len(known)

    def _at(self, wall: float, value: Callable[[Sample], float | None]) -> float | None:
        """The value at a moment, on a straight line between the samples around it."""
        for earlier, later in itertools.pairwise(self._samples):
            if earlier.wall <= wall <= later.wall:
                low, high = value(earlier), value(later)
                if low is None or high is None:
                    return low if wall == earlier.wall else high if wall == later.wall else None
                return low + (high - low) * (wall - earlier.wall) / (later.wall - earlier.wall)
        return value(self._samples[0])

    def _reason(self, name: str) -> str:
        for sample in self._samples:
            if name in sample.reasons:
                return sample.reasons[name]
        return "the agent could not read it"


def _core_counter(number: int, key: str) -> Callable[[Sample], float | None]:
    def value(sample: Sample) -> float | None:
        times = sample.cores.get(number)
        return None if times is None else times[key]

    return value


def _check_clock(samples: Sequence[Sample]) -> None:
    offsets = [sample.wall - sample.monotonic for sample in samples]
    if not math.isclose(min(offsets), max(offsets), rel_tol=0, abs_tol=CLOCK_TOLERANCE_SECONDS):
        raise CollectError(
            f"the host's clock was set by {max(offsets) - min(offsets):.3f} s during the interval",
            "measure again, with a steady clock",
        )
