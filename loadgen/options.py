"""Options of the load: their names on the command line and the web page, their checks, and their parsed form."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DEFAULT_USERS = 1000
DEFAULT_SPAWN_RATE = 50.0

# Seconds that an interrupted run gives requests under way to end. Workers are not ready for a new run until then.
STOP_TIMEOUT = 2.0

CHECKS = ("none", "length", "hash")

_SHA256 = re.compile(r"[0-9a-f]{64}")


class OptionError(ValueError):
    """An option has a value that cannot be used; the message names option, value and remedy."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What every client does.

    ``payloads`` are sizes in bytes, asked for in turn; ``path_template`` contains ``{size}``; ``sha256`` is the
    expected digest in hex or None (then the manifest at ``manifest`` says it); timeouts are in seconds. ``rate`` is how
    many requests per second all clients make together, None: each asks again as soon as it was answered.
    ``together``: no client begins before all have arrived.
    """

    payloads: tuple[int, ...]
    path_template: str
    requests_per_user: int
    rate: float | None
    together: bool
    check: str
    sha256: str | None
    manifest: str
    connect_timeout: float
    read_timeout: float
    stall_timeout: float
    result: str | None

    def path(self, size: int) -> str:
        """The request target of the payload of `size` bytes."""
        return self.path_template.replace("{size}", str(size))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options to Locust's parser and set the defaults of Locust's own options.

    Values stay text or numbers here, since the web page replaces them by new text: `parse` gives them their form.
    """
    parser.add_argument(
        "--payload",
        default="65536",
        type=_checked(_payloads),
        metavar="BYTES[,BYTES...]",
        help="Payload sizes in bytes, asked for in turn (default: 65536)",
    )
    parser.add_argument(
        "--path-template",
        default="/payload/{size}.bin",
        type=_checked(_template),
        metavar="PATH",
        help="Path of a payload; {size} is replaced by its size in bytes (default: /payload/{size}.bin)",
    )
    parser.add_argument(
        "--requests-per-user",
        default=30,
        type=int,
        metavar="N",
        help="GETs that each client makes (default: 30)",
    )
    parser.add_argument(
        "--rate",
        default=0.0,
        type=float,
        metavar="N",
        help="Requests per second that all clients make together at even distances, however long the answers take; "
        "latency counts from the moment at which a request was due (default: 0, each client asks again when answered)",
    )
    parser.add_argument(
        "--together",
        action="store_true",
        help="Let no client begin before all of them have arrived (with --rate none does anyway)",
    )
    parser.add_argument(
        "--check",
        default="length",
        choices=CHECKS,
        help="What is checked of each body: nothing, its length, or its length and SHA-256 (default: length)",
    )
    parser.add_argument(
        "--sha256",
        default="",
        type=_checked(_sha256),
        metavar="HEX",
        help="Expected SHA-256 of the body with --check hash and one size (default: read from the manifest)",
    )
    parser.add_argument(
        "--manifest",
        default="/payload/manifest.json",
        metavar="PATH",
        help='Path of the JSON object {"<bytes>": "<sha256>"}, read once before a run with --check hash '
        "(default: /payload/manifest.json)",
    )
    parser.add_argument(
        "--connect-timeout",
        default=5.0,
        type=float,
        metavar="SECONDS",
        help="Longest wait for a connection (default: 5)",
    )
    parser.add_argument(
        "--read-timeout",
        default=30.0,
        type=float,
        metavar="SECONDS",
        help="Longest silence of the server within a response (default: 30)",
    )
    parser.add_argument(
        "--stall-timeout",
        default=60.0,
        type=float,
        metavar="SECONDS",
        help="End the run as failed when no request has succeeded for this long (default: 60)",
    )
    result = parser.add_argument(
        "--result",
        default="",
        metavar="FILE",
        help="Write the result of the run to FILE as JSON",
    )
    # Locust's mark for what its web page offers: not the name of a file on this machine.
    result.include_in_web_ui = False  # type: ignore[attr-defined]
    parser.set_defaults(num_users=DEFAULT_USERS, spawn_rate=DEFAULT_SPAWN_RATE, stop_timeout=STOP_TIMEOUT)


def parse(namespace: Any) -> LoadOptions:
    """The checked options out of Locust's namespace; OptionError says which one is wrong."""
    payloads = _payloads(str(namespace.payload))
    sha256 = _sha256(str(namespace.sha256)) or None
    check = str(namespace.check)
    if check not in CHECKS:
        raise OptionError(f"--check {check}: unknown; give one of {', '.join(CHECKS)}")
    if sha256 is not None and check != "hash":
        raise OptionError(f"--sha256 has no meaning with --check {check}: give --check hash")
    if sha256 is not None and len(payloads) > 1:
        raise OptionError("--sha256 goes with one payload size: leave it out to read the manifest")
    manifest = str(namespace.manifest)
    if not manifest.startswith("/"):
        raise OptionError(f"--manifest {manifest}: not a path; begin it with /")
    requests = int(namespace.requests_per_user)
    if requests < 1:
        raise OptionError(f"--requests-per-user {requests}: too small; give 1 or more")
    rate = float(namespace.rate)
    if not 0 <= rate <= 1_000_000:
        raise OptionError(f"--rate {namespace.rate}: not a rate; give requests per second, or 0 for none")
    return LoadOptions(
        payloads=payloads,
        rate=rate or None,
        together=bool(namespace.together),
        path_template=_template(str(namespace.path_template)),
        requests_per_user=requests,
        check=check,
        sha256=sha256,
        manifest=manifest,
        connect_timeout=_seconds("--connect-timeout", namespace.connect_timeout),
        read_timeout=_seconds("--read-timeout", namespace.read_timeout),
        stall_timeout=_seconds("--stall-timeout", namespace.stall_timeout),
        result=str(namespace.result) or None,
    )


def _payloads(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise OptionError(
            f"--payload {text}: not a list of sizes; give bytes separated by commas, as 16384,65536"
        )
    return tuple(int(part) for part in parts)


def _template(text: str) -> str:
    if not text.startswith("/") or any(character.isspace() for character in text):
        raise OptionError(f"--path-template {text}: not a path; begin it with / and leave no space in it")
    return text


def _sha256(text: str) -> str:
    lowered = text.lower()
    if lowered and not _SHA256.fullmatch(lowered):
        raise OptionError(f"--sha256 {text}: not a SHA-256; give 64 hexadecimal digits")
    return lowered


def _seconds(option: str, value: Any) -> float:
    seconds = float(value)
    if not 0 < seconds < float("inf"):
        raise OptionError(f"{option} {value}: not a time; give seconds above 0")
    return seconds


def _checked(check: Callable[[str], object]) -> Callable[[str], str]:
    """An argparse type that keeps the text but refuses it where `check` does."""

    def convert(text: str) -> str:
        try:
            check(text)
        except OptionError as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return text

    return convert
