"""What this machine can do for the local provider and for measuring: one function per finding, each with a hint.

Nothing is changed; what has to be tried (namespaces, an overlay) is tried in a child process that ends at once.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Literal

from testbed.errors import TestbedError
from testbed.providers import cgroups, cores, namespaces, network, overlay
from testbed.providers.local import DEFAULT_NETWORK
from testbed.spec import Topology
from testbed.state import StateStore

Status = Literal["ok", "warn", "fail"]
_RAPL = Path("/sys/class/powercap")
_PERF = Path("/proc/sys/kernel/perf_event_paranoid")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. fail: the local provider does not work; warn: it works with limits."""

    name: str
    status: Status
    detail: str
    hint: str = ""


def examine(store: StateStore) -> list[Finding]:
    """Look at everything, in the order in which a person would mend what is found."""
    checks: list[Callable[[], Finding]] = [
        _root,
        _namespaces,
        lambda: _overlay(store),
        _cgroups,
        *(_program(name, package) for name, package in _PACKAGES.items()),
        _ansible,
        _locust,
        lambda: _addresses(store),
        _cores,
        _library,
        _userfaultfd,
        _counters,
        lambda: _helper("perf", "linux-perf", "odb-testbed profile"),
        lambda: _helper("strace", "strace", "counting system calls"),
        _energy,
    ]
    return [check() for check in checks]


def usable(findings: list[Finding]) -> bool:
    """Tell whether the local provider works here."""
    return all(finding.status != "fail" for finding in findings)


def as_json(findings: list[Finding]) -> dict[str, object]:
    """Return what `odb-testbed doctor --json` prints."""
    return {
        "schema": 1,
        "usable": usable(findings),
        "findings": [asdict(finding) for finding in findings],
    }


_PACKAGES = {
    "nginx": "nginx",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "tar": "tar",
}


def _root() -> Finding:
    if os.geteuid() == 0:
        return Finding("root", "ok", "running as root")
    return Finding(
        "root", "fail", f"running as user {os.geteuid()}", "run as root (sudo): hosts are namespaces"
    )


def _namespaces() -> Finding:
    reason = namespaces.missing_privilege()
    if reason is None:
        return Finding("namespaces", "ok", "network, mount, host name and IPC namespaces can be made")
    return Finding("namespaces", "fail", reason, "run as root; in a container, one with all privileges")


def _overlay(store: StateStore) -> Finding:
    # Path.is_dir raises where a directory may not be searched.
    place = next(one for one in (store.data, *store.data.parents) if os.path.isdir(one))  # noqa: PTH112
    if os.geteuid() != 0:
        return Finding("overlay", "fail", "cannot be tried without root", "run as root (sudo)")
    try:
        reason = overlay.why_not(place)
    except OSError as error:
        return Finding(
            "overlay", "fail", f"{place}: {error.strerror}", "choose a writable place with --state"
        )
    if reason is None:
        return Finding("overlay", "ok", f"{place} can hold the files of hosts")
    hint = "choose a --state on a disk to spare memory and keep files when a host is restarted"
    return Finding("overlay", "warn", f"{place} cannot hold the files of hosts ({reason}): memory will", hint)


def _cgroups() -> Finding:
    trees = cgroups.hierarchies()
    found = ", ".join(f"v{tree.version} {'+'.join(tree.controllers) or 'no controller'}" for tree in trees)
    lacking = cgroups.missing()
    if "tracking" in lacking:
        hint = "mount -t cgroup2 none /sys/fs/cgroup, and run as root"
        return Finding("cgroups", "fail", found or "no hierarchy is mounted", hint)
    if lacking:
        hint = "boot with these controllers; without them hosts are pinned by affinity and values are null"
        return Finding("cgroups", "warn", f"{found}; missing: {', '.join(lacking)}", hint)
    return Finding("cgroups", "ok", found)


def _program(name: str, package: str) -> Callable[[], Finding]:
    def check() -> Finding:
        path = shutil.which(name)
        if path is None:
            return Finding(name, "fail", "it is not on PATH", f"apt-get install {package}")
        return Finding(name, "ok", path)

    return check


def _beside_python(name: str, program: str) -> Finding:
    path = Path(sys.executable).with_name(program)
    if path.exists():
        return Finding(name, "ok", str(path))
    return Finding(name, "fail", f"{path} is missing", "run 'make setup'")


def _ansible() -> Finding:
    return _beside_python("ansible", "ansible-playbook")


def _locust() -> Finding:
    return _beside_python("locust", "locust")


def _addresses(store: StateStore) -> Finding:
    try:
        state = store.load()
        if state is not None:
            return Finding("addresses", "ok", f"a testbed is deployed on {state.network}")
        users = network.users_of(IPv4Network(DEFAULT_NETWORK))
    except TestbedError as error:
        return Finding("addresses", "fail", error.message, error.remedy or "")
    if users:
        hint = "choose a free range: odb-testbed deploy --network 10.78.0.0/24"
        return Finding("addresses", "warn", f"{DEFAULT_NETWORK} is in use ({users[0]})", hint)
    return Finding("addresses", "ok", f"{DEFAULT_NETWORK} is free")


def _cores() -> Finding:
    _, rule = cores.share(Topology().roles, cores.available())
    if len(cores.available()) >= len(Topology().roles):
        return Finding("cores", "ok", rule)
    return Finding("cores", "warn", rule, "hosts that share cores disturb each other's measurements")


def _library() -> Finding:
    program = Path(sys.executable).with_name("odb")
    if not program.exists():
        return Finding("libodb.so", "fail", f"{program} is missing", "run 'make setup'")
    try:
        done = subprocess.run(
            [program, "doctor", "--json"], check=False, capture_output=True, text=True, timeout=60
        )
        findings = json.loads(done.stdout)["findings"]
        failed = [finding for finding in findings if finding["status"] == "fail"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        return Finding("libodb.so", "warn", f"'odb doctor' cannot be asked: {error}", "run 'odb doctor'")
    if failed:
        detail = f"{failed[0]['name']}: {failed[0]['detail']}"
        return Finding("libodb.so", "warn", detail, failed[0]["hint"] or "see 'odb doctor'")
    return Finding("libodb.so", "ok", "'odb doctor' finds nothing that stops it")


def _userfaultfd() -> Finding:
    allowed = Path("/proc/sys/vm/unprivileged_userfaultfd")
    device = Path("/dev/userfaultfd")
    if not allowed.exists() and not device.exists():
        return Finding(
            "userfaultfd", "warn", "this kernel has none", "ODB guards pages with mprotect instead"
        )
    switch = allowed.read_text(encoding="ascii").strip() if allowed.exists() else "unknown"
    detail = (
        f"unprivileged_userfaultfd = {switch}, {device} {'exists' if device.exists() else 'does not exist'}"
    )
    if switch == "1":
        return Finding("userfaultfd", "ok", detail)
    hint = "nginx's workers are no root: sysctl vm.unprivileged_userfaultfd=1 would let them use it"
    return Finding("userfaultfd", "warn", detail, hint)


def _counters() -> Finding:
    if not _PERF.exists():
        return Finding(
            "counters", "warn", "this kernel has no performance events", "CPU times do not need them"
        )
    hardware = Path("/sys/bus/event_source/devices/cpu").exists()
    if hardware:
        return Finding("counters", "ok", "hardware counters are there")
    return Finding(
        "counters", "warn", "no hardware counters (a virtual machine?)", "CPU times do not need them"
    )


def _helper(name: str, package: str, use: str) -> Finding:
    """A program without which only one thing does not work."""
    path = shutil.which(name)
    if path is None:
        return Finding(name, "warn", f"it is not on PATH, which {use} needs", f"apt-get install {package}")
    return Finding(name, "ok", path)


def _energy() -> Finding:
    meters = sorted(_RAPL.glob("*/energy_uj")) if _RAPL.is_dir() else []
    readable = [meter for meter in meters if os.access(meter, os.R_OK)]
    if readable:
        return Finding("energy", "ok", f"{len(readable)} meters below {_RAPL}")
    return Finding("energy", "warn", "no readable energy meter", "energy is reported as not measured")
