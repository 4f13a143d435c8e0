"""Network namespaces for tests: named after this process, linked in pairs, removed with everything started in them."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import Any

_numbers = itertools.count()


class Namespace:
    """One network namespace with its loopback up. Processes are started in it by `popen` and ended by the network."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._processes: list[subprocess.Popen[Any]] = []
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")

    def run(
        self, command: Sequence[str], *, timeout: float = 30, **options: Any
    ) -> subprocess.CompletedProcess[Any]:
        """`subprocess.run` inside the namespace, with a time limit and without standard input."""
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(self._inside(command), timeout=timeout, **options)

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """`subprocess.Popen` inside the namespace; `ip netns exec` execs, so the pid is the command's own."""
        options.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen(self._inside(command), **options)
        self._processes.append(process)
        return process

    def close(self) -> None:
        """End what was started here, by its pid, and remove the namespace."""
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("netns", "del", self.name)

    def _inside(self, command: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]


class Network:
    """A set of namespaces; a context manager that removes them, in reverse order, whatever happened."""

    def __init__(self) -> None:
        self._made: list[Namespace] = []

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for namespace in reversed(self._made):
            namespace.close()

    def namespace(self) -> Namespace:
        """A new namespace, connected to nothing."""
        made = Namespace(f"odbtest-{os.getpid()}-{next(_numbers)}")
        self._made.append(made)
        return made

    def link(self, first: Namespace, second: Namespace) -> tuple[str, str]:
        """Connect two namespaces by a veth pair; returns their addresses (IPv4, one /24 network per link)."""
        number = next(_numbers)
        network = f"10.{200 + number // 250 % 50}.{number % 250}"
        ends = (f"v{number}a", f"v{number}b")
        _ip(
            "-n",
            first.name,
            "link",
            "add",
            ends[0],
            "type",
            "veth",
            "peer",
            "name",
            ends[1],
            "netns",
            second.name,
        )
        addresses = (f"{network}.1", f"{network}.2")
        for namespace, end, address in zip((first, second), ends, addresses, strict=True):
            _ip("-n", namespace.name, "address", "add", f"{address}/24", "dev", end)
            _ip("-n", namespace.name, "link", "set", end, "up")
        return addresses


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
