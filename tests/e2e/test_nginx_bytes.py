"""Whatever tiers have the library and however nginx is configured, every client sees the bytes that the BE has."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from tests.e2e.chain import TIERS, Settings
from tests.e2e.client import Connection, Load, get
from tests.e2e.conftest import MakeChain

LIBRARIES = [
    frozenset(tiers) for count in range(len(TIERS) + 1) for tiers in itertools.combinations(TIERS, count)
]
PRODUCT = [
    Settings(libraries=libraries, buffering=buffering, buffer=buffer, align=align, sendfile=sendfile)
    for libraries, buffering, buffer, align, sendfile in itertools.product(
        LIBRARIES, (False, True), ("4k", "16k", "64k"), (True, False), (True, False)
    )
]


def sample() -> Iterator[Settings]:
    """One of each combination of tiers with the library; for the whole chain, every value of every other setting."""
    numbers = random.Random(11)
    for libraries in LIBRARIES:
        yield numbers.choice([each for each in PRODUCT if each.libraries == libraries])
    for buffering, buffer, align, sendfile in (
        (False, "4k", True, True),
        (False, "64k", False, False),
        (True, "4k", False, True),
        (True, "16k", True, True),
        (True, "64k", True, False),
    ):
        yield Settings(buffering=buffering, buffer=buffer, align=align, sendfile=sendfile)


def check_whole_files(port: int, files: dict[str, bytes]) -> None:
    with Connection(port) as kept:
        for path, content in files.items():
            answer = kept.get(path)
            assert (answer.status, answer.problem) == (200, ""), path
            assert answer.body == content, path
            head = kept.get(path, method="HEAD")
            assert (head.status, head.headers["content-length"]) == (200, str(len(content))), path
    for path, content in files.items():
        for version, headers in (("1.1", {"Connection": "close"}), ("1.0", {})):
            with Connection(port) as connection:
                answer = connection.get(path, version=version, headers=headers)
                assert (answer.status, answer.problem, answer.body == content) == (200, "", True), (
                    path,
                    version,
                )
                assert connection.at_end(), (path, version)


def check_ranges(port: int, files: dict[str, bytes]) -> None:
    numbers = random.Random(3)
    with Connection(port) as kept:
        for path, content in files.items():
            size = len(content)
            if size < 2:
                continue
            spots = sorted(numbers.sample(range(size), 2))
            for first, last in (
                (0, 0),
                (size - 1, size - 1),
                (1, size - 1),
                (spots[0], spots[1]),
                (0, min(size, 8192) - 1),
            ):
                answer = kept.get(path, headers={"Range": f"bytes={first}-{last}"})
                assert (answer.status, answer.problem) == (206, ""), (path, first, last)
                assert answer.body == content[first : last + 1], (path, first, last)
            several = kept.get(path, headers={"Range": f"bytes=0-0,{size // 2}-{size - 1}"})
            assert several.status == 206
            assert content[size // 2 :] in several.body
            suffix = kept.get(path, headers={"Range": "bytes=-1"})
            assert (suffix.status, suffix.body) == (206, content[-1:])
        assert kept.get("/8192.bin", headers={"Range": "bytes=9000-"}).status == 416


def check_pipelined(port: int, files: dict[str, bytes]) -> None:
    numbers = random.Random(5)
    order = [*files, *files]
    numbers.shuffle(order)
    with Connection(port) as connection:
        for path in order:
            connection.send(path)
        for path in order:
            answer = connection.answer()
            assert (answer.status, answer.problem, answer.body == files[path]) == (200, "", True), path


def check_other_answers(port: int, files: dict[str, bytes]) -> None:
    with Connection(port) as kept:
        missing = kept.get("/none.bin")
        assert (missing.status, missing.problem) == (404, "")
        assert b"404 Not Found" in missing.body
        first = kept.get("/65536.bin")
        again = kept.get("/65536.bin", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        assert kept.get("/65536.bin").body == files["/65536.bin"]


@pytest.mark.parametrize("settings", list(sample()), ids=str)
def test_clients_get_the_bytes_of_the_file(
    make_chain: MakeChain, files: dict[str, bytes], settings: Settings
) -> None:
    chain = make_chain(settings)
    check_whole_files(chain.port, files)
    check_ranges(chain.port, files)
    check_pipelined(chain.port, files)
    check_other_answers(chain.port, files)


@pytest.mark.soak
@pytest.mark.parametrize("settings", PRODUCT, ids=str)
def test_clients_get_the_bytes_of_the_file_with_every_setting(
    make_chain: MakeChain, files: dict[str, bytes], settings: Settings
) -> None:
    chain = make_chain(settings)
    check_whole_files(chain.port, files)
    check_ranges(chain.port, files)
    check_pipelined(chain.port, files)
    check_other_answers(chain.port, files)


@pytest.mark.parametrize("tier", TIERS)
def test_classic_clients_are_served_on_ports_that_speak_odb(
    make_chain: MakeChain, files: dict[str, bytes], tier: str
) -> None:
    chain = make_chain(Settings(options={"listen": "127.0.0.1"}))
    port = chain.tiers[tier].port
    check_whole_files(port, files)
    check_ranges(port, files)
    check_pipelined(port, files)
    assert chain.tiers[tier].statistics()["streams_classic"] > 0


_SMALL = "proxy_max_temp_file_size 1m;"
WAYS = {
    "threads": Settings(http={"be": "aio threads;"}),
    "threads and temporary files": Settings(
        buffering=True,
        http={
            "fe": f"aio threads; aio_write on; {_SMALL}",
            "is": f"aio threads; aio_write on; {_SMALL}",
            "be": "aio threads;",
        },
    ),
    "direct reads": Settings(http={"be": "directio 512; aio threads; output_buffers 1 128k;"}),
    "many workers": Settings(workers=3, buffering=True, listen=dict.fromkeys(TIERS, "reuseport")),
    "slowed down": Settings(
        buffering=True, location={"is": "limit_rate 20m; proxy_limit_rate 20m;", "fe": "limit_rate 20m;"}
    ),
}


@pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS.keys())
def test_clients_get_the_bytes_of_the_file_however_nginx_moves_them(
    make_chain: MakeChain, files: dict[str, bytes], settings: Settings
) -> None:
    chain = make_chain(settings)
    check_whole_files(chain.port, files)
    with Load(chain.port, {path: [files[path]] for path in files if path != "/5000001.bin"}) as load:
        load.wait(200)
    assert (load.tally.wrong, dict(load.tally.problems)) == ([], {})
    assert chain.middle.statistics()["span_bytes_sent"] > 1_000_000


def test_several_workers_serve_the_same_bytes(make_chain: MakeChain, files: dict[str, bytes]) -> None:
    chain = make_chain(Settings(workers=3))
    for path in [*files, *files, *files]:
        assert get(chain.port, path).body == files[path], path
