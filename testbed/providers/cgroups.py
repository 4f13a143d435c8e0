"""One cgroup per host, in every hierarchy that is of use: accounting, pinning, and the record of its processes.

Version 1 (cpuacct, cpuset, memory), version 2 and both side by side are served; a path such as "/odb1a2b/fe" is the
same below the root of each hierarchy. The processes in the cgroup *are* the host's: they are ended through it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import ProviderError

_V1 = ("cpuacct", "cpuset", "memory")
_V2 = ("cpuset", "cpu", "memory")
_END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted cgroup tree: where, which version, and which of our controllers it has."""

    mount: Path
    version: int
    controllers: tuple[str, ...]

    def at(self, path: str) -> Path:
        """Return the directory of a cgroup path in this tree."""
        return self.mount / path.lstrip("/")


def hierarchies() -> list[Hierarchy]:
    """Return the trees of this machine that we use; empty when none is mounted or may be written."""
    found = []
    seen: set[str] = set()
    with Path("/proc/self/mountinfo").open(encoding="utf-8") as table:
        for line in table:
            before, _, after = line.partition(" - ")
            mount = Path(before.split()[4].replace("\\040", " "))
            kind, _, options = after.split()[:3]
            device = before.split()[2]
            usable = device not in seen and os.access(mount, os.W_OK)
            if kind.startswith("cgroup"):
                seen.add(device)  # the same tree may be mounted twice
            if kind == "cgroup":
                controllers = tuple(name for name in _V1 if name in options.split(","))
                if controllers and usable:
                    found.append(Hierarchy(mount, 1, controllers))
            elif kind == "cgroup2" and usable:
                offered = (mount / "cgroup.controllers").read_text(encoding="ascii").split()
                found.append(Hierarchy(mount, 2, tuple(name for name in _V2 if name in offered)))
    return found


def missing() -> list[str]:
    """Return what cannot be done here: "tracking", "pinning", "cpu accounting", "memory accounting"."""
    trees = hierarchies()
    have = {name for tree in trees for name in tree.controllers}
    lacking = [] if trees else ["tracking"]
    lacking += [] if "cpuset" in have else ["pinning"]
    # cpu.stat of version 2 counts CPU time in every cgroup, whether the controller is there or not.
    lacking += [] if "cpuacct" in have or any(tree.version == 2 for tree in trees) else ["cpu accounting"]
    return lacking + ([] if "memory" in have else ["memory accounting"])


def controllers_to_switch_on() -> dict[str, list[str]]:
    """Return, per version 2 tree, the controllers that its root does not hand to its children yet."""
    wanted = {}
    for tree in hierarchies():
        if tree.version == 2 and tree.controllers:
            active = (tree.mount / "cgroup.subtree_control").read_text(encoding="ascii").split()
            absent = [name for name in tree.controllers if name not in active]
            if absent:
                wanted[str(tree.mount)] = absent
    return wanted


def switch(mount: Path, controllers: Iterable[str], *, on: bool) -> list[str]:
    """Hand controllers of a version 2 cgroup to its children, or stop it; returns those for which it worked."""
    done = []
    for name in controllers:
        with contextlib.suppress(OSError):  # a container's own root, or others use it: we do without
            (mount / "cgroup.subtree_control").write_text(f"{'+' if on else '-'}{name}", encoding="ascii")
            done.append(name)
    return done


def create(path: str, cores: Iterable[int] = ()) -> None:
    """Create a cgroup in every tree (there already: fine) and let it use `cores` (none named: those of its parent)."""
    wanted = ",".join(map(str, cores))
    for tree in hierarchies():
        directory = tree.at(path)
        try:
            directory.mkdir(exist_ok=True)
            if tree.version == 2:
                switch(
                    directory.parent if directory.parent != tree.mount else directory,
                    tree.controllers,
                    on=True,
                )
            if "cpuset" in tree.controllers:
                _set_cores(directory, wanted, tree.version)
        except OSError as error:
            raise ProviderError(f"cannot create the cgroup {directory}", error.strerror) from error


def _set_cores(directory: Path, wanted: str, version: int) -> None:
    memory, cpus = directory / "cpuset.mems", directory / "cpuset.cpus"
    if not cpus.exists():  # version 2 without the controller here
        return
    if version == 1:  # a new cpuset is empty there, and nothing may enter an empty one
        above = directory.parent
        if not memory.read_text(encoding="ascii").strip():
            memory.write_text((above / "cpuset.mems").read_text(encoding="ascii"), encoding="ascii")
        wanted = wanted or (above / "cpuset.cpus").read_text(encoding="ascii").strip()
    if wanted and cpus.read_text(encoding="ascii").strip() != wanted:
        cpus.write_text(wanted, encoding="ascii")


def cores(path: str) -> str | None:
    """Return the cores that a cgroup may use as the kernel writes them ("0-1,3"); None when it is not pinned."""
    for tree in hierarchies():
        file = tree.at(path) / "cpuset.cpus"
        if file.exists():
            return file.read_text(encoding="ascii").strip()
    return None


def exists(path: str) -> bool:
    """Tell whether the cgroup is there in every tree."""
    return all(tree.at(path).is_dir() for tree in hierarchies())


def enter(path: str) -> None:
    """Move the calling process, and so all its future children, into the cgroup."""
    for tree in hierarchies():
        (tree.at(path) / "cgroup.procs").write_text("0", encoding="ascii")


def processes(path: str) -> set[int]:
    """Return the ids of the processes in the cgroup; zombies are not among them."""
    found: set[int] = set()
    for tree in hierarchies():
        try:
            found.update(map(int, (tree.at(path) / "cgroup.procs").read_text(encoding="ascii").split()))
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise
    return found


def end_processes(path: str) -> None:
    """Kill every process of the cgroup and wait until none is left. They are ours: nothing else can be in it."""
    deadline = time.monotonic() + _END_SECONDS
    while pids := processes(path):
        for tree in hierarchies():
            with contextlib.suppress(OSError):  # version 1, or older than 5.14: the signals below do it
                (tree.at(path) / "cgroup.kill").open("w").write("1")
        handles = [handle for handle in map(_kill, pids) if handle is not None]
        for handle in handles:
            _wait(handle, deadline)
            os.close(handle)
        if time.monotonic() > deadline:
            raise ProviderError(f"processes {sorted(pids)} of the cgroup {path} do not end", "try again")


def _kill(pid: int) -> int | None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    return handle


def _wait(handle: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.poll(max(0.0, deadline - time.monotonic()) * 1000)


def remove(path: str) -> None:
    """Remove a cgroup that has no processes from every tree; not there: fine."""
    deadline = time.monotonic() + _END_SECONDS
    for tree in hierarchies():
        while True:
            try:
                tree.at(path).rmdir()
            except FileNotFoundError:
                pass
            except OSError as error:
                # A process that has just ended leaves its cgroup a moment later.
                if error.errno == errno.EBUSY and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                raise ProviderError(f"cannot remove the cgroup {tree.at(path)}", error.strerror) from error
            break
