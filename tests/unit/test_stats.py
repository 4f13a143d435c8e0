"""Live statistics: pages are read as they describe themselves, dead processes' pages go, broken ones are told."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from odb import stats
from odb.errors import PlatformError, StatsError
from odb.render import amount


def page(
    counters: Mapping[str, int], *, pid: int, start: int, comm: str = "nginx", version: int = 1
) -> bytes:
    """A page as the runtime lays it out, written here from the format's description alone."""
    data = struct.pack("=8sIIQII16s", b"ODBSTAT1", version, pid, start, len(counters), 48, comm.encode())
    data = data.ljust(64, b"\0")
    return data + b"".join(struct.pack("=40sQ", name.encode(), value) for name, value in counters.items())


def mine(folder: Path, counters: Mapping[str, int]) -> Path:
    start = stats.start_time_of(os.getpid())
    assert start is not None
    file = folder / f"{os.getpid()}.{start}"
    file.write_bytes(page(counters, pid=os.getpid(), start=start))
    return file


def test_page_of_a_living_process_is_read(tmp_path: Path) -> None:
    mine(tmp_path, {"spans_sent": 3, "a_counter_of_tomorrow": 2**63})
    reading = stats.read(tmp_path)
    assert [each.pid for each in reading.pages] == [os.getpid()]
    assert reading.pages[0].comm == "nginx"
    assert reading.pages[0].counters == {"spans_sent": 3, "a_counter_of_tomorrow": 2**63}
    assert reading.problems == ()


def test_page_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    dead = tmp_path / f"{ended.pid}.1"
    dead.write_bytes(page({"faults": 1}, pid=ended.pid, start=1))
    living = mine(tmp_path, {"faults": 2})
    assert stats.read(tmp_path).totals() == {"faults": 2}
    assert list(tmp_path.iterdir()) == [living]


def test_page_of_an_earlier_process_with_the_same_pid_is_removed(tmp_path: Path) -> None:
    stale = tmp_path / f"{os.getpid()}.1"
    stale.write_bytes(page({"faults": 1}, pid=os.getpid(), start=1))
    assert stats.read(tmp_path).pages == ()
    assert not stale.exists()


def test_zombie_counts_as_dead() -> None:
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    assert stats.start_time_of(zombie.pid) is None
    zombie.wait()


def test_name_with_parentheses_does_not_confuse_the_start_time(tmp_path: Path) -> None:
    odd = tmp_path / "a) R (b"
    odd.symlink_to("/bin/cat")
    process = subprocess.Popen([odd], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"x")
    process.stdin.flush()
    assert process.stdout.read(1) == b"x"  # it runs: exec is over
    start, own = stats.start_time_of(process.pid), stats.start_time_of(os.getpid())
    process.communicate()
    assert start is not None
    assert own is not None
    assert start >= own


def test_missing_directory_is_no_process(tmp_path: Path) -> None:
    assert stats.read(tmp_path / "absent").pages == ()


def test_what_is_no_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match="cannot be listed"):
        stats.read(tmp_path / "file")


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("README", "12.x", "x.12", "12"):
        (tmp_path / name).write_text("mine")
    assert stats.read(tmp_path).pages == ()
    assert len(list(tmp_path.iterdir())) == 4


def test_page_that_is_being_made_is_passed_over(tmp_path: Path) -> None:
    for data in (b"", b"\0" * 4096):
        mine(tmp_path, {}).write_bytes(data)
        reading = stats.read(tmp_path)
        assert (reading.pages, reading.problems) == ((), ())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"NOTSTATS" + b"\0" * 60, "ODBSTAT1"),
        (page({}, pid=1, start=1, version=2), "version is 2"),
        (page({"faults": 1}, pid=1, start=1)[:-1], "too short"),
        (struct.pack("=8sIIQII16s", b"ODBSTAT1", 1, 1, 1, 2**32 - 1, 48, b"").ljust(64, b"\0"), "too short"),
        (struct.pack("=8sIIQII16s", b"ODBSTAT1", 1, 1, 1, 1, 0, b"").ljust(200, b"\0"), "too short"),
    ],
)
def test_broken_page_is_told_and_does_not_hide_the_others(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(StatsError, match=says):
        stats.parse_page(data)
    file = mine(tmp_path, {})
    file.write_bytes(data)
    reading = stats.read(tmp_path)
    assert reading.pages == ()
    assert len(reading.problems) == 1
    assert str(file) in reading.problems[0]


@pytest.mark.parametrize(
    ("counters", "avoided", "forwarded"),
    [
        ({"span_bytes_sent": 100, "spans_sent": 2, "span_bytes_received": 100, "spans_received": 2}, 100, 2),
        (
            {"span_bytes_sent": 100, "spans_sent": 2, "payload_bytes_captured": 100, "payloads_captured": 2},
            0,
            0,
        ),
        ({"span_bytes_received": 100, "spans_received": 2, "fetch_bytes": 100}, 0, 0),
        ({"span_bytes_sent": 100, "spans_sent": 1, "spans_received": 4, "fetch_bytes": 30}, 70, 1),
        ({}, 0, 0),
    ],
    ids=["intermediary", "origin", "consumer", "touched a part", "idle"],
)
def test_only_what_was_never_held_counts_as_avoided(
    counters: dict[str, int], avoided: int, forwarded: int
) -> None:
    assert stats.bytes_avoided(counters) == avoided
    assert stats.spans_forwarded(counters) == forwarded


def test_json_holds_processes_totals_and_reasons(tmp_path: Path) -> None:
    mine(tmp_path, {"span_bytes_sent": 10, "fallback_stack": 2, "fallback_too_small": 0})
    found = json.loads(json.dumps(stats.as_json(stats.read(tmp_path))))
    assert found["schema"] == 1
    assert found["processes"][0]["bytes_avoided"] == found["totals"]["bytes_avoided"] == 10
    assert found["totals"]["fallbacks"] == {"stack": 2}
    assert found["totals"]["counters"]["span_bytes_sent"] == 10


def test_one_process_can_be_asked_for(tmp_path: Path) -> None:
    mine(tmp_path, {"faults": 1})
    assert len(stats.read(tmp_path, os.getpid()).pages) == 1
    assert stats.read(tmp_path, 1).pages == ()


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 40, "3.0 TiB")]
)
def test_amounts_are_for_people(size: int, text: str) -> None:
    assert amount(size) == text
