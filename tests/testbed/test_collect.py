"""The collector agent on this machine: what it measures is what was used, and it says what it cannot read."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbed.collect.summary import Sample, parse_samples, read_samples, summarise

AGENT = Path(__file__).resolve().parents[2] / "testbed" / "collect" / "agent.py"
SECONDS = 30


class RunningAgent:
    """The agent as a subprocess whose samples are read from its standard output."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(AGENT), *arguments], stdout=subprocess.PIPE, text=True
        )
        self._lines: list[str] = []
        self.header = self._next()
        self.wait_for_samples(1)

    @property
    def pid(self) -> int:
        return self._process.pid

    def _next(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the agent has ended"
        self._lines.append(line)
        content: dict[str, Any] = json.loads(line)
        return content

    def wait_for_samples(self, count: int) -> None:
        """Return when `count` more samples have been taken."""
        for _ in range(count):
            assert self._next()["kind"] == "sample"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> list[dict[str, Any]]:
        """End the agent; returns all lines that it wrote."""
        self._process.send_signal(number)
        rest, _ = self._process.communicate(timeout=SECONDS)
        assert self._process.returncode == 0
        self._lines += rest.splitlines(keepends=True)
        return [json.loads(line) for line in self._lines]

    def samples(self) -> tuple[Sample, ...]:
        return parse_samples("".join(self._lines), "the agent's output")

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def agents() -> Iterator[list[RunningAgent]]:
    running: list[RunningAgent] = []
    yield running
    for agent in running:
        agent.kill()


@dataclass(frozen=True)
class Cgroup:
    name: str
    directories: tuple[Path, ...]


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    """A cgroup of its own in the trees that account for CPU and memory."""
    if os.geteuid() != 0:
        pytest.skip("making a cgroup needs root")
    name = f"odb-test-{os.getpid()}"
    root = Path("/sys/fs/cgroup")
    trees = [root / "cpuacct", root / "memory"] if (root / "cpuacct").is_dir() else [root]
    made: list[Path] = []
    try:
        for tree in trees:
            try:
                (tree / name).mkdir()
            except OSError as error:
                pytest.skip(f"no cgroup can be made in {tree}: {error.strerror}")
            made.append(tree / name)
        yield Cgroup(name, tuple(made))
    finally:
        for directory in made:
            directory.rmdir()


def burn(cgroup: Cgroup, seconds: float, megabytes: int = 0) -> subprocess.Popen[str]:
    """A process in the cgroup that uses CPU for `seconds` and memory, says so, and ends when its input does."""
    entries = "\n".join(f"open('{path}/cgroup.procs', 'w').write('0')" for path in cgroup.directories)
    program = f"""
import sys, time
{entries}
kept = bytearray(b'x') * ({megabytes} << 20)
while time.process_time() < {seconds}:
    pass
print(time.process_time(), flush=True)
sys.stdin.read()
"""
    return subprocess.Popen(
        [sys.executable, "-S", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_known_cpu_time_and_memory_of_a_cgroup_are_measured(
    cgroup: Cgroup, agents: list[RunningAgent]
) -> None:
    agent = RunningAgent("--cgroup", cgroup.name)
    agents.append(agent)
    start = time.time()
    process = burn(cgroup, 0.6, megabytes=24)
    assert process.stdout is not None
    used = float(process.stdout.readline())
    end = time.time()
    agent.wait_for_samples(2)
    process.communicate()
    lines = agent.stop()
    metrics = summarise(agent.samples(), start, end)
    assert not lines[0]["agent_inside"]
    assert metrics.cpu_seconds == pytest.approx(used, abs=0.06)
    assert metrics.memory_peak_bytes is not None
    assert 24 << 20 <= metrics.memory_peak_bytes < 64 << 20
    assert metrics.working_peak_bytes is not None
    assert 24 << 20 <= metrics.working_peak_bytes < 64 << 20
    assert set(metrics.reasons) == {"rx_bytes", "tx_bytes"}


def test_an_agent_in_the_cgroup_that_it_measures_says_so(cgroup: Cgroup) -> None:
    program = "import os, sys\n"
    for path in cgroup.directories:
        program += f"open('{path}/cgroup.procs', 'w').write('0')\n"
    program += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    process = subprocess.run(
        [sys.executable, "-S", "-c", program, str(AGENT), "--once", "--cgroup", cgroup.name],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    header, sample, _ = (json.loads(line) for line in process.stdout.splitlines())
    assert header["agent_inside"]
    assert sample["cpu_seconds"] > 0.01
    assert sample["agent_cpu_seconds"] == pytest.approx(sample["cpu_seconds"], abs=0.05)


def test_processes_stand_in_where_memory_is_not_accounted(cgroup: Cgroup, agents: list[RunningAgent]) -> None:
    process = burn(cgroup, 0, megabytes=16)
    assert process.stdout is not None
    process.stdout.readline()
    agent = RunningAgent("--cgroup-cpu", str(cgroup.directories[0]))
    agents.append(agent)
    lines = agent.stop()
    process.communicate()
    assert "resident pages" in lines[0]["sources"]["memory"]
    assert 16 << 20 <= lines[1]["memory_bytes"] < 64 << 20


def test_version_2_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n")
    (tmp_path / "memory.current").write_text("9000\n")
    (tmp_path / "memory.stat").write_text("anon 4000\nfile 5000\nshmem 300\n")
    (tmp_path / "cgroup.procs").write_text("")
    sample = once("--cgroup-cpu", str(tmp_path), "--cgroup-memory", str(tmp_path))
    assert sample["cpu_seconds"] == 1.5
    assert (sample["memory_bytes"], sample["memory_working_bytes"]) == (9000, 4300)


def once(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(AGENT), "--once", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=SECONDS,
    )
    kinds = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["kind"] for line in kinds] == ["header", "sample", "end"]
    sample: dict[str, Any] = kinds[1]
    return sample


def test_what_cannot_be_read_is_null_with_a_reason() -> None:
    sample = once("--cgroup", "no-such-group", "--interface", "no-such-if", "--cores", "0,9999")
    for key in ("cpu_seconds", "memory_bytes", "memory_working_bytes", "rx_bytes", "tx_bytes"):
        assert sample[key] is None
    assert sample["cores"]["9999"] is None
    assert sample["cores"]["0"]["busy"] > 0
    assert "no cgroup no-such-group" in sample["reasons"]["cpu"]
    assert "no cgroup no-such-group" in sample["reasons"]["memory"]
    assert sample["reasons"]["network"] == "/proc/self/net/dev: there is no interface no-such-if"
    assert sample["reasons"]["cores.9999"] == "there is no core 9999"


def test_the_pace_of_the_core_is_the_time_of_a_system_call() -> None:
    began = time.thread_time_ns()
    for _ in range(2000):
        os.getppid()
    here = (time.thread_time_ns() - began) / 2000
    assert here / 10 < once()["pace_ns"] < here * 10


def test_network_bytes_of_an_interface_are_counted(agents: list[RunningAgent]) -> None:
    agent = RunningAgent("--interface", "lo", "--interval", "0.05")
    agents.append(agent)
    start = time.time()
    listener = socket.create_server(("127.0.0.1", 0))
    sender = socket.create_connection(listener.getsockname())
    receiver, _ = listener.accept()
    with listener, sender, receiver:
        for _ in range(64):
            sender.sendall(bytes(16384))
            left = 16384
            while left:
                left -= len(receiver.recv(left))
    end = time.time()
    agent.wait_for_samples(1)
    agent.stop()
    metrics = summarise(agent.samples(), start, end)
    assert metrics.rx_bytes is not None
    assert metrics.tx_bytes is not None
    assert metrics.rx_bytes >= 64 * 16384
    assert metrics.tx_bytes >= 64 * 16384


def test_a_busy_core_is_seen_and_the_agent_costs_less_than_one_percent(agents: list[RunningAgent]) -> None:
    core = min(os.sched_getaffinity(0))
    agent = RunningAgent("--cores", str(core), "--cgroup", "/", "--interface", "lo")
    agents.append(agent)
    start = time.time()
    program = f"import os, time\nos.sched_setaffinity(0, [{core}])\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-S", "-c", program], check=True, timeout=SECONDS)
    end = time.time()
    agent.wait_for_samples(20)
    last = agent.stop()[-1]
    metrics = summarise(agent.samples(), start, end)
    assert list(metrics.cores) == [core]
    assert 0.4 <= metrics.cores[core].busy_seconds <= metrics.seconds + 0.05
    assert metrics.steal_share is not None
    assert metrics.agent_cpu_seconds > 0
    assert 0 < last["agent_share"] < 0.01


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_agent_with_everything_written(
    agents: list[RunningAgent], number: signal.Signals
) -> None:
    agent = RunningAgent("--interval", "0.05")
    agents.append(agent)
    agent.wait_for_samples(3)
    signalled = time.time()
    lines = agent.stop(number)
    assert [line["kind"] for line in lines] == ["header", *["sample"] * (len(lines) - 2), "end"]
    assert lines[-1]["samples"] == len(lines) - 2
    assert lines[-1]["stopped_by"] == number.name
    assert lines[-2]["wall"] >= signalled, "the last sample is taken after the signal"


def test_samples_come_at_the_interval(agents: list[RunningAgent]) -> None:
    agent = RunningAgent()
    agents.append(agent)
    agent.wait_for_samples(10)
    lines = agent.stop()
    assert lines[0]["interval"] == 0.1
    turns = [line["monotonic"] for line in lines if line["kind"] == "sample"][:-1]
    elapsed = turns[-1] - turns[0]
    assert elapsed == pytest.approx(0.1 * (len(turns) - 1 + lines[-1]["missed"]), abs=0.08)


def test_the_output_goes_to_a_file_and_a_bad_place_is_an_error(tmp_path: Path) -> None:
    command = [sys.executable, str(AGENT), "--once", "--out"]
    subprocess.run([*command, str(tmp_path / "out.jsonl")], check=True, timeout=SECONDS)
    assert len(read_samples(tmp_path / "out.jsonl")) == 1
    bad = subprocess.run(
        [*command, str(tmp_path / "no" / "out")], capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert bad.returncode == 1
    assert bad.stderr == f"error: cannot write {tmp_path}/no/out: No such file or directory\n"


def test_the_agent_stands_alone_and_fits_old_pythons(tmp_path: Path) -> None:
    tree = ast.parse(AGENT.read_text(), feature_version=(3, 9))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
    copy = shutil.copy(AGENT, tmp_path)
    subprocess.run(
        [sys.executable, "-I", copy, "--once"], cwd=tmp_path, check=True, timeout=SECONDS, capture_output=True
    )
