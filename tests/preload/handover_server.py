"""Echoes LENGTH bytes of one connection that changes hands in the manner named: the program that accepts is not the one that
answers. Prints the port it listens on. Knows nothing of ODB."""

from __future__ import annotations

import array
import os
import socket
import sys

ECHO = """
import os, sys
left = int(sys.argv[1])
while left and (got := os.read(0, 65536)):
    left -= len(got)
    rest = memoryview(got)
    while rest:
        rest = rest[os.write(1, rest):]
"""


def echo_in_another_image(connection: socket.socket, length: int) -> None:
    os.dup2(connection.fileno(), 0)
    os.dup2(connection.fileno(), 1)
    os.execv(sys.executable, [sys.executable, "-c", ECHO, str(length)])


def after_fork(connection: socket.socket, length: int) -> None:
    if (child := os.fork()) == 0:
        echo_in_another_image(connection, length)
    connection.close()
    os.waitpid(child, 0)


def in_the_middle(connection: socket.socket, length: int) -> None:
    begun = connection.recv(1000, socket.MSG_WAITALL)
    connection.sendall(begun)
    after_fork(connection, length - len(begun))


def spawned(connection: socket.socket, length: int) -> None:
    os.dup2(connection.fileno(), 0)
    os.dup2(connection.fileno(), 1)
    command = [sys.executable, "-c", ECHO, str(length)]
    child = os.posix_spawn(sys.executable, command, os.environ)
    connection.close()
    os.waitpid(child, 0)


def passed(connection: socket.socket, length: int) -> None:
    here, there = socket.socketpair()
    if (child := os.fork()) == 0:
        connection.close()
        here.close()
        rights = there.recvmsg(1, socket.CMSG_LEN(4))[1][0][2]
        with socket.socket(fileno=array.array("i", rights)[0]) as received:
            while length and (got := received.recv(65536)):
                length -= len(got)
                received.sendall(got)
        os._exit(0)
    rights = array.array("i", [connection.fileno()])
    here.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    connection.close()
    os.waitpid(child, 0)


def main() -> None:
    manner, length = sys.argv[1], int(sys.argv[2])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        connection = listener.accept()[0]
    manners = {"exec": after_fork, "middle": in_the_middle, "spawn": spawned, "rights": passed}
    manners[manner](connection, length)


if __name__ == "__main__":
    main()
