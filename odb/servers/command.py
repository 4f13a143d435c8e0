"""Runs what `odb serve` was told: one role, or a batch of them in one process."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import signal
import sys
import threading
from types import FrameType

from odb.errors import EXIT_FAILURE, EXIT_FINE, OdbError, UsageError
from odb.servers import arguments
from odb.servers.client import Client, Request, Summary
from odb.servers.flags import Flags
from odb.servers.origin import Origin
from odb.servers.relay import Relay
from odb.servers.server import Role, Server
from odb.servers.waiting import Waiter, waiter


class Terminated(BaseException):
    """SIGTERM has come: everything ends, and that is no failure."""


def run(parsed: argparse.Namespace) -> int:
    """What `odb serve ROLE` does; returns its exit code. Raises OdbError."""
    signal.signal(signal.SIGTERM, _terminate)
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1)
    with contextlib.suppress(Terminated):
        if parsed.role == "batch":
            return _batch()
        flags = arguments.flags_of(parsed)
        if parsed.role == "fe":
            summary = _client(parsed, flags).run()
            _say(summary.as_json(answers=parsed.answers))
            return EXIT_FINE if summary.ok == summary.requests else EXIT_FAILURE
        server, role = _server(parsed, flags)
        _say({"port": server.port})
        server.run(role)
    return EXIT_FINE


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def _say(answer: object) -> None:
    print(json.dumps(answer), flush=True)


def _server(parsed: argparse.Namespace, flags: Flags) -> tuple[Server, Role]:
    way: Waiter = waiter(flags.readiness)
    if parsed.role == "is":
        role: Role = Relay(flags, way, parsed.upstream)
    else:
        if parsed.directory is not None and not parsed.directory.is_dir():
            raise UsageError(f"--directory {parsed.directory}: there is no such directory.")
        role = Origin(flags, parsed.directory, chunked=parsed.chunked)
    return Server((parsed.listen, parsed.port), flags, way), role


def _client(parsed: argparse.Namespace, flags: Flags) -> Client:
    sizes = parsed.sizes or [65536]
    kinds = parsed.kinds or ["get"]
    plan: list[list[Request]] = [[] for _ in range(min(parsed.concurrency, parsed.count))]
    for number in range(parsed.count):
        request = Request(kinds[number % len(kinds)], sizes[number % len(sizes)], f"r{number}")
        plan[number % len(plan)].append(request)
    return Client(
        flags,
        waiter(flags.readiness),
        parsed.upstream,
        plan,
        pipeline=parsed.pipeline,
        close=parsed.close,
        patience=parsed.patience,
    )


def _batch() -> int:
    """Reads lines until there are no more. Clients run one after the other, servers beside them."""
    servers: dict[int, tuple[Server, threading.Thread]] = {}
    for line in sys.stdin:
        try:
            _say(_one(line, servers))
        except OdbError as error:
            _say({"error": str(error)})
    return EXIT_FINE


def _one(line: str, servers: dict[int, tuple[Server, threading.Thread]]) -> dict[str, object]:
    try:
        words = json.loads(line)
    except ValueError:
        words = None
    if not isinstance(words, list) or not words:
        raise UsageError(f'{line.strip()[:80]!r} is not a JSON list of words, e.g. ["be", "--port", "0"].')
    if words[0] == "stop":
        if len(words) != 2 or words[1] not in servers:
            raise UsageError(f"there is no server to stop: {line.strip()[:80]}")
        server, thread = servers.pop(words[1])
        server.stop()
        thread.join(10)
        if thread.is_alive():
            raise OdbError(f"the server on port {words[1]} does not end")
        return {"stopped": words[1]}
    parsed = arguments.parse([str(word) for word in words])
    if parsed.role == "batch":
        raise UsageError("a batch cannot hold another one.")
    flags = arguments.flags_of(parsed)
    if parsed.role == "fe":
        summary: Summary = _client(parsed, flags).run()
        return summary.as_json(answers=parsed.answers)
    server, role = _server(parsed, flags)
    thread = threading.Thread(target=server.run, args=(role,), daemon=True)
    thread.start()
    servers[server.port] = (server, thread)
    return {"port": server.port}
