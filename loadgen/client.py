"""The HTTP client of one simulated client: one connection, one attempt per request, large reads.

geventhttpclient by itself sends a GET again when a connection ends before the answer. That would hide failures and
send more requests than are counted. It also reads 4 KiB at a time and takes descriptors above 1023 for dead.
"""

from __future__ import annotations

import select
from typing import Any

from gevent import monkey
from geventhttpclient.client import HTTPClient, HTTPClientPool
from geventhttpclient.response import HTTPSocketPoolResponse

READ_BYTES = 128 * 1024

# The plain call: gevent's own would take a turn of its event loop for a question that never waits.
_poll = monkey.get_original("select", "poll")


class SingleAttemptClient(HTTPClient):
    """Sends each request exactly once; any failure is raised to the caller."""

    def request(
        self, method: str, request_uri: str, body: Any = b"", headers: Any = None
    ) -> HTTPSocketPoolResponse:
        """Send a request without a body and return the response, its headers read."""
        head = self._build_request(method, request_uri, headers=headers)
        pool = self._connection_pool
        connection = pool.get_socket()
        try:
            connection.sendall(head.encode("latin-1"))
        except BaseException:
            pool.release_socket(connection)
            raise
        response = HTTPSocketPoolResponse(connection, pool, block_size=self.block_size, method=method)
        response._sent_request = head
        return response


class SingleAttemptPool(HTTPClientPool):
    """The connection of one simulated client; timeouts in seconds."""

    def __init__(self, *, connect_timeout: float, read_timeout: float) -> None:
        super().__init__(
            concurrency=1,
            block_size=READ_BYTES,
            connection_timeout=connect_timeout,
            network_timeout=read_timeout,
            insecure=True,
        )

    def get_client(self, url: Any) -> HTTPClient:
        """The client of the URL's host and port, made at first use."""
        key = url.host, url.port
        client = self.clients.get(key)
        if client is None:
            client = SingleAttemptClient.from_url(url, **self.client_args)
            client._connection_pool._is_socket_alive = _is_idle  # type: ignore[assignment,method-assign]
            self.clients[key] = client
        return client


def _is_idle(connection: Any) -> bool:
    """Whether a kept connection is open and silent, so that a request may be sent on it."""
    if connection is None or connection.fileno() < 0:
        return False
    poll = _poll()
    # Readable means data or an end where nothing was asked for.
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)
