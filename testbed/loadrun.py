"""Runs a load on the client host as a recorded background process, so that it can be ended at any moment."""

import dataclasses
from collections.abc import Sequence

from testbed import load
from testbed.record import LoadResult
from testbed.remote import Completed
from testbed.session import Testbed
from testbed.spec import LOCUSTFILE

_NAME = "load"
_OUTPUT = "/tmp/odb-testbed-load.out"
_EXIT_CODE = "/tmp/odb-testbed-load.exit"
# Keeps what the command says and how it ends; the file of the exit code appears when it has ended.
_KEEP = f'rm -f {_EXIT_CODE}; "$@" >{_OUTPUT} 2>&1; echo $? >{_EXIT_CODE}'
# Waits for the end of a process without asking again and again; one that is gone already is fine.
_WAIT = """
import os, select, sys
try:
    ended = select.poll()
    ended.register(os.pidfd_open(int(sys.argv[1])), select.POLLIN)
    ended.poll()
except ProcessLookupError:
    pass
"""


def run_load(testbed: Testbed, plan: load.LoadPlan) -> LoadResult:
    """Run the load to its end and return what a record keeps of it.  LoadError or RemoteError when it fails.

    However this ends, no part of the load is left running on the client host.
    """
    locust = testbed.host("client").tool("locust")
    result = load.run_load(_Background(testbed, locust), plan, locust=(locust,), locustfile=LOCUSTFILE)
    names = {item.name for item in dataclasses.fields(LoadResult)}
    values = {name: getattr(result, name) for name in names - {"bytes"}}
    return LoadResult(bytes=result.body_bytes, **values)


def stop_load(testbed: Testbed) -> None:
    """End a load that is running on the client host; none is fine."""
    testbed.stop_process("client", _NAME)


class _Background:
    """Runs commands on the client host; `program` as a recorded process, anything else directly."""

    def __init__(self, testbed: Testbed, program: str) -> None:
        self._testbed = testbed
        self._program = program

    def __call__(self, command: Sequence[str], *, timeout: float) -> Completed:
        if command[0] != self._program:
            return self._testbed.run("client", command, timeout=timeout)
        try:
            process = self._testbed.start_process("client", _NAME, ["sh", "-c", _KEEP, "sh", *command])
            python = self._testbed.host("client").python
            self._testbed.run("client", [python, "-c", _WAIT, str(process)], timeout=timeout)
        finally:
            stop_load(self._testbed)
        output = self._testbed.run("client", ["cat", _OUTPUT], timeout=timeout).stdout
        code = self._testbed.run("client", ["cat", _EXIT_CODE], timeout=timeout).stdout.strip()
        return Completed(tuple(command), int(code) if code.isdigit() else -1, "", output)
