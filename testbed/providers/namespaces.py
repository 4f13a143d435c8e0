"""Contracts over the kernel for making a host: namespaces, mounts, and work done in a child process.

All calls raise OSError with the path or flag that failed. Nothing here knows the testbed. The mount calls change the
calling process's mount namespace: call them only in a child that has left the parent's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces of the kinds in `flags`."""
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def enter_network(path: Path) -> None:
    """Move the calling process into the network namespace that `path` names."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(descriptor, CLONE_NEWNET), str(path))
    finally:
        os.close(descriptor)


def mount(source: str, target: Path, kind: str | None, flags: int = 0, options: str = "") -> None:
    """Mount `source` on `target`; see mount(2)."""
    raw_kind = kind.encode() if kind else None
    result = _libc.mount(
        source.encode(), os.fsencode(target), raw_kind, ctypes.c_ulong(flags), options.encode() or None
    )
    _check(result, str(target))


def bind(source: Path, target: Path, *, read_only: bool = False, recursive: bool = False) -> None:
    """Show the tree `source` at `target` as well."""
    mount(str(source), target, None, MS_BIND | (MS_REC if recursive else 0))
    if read_only:
        mount(str(source), target, None, MS_BIND | MS_REMOUNT | MS_RDONLY)


def unmount(target: Path) -> None:
    """Detach what is mounted on `target`; it disappears when nobody uses it any more."""
    _check(_libc.umount2(os.fsencode(target), MNT_DETACH), str(target))


def enter_root(root: Path) -> None:
    """Make `root`, a mount point, the root of this mount namespace and drop the old one."""
    os.chdir(root)
    _check(_libc.pivot_root(b".", b"."), str(root))
    unmount(Path())  # the old root lies on top of the new one now
    os.chdir("/")


def start_time(pid: int) -> int | None:
    """Return when a process started (clock ticks since boot); None when there is no such process or it is a zombie."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def in_child(work: Callable[[], None]) -> str | None:
    """Run `work` in a child process and wait for it; returns the text of the error it raised, None when it ended well."""
    readable, writable = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _finish_child(work, writable)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        text = pipe.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    if text or status:
        return text or f"the child ended with status {os.waitstatus_to_exitcode(status)}"
    return None


def spawn(prepare: Callable[[], NoReturn], *, deadline: float) -> tuple[int, int, str | None]:
    """Run `prepare`, which must end in exec, in a process of its own session that is nobody's child.

    Waits at most `deadline` seconds for the exec. Returns its process id, its start time and the text of the error that
    `prepare` raised, None when the exec happened.
    """
    readable, writable = os.pipe2(os.O_CLOEXEC)
    middle = os.fork()
    if middle == 0:
        try:
            os.setsid()
            child = os.fork()
            if child == 0:
                _finish_child(prepare, writable)
            os.write(writable, f"{child} {start_time(child) or 0}\n".encode())
        finally:
            os._exit(0)
    os.close(writable)
    try:
        text = _read_all(readable, time.monotonic() + deadline)
    finally:
        os.close(readable)
        os.waitpid(middle, 0)
    # Two processes write to the pipe, each line in one write: the line of numbers and the error come in any order.
    lines = text.splitlines()
    numbers = next((line.split() for line in lines if line.replace(" ", "").isdigit()), ["0", "0"])
    errors = [line for line in lines if not line.replace(" ", "").isdigit()]
    return int(numbers[0]), int(numbers[1]), "; ".join(errors) or None


def _finish_child(work: Callable[[], object], pipe: int) -> NoReturn:
    """End a forked child without running anything of the parent's: no cleanup, no buffers, no handlers."""
    try:
        work()
    except BaseException as error:  # the parent reports it
        os.write(pipe, (_describe(error) + "\n").encode())
        os._exit(1)
    os._exit(0)


def _describe(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error}"


def _read_all(descriptor: int, deadline: float) -> str:
    chunks = []
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            chunks.append(b"\nit did not start in time\n")
            break
        chunk = os.read(descriptor, 4096)
        if not chunk:
            break
        chunks.append(chunk)
    return b"".join(chunks).decode(errors="replace")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def missing_privilege() -> str | None:
    """Return why this process cannot make namespaces and mounts, None when it can."""

    def attempt() -> None:
        unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC)
        mount("none", Path("/"), None, MS_REC | MS_PRIVATE)

    if os.geteuid() != 0:
        return os.strerror(errno.EPERM)
    return in_child(attempt)
