"""Samples the servers of every tier with perf while a load runs, and brings their stacks here."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from testbed.errors import EnvironmentFault, RemoteError
from testbed.load import LoadPlan
from testbed.loadrun import run_load
from testbed.profiling.stacks import Stack, parse
from testbed.record import LoadResult
from testbed.session import SERVER, Testbed

_NAME = "perf"
_DATA = "/tmp/odb-testbed-perf.data"
_TEXT = "/tmp/odb-testbed-perf.txt"
_SECONDS = 30.0
_UNWIND_SECONDS = 300.0
_STACK_BYTES = 16384
_FIELDS = "comm,ip,sym,dso"


def require_perf(testbed: Testbed) -> None:
    """EnvironmentFault when a tier has no perf that works there."""
    for role in testbed.topology.chain:
        if testbed.run(role, ["perf", "--version"], timeout=_SECONDS).exit_code != 0:
            raise EnvironmentFault(f"perf is missing on {role}", "apt-get install linux-perf")


def capture(
    testbed: Testbed, target: LoadPlan, *, frequency: int, work: Path
) -> tuple[LoadResult, dict[str, Counter[Stack]]]:
    """Run the load while perf samples the CPU time of every tier's servers; what the load saw, and stacks by role.

    Servers need no frame pointers: stacks are copied and unwound afterwards.  Time in which a server waits has no samples.
    RemoteError names a tier that gave none.  No perf is left running when this returns or raises.
    """
    chain = testbed.topology.chain
    with ThreadPoolExecutor(max_workers=len(chain)) as pool:
        try:
            list(pool.map(lambda role: _start(testbed, role, frequency), chain))
            result = run_load(testbed, target)
        finally:
            list(pool.map(lambda role: _stop(testbed, role), chain))
        texts = list(pool.map(lambda role: _fetch(testbed, role, work), chain))
    stacks = {}
    for role, text in zip(chain, texts, strict=True):
        with text.open(encoding="utf-8", errors="replace") as lines:
            stacks[role] = parse(lines)
        if not stacks[role]:
            raise RemoteError(f"perf on {role} saw no sample of {SERVER}", "make the load longer: --seconds")
    return result, stacks


def _start(testbed: Testbed, role: str, frequency: int) -> None:
    servers = ",".join(str(pid) for pid in testbed.process_status(role, SERVER)["processes"])
    command = ["perf", "record", "--event", "cpu-clock", "--freq", str(frequency)]
    command += ["--call-graph", f"dwarf,{_STACK_BYTES}", "--output", _DATA, "--pid", servers]
    testbed.start_process(role, _NAME, command)


def _stop(testbed: Testbed, role: str) -> None:
    with suppress(RemoteError):
        testbed.stop_process(role, _NAME, grace=_SECONDS)


def _fetch(testbed: Testbed, role: str, work: Path) -> Path:
    """Unwind on the host, where the servers' files are, and copy the text."""
    script = f"perf script --no-inline -F {_FIELDS} -i {_DATA} >{_TEXT}"
    done = testbed.run(role, ["sh", "-c", script], timeout=_UNWIND_SECONDS)
    if done.exit_code != 0:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise RemoteError(f"perf on {role} failed", lines[-1])
    local = work / f"{role}.txt"
    testbed.fetch(role, _TEXT, local)
    testbed.run(role, ["rm", "-f", _DATA, _TEXT], timeout=_SECONDS)
    return local
