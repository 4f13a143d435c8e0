"""Calls of every tier are counted under a real load, with the library in the servers that are traced."""

from __future__ import annotations

import shutil

import pytest

from testbed.calls import count_calls
from testbed.load import LoadPlan
from testbed.metrics import derive_calls
from testbed.session import Testbed
from testbed.spec import load_variants
from tests.testbed.bench import Bench


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")
def test_calls_of_every_tier_are_counted_under_load(bench: Bench) -> None:
    with Testbed.open(bench.state) as testbed:
        testbed.start(load_variants()["odb"])
        try:
            target = LoadPlan(url=testbed.front_url(), payloads=(65536,), users=8, seconds=1.0)
            counted = count_calls(testbed, target)
            assert not any(testbed.stop_process(role, "calls") for role in testbed.topology.chain)
        finally:
            testbed.stop()
    assert counted.reason is None and counted.requests > 10
    assert set(counted.calls) == {"fe", "is1", "be"}
    for calls in counted.calls.values():
        # The kernel knows one wait by several names.
        assert sum(count for name, count in calls.items() if name.startswith("epoll_")) > 0
    for name, metric in derive_calls(counted).items():
        # A proxied request takes some calls; a server that was missed, or counted twice, would show here.
        assert metric.value is not None and 2 < metric.value < 100, name
