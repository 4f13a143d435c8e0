"""What an event loop sends leaves, whatever the program does instead of waiting, once, whole and in order."""

from __future__ import annotations

import pytest

from tests.preload.harness import EVERYWHERE, Preload

LOOPS = (
    "computes",
    "yields",
    "reads",
    "sleeps",
    "closed",
    "ranged",
    "shut",
    "replaced",
    "fork",
    "threads",
    "full",
    "gone",
    "options",
)
ENDINGS = ("exit", "underscore_exit", "quick_exit", "exec")


@pytest.mark.parametrize("case", LOOPS)
def test_held_bytes_leave_though_the_loop_does_not_wait(preload: Preload, case: str) -> None:
    patience = "2000" if case == "fork" else "0"  # the child's payloads end with it
    outcome = preload.compare("holds", case, listen=EVERYWHERE, connect=EVERYWHERE, drain_ms=patience)
    assert outcome.counters["sends_held"] > 0
    assert not {name: count for name, count in outcome.trouble.items() if (case, name) != ("gone", "resets")}


@pytest.mark.parametrize("ending", ENDINGS)
def test_held_bytes_leave_with_the_end_of_the_process(preload: Preload, ending: str) -> None:
    outcome = preload.compare("holds", ending, listen=EVERYWHERE, connect=EVERYWHERE, drain_ms="2000")
    assert outcome.counters["span_bytes_received"] > 0
    assert not outcome.trouble


@pytest.mark.parametrize("case", ["computes", "full", "options"])
def test_nothing_is_held_where_that_is_switched_off(preload: Preload, case: str) -> None:
    outcome = preload.compare("holds", case, listen=EVERYWHERE, connect=EVERYWHERE, hold="off")
    assert outcome.counters["sends_held"] == 0
