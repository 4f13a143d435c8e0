"""Socket options and flags answer on streams as they do on plain sockets."""

from __future__ import annotations

import pytest

from tests.preload.harness import Preload

CASES = (
    "low_water_mark_of_readiness",
    "low_water_mark_of_waiting",
    "error_is_told_once",
    "urgent_byte",
    "zero_copy",
    "kernel_tls_is_declined",
    "greeting_is_seen",
)


@pytest.mark.parametrize("case", CASES)
def test_options_and_flags_answer_as_on_plain_sockets(preload: Preload, case: str) -> None:
    outcome = preload.compare("options", case)
    assert outcome.counters["streams_framed"] > 0
    assert not outcome.trouble
