"""Which cores each host runs on, and the rule behind it in one sentence."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

_CLIENT_CORES = 4


def available() -> list[int]:
    """Return the cores that this process may use, the first thread of each physical core before the second ones."""
    return sorted(os.sched_getaffinity(0), key=lambda core: (_thread_rank(core), core))


def share(roles: Sequence[str], cores: Sequence[int]) -> tuple[dict[str, tuple[int, ...]], str]:
    """Return the cores of each role ("client" first, then the chain) and the rule by which they were shared.

    Enough cores: every host has one of its own, and the client takes what remains, up to four, but leaves one to the
    rest of the machine. Too few: the client keeps the first one and the servers share the others in turn.
    Further client hosts stand back behind the servers.
    """
    servers = [role for role in roles if not role.startswith("client")]
    servers += [role for role in roles if role.startswith("client") and role != "client"]
    if len(cores) >= len(roles):
        own: dict[str, tuple[int, ...]] = {role: (cores[1 + number],) for number, role in enumerate(servers)}
        spare = list(cores[1 + len(servers) :])
        spare = spare[: max(0, len(spare) - 1)][: _CLIENT_CORES - 1]
        own["client"] = (cores[0], *spare)
        left = len(cores) - len(servers) - len(own["client"])
        return own, (
            f"{len(cores)} cores for {len(roles)} hosts: one core for each server, "
            f"{len(own['client'])} for the client, {left} for the rest of the machine"
        )
    shared = cores[1:] or cores[:1]
    own = {role: (shared[number % len(shared)],) for number, role in enumerate(servers)}
    own["client"] = (cores[0],)
    return own, (
        f"{len(cores)} cores for {len(roles)} hosts: the client has core {cores[0]}, "
        f"the others share cores {','.join(map(str, shared))} in turn"
    )


def _thread_rank(core: int) -> int:
    siblings = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    try:
        text = siblings.read_text(encoding="ascii").strip()
    except OSError:
        return 0
    members: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        members.extend(range(int(first), int(last or first) + 1))
    return members.index(core) if core in members else 0
