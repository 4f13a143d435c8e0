"""The load generator keeps what it frees: large bodies cost it no page faults, whatever the allocator feels like."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit

ROUNDS = 200
PROGRAM = f"""
import resource, sys
from loadgen.heap import keep_heap
if sys.argv[1] == "kept" and not keep_heap():
    sys.exit("the C library takes no advice")
def bodies():
    return [bytearray(150_000) for _ in range(8)]
bodies()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    bodies()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


def test_a_kept_heap_does_not_fault_with_every_body() -> None:
    assert faults("kept") < ROUNDS
    assert faults("given back") > 100 * ROUNDS
