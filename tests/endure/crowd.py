"""A process full of clients, turned by one epoll loop and steered through a pipe.

Two kinds of process: one with the fast clients alone, so that nothing else takes their time, and one with the aborting and
the slow ones. Only the fast and aborting clients of the active place ask for something new; slow clients of all places go on.
"""

from __future__ import annotations

import multiprocessing
import select
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from tests.endure.clients import Aborting, Client, Fast, Place, Slow, Tally, monotonic

NOBODY = -1
LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Members:
    """How many clients of each kind there are per place."""

    fast: int = 0
    aborting: int = 0
    slow: int = 0


@dataclass(frozen=True)
class Order:
    """What the process is to do from now on. active: index of a place, or NOBODY; slow: may slow clients ask?"""

    active: int = NOBODY
    slow: bool = False
    report: bool = False
    end: bool = False


Report = Mapping[tuple[int, str], Tally]
"""(place, kind of client) -> what was seen since the last report."""


class Crowd:
    """The process, seen from the one that steers it. Use as a context manager."""

    def __init__(
        self, places: Sequence[Place], slow_places: Sequence[Place], members: Members, seed: int
    ) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_run, args=(theirs, places, slow_places, members, seed), daemon=True
        )

    def __enter__(self) -> Crowd:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self._pipe.send(Order(end=True))
            self._process.join(30)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def order(self, *, active: int = NOBODY, slow: bool = False) -> None:
        """From now on. Responses under way are finished, but not counted in a report before that."""
        self._pipe.send(Order(active, slow))

    def report(self, seconds: float = 30.0) -> Report:
        """What has been seen since the last report. Raises RuntimeError when the process does not answer."""
        self._pipe.send(Order(report=True))
        if not self._pipe.poll(seconds):
            raise RuntimeError(f"the process of the clients has not answered for {seconds:g} s")
        report: Report = self._pipe.recv()
        return report


class _Loop:
    def __init__(
        self, places: Sequence[Place], slow_places: Sequence[Place], members: Members, seed: int
    ) -> None:
        self.order = Order()
        self._epoll = select.epoll()
        self._by_descriptor: dict[int, Client] = {}
        self._slow: list[Slow] = []
        self._others: dict[int, list[Client]] = {}
        self._names: dict[tuple[int, str], list[Client]] = {}
        for index, place in enumerate(slow_places):
            slow = [Slow(place, f"{seed}.slow.{number}") for number in range(members.slow)]
            self._slow += slow
            self._names[index, "slow"] = list(slow)
        for index, place in enumerate(places):
            fast = [Fast(place, f"{seed}.fast.{number}") for number in range(members.fast)]
            aborting = [Aborting(place, f"{seed}.aborting.{number}") for number in range(members.aborting)]
            self._others[index] = [*fast, *aborting]
            self._names[index, "fast"], self._names[index, "aborting"] = list(fast), list(aborting)

    def turn(self) -> None:
        """Reads once wherever there is something; whoever then has its response asks for the next."""
        for descriptor, _ in self._epoll.poll(LOOK_SECONDS):
            client = self._by_descriptor.get(descriptor)
            if client is None or client.socket is None or client.socket.fileno() != descriptor:
                continue
            client.read(now := monotonic())
            if client in self._others.get(self.order.active, ()):
                self._ask(client, now)

    def look(self) -> None:
        """What does not come as an event: whose turn it is, who has waited for too long."""
        now = monotonic()
        for slow in self._slow:
            if slow.busy and slow.next_read <= now:
                slow.read(now)
            slow.check_stall(now)
            if not slow.busy and self.order.slow:
                slow.begin(now)
        for index, clients in self._others.items():
            for client in clients:
                client.check_stall(now)
                if index == self.order.active:
                    self._ask(client, now)

    def _ask(self, client: Client, now: float) -> None:
        if client.busy or client.due(now) > now:
            return
        before = client.socket
        client.begin(now)
        if client.socket is not None and client.socket is not before:
            self._by_descriptor[client.socket.fileno()] = client
            self._epoll.register(client.socket.fileno(), select.EPOLLIN)

    def report(self) -> Report:
        """Tallies since the last call."""
        found: dict[tuple[int, str], Tally] = {}
        for key, clients in self._names.items():
            found[key] = Tally()
            for client in clients:
                found[key].add(client.tally)
                client.tally = Tally()
        return found

    def close(self) -> None:
        for clients in self._names.values():
            for client in clients:
                client.close()
        self._epoll.close()


def _run(
    pipe: Connection, places: Sequence[Place], slow_places: Sequence[Place], members: Members, seed: int
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever steers ends this process
    loop = _Loop(places, slow_places, members, seed)
    looked = 0.0
    while not loop.order.end:
        loop.turn()
        if (now := monotonic()) - looked < LOOK_SECONDS / 2:
            continue
        looked = now
        loop.look()
        while pipe.poll():
            order: Order = pipe.recv()
            if order.report:
                pipe.send(loop.report())
            else:
                loop.order = order
    loop.close()
