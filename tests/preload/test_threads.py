"""Threads that receive, send, touch and fork at once see the right bytes, and never anything else."""

from __future__ import annotations

import pytest

from tests.preload.harness import EVERYWHERE, Preload

CASES = ("streams", "one_window", "one_window_c11", "duplex", "forks")


@pytest.mark.parametrize("align", ["on", "off"])
@pytest.mark.parametrize("case", CASES)
def test_threads_see_the_right_bytes(preload: Preload, case: str, align: str) -> None:
    outcome = preload.compare("threads", case, listen=EVERYWHERE, connect=EVERYWHERE, align=align)
    assert outcome.active
    assert outcome.counters["windows_mapped"] > 0 or align == "off"
    assert not outcome.trouble
