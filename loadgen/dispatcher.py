"""Makes Locust start its clients evenly.

Locust's own dispatcher starts a whole second's worth of clients at once (50 connections in one burst at 50 per
second), which shows in the tail of the latencies; this one starts them one after the other.
"""

from __future__ import annotations

from locust.dispatch import UsersDispatcher

from loadgen.shape import clients_per_dispatch


class EvenDispatcher(UsersDispatcher):
    """Starts clients at even distances in time."""

    def new_dispatch(
        self, target_user_count: int, spawn_rate: float, user_classes: list[type] | None = None
    ) -> None:
        """Begin a ramp to `target_user_count` clients at `spawn_rate` per second."""
        super().new_dispatch(target_user_count, spawn_rate, user_classes)
        self._user_count_per_dispatch_iteration = clients_per_dispatch(spawn_rate)
        self._wait_between_dispatch = self._user_count_per_dispatch_iteration / spawn_rate
