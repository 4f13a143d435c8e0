"""The programs of rows, and those that are hard on the library, find nothing wrong in a library that watches itself."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.preload.harness import EVERYWHERE, Preload

ROWS = [("rows_data", ""), ("rows_life", ""), ("rows_image", "")]
HARD = [
    ("threads", "streams"),
    ("threads", "duplex"),
    ("threads", "forks"),
    ("dialogue", "full"),
    ("dialogue", "magic"),
    ("descriptors", "reused"),
    ("waits", "epoll_edge"),
    ("waits", "poll"),
    ("sharing", "turns"),
    ("sharing", "processes"),
    ("absent", "sent"),
    ("structures", ""),
]
# Nothing large goes out, or those that received it have ended.
UNSEEN = {"full", "processes"}
# These look at the heap, which is not the library's beside AddressSanitizer.
ON_THE_HEAP = [("rows_memory", ""), ("memory", "realloc_grows"), ("signals", "touched_in_a_handler")]
# ThreadSanitizer keeps SIGSEGV and what handlers may touch, threads of C11 and programs that replace themselves to itself:
# the rows and cases about those are left out.
THREADED = [
    *(("threads", case) for case in ("streams", "one_window", "duplex", "forks")),
    ("pool", "EDGE"),
    ("pool", "ONESHOT"),
    ("rows_data", ""),
    ("dialogue", "full"),
    ("descriptors", "reused"),
    ("waits", "epoll_edge"),
    ("waits", "poll"),
    ("memory", "realloc_grows"),
    ("sharing", "threads"),
    ("sharing", "processes"),
    ("processes", "workers"),
    ("processes", "exit"),
]
# Forked children start a helper thread of their own.
TSAN_OPTIONS = f"die_after_fork=0:atexit_sleep_ms=0:suppressions={Path(__file__).parent / 'tsan.supp'}"
ASAN_OPTIONS = "handle_segv=0:allow_user_segv_handler=1:use_sigaltstack=0:detect_leaks=0"


def watched(preload: Preload, library: Path, program: str, case: str, **more: str) -> dict[str, int]:
    """The counters of a program that has shown the same with that library as without any."""
    arguments = [case] if case else []
    environment = preload.environment(listen=EVERYWHERE, connect=EVERYWHERE, drain_ms="2000")
    plain = preload.run(program, *arguments, environment=preload.plain_environment())
    assert plain.seen == (0, plain.out, "")
    outcome = preload.run(
        program, *arguments, environment={**environment, "LD_PRELOAD": str(library), **more}
    )
    assert outcome.seen == plain.seen
    assert outcome.counters["streams_framed"] > 0
    assert not outcome.trouble
    return dict(outcome.counters)


@pytest.mark.parametrize(("program", "case"), [*ROWS, *HARD, *ON_THE_HEAP])
def test_program_finds_no_undefined_behaviour_in_the_library(
    preload: Preload, library_ubsan: Path, program: str, case: str
) -> None:
    counters = watched(preload, library_ubsan, program, case)
    assert counters["span_bytes_received"] > 0 or case in UNSEEN


@pytest.mark.parametrize(("program", "case"), [*ROWS, *HARD])
def test_program_finds_no_wrong_access_in_the_library(
    preload: Preload, library_asan: Path, program: str, case: str
) -> None:
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    named = subprocess.run(
        ["cc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout
    runtime = Path(named.strip()).resolve()
    watched(
        preload,
        library_asan,
        program,
        case,
        LD_PRELOAD=f"{runtime} {library_asan}",
        ASAN_OPTIONS=ASAN_OPTIONS,
    )


@pytest.mark.parametrize(("program", "case"), THREADED)
def test_program_finds_no_race_in_the_library(
    preload: Preload, build_tsan_preload: Path, program: str, case: str
) -> None:
    watching = replace(preload, programs=build_tsan_preload / "preload")
    library = build_tsan_preload / "libodb.so"
    counters = watched(watching, library, program, case, TSAN_OPTIONS=TSAN_OPTIONS)
    assert counters["spans_received"] > 0 or case in UNSEEN
