"""Whoever speaks or ends first, and whatever the bytes look like: the conversation is the same."""

from __future__ import annotations

import pytest

from tests.preload.harness import EVERYWHERE, Preload

CASES = (
    "greeting",
    "unasked",
    "half_closed_client",
    "half_closed_server",
    "silent",
    "slow",
    "magic",
    "crossing",
    "full",
)
WITHOUT_SPANS = {"silent", "unasked", "full"}  # nothing, or nothing large, goes out once the peer is known
BY_CHILDREN = {"crossing"}  # whoever sends the spans has ended when the counters are read


@pytest.mark.parametrize("case", CASES)
def test_conversation_is_the_same_between_peers_that_speak_odb(preload: Preload, case: str) -> None:
    # In one of them a child ends as soon as it has written: it stays until that is fetched.
    options = {"listen": EVERYWHERE, "connect": EVERYWHERE, "drain_ms": "2000"}
    outcome = preload.compare("dialogue", case, **options)
    assert outcome.counters["streams_framed"] > 0
    if case in BY_CHILDREN:
        assert outcome.counters["spans_received"] > 0
    else:
        assert outcome.active or case in WITHOUT_SPANS
    assert not outcome.trouble


@pytest.mark.parametrize("case", CASES)
def test_conversation_is_the_same_with_a_classic_client(preload: Preload, case: str) -> None:
    outcome = preload.compare("dialogue", case, listen=EVERYWHERE)
    assert outcome.counters["streams_classic"] > 0
    assert outcome.counters["streams_framed"] == 0
    assert not outcome.active
