"""What tests of the testbed look at on this machine: a snapshot of what a deployment may leave, and the command itself."""

from __future__ import annotations

import functools
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Snapshot:
    """Names of everything that a deployment creates."""

    namespaces: frozenset[str]
    links: frozenset[str]
    mounts: frozenset[str]
    cgroups: frozenset[str]
    run: frozenset[str]


def snapshot(of: str) -> Snapshot:
    """What exists now and has `of` in its name; other tests and programs may come and go beside us."""
    listed = Path("/run/netns")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found = [f"{path}/{name}" for path, directories, _ in os.walk("/sys/fs/cgroup") for name in directories]
    return Snapshot(
        frozenset(entry.name for entry in listed.iterdir() if of in entry.name)
        if listed.is_dir()
        else frozenset(),
        frozenset(name for _, name in socket.if_nameindex() if of in name),
        frozenset(line.split()[4] for line in mounts if of in line),
        frozenset(path for path in found if of in path),
        frozenset(entry.name for entry in Path("/run").iterdir() if of in entry.name),
    )


@functools.cache
def _failed_findings() -> list[dict[str, str]]:
    done = command("doctor", "--json", timeout=100)
    return [finding for finding in json.loads(done.stdout)["findings"] if finding["status"] == "fail"]


def require_local_provider() -> None:
    """Skip, naming what is missing, where the local provider cannot work."""
    failed = _failed_findings()
    if failed:
        pytest.skip(f"{failed[0]['name']}: {failed[0]['detail']} ({failed[0]['hint']})")


def free_network() -> str:
    """An address range that no interface and no route of this machine uses."""
    routes = subprocess.run(["ip", "-4", "-j", "route"], capture_output=True, check=True, timeout=10).stdout
    used = [
        ipaddress.ip_network(route["dst"], strict=False)
        for route in json.loads(routes)
        if route["dst"] != "default"
    ]
    for third in range(256):
        candidate = ipaddress.ip_network(f"10.91.{third}.0/24")
        if not any(candidate.overlaps(one) for one in used if one.version == 4):
            return str(candidate)
    pytest.skip("no free address range below 10.91.0.0/16")


def arguments_of(*words: str, state: Path | None = None) -> list[str]:
    """The command line of odb-testbed."""
    return [sys.executable, "-m", "testbed.cli", *words, *(["--state", str(state)] if state else [])]


def command(
    *words: str,
    state: Path | None = None,
    timeout: float = 110,
    prefix: Sequence[str] = (),
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run odb-testbed and wait for it."""
    return subprocess.run(
        [*prefix, *arguments_of(*words, state=state)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def end_at(line: str, number: signal.Signals, *words: str, state: Path) -> int:
    """Start odb-testbed, send it a signal when it reports `line`, and return its exit code."""
    process = subprocess.Popen(
        arguments_of(*words, state=state),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process.stderr:
        seen = []
        for said in process.stderr:
            seen.append(said)
            if line in said:
                process.send_signal(number)
                break
        else:
            pytest.fail(f"it never said {line!r} but {seen}")
        process.stderr.read()
    return process.wait(60)


def eventually(holds: Callable[[], bool], seconds: float = 10) -> bool:
    """Wait until something holds; tells whether it came to that."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def processes_naming(text: str) -> list[int]:
    """The processes whose command line or environment has `text` in it, this one and its parents excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in (os.getpid(), os.getppid()):
            try:
                words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if text.encode() in words:
                found.append(int(entry.name))
    return found


def loaded(state: Path) -> dict[str, Any]:
    """The state file as it is on disk."""
    return dict(json.loads(state.read_text()))
