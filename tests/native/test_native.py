"""Runs every native test executable under the sanitizers, and the fuzzer for a few seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import build

HERE = Path(__file__).parent
NAMES = sorted(file.stem for file in HERE.glob("test_*.c"))
# What needs no thread at all is not worth a second run.
THREADED = [name for name in NAMES if name not in {"test_options", "test_rules", "test_wire", "test_peers"}]
FUZZERS = sorted(file.stem for file in HERE.glob("fuzz_*.c"))
FUZZ_SECONDS = 5

SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    # Forked children make threads of their own.
    "TSAN_OPTIONS": "die_after_fork=0",
}

pytestmark = pytest.mark.native


def run(program: Path) -> None:
    done = subprocess.run(
        [program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=100,
        env={**os.environ, **SANITIZERS},
    )
    assert done.returncode == 0, (
        f"{program.name} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-6000:]}"
    )


@pytest.mark.parametrize("name", NAMES)
def test_native_test_passes_under_address_and_undefined_behaviour_sanitizers(
    name: str, build_asan: Path
) -> None:
    run(build_asan / "native" / name)


@pytest.mark.parametrize("name", THREADED)
def test_native_test_passes_under_thread_sanitizer(name: str, build_tsan: Path) -> None:
    run(build_tsan / "native" / name)


@pytest.mark.parametrize("name", FUZZERS)
def test_decoder_survives_a_few_seconds_of_fuzzing(name: str, tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        pytest.skip("clang (libFuzzer) is not installed")
    fuzzer = build("dev", "fuzz_wire") / "fuzz" / name
    done = subprocess.run(
        [
            fuzzer,
            f"-max_total_time={FUZZ_SECONDS}",
            "-print_final_stats=1",
            f"-artifact_prefix={tmp_path}/",
            tmp_path,
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    executions = [
        line.rpartition(":")[2]
        for line in done.stderr.splitlines()
        if line.startswith("stat::number_of_executed")
    ]
    assert executions, done.stderr[-2000:]
    assert int(executions[0]) > 1000, "the fuzzer hardly ran"
