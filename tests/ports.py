"""Ports for servers that tests start: none that an outgoing connection of this machine can be given in the meantime."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST = 15000
_draw = random.SystemRandom()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on just now, drawn below those that the system hands out."""
    end = int(_RANGE.read_text().split()[0])
    for _ in range(1000):
        port = _draw.randrange(_FIRST, max(end, _FIRST + 1000))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port between {_FIRST} and {end}")
