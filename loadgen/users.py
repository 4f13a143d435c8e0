"""The simulated client: makes its share of GETs, checks each body, then parks until the run ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

import gevent
from locust import FastHttpUser, task

from loadgen.client import SingleAttemptPool
from loadgen.shape import Schedule, payload_at
from loadgen.verify import BodyError, StatusError

if TYPE_CHECKING:
    from loadgen.run import Run

# Ending a finished client would make Locust start another one in its place, so it waits instead. A waiting client
# is ended at once when the run stops.
PARKED_SECONDS = 10_000_000

# What a request's context calls the seconds by which it was sent too late.
LATE = "late"

# Compression would change what is measured.
HEADERS = {"Accept-Encoding": "identity"}


def await_turn(load: Run, schedule: Schedule | None, request: int) -> float:
    """Wait until a client's `request`-th (from 0) is due; returns by how many seconds that has passed.

    Without a schedule a request is due at once, or, if the clients begin together, when they do: 0.
    """
    if schedule is None:
        if request == 0 and load.options.together:
            gevent.sleep(max(0.0, load.beginning - time.perf_counter()))
        return 0.0
    due = load.beginning + schedule.due(request)
    gevent.sleep(max(0.0, due - time.perf_counter()))
    return max(0.0, time.perf_counter() - due)


class PayloadUser(FastHttpUser):
    """One client; `load` is the run it belongs to, set by the locustfile."""

    load: ClassVar[Run]

    def __init__(self, environment: Any) -> None:
        options = self.load.options
        self._pool = SingleAttemptPool(
            connect_timeout=options.connect_timeout, read_timeout=options.read_timeout
        )
        self.client_pool = self._pool
        super().__init__(environment)
        agent: Any = self.client.client
        agent.redirect_response_codes = frozenset()
        agent.cookiejar = None
        self._made = 0
        self._finished = False

    def on_start(self) -> None:
        """Take a number, by which this client's sequence of payloads begins."""
        self._number = self.load.client_started()
        self._schedule = self.load.schedule(self._number)

    def wait_time(self) -> float:
        """Seconds until the next request: none, or a very long time after the last."""
        if self.load.active and self._made < self.load.options.requests_per_user:
            return 0
        if not self._finished:
            self._finished = True
            self._pool.close()
            self.load.client_finished()
        return PARKED_SECONDS

    @task
    def get_payload(self) -> None:
        """One GET, measured from sending, or from when it was due, to the body's last byte and then checked."""
        load = self.load
        if not load.active:
            return
        size = payload_at(load.options.payloads, self._number, self._made)
        late = await_turn(load, self._schedule, self._made)
        if not load.active:
            return
        self._made += 1
        load.request_begins()
        with self.client.get(
            load.options.path(size),
            name=f"{size} bytes",
            headers=HEADERS,
            catch_response=True,
            context={LATE: late},
        ) as response:
            if response.request_meta["exception"] is not None:
                return
            if response.status_code != 200:
                response.failure(StatusError(response.status_code))
                return
            try:
                load.verifier.check(size, response.content)
            except BodyError as error:
                response.failure(error)
