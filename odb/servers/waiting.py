"""How a server waits: one contract, and the ways without a loop. The roles are coroutines that run on any of them."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, Protocol

from odb.servers.flags import WITHOUT_LOOP

Work = Coroutine[Any, Any, None]


class Job(Protocol):
    """Something that runs beside its maker."""

    async def join(self) -> None:
        """Returns when it has ended; what it raised is its own matter."""


class Waiter(ABC):
    """What the roles need: to run, to wait for a descriptor, to do two things at once. Not for several threads."""

    nonblocking = True

    @abstractmethod
    def run(self, main: Work) -> None:
        """Runs `main` and everything it started to their ends. An exception of `main` is raised here."""

    @abstractmethod
    async def readable(self, fd: int) -> None:
        """Waits; called after a receive has said EAGAIN, or when `may_read` says no."""

    @abstractmethod
    async def writable(self, fd: int) -> None:
        """Waits; called after a send has said EAGAIN."""

    @abstractmethod
    async def start(self, work: Work) -> None:
        """Runs `work`, which catches its own errors, beside the caller if this way of waiting can."""

    @abstractmethod
    def spawn(self, work: Work) -> Job:
        """Runs `work`, which catches its own errors, beside the caller in any case."""

    def may_read(self, fd: int) -> bool:
        """Does a receive promise anything? Only a loop that remembers edges ever says no."""
        return True

    def received(self, fd: int, wanted: int, got: int) -> None:
        """A receive asked for `wanted` bytes and got `got`."""
        return

    def forget(self, fd: int) -> None:
        """`fd` is about to be closed."""
        return


def drive(work: Work) -> None:
    """Runs a coroutine that never has to wait."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise RuntimeError("a coroutine waits where nothing can wake it")


class _Thread:
    def __init__(self, work: Work) -> None:
        self._thread = threading.Thread(target=drive, args=(work,), daemon=True)
        self._thread.start()

    async def join(self) -> None:
        self._thread.join()


class Blocking(Waiter):
    """Blocking calls; one connection after the other, or a thread for each."""

    nonblocking = False

    def __init__(self, *, threads: bool) -> None:
        self._threads = threads
        self._jobs: list[_Thread] = []

    def run(self, main: Work) -> None:
        drive(main)
        for job in self._jobs:
            drive(job.join())

    async def readable(self, fd: int) -> None:
        raise BlockingIOError("a blocking receive said EAGAIN")

    async def writable(self, fd: int) -> None:
        raise BlockingIOError("a blocking send said EAGAIN")

    async def start(self, work: Work) -> None:
        if self._threads:
            self._jobs.append(_Thread(work))
        else:
            await work

    def spawn(self, work: Work) -> Job:
        return _Thread(work)


class _Task:
    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    async def join(self) -> None:
        await self._task


class Asyncio(Waiter):
    """The event loop of the standard library, by add_reader and add_writer."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, main: Work) -> None:
        async def everything() -> None:
            await main
            while self._tasks:
                await asyncio.wait(self._tasks)

        asyncio.run(everything())

    async def readable(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        loop.add_reader(fd, event.set)
        try:
            await event.wait()
        finally:
            loop.remove_reader(fd)

    async def writable(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        loop.add_writer(fd, event.set)
        try:
            await event.wait()
        finally:
            loop.remove_writer(fd)

    async def start(self, work: Work) -> None:
        self.spawn(work)

    def spawn(self, work: Work) -> Job:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return _Task(task)


def waiter(readiness: str) -> Waiter:
    """The way of waiting that `--readiness` names."""
    from odb.servers import loop, pollers

    if readiness in WITHOUT_LOOP:
        return Blocking(threads=readiness == "threads")
    if readiness == "asyncio":
        return Asyncio()
    return loop.Loop(pollers.poller(readiness))
