"""A file server in Python with a thread for each connection, as a BE: `threads_server.py PORT FOLDER`."""

from __future__ import annotations

import functools
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: object) -> None:
        """Stays silent."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def main() -> None:
    port, folder = sys.argv[1:]
    with Server(("127.0.0.1", int(port)), functools.partial(Handler, directory=folder)) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
