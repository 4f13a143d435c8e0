"""Cutting an interval out of samples: counters at the borders, levels over time, and what is not known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from testbed.collect.summary import CollectError, Sample, parse_samples, read_samples, summarise


def sample(wall: float, **values: Any) -> Sample:
    """A sample at `wall` whose counters are all 0 unless `values` says otherwise."""
    given: dict[str, Any] = {
        "wall": wall,
        "monotonic": wall - 1000,
        "cpu_seconds": 0.0,
        "memory_bytes": 100.0,
        "memory_working_bytes": 50.0,
        "rx_bytes": 0.0,
        "tx_bytes": 0.0,
        "cores": {1: {"busy": 0.0, "softirq": 0.0, "steal": 0.0}},
        "agent_cpu_seconds": 0.0,
        "agent_memory_bytes": 0.0,
        "agent_inside": False,
        "reasons": {},
    }
    return Sample(**{**given, **values})


def burst() -> list[Sample]:
    """A tier at rest that used 0.3 s of CPU and 900 bytes in a short run within 10.0 to 10.2."""
    uses = [(9.9, 5.0, 100), (10.0, 5.0, 100), (10.1, 5.1, 400), (10.2, 5.3, 1000), (10.3, 5.3, 1000)]
    return [sample(wall, cpu_seconds=cpu, rx_bytes=float(rx)) for wall, cpu, rx in uses]


def test_a_short_run_between_samples_is_measured_whole() -> None:
    metrics = summarise(burst(), 10.04, 10.16)
    assert metrics.cpu_seconds == pytest.approx(0.3)
    assert metrics.rx_bytes == pytest.approx(900)
    assert metrics.seconds == pytest.approx(0.2)
    assert metrics.samples == 1


def test_borders_on_samples_take_nothing_more() -> None:
    metrics = summarise(burst(), 10.0, 10.2)
    assert metrics.cpu_seconds == pytest.approx(0.3)
    assert metrics.seconds == pytest.approx(0.2)
    assert metrics.samples == 3


def test_an_interval_of_steady_work_is_interpolated() -> None:
    steady = [sample(10 + turn / 10, cpu_seconds=turn * 0.05, tx_bytes=turn * 10.0) for turn in range(11)]
    metrics = summarise(steady, 10.23, 10.78, borders="interpolated")
    assert metrics.cpu_seconds == pytest.approx(0.275)
    assert metrics.tx_bytes == pytest.approx(55)
    assert metrics.seconds == pytest.approx(0.55)


def test_both_borders_may_lie_between_the_same_samples() -> None:
    pair = [sample(10, cpu_seconds=1.0), sample(11, cpu_seconds=2.0)]
    assert summarise(pair, 10.25, 10.5, borders="interpolated").cpu_seconds == pytest.approx(0.25)
    assert summarise(pair, 10.25, 10.5).cpu_seconds == pytest.approx(1.0)


def test_memory_is_averaged_over_time_between_start_and_end() -> None:
    levels = [(10, 0.0), (11, 100.0), (13, 100.0), (14, 900.0)]
    samples = [sample(wall, memory_bytes=level) for wall, level in levels]
    metrics = summarise(samples, 10.5, 13.0)
    assert metrics.memory_mean_bytes == pytest.approx((0.5 * 75 + 2 * 100) / 2.5)
    assert metrics.memory_peak_bytes == pytest.approx(100)
    assert metrics.working_mean_bytes == pytest.approx(50)


def test_cores_are_shares_of_the_interval() -> None:
    zero = {"busy": 1.0, "softirq": 0.5, "steal": 0.0}
    first = sample(10, cores={1: zero, 2: zero})
    last = sample(
        12,
        cores={
            1: {"busy": 2.5, "softirq": 1.0, "steal": 0.4},
            2: {"busy": 1.0, "softirq": 0.5, "steal": 0.0},
        },
    )
    metrics = summarise([first, last], 10, 12)
    assert metrics.cores[1].busy_seconds == pytest.approx(1.5)
    assert metrics.cores[1].busy_share == pytest.approx(0.75)
    assert metrics.cores[1].softirq_share == pytest.approx(0.25)
    assert metrics.cores[1].steal_share == pytest.approx(0.2)
    assert metrics.busy_seconds == pytest.approx(1.5)
    assert metrics.steal_share == pytest.approx(0.1)


def test_the_pace_is_the_mean_of_the_samples_that_have_one() -> None:
    samples = [sample(10, pace_ns=200.0), sample(11), sample(12, pace_ns=260.0), sample(13, pace_ns=900.0)]
    assert summarise(samples, 10, 12).pace_ns == pytest.approx(230)
    old = summarise([sample(10), sample(11)], 10, 11)
    assert (old.pace_ns, old.reasons["pace_ns"]) == (None, "the agent could not read it")


def test_the_agent_within_the_cgroup_is_taken_off() -> None:
    own = {"agent_inside": True, "agent_memory_bytes": 30.0}
    samples = [
        sample(10, cpu_seconds=1.0, agent_cpu_seconds=0.5, **own),
        sample(12, cpu_seconds=2.0, agent_cpu_seconds=0.6, **own),
    ]
    metrics = summarise(samples, 10, 12)
    assert metrics.cpu_seconds == pytest.approx(0.9)
    assert metrics.memory_mean_bytes == pytest.approx(70)
    assert metrics.working_peak_bytes == pytest.approx(20)
    assert metrics.agent_cpu_seconds == pytest.approx(0.1)
    assert metrics.agent_share == pytest.approx(0.05)


def test_what_was_not_read_is_none_with_the_agents_reason() -> None:
    lacking = {
        "cpu_seconds": None,
        "memory_bytes": None,
        "rx_bytes": None,
        "cores": {7: None},
        "reasons": {
            "cpu": "no cgroup",
            "memory": "no controller",
            "network": "no if",
            "cores.7": "no core 7",
        },
    }
    metrics = summarise([sample(10, **lacking), sample(11, **lacking)], 10, 11)
    assert (metrics.cpu_seconds, metrics.memory_mean_bytes, metrics.memory_peak_bytes) == (None, None, None)
    assert (metrics.rx_bytes, metrics.busy_seconds, metrics.steal_share) == (None, None, None)
    assert metrics.tx_bytes == 0
    assert metrics.reasons["cpu_seconds"] == "no cgroup"
    assert metrics.reasons["memory_bytes"] == "no controller"
    assert metrics.reasons["rx_bytes"] == "no if"
    assert metrics.reasons["cores.7"] == "no core 7"


def test_a_counter_that_was_reset_is_not_a_number() -> None:
    metrics = summarise([sample(10, cpu_seconds=9.0), sample(11, cpu_seconds=1.0)], 10, 11)
    assert metrics.cpu_seconds is None
    assert "went backwards" in metrics.reasons["cpu_seconds"]


def test_rounding_backwards_by_a_tick_is_no_use() -> None:
    assert summarise([sample(10, cpu_seconds=9.0), sample(11, cpu_seconds=8.99)], 10, 11).cpu_seconds == 0


@pytest.mark.parametrize(("start", "end"), [(9.0, 10.5), (10.5, 12.0)])
def test_an_interval_that_is_not_covered_is_refused(start: float, end: float) -> None:
    with pytest.raises(CollectError, match="start the agent before the load"):
        summarise([sample(10), sample(11)], start, end)


def test_no_samples_and_no_interval_are_refused() -> None:
    with pytest.raises(CollectError, match="cover nothing"):
        summarise([], 10, 11)
    with pytest.raises(CollectError, match="is empty"):
        summarise([sample(10), sample(11)], 10.5, 10.5)


def test_a_clock_that_was_set_is_refused() -> None:
    with pytest.raises(CollectError, match="clock was set by 0.500 s"):
        summarise([sample(10), sample(11, monotonic=-989.5)], 10, 11)


HEADER = {"kind": "header", "schema": 1, "agent_inside": False}
LINE = {
    "kind": "sample",
    "wall": 10,
    "monotonic": 1,
    "cpu_seconds": None,
    "memory_bytes": 1,
    "memory_working_bytes": 1,
    "rx_bytes": 2,
    "tx_bytes": 3,
    "cores": {"1": {"busy": 1, "softirq": 0, "steal": 0, "idle": 3}, "9": None},
    "agent_cpu_seconds": 0.1,
    "agent_memory_bytes": 4,
    "reasons": {"cpu": "why"},
}


def lines(*contents: dict[str, Any]) -> str:
    return "".join(json.dumps(content) + "\n" for content in contents)


def test_lines_become_samples_and_an_unfinished_one_is_left_out(tmp_path: Path) -> None:
    later = {**LINE, "wall": 10.1, "monotonic": 1.1}
    path = tmp_path / "samples.jsonl"
    path.write_text(lines(HEADER, LINE, later) + '{"kind": "sam')
    first, second = read_samples(path)
    assert (first.wall, second.wall, first.cpu_seconds, first.rx_bytes) == (10, 10.1, None, 2)
    assert first.cores == {1: {"busy": 1, "softirq": 0, "steal": 0}, 9: None}
    assert first.reasons == {"cpu": "why"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lines(LINE), "no header"),
        (lines({**HEADER, "schema": 2}), "schema 2 instead of 1"),
        (lines(HEADER) + "nonsense\n", "line 2 of the samples x is corrupt"),
        (lines(HEADER, {"kind": "sample"}), "line 2 of the samples x is corrupt"),
        (lines(HEADER) + "[]\n", "line 2 of the samples x is corrupt"),
        (lines(HEADER, {**LINE, "cores": {"1": 5}}), "line 2 of the samples x is corrupt"),
        (lines(HEADER, LINE, LINE), "go back in time"),
    ],
)
def test_corrupt_samples_are_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(CollectError, match=message):
        parse_samples(text, "x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CollectError, match="cannot read the samples"):
        read_samples(tmp_path / "none")
