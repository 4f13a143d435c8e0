"""HAProxy, Apache httpd, lighttpd and servers in Python do in a chain with nginx what they do without the library."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.chain import Settings, Tier, missing_tools
from tests.e2e.client import Connection, Load
from tests.e2e.conftest import MakeChain, make_open_folder
from tests.e2e.others import Other, apache, haproxy, lighttpd, new_port, python

REQUESTS = 200
LOADED = ("/1.bin", "/8192.bin", "/65536.bin", "/100000.bin", "/262144.bin", "/1048576.bin")
EVERYWHERE = "127.0.0.1"

StartOther = Callable[..., Other]
StartTier = Callable[..., Tier]
Command = Callable[[Path, int], list[str]]


@pytest.fixture
def start_other(library: Path) -> Iterator[StartOther]:
    """start_other(command(folder, port), options or None) -> a running server, ended by its pid after the test."""
    folder = make_open_folder()
    with ExitStack() as stack:

        def start(
            command: Command,
            options: dict[str, str] | None,
            ends_with: signal.Signals = signal.SIGTERM,
        ) -> Other:
            own = folder / str(len(list(folder.iterdir())))
            port = new_port(own)
            return stack.enter_context(
                Other(own, port, command(own, port), library=library, options=options, ends_with=ends_with)
            )

        yield start
    shutil.rmtree(folder)


@pytest.fixture
def start_tier(library: Path, content: Path) -> Iterator[StartTier]:
    """start_tier(name, settings, next_port) -> a running nginx; its end fails the test if it has logged an alert."""
    folder, tiers = make_open_folder(), []

    def start(name: str, settings: Settings, next_port: int | None = None) -> Tier:
        tiers.append(
            Tier(
                name,
                folder / name,
                settings,
                library,
                content,
                next_port=next_port,
                next_speaks_odb=bool(settings.libraries) and next_port is not None,
            )
        )
        tiers[-1].start()
        return tiers[-1]

    try:
        yield start
    finally:
        for tier in reversed(tiers):
            tier.stop()
    assert not [line for tier in tiers for line in tier.complaints()]
    shutil.rmtree(folder)


def need(*programs: str) -> None:
    missing = missing_tools(*programs)
    if missing:
        pytest.skip(f"{missing} is not installed")


def check(port: int, files: dict[str, bytes], *, ranges: bool = True) -> None:
    """Whole files, heads and ranges over one connection, and several clients at once, to the last byte."""
    numbers = random.Random(5)
    with Connection(port) as kept:
        for path, content in files.items():
            answer = kept.get(path)
            assert (answer.status, answer.problem, answer.body == content) == (200, "", True), path
            head = kept.get(path, method="HEAD")
            assert (head.status, head.headers.get("content-length", "0")) == (200, str(len(content))), path
            if ranges and len(content) > 1:
                first, last = sorted(numbers.sample(range(len(content)), 2))
                part = kept.get(path, headers={"Range": f"bytes={first}-{last}"})
                assert (part.status, part.body == content[first : last + 1]) == (206, True), path
        assert kept.get("/none").status == 404
    with Load(port, {path: [files[path]] for path in LOADED}) as load:
        load.wait(REQUESTS)
    assert (load.tally.wrong, dict(load.tally.problems)) == ([], {})


def check_bypass(middle: dict[str, int], *, touched: float = 0.0) -> None:
    """The intermediary forwarded spans and fetched at most the share `touched` of what they stood for."""
    assert middle["span_bytes_sent"] > 10_000_000
    assert middle["fetch_bytes"] + middle["push_bytes_taken"] <= touched * middle["span_bytes_received"]
    assert (middle["protocol_errors"], middle["resets"], middle["fetch_failures"]) == (0, 0, 0)


def check_learnt(middle: dict[str, int]) -> None:
    """Its buffers begin anywhere in a page: spans were tried, and given up unless few ends had to be asked for."""
    spans = middle["span_bytes_received"]
    assert spans > 0
    assert middle["real_bytes_received"] > spans or middle["edge_fetches"] * 65536 <= spans
    assert (middle["protocol_errors"], middle["resets"], middle["fetch_failures"]) == (0, 0, 0)


WHO = pytest.mark.parametrize("with_library", [True, False], ids=["odb", "plain"])


@WHO
@pytest.mark.parametrize(
    ("splice", "delivery"),
    [(False, "window"), (False, "learn"), (True, "learn")],
    ids=["copying", "copying and learning", "splicing"],
)
def test_haproxy_relays_between_nginx_servers(
    start_tier: StartTier,
    start_other: StartOther,
    files: dict[str, bytes],
    splice: bool,
    delivery: str,
    with_library: bool,
) -> None:
    need("nginx", "haproxy")
    be = start_tier("be", Settings())
    rules = {
        "listen": EVERYWHERE,
        "connect": f"127.0.0.1:{be.port}",
        "memory_min": "4K",
        "delivery": delivery,
    }
    options = rules if with_library else None
    middle = start_other(
        lambda folder, port: haproxy(folder, port, be.port, splice=splice), options, signal.SIGINT
    )
    fe = start_tier("fe", Settings(libraries=frozenset({"fe"} if with_library else set())), middle.port)
    check(fe.port, files)
    if not with_library:
        return
    if delivery == "learn" and not splice:
        check_learnt(middle.statistics())
    else:
        # HAProxy moves part of the bodies within its buffers; what it splices has to be real in the pipe.
        check_bypass(middle.statistics(), touched=1.0 if splice else 0.75)


BACKENDS: dict[str, tuple[str, Callable[[Path, int, Path], list[str]]]] = {
    "apache sendfile": (
        "apache2",
        lambda folder, port, content: apache(folder, port, content, how="sendfile"),
    ),
    "apache mmap": ("apache2", lambda folder, port, content: apache(folder, port, content, how="mmap")),
    "apache read": ("apache2", lambda folder, port, content: apache(folder, port, content, how="read")),
    "lighttpd sendfile": (
        "lighttpd",
        lambda folder, port, content: lighttpd(folder, port, content, backend="sendfile"),
    ),
    "lighttpd writev": (
        "lighttpd",
        lambda folder, port, content: lighttpd(folder, port, content, backend="writev"),
    ),
    "asyncio sendfile": (
        "python3",
        lambda folder, port, content: python("asyncio_server", "be", port, content, "sendfile"),
    ),
    "asyncio write": (
        "python3",
        lambda folder, port, content: python("asyncio_server", "be", port, content, "write"),
    ),
    "threads": ("python3", lambda folder, port, content: python("threads_server", port, content)),
}


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_behind_nginx_is_an_origin(
    make_chain: MakeChain, start_other: StartOther, content: Path, files: dict[str, bytes], name: str
) -> None:
    program, command = BACKENDS[name]
    need(program)
    be = start_other(
        lambda folder, port: command(folder, port, content),
        {"listen": EVERYWHERE, "virtual_min": "8K", "memory_min": "4K"},
    )
    chain = make_chain(origin_port=be.port)
    check(chain.port, files, ranges=program != "python3")
    counters = be.statistics()
    assert (counters["protocol_errors"], counters["serve_failures"]) == (0, 0)
    if name == "apache read":  # it writes pieces of 8000 bytes, less than virtual_min
        assert counters["spans_sent"] == 0
    else:
        assert counters["span_bytes_sent"] > 10_000_000
        check_bypass(chain.middle.statistics(), touched=0.1)


@WHO
def test_an_asyncio_relay_stands_between_nginx_servers(
    start_tier: StartTier, start_other: StartOther, files: dict[str, bytes], with_library: bool
) -> None:
    need("nginx")
    be = start_tier("be", Settings())
    options = {"listen": EVERYWHERE, "connect": f"127.0.0.1:{be.port}"} if with_library else None
    middle = start_other(lambda folder, port: python("asyncio_server", "is", port, be.port), options)
    fe = start_tier("fe", Settings(libraries=frozenset({"fe"} if with_library else set())), middle.port)
    check(fe.port, files)
    if with_library:
        assert middle.statistics()["span_bytes_received"] > 10_000_000
