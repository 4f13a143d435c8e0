"""Descriptors that are duplicated, replaced, closed in bulk and used again keep their meaning, and none is lost."""

from __future__ import annotations

import pytest

from tests.preload.harness import Preload

CASES = ("duplicates", "replaced", "reused", "daemon_loop", "proc_loop", "closefrom", "close_range")


@pytest.mark.parametrize("case", CASES)
def test_descriptors_keep_their_meaning(preload: Preload, case: str) -> None:
    outcome = preload.compare("descriptors", case)
    assert outcome.counters["span_bytes_received"] > 0
    assert not outcome.trouble


def test_thousand_connections_leave_no_descriptor_behind(preload: Preload) -> None:
    outcome = preload.compare("descriptors", "many")
    assert outcome.counters["streams_framed"] >= 2000
    assert outcome.counters["span_bytes_received"] > 1000 * 32768
    assert not outcome.trouble
