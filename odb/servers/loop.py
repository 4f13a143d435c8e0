"""An event loop for the roles, small enough to show exactly which calls it makes."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator

from odb.servers.pollers import READ, WRITE, Poller
from odb.servers.waiting import Job, Waiter, Work


class _Wait:
    """Yielded by a coroutine: resume it when `fd` is ready, or when `job` has ended."""

    def __init__(self, fd: int = -1, interest: int = 0, job: _LoopJob | None = None) -> None:
        self.fd, self.interest, self.job = fd, interest, job

    def __await__(self) -> Generator[_Wait, None, None]:
        yield self


class _LoopJob:
    def __init__(self, work: Work) -> None:
        self.work = work
        self.ended = False
        self.joiners: list[_LoopJob] = []

    async def join(self) -> None:
        if not self.ended:
            await _Wait(job=self)


class Loop(Waiter):
    """One thread, one poller, any number of coroutines."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._ready: deque[_LoopJob] = deque()
        self._waiting: dict[tuple[int, int], _LoopJob] = {}
        self._jobs = 0

    def run(self, main: Work) -> None:
        try:
            self.spawn(main)
            while self._jobs:
                while self._ready:
                    self._step(self._ready.popleft())
                if self._waiting:
                    self._wait()
                elif self._jobs:
                    raise RuntimeError("every coroutine waits for another one")
        finally:
            self._poller.close()

    def _step(self, job: _LoopJob) -> None:
        try:
            wait = job.work.send(None)
        except StopIteration:
            self._jobs -= 1
            job.ended = True
            self._ready.extend(job.joiners)
            return
        if wait.job is not None:
            wait.job.joiners.append(job)
            return
        self._waiting[wait.fd, wait.interest] = job
        self._poller.want(wait.fd, self._interest(wait.fd))

    def _interest(self, fd: int) -> int:
        return sum(kind for kind in (READ, WRITE) if (fd, kind) in self._waiting)

    def _wait(self) -> None:
        for fd, ready in self._poller.wait():
            woken = [kind for kind in (READ, WRITE) if ready & kind and (fd, kind) in self._waiting]
            self._ready.extend(self._waiting.pop((fd, kind)) for kind in woken)
            self._poller.want(fd, self._interest(fd))

    async def readable(self, fd: int) -> None:
        await _Wait(fd, READ)

    async def writable(self, fd: int) -> None:
        await _Wait(fd, WRITE)

    async def start(self, work: Work) -> None:
        self.spawn(work)

    def spawn(self, work: Work) -> Job:
        job = _LoopJob(work)
        self._jobs += 1
        self._ready.append(job)
        return job

    def may_read(self, fd: int) -> bool:
        return self._poller.may_read(fd)

    def received(self, fd: int, wanted: int, got: int) -> None:
        self._poller.received(fd, wanted, got)

    def forget(self, fd: int) -> None:
        self._poller.forget(fd)
        for kind in (READ, WRITE):
            job = self._waiting.pop((fd, kind), None)
            if job is not None:
                self._ready.append(job)
