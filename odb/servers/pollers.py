"""The ways of the kernel to say which descriptors are ready, behind one contract."""

from __future__ import annotations

import fcntl
import select
import termios
from abc import ABC, abstractmethod
from collections.abc import Callable

READ, WRITE = 1, 2


class Poller(ABC):
    """Interest in descriptors, as a set of READ and WRITE for each; 0 is none."""

    @abstractmethod
    def want(self, fd: int, interest: int) -> None:
        """From now on `fd` is of this interest."""

    @abstractmethod
    def wait(self) -> list[tuple[int, int]]:
        """Blocks; (fd, READ | WRITE) of what is ready or broken."""

    def forget(self, fd: int) -> None:
        """`fd` is about to be closed."""
        self.want(fd, 0)

    def may_read(self, fd: int) -> bool:
        return True

    def received(self, fd: int, wanted: int, got: int) -> None:
        return

    def close(self) -> None:
        return


class Select(Poller):
    def __init__(self) -> None:
        self._reading: set[int] = set()
        self._writing: set[int] = set()

    def want(self, fd: int, interest: int) -> None:
        (self._reading.add if interest & READ else self._reading.discard)(fd)
        (self._writing.add if interest & WRITE else self._writing.discard)(fd)

    def wait(self) -> list[tuple[int, int]]:
        reading, writing, _ = select.select(self._reading, self._writing, ())
        return [(fd, READ) for fd in reading] + [(fd, WRITE) for fd in writing]


class Poll(Poller):
    def __init__(self) -> None:
        self._poll = select.poll()
        self._known: set[int] = set()

    def want(self, fd: int, interest: int) -> None:
        if interest:
            self._poll.register(
                fd, select.POLLIN * bool(interest & READ) | select.POLLOUT * bool(interest & WRITE)
            )
            self._known.add(fd)
        elif fd in self._known:
            self._poll.unregister(fd)
            self._known.remove(fd)

    def wait(self) -> list[tuple[int, int]]:
        broken = select.POLLERR | select.POLLHUP | select.POLLNVAL
        return [
            (
                fd,
                READ * bool(events & (select.POLLIN | broken))
                | WRITE * bool(events & (select.POLLOUT | broken)),
            )
            for fd, events in self._poll.poll()
        ]


class Epoll(Poller):
    """Level triggered, or one-shot: every interest is then given anew."""

    def __init__(self, *, oneshot: bool) -> None:
        self._epoll = select.epoll()
        self._known: set[int] = set()
        self._flags = select.EPOLLONESHOT if oneshot else 0

    def want(self, fd: int, interest: int) -> None:
        events = select.EPOLLIN * bool(interest & READ) | select.EPOLLOUT * bool(interest & WRITE)
        if fd in self._known:
            # A hang-up cannot be masked: whoever is not interested has to leave the set.
            if interest or self._flags:
                self._epoll.modify(fd, events | self._flags)
            else:
                self._epoll.unregister(fd)
                self._known.remove(fd)
        elif interest:
            self._epoll.register(fd, events | self._flags)
            self._known.add(fd)

    def forget(self, fd: int) -> None:
        if fd in self._known:
            self._epoll.unregister(fd)
            self._known.remove(fd)

    def wait(self) -> list[tuple[int, int]]:
        return [(fd, ready_of(events)) for fd, events in self._epoll.poll()]

    def close(self) -> None:
        self._epoll.close()


class Edge(Poller):
    """Edge triggered, the way of nginx: registered once for everything, and no receive without a promise.

    A receive that got less than it asked for, or all and nothing more is queued (FIONREAD), has drained the socket: the next
    one waits for an edge, unless the end of the stream has been seen.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._drained: dict[int, bool] = {}
        self._ended: set[int] = set()

    def want(self, fd: int, interest: int) -> None:
        if interest and fd not in self._drained:
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
            self._drained[fd] = False

    def forget(self, fd: int) -> None:
        if self._drained.pop(fd, None) is not None:
            self._epoll.unregister(fd)
        self._ended.discard(fd)

    def wait(self) -> list[tuple[int, int]]:
        found = []
        for fd, events in self._epoll.poll():
            if events & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
                self._ended.add(fd)
            ready = ready_of(events)
            if ready & READ:
                self._drained[fd] = False
            found.append((fd, ready))
        return found

    def may_read(self, fd: int) -> bool:
        return not self._drained.get(fd, False)

    def received(self, fd: int, wanted: int, got: int) -> None:
        if fd not in self._drained:
            self.want(fd, READ)
            return  # this edge is still to come
        if fd in self._ended:
            return
        if got == wanted:
            queued = int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), "little")
            self._drained[fd] = queued == 0
        else:
            self._drained[fd] = True

    def close(self) -> None:
        self._epoll.close()


def ready_of(events: int) -> int:
    """READ and WRITE of epoll's events; whatever is broken is ready for both."""
    broken = select.EPOLLERR | select.EPOLLHUP
    reading = select.EPOLLIN | select.EPOLLRDHUP | broken
    return READ * bool(events & reading) | WRITE * bool(events & (select.EPOLLOUT | broken))


_POLLERS: dict[str, Callable[[], Poller]] = {
    "select": Select,
    "poll": Poll,
    "epoll": lambda: Epoll(oneshot=False),
    "epoll-oneshot": lambda: Epoll(oneshot=True),
    "epoll-edge": Edge,
}


def poller(readiness: str) -> Poller:
    """The one that `--readiness` names."""
    return _POLLERS[readiness]()
