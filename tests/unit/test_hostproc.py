"""Background processes are started once, ended with all they started, and never confused with somebody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HOSTPROC = Path(__file__).resolve().parents[2] / "testbed" / "hostproc.py"
Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def call(*words: str) -> tuple[int, Any]:
        done = subprocess.run(
            [sys.executable, HOSTPROC, *words],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "ODB_TESTBED_RUN": str(tmp_path / "run")},
        )
        return done.returncode, json.loads(done.stdout) if done.returncode == 0 else done.stderr.strip()

    return call


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_started_process_runs_until_it_is_stopped(run: Run) -> None:
    _, started = run("start", "one", "--", "sleep", "1000")
    assert run("status", "one")[1]["processes"] == [started["pid"]]
    assert run("stop", "one") == (0, {"name": "one", "stopped": True, "killed": False})
    assert not alive(started["pid"])
    assert run("stop", "one")[1]["stopped"] is False
    assert run("status", "one")[1]["alive"] is False


def test_children_end_with_their_parent_even_if_it_is_gone(run: Run, tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path}/child; mv {tmp_path}/child {tmp_path}/done; wait"
    _, started = run("start", "one", "--", "sh", "-c", script)
    while not (tmp_path / "done").exists():
        os.sched_yield()
    child = int((tmp_path / "done").read_text())
    os.kill(started["pid"], 9)
    assert alive(child)
    assert run("stop", "one")[1]["stopped"] is True
    assert not alive(child)


def test_process_that_ignores_the_polite_signal_is_killed(run: Run, tmp_path: Path) -> None:
    _, started = run(
        "start", "one", "--", "sh", "-c", f"trap '' TERM; : > {tmp_path}/ready; while :; do sleep 1000; done"
    )
    while not (tmp_path / "ready").exists():
        os.sched_yield()
    assert run("stop", "one", "--grace", "0.2")[1] == {"name": "one", "stopped": True, "killed": True}
    assert not alive(started["pid"])


def test_process_that_took_over_the_number_is_left_alone(run: Run, tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        record = {"name": "one", "pid": bystander.pid, "start_time": 1, "command": ["sleep"]}
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "one.json").write_text(json.dumps(record))
        assert run("status", "one")[1]["alive"] is False
        assert run("stop", "one")[1]["stopped"] is False
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_name_stands_for_one_process(run: Run) -> None:
    run("start", "one", "--", "sleep", "1000")
    try:
        code, said = run("start", "one", "--", "true")
        assert (code, "is running already" in said) == (1, True)
    finally:
        run("stop", "one")


def test_command_that_goes_to_the_background_is_followed_by_its_pid_file(run: Run, tmp_path: Path) -> None:
    script = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 1000' >/dev/null 2>&1 &"
    code, started = run("daemon", "one", "--pid-file", f"{tmp_path}/pid", "--", "sh", "-c", script)
    assert code == 0
    assert started["pid"] == int((tmp_path / "pid").read_text())
    assert run("stop", "one")[1]["stopped"] is True
    assert not alive(started["pid"])


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["sh", "-c", "echo why >&2; exit 3"], "failed with code 3: why"),
        (["/no/such/program"], "No such file"),
    ],
)
def test_command_that_fails_is_reported_with_its_words(
    command: list[str], said: str, run: Run, tmp_path: Path
) -> None:
    code, text = run("daemon", "one", "--pid-file", f"{tmp_path}/pid", "--", *command)
    assert (code, said in text) == (1, True), text
    assert len(text.splitlines()) == 1


def test_library_is_found_in_the_processes_that_have_it(run: Run) -> None:
    run("start", "one", "--", sys.executable, "-c", "import time; time.sleep(1000)")
    try:
        library = next(
            Path(line.split()[-1]).name
            for line in Path("/proc/self/maps").read_text().splitlines()
            if "/libc.so" in line or "/libc-" in line
        )
        status = run("status", "one", "--mapped", "libodb.so")[1]
        assert status["mapped"] == []
        mapped: list[int] = []
        deadline = time.monotonic() + 20
        while mapped != status["processes"] and time.monotonic() < deadline:
            mapped = run("status", "one", "--mapped", library)[1]["mapped"]
        assert mapped == status["processes"] != []
    finally:
        run("stop", "one")
