"""Memory that was received into stays ordinary memory: for the allocator, for mappings, and for the kernel."""

from __future__ import annotations

import pytest

from tests.preload.harness import EVERYWHERE, Preload

OPERATIONS = (
    "realloc_grows",
    "realloc_shrinks",
    "freed_memory_is_ordinary",
    "freed_memory_goes_to_libc",
    "unmapped",
    "remapped",
    "heap_remapped",
    "advised",
    "protected",
    "shared",
    "written_to_a_file",
    "written_in_part",
    "read_from_a_file",
    "through_stdio",
    "to_others",
    "overwritten",
)
ON_MAPPINGS = {"unmapped", "remapped", "advised", "protected", "shared"}


@pytest.mark.parametrize("align", ["on", "off"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_finds_the_bytes_that_were_received(preload: Preload, operation: str, align: str) -> None:
    options = {"listen": EVERYWHERE, "connect": EVERYWHERE, "align": align}
    outcome = preload.compare("memory", operation, **options)
    assert outcome.active
    assert outcome.counters["windows_mapped"] > 0 or operation in ON_MAPPINGS or align == "off"
    assert not outcome.trouble
