"""Brings the testbed to its desired state: hosts by a provider, what is on them by Ansible.

The only module that imports ansible_runner.  Each run has a private directory of its own, takes nothing from the user's Ansible
configuration, has a bounded time, and can be interrupted.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible_runner

from testbed import spec
from testbed.errors import DeployError, EnvironmentFault, UsageError
from testbed.providers.local import DEFAULT_NETWORK, LocalProvider, check_machine, fresh_state, parse_network
from testbed.session import Testbed
from testbed.spec import Host, Topology, Variant
from testbed.state import Resource, State, StateStore

CHECKOUT = Path(__file__).resolve().parents[1]
PLAYBOOKS = CHECKOUT / "playbooks"
AGENT = CHECKOUT / "testbed" / "collect" / "agent.py"
LOADGEN = CHECKOUT / "loadgen"
LOADGEN_ARCHIVE = "loadgen.tar"
TIMEOUT_SECONDS = 600

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DeployResult:
    """What a deployment did: `changed` counts hosts made and tasks that changed something; 0 when all was as wanted."""

    changed: int
    hosts: tuple[Host, ...]


@dataclass(slots=True)
class _Play:
    """What Ansible said while it ran."""

    changed: int = 0
    failures: list[str] = field(default_factory=list)


def deploy(
    topology: Topology | None = None,
    *,
    network: str | None = None,
    variant: Variant | None = None,
    state_file: Path | None = None,
    progress: Progress,
) -> DeployResult:
    """Make what runs on this machine equal to what is asked for; what is None stays as deployed, or gets its default.

    Afterwards the servers run in `variant` (None: the one that ran before, else vanilla).  Interrupted at any point,
    it leaves a state from which the next deployment continues.
    """
    check_machine()
    store = StateStore(state_file)
    with store.lock():
        state = _wanted_state(store, topology, network)
        provider = LocalProvider(store, state, progress)
        made = provider.ensure()
        changed = len(made) + _configure(store, state, progress)
        with Testbed.open(store.path) as testbed:
            chosen = variant or _variant_to_run(state)
            if changed or not testbed.is_serving(chosen):
                progress(f"starting the servers ({chosen.name})")
                testbed.start(chosen)
                changed += 1
            return DeployResult(changed, testbed.hosts)


def ensure_deployed(
    topology: Topology | None = None, *, progress: Progress, state_file: Path | None = None
) -> Testbed:
    """Return the deployed testbed; deploy only when nothing, something else or only part of it is deployed.

    The testbed holds the lock until it is closed.
    """
    store = StateStore(state_file)
    with store.lock():
        state = store.load()
        if state is None or not _is_as_wanted(store, state, topology, progress):
            deploy(topology, state_file=store.path, progress=progress)
        return Testbed.open(store.path)


def destroy(*, state_file: Path | None = None, progress: Progress) -> list[str]:
    """Remove exactly what the state file names; returns it. Nothing deployed: nothing is removed."""
    store = StateStore(state_file)
    if not store.exists():
        return []
    with store.lock():
        state = store.load()
        return LocalProvider(store, state, progress).remove_all() if state else []


def fingerprint(state: State) -> str:
    """Return a digest of everything that determines what the playbooks install."""
    digest = hashlib.sha256(json.dumps(_inventory(state, Path("/"), "/"), sort_keys=True).encode())
    for top in (PLAYBOOKS, LOADGEN, AGENT, CHECKOUT / "testbed" / "hostproc.py"):
        for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(CHECKOUT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _wanted_state(store: StateStore, topology: Topology | None, network: str | None) -> State:
    if network is not None:
        parse_network(network)
    state = store.load()
    if state is None:
        wanted = str(parse_network(network or DEFAULT_NETWORK))
        return fresh_state(store, State.fresh(wanted, topology or Topology()))
    if network is not None and str(parse_network(network)) != state.network:
        raise UsageError(
            f"the testbed is deployed on {state.network}, not on {network}", "run 'odb-testbed destroy' first"
        )
    if topology is not None and topology != state.topology:
        state.topology, state.fingerprint = topology, None
        store.save(state)
    return state


def _is_as_wanted(store: StateStore, state: State, topology: Topology | None, progress: Progress) -> bool:
    if topology is not None and topology != state.topology:
        return False
    provider = LocalProvider(store, state, progress)
    return state.fingerprint == fingerprint(state) and all(map(provider.is_up, state.topology.roles))


def _variant_to_run(state: State) -> Variant:
    variants = spec.load_variants()
    return variants.get(state.serving or "vanilla", variants["vanilla"])


# ---- Ansible


def _configure(store: StateStore, state: State, progress: Progress) -> int:
    """Run the playbooks; returns the number of tasks that changed something."""
    state.fingerprint = None
    store.save(state)
    private = store.data / "ansible"
    shutil.rmtree(private, ignore_errors=True)
    private.mkdir(mode=0o700)
    try:
        with _socket_directory(store, state) as sockets:
            inventory = private / "inventory.json"
            inventory.write_text(json.dumps(_inventory(state, private, sockets), indent=1), encoding="utf-8")
            _pack(LOADGEN, private / LOADGEN_ARCHIVE)
            changed = _play(private, inventory, sockets, progress)
    finally:
        shutil.rmtree(private, ignore_errors=True)
    state.fingerprint = fingerprint(state)
    store.save(state)
    return changed


@contextlib.contextmanager
def _socket_directory(store: StateStore, state: State) -> Iterator[str]:
    """A directory with a short name for ssh's control sockets (their paths are limited to about 100 characters)."""
    directory = Path(f"/run/odb{state.identity}")
    record = store.plan(state, Resource("directory", str(directory)))
    directory.mkdir(mode=0o700, exist_ok=True)
    try:
        yield str(directory)
    finally:
        for socket in directory.iterdir():
            command = ["ssh", "-F", "none", "-o", f"ControlPath={socket}", "-O", "exit", "any"]
            subprocess.run(command, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=15)
        shutil.rmtree(directory, ignore_errors=True)
        store.forget(state, record)


@contextlib.contextmanager
def hangup_ends_children() -> Iterator[None]:
    """Let processes that are started meanwhile end when their terminal goes, also below nohup.

    Ansible's terminal is one that ansible_runner holds: with this process killed, nobody else would end Ansible.  A hangup
    that is ignored is inherited, one with a handler is not; this process goes on ignoring it.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGHUP, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _play(private: Path, inventory: Path, sockets: str, progress: Progress) -> int:
    play, cancelled = _Play(), threading.Event()
    program = Path(sys.executable).with_name("ansible-playbook")
    if not program.exists():
        raise EnvironmentFault(f"{program} is missing", "run 'make setup'")
    with hangup_ends_children():
        thread, runner = ansible_runner.run_async(
            private_data_dir=str(private),
            project_dir=str(PLAYBOOKS),
            playbook=str(PLAYBOOKS / "site.yml"),
            inventory=str(inventory.absolute()),
            envvars=_environment(private, program.parent),
            suppress_env_files=True,
            quiet=True,
            settings={"job_timeout": TIMEOUT_SECONDS, "idle_timeout": TIMEOUT_SECONDS},
            event_handler=lambda event: _listen(event, play, progress),
            cancel_callback=cancelled.is_set,
        )
        try:
            thread.join()
        except BaseException:
            cancelled.set()
            thread.join(30)
            raise
    if runner.status == "timeout":
        raise DeployError(
            f"the playbooks did not end within {TIMEOUT_SECONDS} s", "run 'odb-testbed deploy' again"
        )
    if runner.status != "successful":
        raise DeployError(
            *(play.failures[:1] or [f"the playbooks ended with the status {runner.status}: {_said(runner)}"])
        )
    return play.changed


def _said(runner: Any) -> str:
    with contextlib.suppress(OSError, AttributeError):
        lines = [line.strip() for line in runner.stdout.read().splitlines() if line.strip()]
        return lines[-1] if lines else "nothing was said"
    return "nothing was said"


def _listen(event: dict[str, Any], play: _Play, progress: Progress) -> bool:
    """Follow one event of Ansible's; returns False: no copy of it is kept."""
    data = event.get("event_data", {})
    kind = event.get("event")
    if kind == "playbook_on_task_start":
        progress(str(data.get("name") or data.get("task")))
    elif kind == "playbook_on_stats":
        play.changed = sum(data.get("changed", {}).values())
    elif kind == "runner_on_unreachable":
        reason = str(data.get("res", {}).get("msg", "")).strip().splitlines()
        play.failures.append(
            f"host {data.get('host')} cannot be reached: {reason[-1] if reason else 'no reason given'}"
        )
    elif kind == "runner_on_failed" and not data.get("ignore_errors"):
        play.failures.append(
            f"host {data.get('host')}: {_reason(data.get('res', {}))} (task {data.get('task')!r})"
        )
    return False


def _reason(result: dict[str, Any]) -> str:
    for item in result.get("results", []):
        if item.get("failed"):
            return _reason(item)
    error = str(result.get("stderr") or "").strip().splitlines()
    said = str(result.get("msg") or "it gave no reason").strip()
    return f"{said} ({error[-1]})" if error and "non-zero return code" in said else said


def _environment(private: Path, programs: Path) -> dict[str, str]:
    return {
        "PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}",
        "ANSIBLE_CONFIG": str(PLAYBOOKS / "ansible.cfg"),
        "ANSIBLE_HOME": str(private / "home"),
        "ANSIBLE_LOCAL_TEMP": str(private / "tmp"),
        "ANSIBLE_ROLES_PATH": str(PLAYBOOKS / "roles"),
        "ANSIBLE_NOCOLOR": "1",
        "LC_ALL": "C.UTF-8",
        "LANG": "C.UTF-8",
    }


def _inventory(state: State, private: Path, sockets: str) -> dict[str, Any]:
    topology, chain = state.topology, state.topology.chain
    following = dict(itertools.pairwise(chain))
    hosts = {}
    for role in topology.roles:
        host = state.hosts[role]
        after = following.get(role)
        hosts[role] = {
            "ansible_host": host.address,
            "ansible_port": host.ssh_port,
            "ansible_user": host.ssh_user,
            "ansible_ssh_private_key_file": str(host.ssh_key),
            "ansible_ssh_common_args": " ".join(_ssh_options(host, sockets)),
            "ansible_python_interpreter": host.python,
            "testbed_role": role,
            "testbed_next": state.hosts[after].address if after else "",
            "testbed_affinity": f"{sum(1 << core for core in host.cores[:1]):b}" if host.cores else "",
            "testbed_odb": host.tool("odb"),
            "testbed_locust": host.tool("locust"),
        }
    everywhere = {
        "testbed_directory": spec.HOST_DIRECTORY,
        "testbed_payload_directory": spec.PAYLOAD_DIRECTORY,
        "testbed_nginx_configuration": spec.NGINX_CONFIGURATION,
        "testbed_x_accel_configuration": spec.X_ACCEL_CONFIGURATION,
        "testbed_haproxy_configuration": spec.HAPROXY_CONFIGURATION,
        "testbed_origin": state.hosts["be"].address,
        "testbed_nginx_pid_file": spec.NGINX_PID_FILE,
        "testbed_nginx_user": _server_user(),
        "testbed_odb_configuration": spec.ODB_CONFIGURATION,
        "testbed_port": spec.HTTP_PORT,
        "testbed_tls_port": spec.HTTPS_PORT,
        "testbed_certificate": spec.CERTIFICATE,
        "testbed_network": state.network,
        "testbed_hostproc": str(CHECKOUT / "testbed" / "hostproc.py"),
        "testbed_agent": str(AGENT),
        "testbed_loadgen": str(private / LOADGEN_ARCHIVE),
        "testbed_names": [{"name": role, "address": state.hosts[role].address} for role in topology.roles],
        **{f"testbed_{key}": value for key, value in topology.as_json().items()},
    }
    groups = {
        "clients": list(topology.client_roles),
        "servers": list(chain),
        "intermediaries": list(chain[1:-1]),
        "origins": ["be"],
    }
    return {
        "all": {
            "hosts": hosts,
            "vars": everywhere,
            "children": {name: {"hosts": {role: {} for role in roles}} for name, roles in groups.items()},
        }
    }


def _pack(directory: Path, archive: Path) -> None:
    """Pack a directory's Python files; equal files make an equal archive."""
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as packed:
        for file in [directory, *sorted(directory.rglob("*.py"))]:
            entry = packed.gettarinfo(file, str(file.relative_to(directory.parent)))
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = "root"
            entry.mode = 0o755 if file.is_dir() else 0o644
            with file.open("rb") if file.is_file() else contextlib.nullcontext() as content:
                packed.addfile(entry, content)


def _ssh_options(host: Host, sockets: str) -> list[str]:
    options = {
        "ControlMaster": "auto",
        "ControlPersist": "30s",
        "ControlPath": f"{sockets}/%C",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": str(host.known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
    }
    return ["-F", "none", *(f"-o {key}={value}" for key, value in options.items())]


def _server_user() -> str:
    for name in ("www-data", "nginx", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise EnvironmentFault("there is no user for nginx's workers", "create the user www-data")
