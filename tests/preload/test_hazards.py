"""Clients that go away at any offset, buffers that change right after they were sent, and signals change nobody's bytes."""

from __future__ import annotations

import pytest

from tests.preload.harness import EVERYWHERE, Preload

OPTIONS = [
    {"strategy": strategy, "delivery": delivery, "align": align}
    for strategy, delivery, align in (
        ("direct", "learn", "on"),
        ("dynamic", "window", "on"),
        ("static", "window", "off"),
        ("anticipated", "fetch", "off"),
    )
]


@pytest.mark.parametrize("case", ["abort", "reuse_after_send", "reuse_after_passing", "interrupted"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options.values()))
def test_hazard_changes_no_byte(preload: Preload, case: str, options: dict[str, str]) -> None:
    rules = {"listen": EVERYWHERE, "connect": EVERYWHERE, "virtual_min": "4096"}
    outcome = preload.compare("hazards", case, **rules, **options)
    assert outcome.active
    if case != "abort":
        assert not outcome.trouble


def test_untouched_memory_outlives_its_lease(preload: Preload) -> None:
    rules = {"listen": EVERYWHERE, "connect": EVERYWHERE, "virtual_min": "4096", "delivery": "window"}
    outcome = preload.compare("hazards", "keep", lease_ms="4000", **rules)
    assert outcome.counters["windows_mapped"] > 0
    assert outcome.counters["materialised_bytes"] > 0
    assert outcome.counters["faults"] == 0
    assert not outcome.trouble
