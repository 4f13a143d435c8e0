"""Counts the system calls that the servers of every tier make for a load, with strace, in a window of its own.

strace stops a server at each of its calls, so that nothing else may be measured in this window.  What the window gives is
calls per request; a count hardly depends on how long a call took.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from testbed.errors import RemoteError, TestbedError
from testbed.load import LoadPlan
from testbed.loadrun import run_load
from testbed.record import CallCount
from testbed.session import SERVER, Testbed

_NAME = "calls"
_OUTPUT = "/tmp/odb-testbed-calls.txt"
_ATTACH_SECONDS = 15
_GRACE_SECONDS = 20.0
_LINE = re.compile(r"\s*[0-9.]+\s+[0-9.]+\s+[0-9]+\s+([0-9]+)\s+(?:[0-9]+\s+)?([a-z_][a-z0-9_]*)\s*")
# Ends when every thread of the processes is traced; 1 when that takes too long.
_ATTACHED = """
import pathlib, sys, time
deadline = time.monotonic() + float(sys.argv[1])
def untraced(pid):
    return any("\\nTracerPid:\\t0\\n" in status.read_text() for status in pathlib.Path("/proc", pid).glob("task/*/status"))
while any(map(untraced, sys.argv[2:])):
    if time.monotonic() > deadline:
        sys.exit(1)
    time.sleep(0.01)
"""


def count_calls(testbed: Testbed, target: LoadPlan) -> CallCount:
    """Run the load while strace counts on every tier.  What goes wrong with the counting is the result's `reason`.

    No strace is left running when this returns or raises.
    """
    chain = testbed.topology.chain
    try:
        with ThreadPoolExecutor(max_workers=len(chain)) as pool:
            there = list(pool.map(lambda role: _has(testbed, role), chain))
            lacking = [role for role, found in zip(chain, there, strict=True) if not found]
            if lacking:
                return CallCount(0, {}, f"strace is missing on {lacking[0]}: apt-get install strace")
            try:
                list(pool.map(lambda role: _attach(testbed, role), chain))
                result = run_load(testbed, target)
            finally:
                stop_counting(testbed)
            counted = dict(zip(chain, pool.map(lambda role: _read(testbed, role), chain), strict=True))
    except TestbedError as error:
        return CallCount(0, {}, f"calls could not be counted ({error})")
    answered = result.requests - result.errors
    return CallCount(answered, counted, None if answered else "no request succeeded while calls were counted")


def stop_counting(testbed: Testbed) -> None:
    """End strace on every tier; where there is none, or no host any more, that is fine."""

    def stop(role: str) -> None:
        with suppress(RemoteError):
            testbed.stop_process(role, _NAME, grace=_GRACE_SECONDS)

    with ThreadPoolExecutor(max_workers=len(testbed.topology.chain)) as pool:
        list(pool.map(stop, testbed.topology.chain))


def parse_summary(text: str) -> dict[str, int]:
    """Calls by name from what `strace -c` writes.  RemoteError when there is not one: every server waits somehow."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is not None and match[2] != "total":
            found[match[2]] = found.get(match[2], 0) + int(match[1])
    if not found:
        raise RemoteError("strace counted nothing", (text.strip().splitlines() or ["it said nothing"])[-1])
    return found


def _has(testbed: Testbed, role: str) -> bool:
    return testbed.run(role, ["which", "strace"], timeout=_ATTACH_SECONDS).exit_code == 0


def _attach(testbed: Testbed, role: str) -> None:
    """Start strace on the servers of a tier and wait until it has all of them."""
    servers = [str(pid) for pid in testbed.process_status(role, SERVER)["processes"]]
    command = ["strace", "-f", "-c", "-o", _OUTPUT, "-p", ",".join(servers)]
    testbed.start_process(role, _NAME, command)
    python = testbed.host(role).python
    wait = [python, "-c", _ATTACHED, str(_ATTACH_SECONDS), *servers]
    if testbed.run(role, wait, timeout=2 * _ATTACH_SECONDS).exit_code != 0:
        raise RemoteError(
            f"strace on {role} did not get hold of the servers", "may root trace processes here?"
        )


def _read(testbed: Testbed, role: str) -> dict[str, int]:
    return parse_summary(testbed.run(role, ["cat", _OUTPUT], timeout=_ATTACH_SECONDS).stdout)
