"""The sanitizers that the other tests of this directory run under are there, and no program is kept from them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.preload.conftest import UNWATCHED
from tests.preload.watching import SANITIZERS, sanitized

MARKS = {
    "tsan": {"__tsan_read8", "__tsan_write8", "__tsan_func_entry"},
    "asan": {"__asan_report_load8", "__asan_report_store8", "__ubsan_handle_pointer_overflow_abort"},
}


@pytest.mark.parametrize("name", SANITIZERS)
def test_library_is_watched(name: str, build_dev: Path) -> None:
    library, _ = sanitized(name, build_dev / "preload")
    names = subprocess.run(["nm", "-D", library], capture_output=True, text=True, check=True).stdout.split()
    assert MARKS[name] <= set(names)


def test_every_program_has_a_test_under_every_sanitizer() -> None:
    directory = Path(__file__).parent
    watched = (file for file in directory.glob("test_*.py") if file.stem not in UNWATCHED)
    text = "".join(file.read_text() for file in watched if file != Path(__file__))
    programs = {file.stem for file in directory.glob("*.c")}
    assert programs
    assert {program for program in programs if f'"{program}"' not in text} == set()
