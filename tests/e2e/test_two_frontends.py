"""Two front ends behind one intermediary, which asks the back end for both on the same connection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.chain import missing_tools
from tests.e2e.client import get
from tests.endure.rig import Content, Rig

SIZE = 262144
WARM = 6


@pytest.fixture
def content() -> Iterator[Content]:
    with Content((SIZE,)) as content:
        yield content


@pytest.fixture
def rig(library: Path, content: Content) -> Iterator[Rig]:
    missing = missing_tools("nginx")
    if missing:
        pytest.skip(f"{missing} is not installed")
    with Rig("odb", content, library, {}) as rig:
        yield rig


def ask(rig: Rig, frontend: str) -> None:
    answer = get(rig.tiers[frontend].port, f"/{SIZE}.bin", headers={"Connection": "close"})
    assert (answer.problem, answer.body == rig.content.files[f"{SIZE}.bin"]) == ("", True)
    # What is sent is counted when it has been sent: the worker that answers once more has done so.
    assert get(rig.tiers[frontend].port, "/absent", headers={"Connection": "close"}).status == 404


def test_bodies_are_pushed_to_the_front_end_that_has_asked(rig: Rig) -> None:
    for _ in range(WARM):
        ask(rig, "fe1")
        ask(rig, "fe2")
    before = {name: rig.counters(name) for name in rig.tiers}
    for order in (("fe1", "fe2") * 5, ("fe1",) * 5, ("fe2",) * 5):
        for frontend in order:
            ask(rig, frontend)
    after = {name: rig.counters(name) for name in rig.tiers}
    grown = {name: {key: after[name][key] - before[name][key] for key in after[name]} for name in after}
    assert grown["be"]["push_bytes"] == grown["be"]["span_bytes_sent"] == 20 * SIZE
    for frontend in ("fe1", "fe2"):
        assert grown[frontend]["fetches"] == 0
        assert grown[frontend]["push_bytes_taken"] == 10 * SIZE
        assert after[frontend]["push_bytes_skipped"] <= 2 * SIZE  # of before the back end knew both
    assert grown["is"]["fetches"] == grown["is"]["faults"] == 0


def test_a_front_end_that_comes_later_fetches_two_responses_at_most(rig: Rig) -> None:
    for _ in range(WARM):
        ask(rig, "fe1")
    ask(rig, "fe2")
    ask(rig, "fe2")
    begun = rig.counters("fe2")
    for _ in range(WARM):
        ask(rig, "fe2")
    now = rig.counters("fe2")
    assert now["push_bytes_taken"] - begun["push_bytes_taken"] == WARM * SIZE
    assert now["fetches"] == begun["fetches"]
