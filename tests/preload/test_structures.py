"""Structures that calls read or fill may lie in memory that was received and not looked at."""

from __future__ import annotations

from tests.preload.harness import EVERYWHERE, Preload


def test_structures_in_windows_are_read_and_filled(preload: Preload) -> None:
    rules = {"listen": EVERYWHERE, "connect": EVERYWHERE, "virtual_min": "4096", "delivery": "window"}
    outcome = preload.compare("structures", **rules)
    assert outcome.counters["windows_mapped"] > 20
    assert not outcome.trouble
