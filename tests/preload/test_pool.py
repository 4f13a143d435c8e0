"""Threads that share one epoll set: a one-shot registration belongs to one of them at a time, whoever finds the bytes."""

from __future__ import annotations

import pytest

from tests.preload.harness import EVERYWHERE, Preload


@pytest.mark.parametrize("trigger", ["ONESHOT", "EDGE"])
@pytest.mark.parametrize("readiness", ["inject", "level"])
def test_connection_is_one_threads_from_its_event_to_its_arming(
    preload: Preload, trigger: str, readiness: str
) -> None:
    rules = {"listen": EVERYWHERE, "connect": EVERYWHERE, "virtual_min": "4096"}
    outcome = preload.compare("pool", trigger, readiness=readiness, **rules)
    assert outcome.active
    assert not outcome.trouble
