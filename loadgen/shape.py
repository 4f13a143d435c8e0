"""The shape of the load as arithmetic: how many clients start together, and what each of them asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence

# A start costs Locust time in proportion to the clients already there: more than this many per second are grouped.
DISPATCHES_PER_SECOND = 50


def clients_per_dispatch(spawn_rate: float) -> int:
    """How many clients start together at `spawn_rate` clients per second."""
    return max(1, math.ceil(spawn_rate / DISPATCHES_PER_SECOND))


def payload_at(payloads: Sequence[int], client: int, request: int) -> int:
    """The size that the `client`-th client asks for in its `request`-th request (both from 0).

    Clients begin at different sizes, so that a mix is mixed at every moment.
    """
    return payloads[(client + request) % len(payloads)]
