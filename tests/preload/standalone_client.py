"""Talks to an echo server: `standalone_client.py HOST PORT BYTES [nonblocking] [greeting]`. Knows nothing of ODB.

For each line on its standard input it connects, sends BYTES bytes and the end, and checks the echo (behind a greeting of
"hello\\n", if so told). Prints a line per connection: `ok` and the milliseconds that connect() took, or the name of the error.
"""

from __future__ import annotations

import errno
import select
import socket
import sys
import threading
import time

SECONDS = 20.0


def connect(address: tuple[str, int], nonblocking: bool) -> socket.socket:
    if not nonblocking:
        return socket.create_connection(address, SECONDS)
    connection = socket.socket()
    connection.setblocking(False)
    error = connection.connect_ex(address)
    if error == errno.EINPROGRESS:
        assert select.select([], [connection], [], SECONDS)[1]
        error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        assert error or connection.connect_ex(address) in {0, errno.EISCONN}
    if error:
        raise OSError(error, "connect")
    connection.settimeout(SECONDS)
    return connection


def talk(connection: socket.socket, payload: bytes, greeting: bytes) -> None:
    def send() -> None:
        connection.sendall(payload)
        connection.shutdown(socket.SHUT_WR)

    if greeting:
        assert connection.recv(len(greeting), socket.MSG_WAITALL) == greeting
    sender = threading.Thread(target=send)
    sender.start()
    got = bytearray()
    while part := connection.recv(65536):
        got += part
    sender.join()
    assert got == payload, (len(got), len(payload))


def main() -> None:
    address, payload = (
        (sys.argv[1], int(sys.argv[2])),
        bytes(number * 31 % 251 for number in range(int(sys.argv[3]))),
    )
    greeting = b"hello\n" if "greeting" in sys.argv else b""
    for _ in sys.stdin:
        begun = time.monotonic()
        try:
            with connect(address, "nonblocking" in sys.argv) as connection:
                took = time.monotonic() - begun
                talk(connection, payload, greeting)
            print("ok", int(took * 1000), flush=True)
        except OSError as error:
            print(errno.errorcode.get(error.errno or 0, type(error).__name__), flush=True)


if __name__ == "__main__":
    main()
