"""Matrices on real hosts: killed, deprived of a host or of room on the disk, a run loses nothing and repeats nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.matrix import steps
from testbed.record import Plan, Record
from testbed.runs import Run
from tests.testbed.bench import Bench

LOAD = """
[load.tiny]
users = 4
spawn_rate = 50
requests_per_user = 5
warmup_users = 2
warmup_requests_per_user = 2
"""
REQUESTS = 20


def spec(directory: Path, variants: list[str], payloads: list[str], repetitions: int = 1) -> str:
    """A matrix file with a tiny load."""
    file = directory / "tiny.toml"
    file.write_text(
        f"variants = {json.dumps(variants)}\nrepetitions = {repetitions}\n"
        f"[matrix]\npayload = {json.dumps(payloads)}\n{LOAD}"
    )
    return str(file)


def place(record: Record) -> tuple[int, int, int, str]:
    return record.sequence, record.repetition, record.cell.payload, record.variant.label


def planned(plan: Plan) -> list[tuple[int, int, int, str]]:
    return [(one.sequence, one.repetition, one.cell.payload, one.variant.label) for one in steps(plan)]


def assert_is_complete(run: Run) -> None:
    """The records are what an uninterrupted run has: every step once, with every request."""
    assert [place(record) for record in run.records] == planned(run.header.plan)
    for record in run.records:
        assert record.failure is None
        assert record.load is not None
        assert (record.load.requests, record.load.errors) == (REQUESTS, 0)


def kill_at(process: subprocess.Popen[str], start: str, seconds: float) -> None:
    """Kill a command some time after it has said a line."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(start):
            break
    else:
        pytest.fail(f"it never said {start!r}")
    try:
        process.wait(seconds)
        pytest.fail("it ended before it was killed")
    except subprocess.TimeoutExpired:
        process.kill()
    process.wait(20)


@pytest.mark.timeout(400)
def test_a_run_killed_five_times_equals_one_that_was_not(bench: Bench, tmp_path: Path) -> None:
    file = spec(tmp_path, ["vanilla", "vanilla"], ["16k", "64k"])
    results = tmp_path / "results"
    kept: dict[str, bytes] = {}
    # At the first word; while servers start; during verification and warm-up; under load; while a record is written.
    for start, seconds in (("run ", 0.0), ("run ", 1.2), ("run ", 2.4), ("[1/", 3.2), ("[1/", 0.0)):
        with bench.start("run", file, "--resume", results=results) as process:
            kill_at(process, start, seconds)
        there = {
            path.parent.name: path.read_bytes() for path in results.glob("runs/*/cells/[!.]*/record.json")
        }
        assert kept.items() <= there.items()
        kept = there
    assert len(kept) >= 2
    done = bench.run("run", file, "--resume", results=results)
    assert done.returncode == 0, done.stderr
    assert_is_complete(bench.newest(results))
    assert len(list((results / "runs").glob("[!.]*"))) == 1
    there = {path.parent.name: path.read_bytes() for path in results.glob("runs/*/cells/*/record.json")}
    assert kept.items() <= there.items()
    assert bench.background_processes() == []


@pytest.mark.timeout(400)
def test_a_host_lost_in_mid_run_costs_one_cell(bench: Bench, tmp_path: Path) -> None:
    file = spec(tmp_path, ["vanilla", "vanilla", "vanilla"], ["16k"])
    results = tmp_path / "results"
    with bench.start("run", file, "--json", results=results) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("[1/3]"):
                break
        for pid in processes_of(bench, "is1"):
            os.kill(pid, signal.SIGKILL)
        out, err = process.communicate(timeout=200)
    assert process.returncode == 1, err
    failures = [record.failure for record in bench.newest(results).records]
    assert (failures[0], failures[2]) == (None, None)
    assert failures[1] is not None and "is1" in failures[1]
    assert Counter(row["n"] for row in json.loads(out)["cells"]) == {1: 2, 0: 1}


def processes_of(bench: Bench, role: str) -> list[int]:
    """Every process on a host: sshd and the servers that it started."""
    state = json.loads(bench.state.read_text())
    group = state["hosts"][role]["cgroup"].lstrip("/")
    listed = [
        file for root in Path("/sys/fs/cgroup").glob("*") for file in (root / group).glob("cgroup.procs")
    ]
    return sorted({int(word) for file in listed for word in file.read_text().split()})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one record and a half."""
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", mount], check=True, timeout=20)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True, timeout=20)


@pytest.mark.timeout(400)
def test_a_full_disk_ends_the_run_and_it_goes_on_when_there_is_room(
    bench: Bench, tmp_path: Path, small_disk: Path
) -> None:
    file = spec(tmp_path, ["vanilla", "vanilla"], ["16k"])
    (small_disk / "filler").write_bytes(bytes(96 << 10))
    done = bench.run("run", file, results=small_disk)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "nothing more can be stored" in done.stderr and "--resume" in done.stderr
    assert "Traceback" not in done.stderr
    (small_disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True, timeout=20)
    done = bench.run("run", file, "--resume", results=small_disk)
    assert done.returncode == 0, done.stderr
    assert_is_complete(bench.newest(small_disk))


@pytest.mark.timeout(400)
def test_every_variant_does_what_it_says(bench: Bench, tmp_path: Path) -> None:
    """The intermediary's bytes tell references from bodies; a library of one's own is the one that is loaded."""
    variants = ["vanilla", "x-accel", "haproxy-splice", "odb-static", "odb-dynamic", "odb-anticipated"]
    file = spec(tmp_path, variants, ["64k"])
    done = bench.run(
        "run", file, "--json", "--fail-if", "is.bytes[x-accel] > 0.1", results=tmp_path / "results"
    )
    assert done.returncode == 0, done.stderr
    rows: dict[str, Any] = {row["variant"]: row["metrics"] for row in json.loads(done.stdout)["cells"]}
    assert list(rows) == variants
    for name, metrics in rows.items():
        assert metrics["errors"]["median"] == 0, name
        by_reference = name not in ("vanilla", "haproxy-splice")
        assert (metrics["is.bytes"]["median"] < 40_000) == by_reference, name
    assert rows["x-accel"]["is.bytes"]["median"] < 4096
    assert rows["haproxy-splice"]["is.bytes"]["median"] > 2 * 65536
