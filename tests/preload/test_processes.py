"""Processes fork, start others and end in every way, and what they have sent or received is neither lost nor mixed up."""

from __future__ import annotations

import pytest

from tests.preload.harness import EVERYWHERE, Preload

LIVES = ("windows_and_fork", "other_programs", "as_daemon", "workers")
ENDINGS = ("exit", "underscore_exit", "Exit", "quick_exit", "exec")


@pytest.mark.parametrize("life", LIVES)
def test_process_lives_on_as_without_the_library(preload: Preload, life: str) -> None:
    outcome = preload.compare("processes", life)
    assert outcome.counters["span_bytes_received"] > 0
    assert not outcome.trouble


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_a_process_has_written_survives_its_end(preload: Preload, ending: str) -> None:
    outcome = preload.compare("processes", ending, listen=EVERYWHERE, connect=EVERYWHERE, drain_ms="2000")
    assert outcome.counters["span_bytes_received"] > 0
    assert not outcome.trouble
