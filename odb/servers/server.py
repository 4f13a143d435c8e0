"""Listens and accepts for a role, until it is told to stop."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Protocol

from odb.errors import PlatformError
from odb.servers.flags import Flags
from odb.servers.http import PeerError
from odb.servers.link import Link
from odb.servers.waiting import Waiter


class Role(Protocol):
    """What a server does with a connection."""

    async def handle(self, link: Link) -> None:
        """Talks until the connection is over. Raises PeerError and OSError."""


class Server:
    """A listening socket and the connections that it has accepted. `stop` may be called from another thread."""

    def __init__(self, address: tuple[str, int], flags: Flags, waiter: Waiter) -> None:
        """Raises PlatformError if the address cannot be had."""
        self._flags = flags
        self._waiter = waiter
        self._lock = threading.Lock()
        self._links: set[Link] = set()
        self._stopping = False
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(address)
            self._listener.listen(512)
        except (OSError, OverflowError) as error:
            self._listener.close()
            raise PlatformError(
                f"--listen {address[0]} --port {address[1]}: cannot listen there ({error}): use a free port of this "
                "machine, or --port 0."
            ) from error
        self._listener.setblocking(not waiter.nonblocking)

    @property
    def port(self) -> int:
        """The port that the socket has."""
        number: int = self._listener.getsockname()[1]
        return number

    def run(self, role: Role) -> None:
        """Serves until it is stopped and its connections have ended."""
        self._waiter.run(self._accept(role))

    def stop(self) -> None:
        """Ends the listening socket and all connections."""
        with self._lock:
            self._stopping = True
            for sock in [self._listener, *(link.sock for link in self._links)]:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _goes_on(self) -> bool:
        return not self._stopping

    async def _accept(self, role: Role) -> None:
        fd = self._listener.fileno()
        while self._goes_on():
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                await self._waiter.readable(fd)
                continue
            except ConnectionAbortedError:
                continue
            except OSError:
                if self._goes_on():
                    raise
                break
            await self._waiter.start(self._guarded(role, sock))
        self._waiter.forget(fd)
        self._listener.close()

    async def _guarded(self, role: Role, sock: socket.socket) -> None:
        link = Link(sock, self._flags, self._waiter)
        with self._lock:
            self._links.add(link)
            if self._stopping:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        try:
            with contextlib.suppress(OSError, PeerError):
                await role.handle(link)
        finally:
            with self._lock:
                self._links.discard(link)
            link.close()
