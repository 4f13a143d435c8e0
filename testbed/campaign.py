"""Brings a run to its end: deploys what each cell needs, measures what is missing, stores every record.

Killed at any moment, it goes on from the records: nothing is repeated, nothing is lost.  A cell that fails leaves a
record with its reason, and the run goes on.
"""

import errno
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from testbed import deploy, measure
from testbed.environment import describe, require_programs
from testbed.errors import EnvironmentFault, RecordError, TestbedError
from testbed.estimate import Estimator
from testbed.matrix import Step, missing
from testbed.progress import RunProgress
from testbed.record import Cell, Plan
from testbed.runs import Run, create_run, extend_run, load_run, only_writer, save_record
from testbed.session import Testbed
from testbed.spec import Topology, Variant
from testbed.specfile import topology_of
from testbed.state import StateStore

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Interrupted(BaseException):
    """The user or the system asked to end.  Not a KeyboardInterrupt, which Fabric's runner would swallow."""


class Campaign:
    """One run on the testbed of one state file; records go below `results`."""

    def __init__(self, *, results: Path, state_file: Path | None, progress: RunProgress) -> None:
        self._results, self._state_file, self._progress = results, state_file, progress
        self._testbed: Testbed | None = None

    def complete(self, begun: Run | Plan, *, restore: Mapping[str, Variant]) -> Run:
        """Measure what is missing and return the run as it lies on disk then.

        The servers are left stopped, or in the variant of `restore` that ran before.
        Interrupted when SIGINT or SIGTERM comes; EnvironmentFault when records cannot be stored any more.
        """
        plan = begun if isinstance(begun, Plan) else begun.header.plan
        todo = missing(plan, begun.records if isinstance(begun, Run) else ())
        try:
            # Deploying cleans up after itself; from here on an interruption also stops the servers.
            testbed = self._deployed(plan, todo[0].cell)
            with _interruptible():
                served = restore.get(testbed.serving or "")
                directory = self._directory(testbed, begun)
                with only_writer(directory):
                    with _full_disk_explained(directory):
                        extend_run(directory, plan.repetitions)
                    self._measure_missing(directory)
                if served is not None and self._testbed is not None:
                    self._testbed.start(served)
        finally:
            self._close()
        return load_run(directory)

    def _directory(self, testbed: Testbed, begun: Run | Plan) -> Path:
        """Where the run lies; RecordError when it was begun in another environment."""
        plan = begun if isinstance(begun, Plan) else begun.header.plan
        require_programs(testbed, plan)
        environment = describe(testbed, plan)
        if isinstance(begun, Plan):
            with _full_disk_explained(self._results):
                return create_run(self._results, begun, environment).directory
        differing = begun.header.environment.differences(environment)
        if differing:
            raise RecordError(
                f"run {begun.header.run} was measured in another environment: {', '.join(differing)} differ",
                "start a new run; records of different environments are not merged",
            )
        return begun.directory

    def _measure_missing(self, directory: Path) -> None:
        stored = load_run(directory)
        plan = stored.header.plan
        self._progress.say(f"run {stored.header.run} in {directory}")
        todo = missing(plan, stored.records)
        estimator = Estimator(plan, stored.records)
        command = "run" if plan.spec else "compare"
        self._progress.expect([estimator.seconds(step) for step in todo])
        try:
            for step in todo:
                self._progress.begin(step.title)
                self._progress.end(self._record(stored, step))
        except Interrupted:
            self._progress.say(f"interrupted; go on with: odb-testbed {command} --resume {directory}")
            raise

    def _record(self, run: Run, step: Step) -> str | None:
        """Measure one step and store its record; returns why it failed."""
        with tempfile.TemporaryDirectory(prefix="odb-testbed-") as name:
            work = Path(name)
            with _full_disk_explained(run.directory):
                try:
                    testbed = self._deployed(run.header.plan, step.cell)
                    record = measure.measure(testbed, run.header, step, work)
                except TestbedError as error:
                    record = measure.failed(run.header, step, str(error))
                save_record(run.directory, record, {file.name: file for file in work.iterdir()})
        if record.failure is not None:
            # A host may have been lost: it is looked at, and repaired, before the next cell.
            self._close()
        return record.failure

    def _deployed(self, plan: Plan, cell: Cell) -> Testbed:
        """The testbed with what the cell needs deployed on it."""
        wanted = wanted_topology(plan, cell, self._state_file)
        if self._testbed is not None and self._testbed.topology != wanted:
            self._close()
        if self._testbed is None:
            self._testbed = deploy.ensure_deployed(
                wanted, progress=self._progress.note, state_file=self._state_file
            )
        return self._testbed

    def _close(self) -> None:
        if self._testbed is not None:
            testbed, self._testbed = self._testbed, None
            testbed.close()


def wanted_topology(plan: Plan, cell: Cell, state_file: Path | None) -> Topology:
    """What is deployed for a cell: its own values, every payload of the plan, room and hosts for its loads."""
    state = StateStore(state_file).load()
    base = state.topology if state is not None else Topology()
    loads = [plan.load_of(one) for one in plan.cells]
    return replace(
        topology_of(cell, base),
        payloads=tuple(sorted({*base.payloads, *(one.payload for one in plan.cells)})),
        clients=max(base.clients, *(load.users for load in loads)),
        generators=max(load.hosts for load in loads),
    )


@contextmanager
def _full_disk_explained(place: Path) -> Iterator[None]:
    """Turn an OSError that means that nothing more can be stored into a sentence; others pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise EnvironmentFault(
            f"nothing more can be stored in {error.filename or place} ({error.strerror})",
            f"make room and go on with: odb-testbed run --resume {place}; every record that was complete is kept",
        ) from error


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into Interrupted; later ones do not disturb the cleaning up."""
    signals = (signal.SIGINT, signal.SIGTERM)

    def interrupt(number: int, frame: FrameType | None) -> None:
        for one in signals:
            signal.signal(one, signal.SIG_IGN)
        raise Interrupted

    before = {one: signal.signal(one, interrupt) for one in signals}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
