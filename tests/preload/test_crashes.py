"""Genuine faults, deaths, broken pipes and interruptions are what they are without the library."""

from __future__ import annotations

import pytest

from tests.preload.harness import Preload

CASES = ("handlers", "old_handlers", "little_stacks", "deaths", "broken_pipes", "interrupted")


@pytest.mark.parametrize("case", CASES)
def test_signal_reaches_the_program_as_without_the_library(preload: Preload, case: str) -> None:
    outcome = preload.compare("crashes", case)
    assert outcome.active
    assert outcome.counters["faults"] > 0
    assert not outcome.trouble
