"""The shape of the load: clients arrive evenly, and each makes its share of requests once.

Locust's own dispatcher starts a whole second's worth of clients at once (50 connections in one burst at 50 per
second), which shows in the tail of the latencies; this one starts them one after the other.
"""

from __future__ import annotations

import math

from locust.dispatch import UsersDispatcher

# A start costs Locust time in proportion to the clients already there: more than this many per second are grouped.
DISPATCHES_PER_SECOND = 50


class EvenDispatcher(UsersDispatcher):
    """Starts clients at even distances in time."""

    def new_dispatch(
        self, target_user_count: int, spawn_rate: float, user_classes: list[type] | None = None
    ) -> None:
        """Begin a ramp to `target_user_count` clients at `spawn_rate` per second."""
        super().new_dispatch(target_user_count, spawn_rate, user_classes)
        self._user_count_per_dispatch_iteration = clients_per_dispatch(spawn_rate)
        self._wait_between_dispatch = self._user_count_per_dispatch_iteration / spawn_rate


def clients_per_dispatch(spawn_rate: float) -> int:
    """How many clients start together at `spawn_rate` clients per second."""
    return max(1, math.ceil(spawn_rate / DISPATCHES_PER_SECOND))


def payload_at(payloads: tuple[int, ...], client: int, request: int) -> int:
    """The size that the `client`-th client asks for in its `request`-th request (both from 0).

    Clients begin at different sizes, so that a mix is mixed at every moment.
    """
    return payloads[(client + request) % len(payloads)]
