"""The parts of a body that a loop relays to a plain connection arrive, whatever the program does between two of them."""

from __future__ import annotations

import pytest

from tests.preload.harness import EVERYWHERE, Preload

MARKS = (
    "send",
    "write",
    "vector",
    "number",
    "copy",
    "file",
    "splice",
    "stdio",
    "print",
    "child",
    "program",
    "thread",
    "handler",
    "remade",
    "turn",
)
WAITS = ("computes", "reads", "polls")
ENDS = ("close", "range", "shutdown", "replaced", "exit", "at_once", "exec")


@pytest.mark.parametrize("case", MARKS + WAITS + ENDS)
def test_gathered_parts_come_in_their_order(preload: Preload, case: str) -> None:
    outcome = preload.compare("gathers", case, listen=EVERYWHERE, connect=EVERYWHERE)
    assert not outcome.trouble
    if case not in ("exit", "at_once", "exec"):  # the statistics end with their process
        assert outcome.counters["sends_gathered"] > 0


@pytest.mark.parametrize("case", ["send", "computes", "close"])
def test_nothing_is_gathered_where_that_is_switched_off(preload: Preload, case: str) -> None:
    outcome = preload.compare("gathers", case, listen=EVERYWHERE, connect=EVERYWHERE, gather="off")
    assert outcome.counters["sends_gathered"] == 0
