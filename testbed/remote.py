"""Imperative steps on a host through SSH; the only module that imports Fabric.

Every wait is bounded: connecting, each command, each transfer.  A command that takes too long is ended on the host as well.
Background processes are started and ended by `hostproc.py`, which the playbooks have put on the host.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paramiko
from fabric import Config, Connection
from invoke.exceptions import CommandTimedOut

from testbed.errors import RemoteError
from testbed.spec import HOSTPROC, Host

_CONNECT_SECONDS = 10
_KEEPALIVE_SECONDS = 10
_SLACK_SECONDS = 15.0
_TIMED_OUT = (124, 137)

# Paramiko's thread logs the tracebacks of broken connections; the error that we raise says it in a sentence.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended on a host."""

    command: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str


class Remote:
    """A connection to one host, opened when first needed. Not for use by two threads at once."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(Exception):  # it may be broken: it is gone either way
                connection.close()

    def run(self, command: Sequence[str], *, timeout: float, check: bool = False) -> Completed:
        """Run a command and wait at most `timeout` seconds for its end.

        RemoteError: the host cannot be reached, the command took too long or, with `check`, its exit code was not 0.
        """
        line = shlex.join(["timeout", "--kill-after=5", f"{timeout:.3f}", *command])
        began = time.monotonic()
        with self._explained():
            result = self._open().run(
                line,
                hide=True,
                warn=True,
                in_stream=False,
                timeout=timeout + _SLACK_SECONDS,
                encoding="utf-8",
            )
        done = Completed(tuple(command), result.exited, result.stdout, result.stderr)
        if done.exit_code in _TIMED_OUT and time.monotonic() - began >= timeout:
            raise RemoteError(f"{command[0]} on {self.host.name} took longer than {timeout:g} s")
        if check and done.exit_code != 0:
            reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["it said nothing"]
            raise RemoteError(
                f"{command[0]} on {self.host.name} failed with code {done.exit_code}", reason[0]
            )
        return done

    def put(self, local: Path, remote: str) -> None:
        """Copy a file to the host."""
        with self._explained():
            self._open().put(str(local), remote)

    def get(self, remote: str, local: Path) -> None:
        """Copy a file from the host."""
        local.parent.mkdir(parents=True, exist_ok=True)
        with self._explained(remote):
            self._open().get(remote, str(local))

    def start(self, name: str, command: Sequence[str]) -> int:
        """Start a background process under a name; returns its process id."""
        record = self._hostproc(["start", name, "--", *command], timeout=30)
        return int(record["pid"])

    def start_daemon(self, name: str, pid_file: str, command: Sequence[str], *, timeout: float) -> int:
        """Run a command that puts itself into the background; returns the process id that it wrote to `pid_file`."""
        record = self._hostproc(["daemon", name, "--pid-file", pid_file, "--", *command], timeout=timeout)
        return int(record["pid"])

    def stop(self, name: str, *, grace: float = 10.0) -> bool:
        """End the process of that name and all it started; returns whether it was running."""
        return bool(self._hostproc(["stop", name, "--grace", f"{grace:g}"], timeout=grace + 30)["stopped"])

    def status(self, name: str, library: str | None = None) -> dict[str, Any]:
        """Return whether the process of that name runs: {"alive", "processes", "mapped"} (see hostproc.py)."""
        extra = ["--mapped", library] if library else []
        return self._hostproc(["status", name, *extra], timeout=30)

    def _hostproc(self, arguments: Sequence[str], *, timeout: float) -> dict[str, Any]:
        done = self.run([self.host.python, HOSTPROC, *arguments], timeout=timeout)
        if done.exit_code != 0:
            reason = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
            raise RemoteError(f"host {self.host.name}: {reason[0]}")
        return dict(json.loads(done.stdout))

    def _open(self) -> Connection:
        if self._connection is not None and not self._connection.is_connected:
            self.close()
        if self._connection is None:
            connection = Connection(
                self.host.address,
                user=self.host.ssh_user,
                port=self.host.ssh_port,
                connect_timeout=_CONNECT_SECONDS,
                # No file of the user's changes how the testbed reaches its hosts.
                config=Config(lazy=True, ssh_config=paramiko.SSHConfig()),
                connect_kwargs={
                    "key_filename": str(self.host.ssh_key),
                    "look_for_keys": False,
                    "allow_agent": False,
                    "banner_timeout": _CONNECT_SECONDS,
                    "auth_timeout": _CONNECT_SECONDS,
                },
            )
            if self.host.known_hosts is not None:
                connection.client.load_host_keys(str(self.host.known_hosts))
                connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
            self._connection = connection
            connection.open()
            connection.transport.set_keepalive(_KEEPALIVE_SECONDS)
        return self._connection

    @contextlib.contextmanager
    def _explained(self, path: str | None = None) -> Iterator[None]:
        where = f"host {self.host.name} ({self.host.address}:{self.host.ssh_port})"
        try:
            yield
        except CommandTimedOut as error:
            self.close()
            raise RemoteError(
                f"{where} did not answer in time", "run 'odb-testbed deploy' to repair it"
            ) from error
        except FileNotFoundError as error:
            raise RemoteError(f"{where} has no file {path or error.filename}") from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            self.close()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise RemoteError(
                f"{where} cannot be reached ({reason})", "run 'odb-testbed deploy' to repair it"
            ) from error
