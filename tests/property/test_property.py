"""Transparency as a property: whatever the servers do and wherever the library is, clients see what they see without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.property.cases import Case, Hop
from tests.property.check import Tally, check, keep_alive, surely_active
from tests.property.explore import explore
from tests.property.pool import Pool

pytestmark = pytest.mark.preload

SECONDS = 30.0


@pytest.fixture(scope="module")
def pool(library: Path) -> Iterator[Pool]:
    with Pool(library) as made:
        yield made


def test_drawn_chains_are_not_told_apart_from_classic_ones(pool: Pool) -> None:
    """As many cases as fit into the time; `make soak` takes more, and other ones."""
    tally = explore(pool, SECONDS, seed=20251)
    print(tally.line())
    assert tally.failures == []
    assert tally.cases >= 20
    assert tally.active_hops >= max(3, tally.cases // 10)
    assert tally.spans >= 100


def plain_case(**changes: object) -> Case:
    hop = Hop(("--receive=recv_into", "--send=send", "--readiness=threads", "--buffer=65536"), {})
    given_: dict[str, object] = {
        "hops": (hop, hop, hop),
        "kinds": ("get", "echo", "digest"),
        "sizes": (262144,),
        "count": 6,
        "concurrency": 1,
        "pipeline": 1,
        "close": False,
        "chunked": False,
        "seed": 1,
        **changes,
    }
    return Case(**given_)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["ports", "standalone"])
def test_every_hop_of_a_plain_chain_uses_descriptors(pool: Pool, mode: str) -> None:
    tally = Tally()
    flags = ("--receive=recv_into", "--send=send", "--readiness=threads", "--buffer=65536")
    case = plain_case(hops=(Hop(flags, {"mode": mode}),) * 3)
    assert surely_active(case) == [(2, 1), (0, 1)]
    check(pool, case, tally)
    assert tally.active_hops == 2
    assert tally.spans > 0
    assert tally.bytes == 2 * 2 * 262144 + 2 * 95


@pytest.mark.parametrize("kind", ["cut", "abandon"])
def test_chain_survives_answers_that_are_broken_off(pool: Pool, kind: str) -> None:
    check(pool, plain_case(kinds=("get", kind, "echo"), count=30, concurrency=3), Tally())


HAZARDS: dict[str, dict[str, object]] = {
    "pipelined": {"kinds": ("get", "head", "missing"), "pipeline": 8, "count": 40},
    "chunked": {"kinds": ("get", "head"), "chunked": True, "count": 10},
    "head": {"kinds": ("head", "get"), "pipeline": 4, "count": 20},
    "ranges": {"kinds": ("range",), "sizes": (262144, 8193, 1), "count": 60},
    "half-closed": {"kinds": ("half", "get"), "count": 20},
    "quit uploads": {"kinds": ("quit", "digest"), "count": 40, "concurrency": 3},
    "new connections": {"close": True, "count": 60, "concurrency": 3, "sizes": (20000, 0, 262144)},
}


@pytest.mark.parametrize("align", ["on", "off"])
@pytest.mark.parametrize("hazard", HAZARDS)
def test_hazard_by_name_shows_the_same(pool: Pool, hazard: str, align: str) -> None:
    hop = Hop(
        ("--receive=recv_into", "--send=writev", "--readiness=epoll-edge", "--buffer=65536", "--offset=80"),
        {} if align == "on" else {"align": "off", "delivery": "window"},
    )
    tally = Tally()
    check(pool, plain_case(hops=(hop, hop, hop), **HAZARDS[hazard]), tally)
    assert tally.spans > 0


def test_connection_is_kept_alive_for_thousands_of_requests(pool: Pool) -> None:
    tally = Tally()
    keep_alive(pool, 5000, tally)
    assert tally.requests == 5000
    assert tally.spans > 1000
