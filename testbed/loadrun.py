"""Runs a load on the client hosts as recorded background processes, so that it can be ended at any moment."""

import dataclasses
from collections.abc import Sequence

from testbed import load
from testbed.record import LoadResult
from testbed.remote import Completed
from testbed.session import Testbed
from testbed.spec import LOCUSTFILE, WRK

_NAME = "load"
_WORKERS = "load-workers"
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

    However this ends, no part of the load is left running on the client hosts.
    """
    client = testbed.host("client")
    result = load.run_load(
        _Background(testbed, plan),
        plan,
        locust=(client.tool("locust"),),
        locustfile=LOCUSTFILE,
        wrk=(client.python, WRK),
    )
    names = {item.name for item in dataclasses.fields(LoadResult)}
    values = {name: getattr(result, name) for name in names - {"bytes"}}
    return LoadResult(bytes=result.body_bytes, **values)


def stop_load(testbed: Testbed) -> None:
    """End a load that is running on the client hosts; none is fine."""
    for role in testbed.topology.client_roles:
        for name in (_NAME, _WORKERS):
            testbed.stop_process(role, name)


class _Background:
    """Runs commands on the client host; those of a generator as recorded processes, anything else directly."""

    def __init__(self, testbed: Testbed, plan: load.LoadPlan) -> None:
        self._testbed, self._plan = testbed, plan
        client = testbed.host("client")
        self._generators = (client.tool("locust"), client.python)

    def __call__(self, command: Sequence[str], *, timeout: float) -> Completed:
        if command[0] not in self._generators:
            return self._testbed.run("client", command, timeout=timeout)
        try:
            process = self._testbed.start_process("client", _NAME, ["sh", "-c", _KEEP, "sh", *command])
            if self._plan.hosts > 1:
                self._start_workers()
            python = self._testbed.host("client").python
            self._testbed.run("client", [python, "-c", _WAIT, str(process)], timeout=timeout)
        finally:
            stop_load(self._testbed)
        output = self._testbed.run("client", ["cat", _OUTPUT], timeout=timeout).stdout
        code = self._testbed.run("client", ["cat", _EXIT_CODE], timeout=timeout).stdout.strip()
        return Completed(tuple(command), int(code) if code.isdigit() else -1, "", output)

    def _start_workers(self) -> None:
        """Start the workers of a load with a master on every client host; they wait for the master."""
        master = self._testbed.host("client").address
        for role in self._testbed.topology.client_roles[: self._plan.hosts]:
            locust = (self._testbed.host(role).tool("locust"),)
            command = load.build_worker_command(
                self._plan, master=master, locust=locust, locustfile=LOCUSTFILE
            )
            self._testbed.start_process(role, _WORKERS, command)
