"""`odb-testbed compare A B ...`: measures variants under equal load and prints how they differ.

Deploys if nothing is deployed, measures what the run still lacks, and prints the comparison; `--from` only prints.
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from testbed import deploy, measure
from testbed.analysis import compare
from testbed.environment import describe
from testbed.errors import RecordError, UsageError
from testbed.matrix import Step, missing, name_variants, parse_payloads
from testbed.progress import RunProgress
from testbed.record import Cell, LoadPlan, Plan
from testbed.report import machine, terminal
from testbed.runs import Run, create_run, find_run, load_run, merge, only_writer, save_record
from testbed.session import Testbed
from testbed.spec import DEFAULT_PAYLOADS, Topology, load_variants
from testbed.state import StateStore

FULL = LoadPlan(
    users=1000, spawn_rate=50.0, requests_per_user=30, warmup_users=20, warmup_requests_per_user=20
)
QUICK = LoadPlan(
    users=75, spawn_rate=25.0, requests_per_user=20, warmup_users=10, warmup_requests_per_user=10
)
FULL_REPETITIONS = 10
QUICK_REPETITIONS = 3
INTERRUPTED = 130

_EPILOG = """examples:
  odb-testbed compare vanilla odb --quick             about four minutes, three repetitions of a short load
  odb-testbed compare vanilla odb                     30,000 requests per cell, ten repetitions
  odb-testbed compare vanilla vanilla --quick         what differs between equals: the noise of this machine
  odb-testbed compare vanilla odb --payload 64K --repeat 5
  odb-testbed compare --resume                        goes on with the newest run
  odb-testbed compare --from results/runs/RUN --json  prints a stored run again
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "compare",
        help="measure variants under equal load and print how they differ",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "variants", nargs="*", metavar="VARIANT", help="variants; the first one is the baseline"
    )
    parser.add_argument("--quick", action="store_true", help="short loads and three repetitions")
    parser.add_argument(
        "--payload", metavar="SIZES", help="payload sizes, such as 16K,64K,256K (the default)"
    )
    parser.add_argument("--repeat", type=int, metavar="N", help="repetitions (10, with --quick 3)")
    parser.add_argument("--users", type=int, metavar="N", help="clients of a load (1000, with --quick 100)")
    parser.add_argument(
        "--requests", type=int, metavar="N", help="requests of each client (30, with --quick 20)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the order of measurements (1)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--from",
        dest="stored",
        action="append",
        metavar="RUN",
        help="print stored runs (directory or id, may be repeated) and measure nothing",
    )
    source.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="go on with a run, the newest one when none is named",
    )
    parser.add_argument("--json", action="store_true", help="print the comparison as one JSON object")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="where runs lie (results)"
    )
    after = parser.add_mutually_exclusive_group()
    after.add_argument(
        "--keep", dest="destroy", action="store_false", help="leave the testbed deployed (default)"
    )
    after.add_argument("--destroy", action="store_true", help="remove the testbed afterwards")
    parser.set_defaults(destroy=False)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code.  1 when a cell or a request failed, 130 when interrupted."""
    if args.stored:
        _refuse(args, "--from", ("quick", "payload", "repeat", "users", "requests", "seed", "destroy"))
        return _show(merge([load_run(find_run(args.results, name)) for name in args.stored]), args)
    begun = _begin(args)
    if isinstance(begun, Run) and not missing(begun.header.plan, begun.records):
        return _show(begun, args)
    with RunProgress() as progress:
        try:
            finished = _measure(begun, progress, args)
        except Interrupted:
            return INTERRUPTED
        if args.destroy:
            deploy.destroy(state_file=args.state, progress=progress.note)
    return _show(finished, args)


def _measure(begun: Run | Plan, progress: RunProgress, args: argparse.Namespace) -> Run:
    """Deploy if need be, measure what is missing, and leave the servers as they were found."""
    topology = _topology(begun, args)
    with (
        deploy.ensure_deployed(topology, progress=progress.note, state_file=args.state) as testbed,
        _interruptible(),
    ):
        serving = testbed.serving
        finished = _complete(testbed, begun, progress, args)
        if serving is not None and not args.destroy:
            testbed.start(load_variants()[serving])
    return finished


def _show(run: Run, args: argparse.Namespace) -> int:
    """Print the comparison of a run; the exit code.  Variants named on the command line choose from the run's."""
    known = [variant.label for variant in run.header.plan.variants]
    labels = (
        [variant.label for variant in name_variants(args.variants, load_variants())] if args.stored else known
    )
    foreign = [label for label in labels if label not in known]
    if foreign:
        raise UsageError(f"run {run.header.run} has no variant {foreign[0]}", f"it has {', '.join(known)}")
    comparison = compare(run.header, run.records, labels or known)
    if args.json:
        print(json.dumps(machine.as_json(comparison), allow_nan=False))
    else:
        terminal.show(comparison, sys.stdout)
    return 1 if comparison.failures or comparison.errors else 0


class Interrupted(BaseException):
    """The user or the system asked to end.  Not a KeyboardInterrupt, which Fabric's runner would swallow."""


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


def _refuse(args: argparse.Namespace, with_option: str, names: Sequence[str]) -> None:
    """UsageError when an option was given that has no meaning beside `with_option`."""
    for name in names:
        if getattr(args, name) not in (None, False):
            raise UsageError(
                f"--{name} has no meaning with {with_option}", "leave it out: the run knows its plan"
            )


def _positive(option: str, given: int | None, default: int) -> int:
    if given is not None and given < 1:
        raise UsageError(f"{option} is {given}", "it must be 1 or more")
    return default if given is None else given


def _begin(args: argparse.Namespace) -> Run | Plan:
    """What is to be measured: a stored run to go on with, or the plan of a new one.  Usage errors come from here."""
    if args.resume is None:
        return _plan(args)
    _refuse(args, "--resume", ("quick", "payload", "repeat", "users", "requests", "seed"))
    stored = load_run(find_run(args.results, args.resume or None))
    labels = [variant.label for variant in stored.header.plan.variants]
    if args.variants and args.variants != [variant.name for variant in stored.header.plan.variants]:
        raise UsageError(
            f"run {stored.header.run} compares {' '.join(labels)}, not {' '.join(args.variants)}",
            "name no variants with --resume, or start a new run",
        )
    return stored


def _plan(args: argparse.Namespace) -> Plan:
    variants = name_variants(args.variants, load_variants())
    if len(variants) < 2:
        raise UsageError("a comparison needs two variants or more", "try odb-testbed compare vanilla odb")
    load = QUICK if args.quick else FULL
    users = _positive("--users", args.users, load.users)
    requests = _positive("--requests", args.requests, load.requests_per_user)
    topology = _deployed_topology(args)
    cells = tuple(
        Cell(
            payload=payload,
            align=topology.align,
            tiers=topology.tiers,
            buffer_size=topology.buffer_size,
            buffering=topology.buffering,
            sendfile=topology.sendfile,
        )
        for payload in (parse_payloads(args.payload) if args.payload else DEFAULT_PAYLOADS)
    )
    return Plan(
        variants=variants,
        cells=cells,
        repetitions=_positive("--repeat", args.repeat, QUICK_REPETITIONS if args.quick else FULL_REPETITIONS),
        seed=1 if args.seed is None else args.seed,
        load=replace(load, users=users, requests_per_user=requests),
    )


def _deployed_topology(args: argparse.Namespace) -> Topology:
    """The topology that is deployed, the default one when nothing is."""
    state = StateStore(args.state).load()
    return state.topology if state is not None else Topology()


def _topology(begun: Run | Plan, args: argparse.Namespace) -> Topology:
    """The topology that the cells were drawn up for, with every payload that they ask for."""
    plan = begun if isinstance(begun, Plan) else begun.header.plan
    cell = plan.cells[0]
    base = replace(
        _deployed_topology(args),
        align=cell.align,
        tiers=cell.tiers,
        buffer_size=cell.buffer_size,
        buffering=cell.buffering,
        sendfile=cell.sendfile,
    )
    wanted = {one.payload for one in plan.cells}
    return (
        base
        if wanted <= set(base.payloads)
        else replace(base, payloads=tuple(sorted({*base.payloads, *wanted})))
    )


def _complete(testbed: Testbed, begun: Run | Plan, progress: RunProgress, args: argparse.Namespace) -> Run:
    """Measure what is missing and return the run as it lies on disk then."""
    environment = describe(testbed)
    if isinstance(begun, Plan):
        directory = create_run(args.results, begun, environment).directory
    else:
        directory = begun.directory
        differing = begun.header.environment.differences(environment)
        if differing:
            raise RecordError(
                f"run {begun.header.run} was measured in another environment: {', '.join(differing)} differ",
                "start a new run; records of different environments are not merged",
            )
    with only_writer(directory):
        stored = load_run(directory)
        progress.say(f"run {stored.header.run} in {directory}")
        todo = missing(stored.header.plan, stored.records)
        progress.expect(len(todo), [record.ended_at - record.started_at for record in stored.records])
        try:
            for step in todo:
                _record(testbed, stored, step, progress)
        except Interrupted:
            progress.say(f"interrupted; go on with: odb-testbed compare --resume {directory}")
            raise
    return load_run(directory)


def _record(testbed: Testbed, run: Run, step: Step, progress: RunProgress) -> None:
    """Measure one step and store its record."""
    progress.begin(step)
    with tempfile.TemporaryDirectory(prefix="odb-testbed-") as name:
        work = Path(name)
        record = measure.measure(testbed, run.header, step, work)
        save_record(run.directory, record, {file.name: file for file in work.iterdir()})
    progress.end(record.failure)
