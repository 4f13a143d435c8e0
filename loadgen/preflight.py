"""What has to hold before a run begins: enough descriptors, a server that takes connections, known digests."""

from __future__ import annotations

import json
import resource
import socket
from urllib.parse import urlsplit

from geventhttpclient.url import URL

from loadgen.client import SingleAttemptPool
from loadgen.options import LoadOptions
from loadgen.verify import error_kind

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_ENVIRONMENT = 4

# Descriptors that a process needs beside one connection per client: Locust's own sockets, logs, the event loop.
SPARE_DESCRIPTORS = 64


class PreflightError(Exception):
    """The run cannot begin; `exit_code` is what the process ends with."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard limit; returns the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def check_descriptors(clients: int, limit: int) -> None:
    """Refuse a number of clients in this process that the limit of open files cannot hold."""
    needed = clients + SPARE_DESCRIPTORS
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise PreflightError(
            f"{clients} clients in one process need {needed} open files but the hard limit (RLIMIT_NOFILE) is "
            f"{limit}: raise it with `ulimit -Hn {needed}`, or use fewer --users or more --processes",
            EXIT_ENVIRONMENT,
        )


def check_host(host: str | None) -> str:
    """The base URL without a trailing slash, or PreflightError if it is none."""
    if not host:
        raise PreflightError("no server to load: give --host http://ADDRESS", EXIT_USAGE)
    try:
        parts = urlsplit(host)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise PreflightError(f"--host {host}: not a base URL; give one as http://ADDRESS:PORT", EXIT_USAGE)
    return host.rstrip("/")


def check_reachable(host: str, timeout: float) -> None:
    """Open and close one connection, without a request, so that a dead address fails here and once."""
    parts = urlsplit(host)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout).close()
    except OSError as error:
        raise PreflightError(
            f"cannot connect to {host}: {error.strerror or error}; check --host and that the server runs"
        ) from error


def expected_digests(host: str, options: LoadOptions) -> dict[int, str]:
    """SHA-256 in hex per payload size: from --sha256, or from the server's manifest; {} without --check hash."""
    if options.check != "hash":
        return {}
    if options.sha256 is not None:
        return {options.payloads[0]: options.sha256}
    manifest = _fetch_manifest(host, options)
    digests = {}
    for size in options.payloads:
        digest = manifest.get(str(size))
        if not isinstance(digest, str):
            raise PreflightError(
                f"{host}{options.manifest} has no SHA-256 for {size} bytes: serve that payload, or give --sha256"
            )
        digests[size] = digest.lower()
    return digests


def _fetch_manifest(host: str, options: LoadOptions) -> dict[str, object]:
    url = host + options.manifest
    pool = SingleAttemptPool(connect_timeout=options.connect_timeout, read_timeout=options.read_timeout)
    try:
        response = pool.get_client(URL(url)).request(
            "GET", options.manifest, headers={"Accept-Encoding": "identity"}
        )
        body = bytes(response.read())
        status = response.status_code
    except Exception as error:
        raise PreflightError(
            f"cannot read {url}: {error_kind(error)}; check --manifest or give --sha256"
        ) from error
    finally:
        pool.close()
    if status != 200:
        raise PreflightError(f"cannot read {url}: status {status}; check --manifest or give --sha256")
    try:
        manifest = json.loads(body)
    except ValueError as error:
        raise PreflightError(f"{url} is not JSON: check --manifest or give --sha256") from error
    if not isinstance(manifest, dict):
        raise PreflightError(
            f"{url} is not a JSON object of sizes and digests: check --manifest or give --sha256"
        )
    return manifest
