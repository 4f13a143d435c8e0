"""The simulated client: makes its share of GETs, checks each body, then parks until the run ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from locust import FastHttpUser, task

from loadgen.client import SingleAttemptPool
from loadgen.shape import payload_at
from loadgen.verify import BodyError, StatusError

if TYPE_CHECKING:
    from loadgen.run import Run

# Ending a finished client would make Locust start another one in its place, so it waits instead. A waiting client
# is ended at once when the run stops.
PARKED_SECONDS = 10_000_000

# Compression would change what is measured.
HEADERS = {"Accept-Encoding": "identity"}


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
        """One GET, measured from sending to the body's last byte and then checked."""
        load = self.load
        if not load.active:
            return
        size = payload_at(load.options.payloads, self._number, self._made)
        self._made += 1
        with self.client.get(
            load.options.path(size), name=f"{size} bytes", headers=HEADERS, catch_response=True
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
