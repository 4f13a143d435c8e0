"""Echoes connections until their end, in the way named: `standalone_server.py WAY [GREETING]`. Knows nothing of ODB.

WAY is how it waits: blocking, select, poll, epoll, edge. A greeting is sent before anything is received. Prints the port
it listens on, on 127.0.0.1 (or the address in the environment variable ADDRESS), and ends with its standard input.
"""

from __future__ import annotations

import os
import select
import selectors
import socket
import sys
import threading


def serve_blocking(listener: socket.socket, greeting: bytes) -> None:
    def echo(connection: socket.socket) -> None:
        with connection:
            connection.sendall(greeting)
            while got := connection.recv(65536):
                connection.sendall(got)

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=echo, args=(connection,), daemon=True).start()


class Echo:
    """One connection in a loop: what it has received and not yet sent."""

    def __init__(self, connection: socket.socket, greeting: bytes) -> None:
        self.connection = connection
        self.left = greeting
        self.ended = False

    def turn(self) -> bool:
        """Moves what can be moved without waiting; False at the end."""
        try:
            while True:
                while self.left:
                    self.left = self.left[self.connection.send(self.left) :]
                if self.ended:
                    return False
                self.left = self.connection.recv(65536)
                self.ended = not self.left
        except BlockingIOError:
            return True
        except OSError:
            return False


def serve_in_loop(listener: socket.socket, greeting: bytes, selector: selectors.BaseSelector) -> None:
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                connection, _ = listener.accept()
                connection.setblocking(False)
                echo = Echo(connection, greeting)
            else:
                echo = key.data
                selector.unregister(echo.connection)
            if not echo.turn():
                echo.connection.close()
                continue
            events = selectors.EVENT_WRITE if echo.left else selectors.EVENT_READ
            selector.register(echo.connection, events, echo)


def serve_edges(listener: socket.socket, greeting: bytes) -> None:
    both = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
    echoes: dict[int, Echo] = {}
    with select.epoll() as epoll:
        epoll.register(listener, select.EPOLLIN)
        while True:
            for fd, _ in epoll.poll():
                if fd == listener.fileno():
                    connection, _ = listener.accept()
                    connection.setblocking(False)
                    echoes[connection.fileno()] = Echo(connection, greeting)
                    epoll.register(connection, both)
                elif not echoes[fd].turn():
                    echoes.pop(fd).connection.close()


LOOPS = {
    "select": selectors.SelectSelector,
    "poll": selectors.PollSelector,
    "epoll": selectors.EpollSelector,
}


def main() -> None:
    way, greeting = sys.argv[1], "".join(sys.argv[2:]).encode()
    listener = socket.create_server((os.environ.get("ADDRESS", "127.0.0.1"), 0))
    print("port", listener.getsockname()[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    if way == "blocking":
        serve_blocking(listener, greeting)
    elif way == "edge":
        serve_edges(listener, greeting)
    else:
        serve_in_loop(listener, greeting, LOOPS[way]())


if __name__ == "__main__":
    main()
