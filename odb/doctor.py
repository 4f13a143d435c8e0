"""Can this machine and this process run ODB? Each check is one function that returns a finding with a hint."""

from __future__ import annotations

import mmap
import os
import platform
import resource
import socket
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from odb import launcher
from odb.errors import OdbError

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. fail: ODB does not work; warn: it works with limits. hint: what to do, or empty."""

    name: str
    status: Status
    detail: str
    hint: str = ""


def examine(library: Path | None = None, stats_dir: Path = Path("/dev/shm/odb")) -> list[Finding]:
    """Run all checks, in the order in which a person would mend what they find."""
    checks: list[Callable[[], Finding]] = [
        _platform,
        lambda: _library(library),
        lambda: _statistics(stats_dir),
        _memory_files,
        _guards,
        _loopback,
        _mappings,
        _descriptors,
        _userfaultfd,
    ]
    return [check() for check in checks]


def as_json(findings: list[Finding]) -> dict[str, object]:
    """What `odb doctor --json` prints."""
    return {"schema": 1, "usable": usable(findings), "findings": [asdict(finding) for finding in findings]}


def usable(findings: list[Finding]) -> bool:
    """True if no finding is a failure."""
    return all(finding.status != "fail" for finding in findings)


def _platform() -> Finding:
    detail = f"{platform.system()} {platform.release()} {platform.machine()}, pages of {mmap.PAGESIZE} bytes"
    libc = platform.libc_ver()[0]
    if platform.system() != "Linux" or libc != "glibc":
        return Finding("platform", "fail", detail, "ODB interposes the calls of glibc on Linux.")
    if mmap.PAGESIZE != 4096:
        return Finding(
            "platform", "fail", detail, "The guards know pages of 4096 bytes only: use such a kernel."
        )
    return Finding("platform", "ok", detail)


def _library(named: Path | None) -> Finding:
    try:
        found = launcher.find_library(named)
        launcher.check_library(found)
    except OdbError as error:
        return Finding(
            "library", "fail", str(error), "Run `make setup`, or name a library with --library FILE."
        )
    return Finding("library", "ok", f"{found} loads")


def _statistics(directory: Path) -> Finding:
    launcher.make_stats_directory(directory)
    try:
        with tempfile.TemporaryFile(dir=directory) as stream:
            stream.write(b"\0" * mmap.PAGESIZE)
    except OSError as error:
        hint = f"Make {directory} writable, or choose another with --set stats_dir=DIR; ODB works, `odb stat` sees nothing."
        return Finding("statistics", "warn", f"{directory}: {error.strerror}", hint)
    return Finding("statistics", "ok", f"{directory} is writable")


def _memory_files() -> Finding:
    try:
        descriptor = os.memfd_create("odb-doctor")
    except OSError as error:
        return Finding("memory files", "warn", error.strerror or "", "Payloads are captured from files only.")
    os.close(descriptor)
    return Finding("memory files", "ok", "memfd_create works")


def _guards() -> Finding:
    """Guards need fresh anonymous mappings; what mprotect may do to them is not restricted on Linux."""
    try:
        with mmap.mmap(-1, 16 * mmap.PAGESIZE):
            pass
    except OSError as error:
        return Finding(
            "memory", "fail", error.strerror or "", "Raise the limit of address space (ulimit -v)."
        )
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        return Finding(
            "memory", "warn", f"address space is limited to {limit} bytes", "Raise it: ulimit -v unlimited"
        )
    return Finding("memory", "ok", "address space is not limited")


def _loopback() -> Finding:
    try:
        with socket.create_server(("127.0.0.1", 0)):
            pass
    except OSError as error:
        return Finding(
            "sockets", "fail", error.strerror or "", "Bring up the loopback interface: ip link set lo up"
        )
    return Finding("sockets", "ok", "an origin can listen for its consumers")


def _mappings() -> Finding:
    """Each guarded range inside a larger mapping costs up to two mappings of the process."""
    file = Path("/proc/sys/vm/max_map_count")
    try:
        value = int(file.read_text())
    except (OSError, ValueError):
        return Finding("mappings", "warn", f"{file} cannot be read")
    detail = f"vm.max_map_count = {value}"
    if value < 65530:
        return Finding("mappings", "warn", detail, "Raise it: sysctl vm.max_map_count=262144")
    return Finding("mappings", "ok", detail)


def _descriptors() -> Finding:
    """Channels and captured files take descriptors beside those of the program."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    detail = f"RLIMIT_NOFILE = {soft} (at most {hard})"
    if soft < 4096:
        return Finding("descriptors", "warn", detail, "Raise it before `odb run`: ulimit -n 65536")
    return Finding("descriptors", "ok", detail)


def _userfaultfd() -> Finding:
    """For information: the guards are made with mprotect and need nothing."""
    file = Path("/proc/sys/vm/unprivileged_userfaultfd")
    state = file.read_text().strip() if file.is_file() else "absent"
    return Finding("guards", "ok", f"mprotect (vm.unprivileged_userfaultfd = {state}, not needed)")
