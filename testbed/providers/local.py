"""The local provider: hosts that are namespaces of this machine, on a private bridge, without a way out of it.

A host is a network namespace, a mount namespace with an overlay root, its own sshd and a cgroup that holds all its
processes and is pinned to its cores.  A host that does not answer is rebooted: its processes end and everything but
its files is made anew.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import NoReturn

from testbed.errors import EnvironmentFault, ProviderError, UsageError
from testbed.providers import cgroups, cores, namespaces, network, overlay, sshd
from testbed.spec import Host
from testbed.state import CREATED, Resource, State, StateStore

DEFAULT_NETWORK = "10.77.0.0/24"
INTERFACE = "eth0"
_BOOT_SECONDS = 20.0
_OFFSETS = {"client": 10, "fe": 11, "be": 12}
_FIRST_INTERMEDIARY = 20
_SECOND_CLIENT = 5
_OPEN_FILES = 65536
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Names:
    """The names of everything that belongs to one testbed, or to one host of it."""

    identity: str

    @property
    def switch(self) -> str:
        return f"odb{self.identity}-switch"

    @property
    def uplink(self) -> str:
        return f"odb{self.identity}"

    @property
    def cgroup(self) -> str:
        return f"/odb{self.identity}"

    def namespace(self, role: str) -> str:
        return f"odb{self.identity}-{role}"


def parse_network(text: str) -> IPv4Network:
    """Return the address range of the testbed; UsageError when it is not one or is too small."""
    try:
        parsed = IPv4Network(text)
    except ValueError as error:
        raise UsageError(
            f"network {text!r} is not an address range", f"write one such as {DEFAULT_NETWORK}"
        ) from error
    if parsed.prefixlen > 27 or parsed.prefixlen < 8:
        raise UsageError(f"network {text!r} has a bad size", "it must have 32 addresses or more, /8 to /27")
    return parsed


def check_machine() -> None:
    """Raise EnvironmentFault when this machine cannot run the local provider at all."""
    if os.geteuid() != 0:
        raise EnvironmentFault("namespaces can be created by root only", "run the command as root (sudo)")
    if reason := namespaces.missing_privilege():
        raise EnvironmentFault(
            f"namespaces cannot be created here ({reason})", "use a privileged container or a machine"
        )
    if "tracking" in cgroups.missing():
        raise EnvironmentFault(
            "no writable cgroup hierarchy is mounted", "mount -t cgroup2 none /sys/fs/cgroup"
        )
    for program, package in (("sshd", "openssh-server"), ("ssh", "openssh-client"), ("nginx", "nginx")):
        if shutil.which(program) is None:
            raise EnvironmentFault(f"{program} is missing", f"apt-get install {package}")


class LocalProvider:
    """Makes and removes the hosts of one state. The caller holds the state's lock."""

    def __init__(self, store: StateStore, state: State, progress: Progress) -> None:
        self._store, self._state, self._progress = store, state, progress
        self._network = IPv4Network(state.network)
        self._names = _Names(state.identity)

    # ---- creation

    def ensure(self) -> list[str]:
        """Bring every host of the state's topology up, and remove those that are not in it. Returns the hosts that changed."""
        roles = self._state.topology.roles
        changed = [role for role in self._state.hosts if role not in roles]
        for role in changed:
            self._progress(f"removing {role}")
            self.remove_host(role)
        self._ensure_ground()
        shares, rule = cores.share(roles, cores.available())
        if self._state.core_rule != rule:
            self._state.core_rule = rule
            self._store.save(self._state)
        key = sshd.make_key(self._key, f"odb-testbed-{self._state.identity}")
        for role in roles:
            if self._ensure_host(role, shares[role], key):
                changed.append(role)
        return changed

    def _ensure_ground(self) -> None:
        """Create what all hosts share: directories, cgroup, bridge."""
        self._directory(self._store.data, None)
        if (
            self._state.find("names-directory", str(network.NAMESPACES)) is None
            and not network.names_directory_is_mounted()
        ):
            # The first named namespace of a machine makes a mount of that directory; then it is ours to undo.
            self._store.created(self._state, self._plan("names-directory", str(network.NAMESPACES)))
        for mount, controllers in cgroups.controllers_to_switch_on().items():
            record = self._plan("cgroup-controllers", mount, details={"controllers": controllers})
            cgroups.switch(Path(mount), controllers, on=True)
            self._store.created(self._state, record)
        if not cgroups.exists(self._names.cgroup):
            record = self._plan("cgroup", self._names.cgroup)
            cgroups.create(self._names.cgroup)
            self._store.created(self._state, record)
        self._ensure_switch()

    def _ensure_switch(self) -> None:
        """Create the namespace with the bridge, and this machine's link to it."""
        known = [
            self._state.find("link", self._names.uplink),
            self._state.find("netns", self._names.switch),
        ]
        if (
            all(record is not None and record.status == CREATED for record in known)
            and network.is_connected(self._names.switch, network.UPLINK)
            and network.link_exists(self._names.uplink)
        ):
            return
        for record in known:
            if record is not None:
                self._remove(record)
        _require_free(self._network)
        record = self._plan("netns", self._names.switch)
        network.create_namespace(self._names.switch)
        self._store.created(self._state, record)
        record = self._plan("link", self._names.uplink)
        network.create_switch(self._names.switch, self._names.uplink, self._address(1))
        self._store.created(self._state, record)

    def _ensure_host(self, role: str, own: tuple[int, ...], authorized: str) -> bool:
        """Bring one host up; returns False when it was up already and is the same."""
        host = self._describe(role, own)
        if self.is_up(role):
            cgroups.create(self._cgroup(role), own)
            moved = self._state.hosts.get(role) != host
            self._record_host(role, host)
            return moved
        self._progress(f"starting {role} ({host.address}, {_cores_text(own)})")
        self.halt(role)
        directory = self._directory(self._store.data / "hosts" / role, role)
        host_key = directory / "ssh_host_ed25519_key"
        sshd.make_key(host_key, role)
        self._record_host(role, host)
        self._create_network(role, host)
        record = self._plan("cgroup", self._cgroup(role), role)
        cgroups.create(self._cgroup(role), own)
        self._store.created(self._state, record)
        self._boot(role, host, directory, host_key.read_text(encoding="ascii"), authorized)
        return True

    def _create_network(self, role: str, host: Host) -> None:
        name = self._names.namespace(role)
        record = self._plan("netns", name, role)
        network.create_namespace(name)
        self._store.created(self._state, record)
        record = self._plan("port", role, role, {"switch": self._names.switch})
        address = IPv4Interface(f"{host.address}/{self._network.prefixlen}")
        network.connect(name, INTERFACE, self._names.switch, role, address)
        self._store.created(self._state, record)

    def _boot(self, role: str, host: Host, directory: Path, host_key: str, authorized: str) -> None:
        volatile = overlay.why_not(directory) is not None
        record = self._plan("sshd", f"sshd-{role}", role, {"volatile": volatile})
        program, live = (
            sshd.program(),
            overlay.trees_to_show([_checkout(), Path(sys.prefix), Path(sys.base_prefix)]),
        )
        path = network.namespace_path(self._names.namespace(role))

        def start() -> NoReturn:
            cgroups.enter(self._cgroup(role))
            if cgroups.cores(self._cgroup(role)) is None and host.cores:
                os.sched_setaffinity(0, host.cores)
            namespaces.enter_network(path)
            namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWIPC)
            _redirect(directory / "sshd.log")
            root = overlay.build(directory, volatile=volatile, live=live)
            sshd.install(root, address=host.address, host_key=host_key, authorized=authorized)
            overlay.write(root, "etc/hostname", role + "\n")
            namespaces.enter_root(root)
            socket.sethostname(role)
            os.execve(program, [program, "-D", "-f", sshd.CONFIGURATION], {"PATH": _PATH, "LANG": "C.UTF-8"})

        pid, started, error = namespaces.spawn(start, deadline=_BOOT_SECONDS)
        if error is not None:
            raise ProviderError(f"cannot start the host {role} ({error})", "see 'odb-testbed doctor'")
        record.details.update(pid=pid, start_time=started)
        self._store.created(self._state, record)
        self._await_sshd(role, host, pid, started, directory / "sshd.log")

    def _await_sshd(self, role: str, host: Host, pid: int, started: int, log: Path) -> None:
        deadline = time.monotonic() + _BOOT_SECONDS
        while not sshd.answers(host.address, host.ssh_port):
            if namespaces.start_time(pid) != started or time.monotonic() > deadline:
                tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                reason = tail[0] if tail else "it said nothing"
                raise ProviderError(
                    f"the sshd of {role} does not answer at {host.address}:{host.ssh_port}", reason
                )
            time.sleep(0.02)

    # ---- facts

    def is_up(self, role: str) -> bool:
        """Tell whether a host is complete: recorded, its sshd running and answering, connected to the bridge."""
        record, host = self._state.find("sshd", f"sshd-{role}"), self._state.hosts.get(role)
        if record is None or record.status != CREATED or host is None:
            return False
        return (
            namespaces.start_time(record.details["pid"]) == record.details["start_time"]
            and network.namespace_exists(self._names.namespace(role))
            and network.is_connected(self._names.switch, role)
            and cgroups.exists(self._cgroup(role))
            and sshd.answers(host.address, host.ssh_port)
        )

    def _describe(self, role: str, own: tuple[int, ...]) -> Host:
        offset = _offset(role)
        return Host(
            name=role,
            roles=(role,),
            address=str(self._address(offset).ip),
            ssh_port=sshd.PORT,
            ssh_user="root",
            ssh_key=self._key,
            cores=own,
            cgroup=self._cgroup(role),
            interface=INTERFACE,
            python=sys.executable,
            known_hosts=self._store.data / "known_hosts",
        )

    def _address(self, offset: int) -> IPv4Interface:
        return IPv4Interface((self._network.network_address + offset, self._network.prefixlen))

    def _cgroup(self, role: str) -> str:
        return f"{self._names.cgroup}/{role}"

    @property
    def _key(self) -> Path:
        return self._store.data / "id_ed25519"

    # ---- records

    def _plan(
        self, kind: str, name: str, role: str | None = None, details: dict[str, object] | None = None
    ) -> Resource:
        return self._store.plan(self._state, Resource(kind, name, role, details=dict(details or {})))

    def _directory(self, path: Path, role: str | None) -> Path:
        known = self._state.find("directory", str(path))
        if known is None or not path.is_dir():
            record = self._plan("directory", str(path), role)
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._store.created(self._state, record)
        return path

    def _record_host(self, role: str, host: Host) -> None:
        if self._state.hosts.get(role) != host:
            self._state.hosts[role] = host
            self._store.save(self._state)
        lines = []
        for known in self._state.hosts.values():
            public = self._store.data / "hosts" / known.name / "ssh_host_ed25519_key.pub"
            if public.exists():
                lines.append(f"{known.address} {' '.join(public.read_text(encoding='ascii').split()[:2])}\n")
        target = self._store.data / "known_hosts"
        if not target.exists() or target.read_text(encoding="ascii") != "".join(lines):
            temporary = target.with_suffix(".new")
            temporary.write_text("".join(lines), encoding="ascii")
            temporary.replace(target)

    # ---- removal

    def halt(self, role: str) -> None:
        """End a host: its processes, network and cgroup go, its files stay. What is not there is fine."""
        for record in reversed(self._state.of_role(role)):
            if record.kind != "directory":
                self._remove(record)

    def remove_host(self, role: str) -> None:
        """End a host and remove its files."""
        self.halt(role)
        for record in reversed(self._state.of_role(role)):
            self._remove(record)
        del self._state.hosts[role]
        self._store.save(self._state)

    def remove_all(self) -> list[str]:
        """Remove everything that is recorded, the state file last; returns the kinds and names that were removed."""
        if os.geteuid() != 0:
            raise EnvironmentFault("namespaces can be removed by root only", "run the command as root (sudo)")
        removed = [f"{record.kind} {record.name}" for record in self._state.resources]
        self._state.fingerprint = self._state.serving = None
        for role in list(self._state.hosts):
            self._progress(f"removing {role}")
            self.remove_host(role)
        for record in reversed(list(self._state.resources)):
            if record.kind == "parent":  # goes with the state file
                self._store.made.append(Path(record.name))
            else:
                self._remove(record)
        self._store.made.reverse()
        self._store.remove()
        return removed

    def _remove(self, record: Resource) -> None:
        match record.kind:
            case "sshd":
                pass  # ends with its cgroup
            case "cgroup":
                cgroups.end_processes(record.name)
                cgroups.remove(record.name)
            case "netns":
                network.remove_namespace(record.name)
            case "link":
                network.remove_link(record.name)
            case "port":
                network.disconnect(record.details["switch"], record.name)
            case "directory":
                _remove_tree(Path(record.name))
            case "cgroup-controllers":
                cgroups.switch(Path(record.name), record.details["controllers"], on=False)
            case "names-directory":
                network.release_names_directory()
            case unknown:
                raise ProviderError(
                    f"the state names a thing of the unknown kind {unknown!r} ({record.name})"
                )
        self._store.forget(self._state, record)


def fresh_state(store: StateStore, template: State) -> State:
    """Record a new testbed; its identity is free, so that no name of it can be somebody else's."""
    state = template
    _require_free(IPv4Network(state.network))
    while _in_use(_Names(state.identity), state.topology.roles):
        state = replace(state, identity=State.fresh(state.network, state.topology).identity)
    state.resources += [Resource("parent", str(path), status=CREATED) for path in store.made]
    store.save(state)
    return state


def _require_free(addresses: IPv4Network) -> None:
    if users := network.users_of(addresses):
        remedy = "choose a free one with --network, such as 10.78.0.0/24"
        raise EnvironmentFault(f"the address range {addresses} is in use ({users[0]})", remedy)


def _offset(role: str) -> int:
    """The place of a role's address in the network."""
    if role in _OFFSETS:
        return _OFFSETS[role]
    if role.startswith("client"):
        return _SECOND_CLIENT - 2 + int(role.removeprefix("client"))
    return _FIRST_INTERMEDIARY + int(role.removeprefix("is"))


def _in_use(names: _Names, roles: tuple[str, ...]) -> bool:
    return (
        network.link_exists(names.uplink)
        or any(network.namespace_path(names.namespace(one)).exists() for one in ("switch", *roles))
        or any(tree.at(names.cgroup).exists() for tree in cgroups.hierarchies())
    )


def _redirect(log: Path) -> None:
    """Cut a host's first process off from the terminal and the open files of the command that starts it."""
    sink = os.open(os.devnull, os.O_RDWR)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for source, target in ((sink, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.umask(0o022)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    soft = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _remove_tree(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ProviderError(f"cannot remove {path}", error.strerror or str(error)) from error


def _checkout() -> Path:
    return Path(__file__).resolve().parents[2]


def _cores_text(own: tuple[int, ...]) -> str:
    return f"core {own[0]}" if len(own) == 1 else f"cores {','.join(map(str, own))}"
