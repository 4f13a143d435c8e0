"""A program's signal handlers and masks mean what they mean without the library, also while windows are touched."""

from __future__ import annotations

import pytest

from tests.preload.harness import Preload

CASES = (
    "touched_while_all_is_blocked",
    "touched_in_a_handler",
    "touched_in_a_handler_of_crashes",
    "threads_inherit_masks",
    "sent_signals_wait_until_unblocked",
    "crash_while_blocked_is_fatal",
    "waits_with_masks",
    "old_names",
    "probed_memory",
    "reset_by_a_vfork_child",
)


@pytest.mark.parametrize("case", CASES)
def test_signals_mean_what_they_mean_without_the_library(preload: Preload, case: str) -> None:
    outcome = preload.compare("signals", case)
    assert outcome.active
    assert not outcome.trouble
