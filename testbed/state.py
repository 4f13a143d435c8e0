"""The state file: everything the testbed has created, or is about to create, on this machine.

Each thing is recorded as "planned" *before* it is created and as "created" afterwards, so that a command that is killed at any
moment leaves a state from which `deploy` continues and `destroy` cleans.  The file is JSON, replaced atomically, never pickled.
One exclusive lock keeps two commands from working on the same testbed; readers need no lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from testbed.errors import StateError, TestbedError
from testbed.spec import Host, Topology

SCHEMA = 1
STATE_VARIABLE = "ODB_TESTBED_STATE"
PLANNED = "planned"
CREATED = "created"


def default_path() -> Path:
    """Return the state file that is used when none is named: $ODB_TESTBED_STATE or one below the home directory."""
    named = os.environ.get(STATE_VARIABLE)
    return (
        Path(named).absolute() if named else Path.home() / ".local" / "state" / "odb-testbed" / "state.json"
    )


@dataclass(slots=True)
class Resource:
    """One thing that was created: `kind` (bridge, netns, link, cgroup, directory, ...), its `name`, the role it belongs to.

    `details` holds what its kind needs to remove it or to recognise it, as plain JSON values.
    """

    kind: str
    name: str
    role: str | None = None
    status: str = PLANNED
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class State:
    """What the state file holds.

    `identity` is random and part of every name we create; `core_rule` states how cores were shared; `serving` is
    the name of the variant whose servers were started last, None when they were stopped; `fingerprint` tells what
    the playbooks installed last, None while they have not ended well.
    """

    identity: str
    network: str
    topology: Topology
    hosts: dict[str, Host] = field(default_factory=dict)
    resources: list[Resource] = field(default_factory=list)
    core_rule: str = ""
    serving: str | None = None
    fingerprint: str | None = None

    @classmethod
    def fresh(cls, network: str, topology: Topology) -> Self:
        """Return the state of a testbed of which nothing exists yet."""
        return cls(identity=secrets.token_hex(2), network=network, topology=topology)

    def find(self, kind: str, name: str) -> Resource | None:
        """Return the recorded thing of that kind and name."""
        return next((one for one in self.resources if (one.kind, one.name) == (kind, name)), None)

    def of_role(self, role: str) -> list[Resource]:
        """Return what was recorded for one host, in the order of creation."""
        return [one for one in self.resources if one.role == role]

    def as_json(self) -> dict[str, Any]:
        """Return the state as plain JSON values; `from_json` reads them back."""
        return {
            "schema": SCHEMA,
            "identity": self.identity,
            "network": self.network,
            "topology": self.topology.as_json(),
            "hosts": {role: host.as_json() for role, host in self.hosts.items()},
            "resources": [
                {"kind": r.kind, "name": r.name, "role": r.role, "status": r.status, "details": r.details}
                for r in self.resources
            ],
            "core_rule": self.core_rule,
            "serving": self.serving,
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> Self:
        """Build a state from what `as_json` returned; KeyError, TypeError, ValueError when it is something else."""
        return cls(
            identity=plain["identity"],
            network=plain["network"],
            topology=Topology.from_json(plain["topology"]),
            hosts={role: Host.from_json(host) for role, host in plain["hosts"].items()},
            resources=[Resource(**resource) for resource in plain["resources"]],
            core_rule=plain["core_rule"],
            serving=plain["serving"],
            fingerprint=plain["fingerprint"],
        )


@dataclass(slots=True)
class _Held:
    """A lock that this process has: the locked file's descriptor and how often it was taken."""

    descriptor: int
    count: int = 0


_HELD: dict[Path, _Held] = {}


class StateStore:
    """Reads and writes one state file. Writing needs the lock (`with store.lock(): ...`)."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = (path or default_path()).absolute()
        self.lock_path = self.path.with_name(self.path.name + ".lock")
        self.data = self.path.with_name(self.path.stem + ".d")
        self._temporary = self.path.with_name(f".{self.path.name}.new")
        self.made: list[Path] = []  # directories above the state file that must go with it

    def exists(self) -> bool:
        """Tell whether a testbed is recorded. Raises StateError when that cannot be seen."""
        try:
            self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise StateError(f"cannot read the state file {self.path}", error.strerror) from error
        return True

    def load(self) -> State | None:
        """Return the recorded state, None when there is none. Raises StateError when the file cannot be used."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StateError(f"cannot read the state file {self.path}", reason) from error
        try:
            plain = json.loads(text)
        except ValueError as error:
            raise self._corrupt(f"it is not valid JSON ({error})") from error
        schema = plain.get("schema") if isinstance(plain, dict) else None
        if schema is None:
            raise self._corrupt("it has no key 'schema'")
        if schema != SCHEMA:
            remedy = "destroy the testbed with the version that made it"
            raise StateError(
                f"the state file {self.path} has schema {schema!r}, this version reads {SCHEMA}", remedy
            )
        try:
            return State.from_json(plain)
        except (KeyError, TypeError, ValueError, AttributeError, TestbedError) as error:
            raise self._corrupt(f"{type(error).__name__}: {error}") from error

    def save(self, state: State) -> None:
        """Replace the file atomically; when this returns, the new state has reached the disk."""
        self._require_lock()
        with self._temporary.open("w", encoding="utf-8") as file:
            json.dump(state.as_json(), file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        self._temporary.replace(self.path)

    def plan(self, state: State, resource: Resource) -> Resource:
        """Record a thing before it is created; returns the record, which may be an older one of the same kind and name."""
        known = state.find(resource.kind, resource.name)
        if known is None:
            state.resources.append(resource)
            known = resource
        else:
            known.status, known.details = PLANNED, resource.details or known.details
        self.save(state)
        return known

    def created(self, state: State, resource: Resource) -> None:
        """Record that a planned thing exists now."""
        resource.status = CREATED
        self.save(state)

    def forget(self, state: State, resource: Resource) -> None:
        """Record that a thing is gone."""
        state.resources.remove(resource)
        self.save(state)

    def remove(self) -> None:
        """Remove the state file: nothing that it named exists any more. The lock file goes when the lock is given back."""
        self._require_lock()
        self._temporary.unlink(missing_ok=True)  # of a command that was killed
        self.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the testbed for one command. Raises StateError at once when another process has it.

        A process may hold it several times, through any number of stores; the last one to leave gives it back.
        """
        held = _HELD.get(self.path)
        if held is None:
            self.made = _make_directories(self.path.parent)
            held = _HELD[self.path] = _Held(self._acquire())
        held.count += 1
        try:
            yield
        finally:
            held.count -= 1
            if held.count == 0:
                del _HELD[self.path]
                self._release(held.descriptor)

    def _release(self, descriptor: int) -> None:
        try:
            if not self.path.exists():  # nothing deployed: leave nothing behind
                self.lock_path.unlink(missing_ok=True)
                for directory in reversed(self.made):
                    with contextlib.suppress(OSError):  # not empty: somebody else uses it
                        directory.rmdir()
        finally:
            os.close(descriptor)

    def _acquire(self) -> int:
        while True:
            descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The holder before us may have removed the file: then we have locked a file that nobody else sees.
                if os.fstat(descriptor).st_ino == _inode(self.lock_path):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                    return descriptor
            except OSError as error:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
                os.close(descriptor)
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise StateError(f"cannot lock {self.lock_path}", error.strerror) from error
                message = f"another command (process {holder}) is working on the testbed of {self.path}"
                raise StateError(message, "wait until it has ended") from None
            os.close(descriptor)

    def _require_lock(self) -> None:
        if self.path not in _HELD:
            raise RuntimeError("the state is written without holding its lock")

    def _corrupt(self, reason: str) -> StateError:
        remedy = "restore it from a copy, or, when nothing of that testbed is left, remove it"
        return StateError(f"the state file {self.path} cannot be used, {reason}", remedy)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _make_directories(directory: Path) -> list[Path]:
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    try:
        for one in reversed(missing):
            one.mkdir(mode=0o755, exist_ok=True)
    except OSError as error:
        raise StateError(f"cannot create {directory} for the state file", error.strerror) from error
    return list(reversed(missing))
