"""Processes and threads that use one connection together get its bytes once and in order; who sleeps is woken."""

from __future__ import annotations

import pytest

from tests.preload.harness import EVERYWHERE, Preload

OPTIONS = [{}, {"delivery": "window"}, {"delivery": "fetch", "strategy": "dynamic", "align": "off"}]


@pytest.mark.parametrize("case", ["turns", "alternating", "writers", "processes", "threads"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options.values()) or "usual")
def test_connection_that_several_use_is_as_without_the_library(
    preload: Preload, case: str, options: dict[str, str]
) -> None:
    # Children end as soon as they have written: they stay until that is fetched.
    rules = {"listen": EVERYWHERE, "connect": EVERYWHERE, "drain_ms": "2000"}
    outcome = preload.compare("sharing", case, **rules, **options)
    assert outcome.counters["spans_sent"] > 0
    assert outcome.counters["span_bytes_received"] > 0 or case == "processes"  # they have ended
    assert outcome.counters["streams_framed"] == 2
    assert not outcome.trouble


def test_thread_that_sleeps_is_woken_for_what_another_leaves(preload: Preload) -> None:
    outcome = preload.compare("sharing", "snatching")
    assert outcome.counters["streams_framed"] == 2
    assert not outcome.trouble


def test_bytes_of_a_child_that_has_ended_leave_without_its_parents_help(preload: Preload) -> None:
    rules = {"listen": EVERYWHERE, "connect": EVERYWHERE, "capture": "file"}
    outcome = preload.compare("sharing", "left", **rules)
    assert outcome.counters["spans_sent"] > 0
    assert not outcome.trouble
