"""Files that are read and sent: the bytes are the same although they were never read, and everything else about a read is."""

from __future__ import annotations

import pytest

from tests.preload.harness import EVERYWHERE, Preload

CASES = ("forwarded", "forwarded_at", "scattered", "modified", "outlived", "inherited", "others", "threads")
UNTOUCHED = {"forwarded", "forwarded_at", "scattered"}


def options(**more: str) -> dict[str, str]:
    return {"listen": EVERYWHERE, "connect": EVERYWHERE, "settled_ms": "0"} | more


@pytest.mark.parametrize("case", CASES)
def test_read_files_arrive_as_without_the_library(preload: Preload, case: str) -> None:
    outcome = preload.compare("reads", case, **options(capture="file,memory,reads"))
    assert outcome.counters["reads_mapped"] > 0
    assert outcome.active
    assert not outcome.trouble


@pytest.mark.parametrize("case", sorted(UNTOUCHED))
def test_what_is_only_forwarded_is_never_read(preload: Preload, case: str) -> None:
    outcome = preload.compare("reads", case, **options(capture="reads", delivery="fetch"))
    assert outcome.counters["reads_mapped"] >= 3
    assert outcome.counters["faults"] == 0
    assert outcome.counters["payload_bytes_captured"] > 100_000
    assert not outcome.trouble


@pytest.mark.parametrize(
    "more", [{}, {"capture": "reads", "settled_ms": "60000"}, {"capture": "reads", "virtual_min": "1M"}]
)
def test_reads_are_left_alone_unless_asked_for_large_and_of_settled_files(
    preload: Preload, more: dict[str, str]
) -> None:
    outcome = preload.compare("reads", "forwarded", **options(**more))
    assert outcome.counters["reads_mapped"] == 0
    assert not outcome.trouble
