"""The shape of the load as arithmetic: how many clients start together, and what each of them asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence

# A start costs Locust time in proportion to the clients already there: more than this many per second are grouped.
DISPATCHES_PER_SECOND = 50

GOLDEN_RATIO = (math.sqrt(5) - 1) / 2
ROOT_OF_TWO = math.sqrt(2)


def clients_per_dispatch(spawn_rate: float) -> int:
    """How many clients start together at `spawn_rate` clients per second."""
    return max(1, math.ceil(spawn_rate / DISPATCHES_PER_SECOND))


class Schedule:
    """When one client's requests are due at a fixed rate, whatever became of the earlier ones.

    All `clients` together make `rate` requests per second; `number` is the client's in its process and `process` the
    process's among its like, which together decide where between the others its requests lie.
    """

    def __init__(self, rate: float, clients: int, number: int, process: int) -> None:
        self._period = clients / rate
        # Multiples of these irrational numbers fill the period evenly for any count of clients and processes.
        self._phase = (number * GOLDEN_RATIO + process * ROOT_OF_TWO) % 1.0

    def due(self, request: int) -> float:
        """Seconds from the load's beginning to the moment at which the `request`-th (from 0) is due."""
        return (request + self._phase) * self._period


def payload_at(payloads: Sequence[int], client: int, request: int) -> int:
    """The size that the `client`-th client asks for in its `request`-th request (both from 0).

    Clients begin at different sizes, so that a mix is mixed at every moment.
    """
    return payloads[(client + request) % len(payloads)]
