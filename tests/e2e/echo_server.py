"""A small HTTP server in Python as a BE: `python echo_server.py` prints its port.

POST /echo answers with the body it got; POST /count with its length and SHA-256. GET /chunked/<size>/<chunk> sends <size>
bytes of pattern(size) in chunks of <chunk> bytes, one write each.
"""

from __future__ import annotations

import hashlib
import random
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def pattern(size: int) -> bytes:
    """The bytes that /chunked sends."""
    return random.Random(size).randbytes(size)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/count":
            body = f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST

    def do_GET(self) -> None:
        _, _, size, chunk = self.path.split("/")
        content, step = pattern(int(size)), int(chunk)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(content), step):
            part = content[start : start + step]
            self.wfile.write(b"%x\r\n" % len(part))
            self.wfile.write(part)
            self.wfile.write(b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = bytearray()
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return bytes(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Stays silent."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def main() -> None:
    with Server(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
