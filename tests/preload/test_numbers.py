"""Calls by number, by libc's other names, by aio and by stdio are not ways around the library."""

from __future__ import annotations

import pytest

from tests.preload.harness import Preload

CASES = (
    "numbers",
    "names",
    "flagged",
    "to_a_pipe",
    "by_aio",
    "by_aio_list",
    "by_kernel_aio",
    "by_position_and_flags",
    "by_number",
)


@pytest.mark.parametrize("case", CASES)
def test_calls_by_other_ways_move_the_same_bytes(preload: Preload, case: str) -> None:
    outcome = preload.compare("numbers", case)
    assert outcome.active
    assert not outcome.trouble


@pytest.mark.parametrize("case", ["two_files", "one_file", "after_words", "printed"])
def test_stdio_on_a_connection_sees_no_frames(preload: Preload, case: str) -> None:
    outcome = preload.compare("files", case)
    # Who opens a FILE before anything was said speaks classic from then on.
    assert outcome.active == (case in {"after_words"})
    assert not outcome.trouble
