"""Matrices on real hosts: killed, deprived of a host or of room on the disk, a run loses nothing and repeats nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.analysis import compare
from testbed.matrix import steps, use_variant
from testbed.record import Plan, Record
from testbed.runs import Run
from testbed.session import Testbed
from testbed.spec import load_variants
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
MODELS = """
variants = ["vanilla"]
repetitions = 1
[matrix]
payload = ["16k"]
load = ["calm", "wrk", "two"]
[load.calm]
model = "open"
rate = 40
users = 4
requests_per_user = 10
[load.wrk]
model = "closed"
generator = "wrk"
users = 4
seconds = 1
[load.two]
hosts = 2
users = 4
spawn_rate = 20
requests_per_user = 10
"""


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
    variants = ["vanilla", "x-accel", "haproxy-splice", "odb-static"]
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


@pytest.mark.timeout(400)
def test_a_variant_may_have_a_library_and_an_nginx_of_its_own(
    bench: Bench, tmp_path: Path, library: Path
) -> None:
    """Other builds, here copies with a byte more at their ends, are what runs on the hosts."""
    for source, name in ((library, "libodb.so"), (Path(shutil.which("nginx") or ""), "nginx")):
        (tmp_path / name).write_bytes(source.read_bytes() + b"x")
    variants = tmp_path / "variants.toml"
    variants.write_text(
        '[vanilla]\nodb = false\n[mine]\nodb = true\nlibrary = "libodb.so"\nnginx = "nginx"\n'
    )
    mine = load_variants(variants)["mine"]
    with Testbed.open(bench.state) as testbed:
        testbed.start(mine)
        status = testbed.process_status("is1", "nginx", "libodb.so")
        assert status["mapped"] == status["processes"]
        maps = testbed.run("is1", ["cat", f"/proc/{status['processes'][0]}/maps"], timeout=20).stdout
        testbed.stop()
    for name in ("libodb.so", "nginx"):
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert f"/builds/{digest[:16]}/{name}" in maps
    use = use_variant(mine, "mine")
    assert use.digests["library"] == hashlib.sha256((tmp_path / "libodb.so").read_bytes()).hexdigest()


@pytest.mark.timeout(400)
def test_haproxy_moves_bodies_through_pipes(bench: Bench) -> None:
    """What the variant is named after: bytes that never enter the program's memory."""
    with Testbed.open(bench.state) as testbed:
        testbed.start(load_variants()["haproxy-splice"])
        url = f"{testbed.front_url()}/payload/262144.bin"
        assert testbed.run("client", ["curl", "-s", "-o", "/dev/null", url], timeout=20).exit_code == 0
        workers = testbed.process_status("is1", "nginx")["processes"]
        listing = testbed.run("is1", ["ls", "-l", *(f"/proc/{pid}/fd" for pid in workers)], timeout=20).stdout
        testbed.stop()
    assert "pipe:" in listing


@pytest.mark.timeout(400)
def test_equal_variants_are_noise(bench: Bench, tmp_path: Path) -> None:
    file = spec(tmp_path, ["vanilla", "vanilla"], ["16k"], repetitions=3)
    done = bench.run("run", file, "--json", results=tmp_path / "results")
    assert done.returncode == 0, done.stderr
    run = bench.newest(tmp_path / "results")
    found = {
        name: statistic.verdict
        for row in compare(run.header, run.records).rows
        if row.variant == "vanilla#2"
        for name, statistic in row.metrics.items()
        if statistic.p is not None
    }
    assert len(found) > 10
    assert set(found.values()) == {"noise"}, found


@pytest.mark.timeout(400)
def test_every_model_of_load_is_measured_and_two_hosts_add_up_exactly(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(MODELS)
    done = bench.run("run", str(file), "--json", results=tmp_path / "results")
    assert done.returncode == 0, done.stderr
    loads = {record.cell.load: record for record in bench.newest(tmp_path / "results").records}
    assert set(loads) == {"calm", "wrk", "two"}
    for name, record in loads.items():
        assert record.failure is None and record.load is not None
        assert record.load.errors == 0 and record.metrics["client.cpu_share"].value is not None
        if name != "wrk":
            assert record.load.requests == REQUESTS * 2, name
    two = loads["two"]
    assert two.load is not None and two.load.processes == 2
    assert [tier.role for tier in two.tiers] == ["client", "client2", "fe", "is1", "be"]
    # Both hosts have asked: the second one received about half of the bodies.
    received = {tier.role: tier.rx_bytes for tier in two.tiers}
    assert (received["client2"] or 0) > REQUESTS * 16384 * 0.8
    calm = loads["calm"].load
    assert calm is not None and calm.wall_seconds > 0.7 * 2 * REQUESTS / 40
