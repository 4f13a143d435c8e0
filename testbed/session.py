"""The deployed testbed as the rest of the program sees it: hosts, the running variant, commands and processes on hosts."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from testbed import spec
from testbed.errors import RemoteError, ServingError, StateError, UsageError
from testbed.remote import Completed, Remote
from testbed.spec import Host, Topology, Variant
from testbed.state import StateStore

LIBRARY = "libodb.so"
SERVER = "nginx"
"""The name of every tier's server process, whatever program it is."""
HAPROXY = "haproxy"
_START_SECONDS = 30.0
_ANSWER_SECONDS = 15.0
_MANIFEST = "/payload/manifest.json"


class Testbed:
    """A deployed testbed. Holds its lock until `close` (it is a context manager).

    Different hosts may be used by different threads at once, one host only by one.
    """

    __test__: ClassVar[bool] = False  # the name starts with "Test": keep pytest from collecting it

    def __init__(self, store: StateStore, held: contextlib.ExitStack) -> None:
        """Use `Testbed.open`."""
        state = store.load()
        if state is None or state.fingerprint is None:
            how = "nothing is deployed" if state is None else "the deployment is not complete"
            raise StateError(f"{how} ({store.path})", "run 'odb-testbed deploy'")
        self._store, self._state, self._held = store, state, held
        self._remotes: dict[str, Remote] = {}

    @classmethod
    def open(cls, state_file: Path | None = None) -> Self:
        """Open what is deployed; StateError when nothing is, when it is not complete, or when another command has it."""
        store = StateStore(state_file)
        if not store.exists():
            raise StateError(f"nothing is deployed ({store.path})", "run 'odb-testbed deploy'")
        held = contextlib.ExitStack()
        held.enter_context(store.lock())
        try:
            return cls(store, held)
        except BaseException:
            held.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections and give the lock back. The servers go on running."""
        for remote in self._remotes.values():
            remote.close()
        self._remotes.clear()
        self._held.close()

    # ---- facts

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The hosts: the client, then the chain from FE to BE."""
        return tuple(self._state.hosts[role] for role in self.topology.roles)

    @property
    def topology(self) -> Topology:
        """What is deployed."""
        return self._state.topology

    @property
    def core_rule(self) -> str:
        """The rule by which the hosts share this machine's cores, as a sentence."""
        return self._state.core_rule

    @property
    def serving(self) -> str | None:
        """The name of the variant that was started last; None when the servers were stopped."""
        return self._state.serving

    def host(self, role: str) -> Host:
        """Return the host of a role: client, fe, is1, is2, ..., be."""
        try:
            return self._state.hosts[role]
        except KeyError:
            raise UsageError(
                f"there is no host {role!r}", f"choose one of {', '.join(self.topology.roles)}"
            ) from None

    def front_url(self) -> str:
        """The URL at which the chain is entered."""
        address = self.host("fe").address
        if self.topology.touch == "tls":
            return f"https://{address}:{spec.HTTPS_PORT}"
        return f"http://{address}:{spec.HTTP_PORT}"

    def front_headers(self) -> tuple[str, ...]:
        """What a client of the chain has to say besides ("NAME: VALUE") for its bodies to be touched as the topology says."""
        return ("Accept-Encoding: gzip",) if self.topology.touch == "gzip" else ()

    # ---- servers

    def start(self, variant: Variant) -> None:
        """(Re)start the server of every tier in that variant, the BE first.

        When this returns, each has answered through the chain behind it, and the library is mapped in all of their
        processes, or in none.  ServingError or RemoteError otherwise; what was started then is stopped.
        """
        self.stop()
        try:
            for role in reversed(self.topology.chain):
                self._start_server(role, variant)
            self._check_library(variant)
        except BaseException:
            with contextlib.suppress(RemoteError):
                self.stop()
            raise
        self._state.serving = variant.name
        self._store.save(self._state)

    def stop(self) -> None:
        """Stop the server of every tier, the FE first; one that does not run is fine."""
        self._state.serving = None
        self._store.save(self._state)
        for role in self.topology.chain:
            self._remote(role).stop(SERVER)

    def is_serving(self, variant: Variant) -> bool:
        """Tell whether every tier runs in that variant now."""
        if self._state.serving != variant.name:
            return False
        try:
            self._check_library(variant)
            manifest = [_ask_manifest(self.host(role)) for role in self.topology.chain]
        except (ServingError, OSError, http.client.HTTPException, ValueError):
            return False
        return all(one == manifest[0] for one in manifest)

    def odb_stats(self, role: str) -> dict[str, int]:
        """The live counters of all processes with the library on that host, summed; {} when there are none."""
        command = [self.host(role).tool("odb"), "stat", "--json"]
        totals = json.loads(self._remote(role).run(command, timeout=30, check=True).stdout)["totals"][
            "counters"
        ]
        return {str(name): int(value) for name, value in totals.items()}

    # ---- commands, processes, files

    def run(self, role: str, command: Sequence[str], *, timeout: float) -> Completed:
        """Run a command on a host and wait at most `timeout` seconds; its exit code is the caller's to judge."""
        return self._remote(role).run(command, timeout=timeout)

    def start_process(self, role: str, name: str, command: Sequence[str]) -> int:
        """Start a background process under a name that is free on that host; returns its process id."""
        return self._remote(role).start(name, command)

    def stop_process(self, role: str, name: str, *, grace: float = 10.0) -> bool:
        """End the process of that name and all that it started; returns whether it was running."""
        return self._remote(role).stop(name, grace=grace)

    def process_status(self, role: str, name: str, library: str | None = None) -> dict[str, Any]:
        """Whether the process of that name runs: {"alive", "processes": [pid], "mapped": [pid with the library]}.

        The servers have the name "nginx".
        """
        return self._remote(role).status(name, library)

    def fetch(self, role: str, remote: str, local: Path) -> None:
        """Copy a file from a host."""
        self._remote(role).get(remote, local)

    def put(self, role: str, local: Path, remote: str) -> None:
        """Copy a file to a host."""
        self._remote(role).put(local, remote)

    def _remote(self, role: str) -> Remote:
        if role not in self._remotes:
            self._remotes[role] = Remote(self.host(role))
        return self._remotes[role]

    # ---- one server

    def _start_server(self, role: str, variant: Variant) -> None:
        program, pid_file, command = self._server_command(role, variant)
        if variant.odb:
            library = self._installed(role, variant.library, LIBRARY)
            command = [*odb_command(self.host(role), variant, library), "--", *command]
        remote = self._remote(role)
        try:
            remote.start_daemon(SERVER, pid_file, command, timeout=_START_SECONDS)
        except RemoteError as error:
            raise ServingError(
                f"{program} on {role} does not start in the variant {variant.name}", str(error)
            ) from error
        self._await_answer(role)

    def _server_command(self, role: str, variant: Variant) -> tuple[str, str, list[str]]:
        """The program of that tier, the file that it writes its process id to, and its command line."""
        if role.startswith("is") and variant.intermediary == HAPROXY:
            configuration, pid_file = spec.HAPROXY_CONFIGURATION, spec.HAPROXY_PID_FILE
            return HAPROXY, pid_file, [HAPROXY, "-W", "-D", "-f", configuration, "-p", pid_file]
        by_reference = variant.configuration == "x-accel"
        configuration = spec.X_ACCEL_CONFIGURATION if by_reference else spec.NGINX_CONFIGURATION
        program = self._installed(role, variant.nginx, SERVER) or SERVER
        command = [program, "-c", configuration]
        if variant.nginx is not None:
            # A build of its own may have a prefix that the host does not have.
            command += ["-p", spec.RUN_DIRECTORY, "-e", spec.NGINX_LOG]
        return SERVER, spec.NGINX_PID_FILE, command

    def _installed(self, role: str, build: str | None, name: str) -> str | None:
        """Where a build of this machine lies on the host, under the name that it has to have; None for None."""
        if build is None:
            return None
        local = Path(build)
        try:
            digest = hashlib.sha256(local.read_bytes()).hexdigest()[:16]
        except OSError as error:
            raise ServingError(f"{build} cannot be read ({error.strerror})", "build it again") from error
        directory = f"{spec.HOST_DIRECTORY}/builds/{digest}"
        place = f"{directory}/{name}"
        remote = self._remote(role)
        if remote.run(["test", "-e", place], timeout=_ANSWER_SECONDS).exit_code != 0:
            remote.run(["mkdir", "-p", directory], timeout=_ANSWER_SECONDS, check=True)
            remote.put(local, f"{place}.new")
            remote.run(["chmod", "0755", f"{place}.new"], timeout=_ANSWER_SECONDS, check=True)
            remote.run(["mv", f"{place}.new", place], timeout=_ANSWER_SECONDS, check=True)
        return place

    def _await_answer(self, role: str) -> None:
        """Wait until the tier hands out the manifest; through the chain behind it, which runs already."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            try:
                manifest = _ask_manifest(self.host(role))
                break
            except (OSError, http.client.HTTPException, ValueError) as error:
                if time.monotonic() > deadline:
                    reason = str(error) or type(error).__name__
                    message = f"{SERVER} on {role} ({self.host(role).address}) does not answer: {reason}"
                    raise ServingError(message, self._last_log_line(role)) from error
                time.sleep(0.05)
        missing = [size for size in self.topology.payloads if str(size) not in manifest]
        if missing:
            raise ServingError(
                f"{SERVER} on {role} serves no payload of {missing[0]} bytes", "run 'odb-testbed deploy'"
            )

    def _last_log_line(self, role: str) -> str | None:
        with contextlib.suppress(RemoteError):
            done = self._remote(role).run(["tail", "-n", "1", spec.NGINX_LOG], timeout=10)
            return done.stdout.strip() or None
        return None

    def _check_library(self, variant: Variant) -> None:
        for role in self.topology.chain:
            status = self._remote(role).status(SERVER, LIBRARY)
            processes, mapped = set(status["processes"]), set(status["mapped"])
            if len(processes) < 2:
                raise ServingError(f"{SERVER} on {role} has no worker", f"see its log: {spec.NGINX_LOG}")
            if variant.odb and mapped != processes:
                left = sorted(processes - mapped)
                raise ServingError(
                    f"{LIBRARY} is not loaded into the processes {left} of {SERVER} on {role}",
                    "see 'odb doctor'",
                )
            if not variant.odb and mapped:
                raise ServingError(
                    f"{LIBRARY} is loaded into {SERVER} on {role}, variant {variant.name} is without it"
                )


def odb_command(host: Host, variant: Variant, library: str | None = None) -> list[str]:
    """The `odb run` of a variant on a host, up to the "--" that the program follows; `library` is a path on the host."""
    command = [host.tool("odb"), "run", "--config", spec.ODB_CONFIGURATION]
    if library is not None:
        command += ["--library", library]
    if variant.profile is not None:
        command += ["--profile", variant.profile]
    for key, value in variant.options.items():
        command += ["--set", f"{key}={value}"]
    return command


def _ask_manifest(host: Host) -> dict[str, str]:
    connection = http.client.HTTPConnection(host.address, spec.HTTP_PORT, timeout=5)
    try:
        connection.request("GET", _MANIFEST)
        response = connection.getresponse()
        body = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(f"{_MANIFEST} has the status {response.status}")
    manifest = json.loads(body)
    if not isinstance(manifest, dict):
        raise ValueError(f"{_MANIFEST} is not an object")
    return {str(size): str(digest) for size, digest in manifest.items()}
