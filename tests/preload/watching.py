"""The sanitizers under which the programs of this directory run: how the library is built for each, and what it is told."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tests.conftest import build
from tests.preload.harness import Watch

# What they have to say goes to files, also from processes whose standard error nobody reads.
_EVERY = "handle_segv=0:handle_sigbus=0:log_path={directory}/sanitizer"
_THREAD = f"{_EVERY}:die_after_fork=0:atexit_sleep_ms=0:suppressions={Path(__file__).with_name('tsan.supp')}"
_ADDRESS = f"{_EVERY}:allow_user_segv_handler=1:use_sigaltstack=0:detect_leaks=0:verify_asan_link_order=0"


def _thread(_: Path) -> tuple[Path, Watch]:
    """ThreadSanitizer wants programs of its own. Forked children start a helper thread, so they must not end for it."""
    built = build("tsan", "odb", "preload_programs")
    return built / "libodb.so", Watch(built / "preload", {"TSAN_OPTIONS": _THREAD})


def _address(programs: Path) -> tuple[Path, Watch]:
    """AddressSanitizer and UndefinedBehaviorSanitizer. The library is loaded first and keeps the heap to itself: what it has
    no use for goes to AddressSanitizer's."""
    options = {"ASAN_OPTIONS": _ADDRESS, "UBSAN_OPTIONS": f"print_stacktrace=1:{_EVERY}"}
    return build("asan", "odb") / "libodb.so", Watch(programs, options)


SANITIZERS = {"tsan": _thread, "asan": _address}


@cache
def sanitized(name: str, programs: Path) -> tuple[Path, Watch]:
    """The library with that sanitizer, and what it needs to watch these programs. Building it takes its time, once."""
    return SANITIZERS[name](programs)
