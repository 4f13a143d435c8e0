"""The command line of `odb serve`: what each role can be told. Light, because every `odb` command builds it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

from odb.errors import UsageError
from odb.servers import flags as choices
from odb.servers.flags import KINDS
from odb.tables import parse_size

SERVE = """\
examples:
  odb serve be --port 8003                                     payloads of any size: GET /payload/65536.bin
  odb serve is --port 8002 --upstream 127.0.0.1:8003 --receive readv --vectors 4 --readiness epoll-edge
  odb serve fe --upstream 127.0.0.1:8002 --size 64K --size 1M --count 1000 --concurrency 4
  odb run --set listen=:8002 --set connect=127.0.0.1:8003 -- odb serve is --port 8002 --upstream 127.0.0.1:8003
"""
_BE = """\
examples:
  odb serve be --port 8003
  odb serve be --port 0 --send sendfile --directory /srv/files
  odb serve be --port 8003 --offset 100 --send-chunk 5000 --recycle --readiness epoll-oneshot

paths: GET /payload/SIZE[.bin], /payload/SIZE/TAG, /cut/SIZE/STOP/TAG (breaks off), /file/PATH; POST /echo, /digest
"""
_IS = """\
examples:
  odb serve is --port 8002 --upstream 127.0.0.1:8003
  odb serve is --port 0 --upstream 127.0.0.1:8003 --buffer 4K --offset 1 --touch 0.1 --readiness select
  odb serve is --port 8002 --upstream 127.0.0.1:8003 --send splice
"""
_FE = """\
examples:
  odb serve fe --upstream 127.0.0.1:8002
  odb serve fe --upstream 127.0.0.1:8002 --size 0 --size 4097 --size 1M --count 300 --concurrency 3 --pipeline 8
  odb serve fe --upstream 127.0.0.1:8002 --echo --size 256K --send-chunk 10000 --readiness asyncio
  odb serve fe --upstream 127.0.0.1:8002 --kind get --kind cut --kind abandon --close

kinds: get, head, range (206), missing (404), echo and digest (uploads), half (the client ends its direction first), cut (the
origin breaks off), abandon (the client does), quit (the client breaks off an upload)
Prints one JSON object; exit code 0 if every answer is right, 1 if not.
"""
_BATCH = """\
example:
  printf '%s\\n' '["be", "--port", "0"]' | odb serve batch

Each line of standard input is a JSON list: the words behind `odb serve`, or ["stop", PORT]. Each is answered by one JSON line:
{"port": N} for a server, the summary for a client, {"stopped": PORT}, or {"error": TEXT}. Servers run until stopped, or until
standard input ends.
"""


class _Refusing(argparse.ArgumentParser):
    """Raises UsageError instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The words behind `odb serve` outside of a command line. Raises UsageError."""
    parser = _Refusing(prog="odb serve", add_help=False)
    add_roles(parser)
    return parser.parse_args(words)


def flags_of(parsed: argparse.Namespace) -> choices.Flags:
    """The flags that were given. Raises UsageError for those that contradict each other."""
    made = choices.Flags(**{each.name: getattr(parsed, each.name) for each in fields(choices.Flags)})
    made.check()
    return made


def add_roles(serve: argparse.ArgumentParser) -> None:
    """The roles as subcommands; the one chosen is `role`."""
    roles = serve.add_subparsers(dest="role", required=True, metavar="ROLE")

    def role(name: str, summary: str, examples: str) -> argparse.ArgumentParser:
        return roles.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    be = role("be", "answer requests for payloads, check or return uploads", _BE)
    _add_listening(be)
    be.add_argument("--directory", type=Path, metavar="DIR", help="serve the files below DIR as /file/PATH")
    be.add_argument("--chunked", action="store_true", help="send payloads with Transfer-Encoding: chunked")
    _add_flags(be)

    relay = role("is", "relay to the next hop", _IS)
    _add_listening(relay)
    _add_upstream(relay)
    _add_flags(relay)

    fe = role("fe", "ask for payloads through the chain and check every byte", _FE)
    _add_upstream(fe)
    _add_requests(fe)
    _add_flags(fe)

    role("batch", "be several servers and clients in one process, as standard input says", _BATCH)


def _add_listening(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen", default="127.0.0.1", metavar="ADDRESS", help="where to listen (%(default)s)"
    )
    parser.add_argument(
        "--port",
        type=_number(0, 65535),
        required=True,
        metavar="N",
        help='0: a free one. The port is printed as {"port": N} once connections are accepted',
    )


def _add_upstream(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--upstream", type=_address, required=True, metavar="HOST:PORT", help="the next hop")


def _add_requests(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--size",
        type=_bytes(0, choices.BUFFER_MAX),
        action="append",
        metavar="N",
        dest="sizes",
        help="payload sizes, used in turn (64K)",
    )
    add(
        "--kind",
        choices=KINDS,
        action="append",
        dest="kinds",
    )
    add("--echo", action="append_const", const="echo", dest="kinds", help="short for --kind echo")
    add("--count", type=_number(1, 10**7), default=1, metavar="N", help="requests in all (%(default)s)")
    add(
        "--concurrency",
        type=_number(1, 1000),
        default=1,
        metavar="N",
        help="connections at once (%(default)s)",
    )
    add(
        "--pipeline",
        type=_number(1, 64),
        default=1,
        metavar="N",
        help="requests under way on each (%(default)s)",
    )
    add("--close", action="store_true", help="a new connection for each request")
    add(
        "--patience",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="give up after S seconds of silence (%(default)s)",
    )
    add("--answers", action="store_true", help="list every answer in the summary")


def _add_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group(
        "how bytes move (sizes take K, M, G; chunk 0: as much as there is)"
    ).add_argument
    chunk = _bytes(0, choices.BUFFER_MAX)
    add("--receive", choices=choices.RECEIVE, default="recv_into", help="receive call (%(default)s)")
    add("--send", choices=choices.SEND, default="send", help="send call (%(default)s)")
    add("--readiness", choices=choices.READINESS, default="threads", help="way of waiting (%(default)s)")
    add("--memory", choices=choices.MEMORY, default="heap", help="memory of buffers (%(default)s)")
    add(
        "--buffer",
        type=_bytes(1, choices.BUFFER_MAX),
        default=65536,
        metavar="N",
        help="size of a buffer (64K)",
    )
    add(
        "--buffers",
        type=_number(1, 64),
        default=1,
        metavar="N",
        help="receive buffers used in turn (%(default)s)",
    )
    add(
        "--offset",
        type=_number(0, choices.PAGE - 1),
        default=0,
        metavar="N",
        help="where buffers begin in their page",
    )
    add(
        "--receive-chunk",
        type=chunk,
        default=0,
        metavar="N",
        help="most bytes of one receive call",
    )
    add(
        "--send-chunk",
        type=chunk,
        default=0,
        metavar="N",
        help="most bytes of one send call",
    )
    add(
        "--head-chunk",
        type=chunk,
        default=0,
        metavar="N",
        help="the same for heads, then sent apart from bodies",
    )
    add(
        "--vectors",
        type=_number(1, choices.VECTORS_MAX),
        default=1,
        metavar="N",
        help="parts of a vectored call",
    )
    add(
        "--send-buffer",
        type=_bytes(0, choices.BUFFER_MAX),
        default=0,
        metavar="N",
        help="ask for a send buffer of this size in the kernel (0: the system decides)",
    )
    add("--fill", action="store_true", help="fill the buffer, by several receives, before passing it on")
    add(
        "--recycle",
        action="store_true",
        help="send own payloads through one buffer, overwritten after each send",
    )
    add("--touch", type=_fraction, default=0.0, metavar="0..1", help="fraction of received pages to look at")
    add("--overwrite", action="store_true", help="also write the touched bytes back")
    add("--seed", type=_number(0, 2**63), default=0, metavar="N", help="of payloads and of what is touched")


def _number(low: int, high: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not possible: use a number from {low} to {high}")
        return int(text)

    return number


def _bytes(low: int, high: int) -> Callable[[str], int]:
    def size(text: str) -> int:
        try:
            value = parse_size(text)
        except ValueError:
            value = -1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not possible: use bytes from {low} to {high}, e.g. 4096 or 64K"
            )
        return value

    return size


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not possible: use a number from 0 to 1")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not possible: use seconds from 0.1 to 86400")
    return value


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not possible: use HOST:PORT, e.g. 127.0.0.1:8003")
    return host.strip("[]"), int(port)
