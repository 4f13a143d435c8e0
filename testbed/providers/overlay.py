"""The file system of a host: this machine's root below, the host's own changes above, its own /dev/shm, /run and /tmp.

The mounts live in the host's mount namespace only; they vanish with its last process. The layer above is a directory of the
testbed, or a tmpfs where the directory's file system cannot hold one (an overlay cannot lie on an overlay, as in a container).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from testbed.providers import namespaces
from testbed.providers.namespaces import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_REC, bind, mount

TMPFS_SIZE = "1G"
_VOLATILE = {"run": "0755", "tmp": "1777", "dev/shm": "1777"}


def why_not(directory: Path) -> str | None:
    """Return why `directory`'s file system cannot hold the upper layer of an overlay, None when it can. Needs root."""
    work = Path(tempfile.mkdtemp(prefix=".overlay-", dir=directory))

    def attempt() -> None:
        namespaces.unshare(namespaces.CLONE_NEWNS)
        mount("none", Path("/"), None, MS_REC | MS_PRIVATE)
        _overlay(work)

    try:
        return namespaces.in_child(attempt)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def build(layers: Path, *, volatile: bool, live: Sequence[Path]) -> Path:
    """Mount a host's root in the calling process's mount namespace and return where.

    `layers` is an empty or earlier used directory of this host; with `volatile` a tmpfs takes its place. The trees
    in `live` are shown as they are, read-only and without the overlay, so that what is installed there later is seen.
    """
    mount("none", Path("/"), None, MS_REC | MS_PRIVATE)
    if volatile:
        mount("tmpfs", layers, "tmpfs", 0, f"size={TMPFS_SIZE},mode=0755")
    root = _overlay(layers)
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    # A sysfs of its own shows the host's own network interfaces; the cgroup trees are this machine's.
    mount("sysfs", root / "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if Path("/sys/fs/cgroup").is_dir():
        bind(Path("/sys/fs/cgroup"), root / "sys/fs/cgroup", recursive=True)
    bind(Path("/dev"), root / "dev", recursive=True)
    for name, mode in _VOLATILE.items():
        mount("tmpfs", root / name, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode}")
    for tree in live:
        target = root / str(tree).lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        bind(tree, target, read_only=True)
    return root


def trees_to_show(trees: Sequence[Path]) -> list[Path]:
    """Return those of `trees` that a host has to see live, without those inside another one or part of the system."""
    chosen: list[Path] = []
    for tree in sorted({Path(os.path.realpath(one)) for one in trees}):
        if tree in (Path("/"), Path("/usr"), Path("/usr/local")) or any(
            tree.is_relative_to(one) for one in chosen
        ):
            continue
        chosen.append(tree)
    return chosen


def _overlay(layers: Path) -> Path:
    upper, work, root = layers / "upper", layers / "work", layers / "root"
    for directory in (upper, work, root):
        directory.mkdir(exist_ok=True)
    if not (upper / "root").exists():
        upper.chmod(0o755)
    options = ",".join(
        f"{key}={_escaped(path)}"
        for key, path in (("lowerdir", Path("/")), ("upperdir", upper), ("workdir", work))
    )
    mount("overlay", root, "overlay", 0, options)
    return root


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")


def write(root: Path, name: str, text: str, mode: int = 0o644) -> None:
    """Write a file below a host's root, readable as `mode` says, and the directories above it."""
    target = root / name.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        target.unlink()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
