"""`odb-testbed compare A B ...`: measures variants under equal load and prints how they differ.

Deploys if nothing is deployed, measures what the run still lacks, and prints the comparison; `--from` only prints.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace

from testbed import deploy, thresholds
from testbed.campaign import Campaign, Interrupted
from testbed.commands import outcome
from testbed.errors import UsageError
from testbed.matrix import missing, name_variants, parse_payloads
from testbed.progress import RunProgress
from testbed.record import Cell, LoadPlan, Plan
from testbed.runs import Run, find_run, load_run, merge, repeated
from testbed.spec import DEFAULT_PAYLOADS, Topology, Variant
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
  odb-testbed compare vanilla odb x-accel haproxy-splice --quick
  odb-testbed compare vanilla odb --payload 64K --repeat 5 --fail-if 'is.cpu_us[64KiB] > 0.8'
  odb-testbed compare --resume                        goes on with the newest run
  odb-testbed compare --resume RUN --repeat 8         adds repetitions to a run, up to 8
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
    parser.add_argument("--users", type=int, metavar="N", help="clients of a load (1000, with --quick 75)")
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
    outcome.add_arguments(parser)
    after = parser.add_mutually_exclusive_group()
    after.add_argument(
        "--keep", dest="destroy", action="store_false", help="leave the testbed deployed (default)"
    )
    after.add_argument("--destroy", action="store_true", help="remove the testbed afterwards")
    parser.set_defaults(destroy=False)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code.  1 when a cell or a request failed, 130 when interrupted."""
    known = outcome.known_variants(args)
    limits = outcome.parse_thresholds(args.fail_if)
    if args.stored:
        _refuse(args, "--from", ("quick", "payload", "repeat", "users", "requests", "seed", "destroy"))
        stored = merge([load_run(find_run(args.results, name)) for name in args.stored])
        return outcome.show(stored, _labels(args.variants), limits, as_json=args.json, as_ratios=args.ratios)
    begun = _begin(args, known)
    plan = begun if isinstance(begun, Plan) else begun.header.plan
    thresholds.check_plan(limits, plan)
    if isinstance(begun, Plan) or missing(plan, begun.records):
        with RunProgress() as progress:
            campaign = Campaign(results=args.results, state_file=args.state, progress=progress)
            try:
                begun = campaign.complete(begun, restore={} if args.destroy else known)
            except Interrupted:
                return INTERRUPTED
            if args.destroy:
                deploy.destroy(state_file=args.state, progress=progress.note)
    assert isinstance(begun, Run)
    return outcome.show(begun, [], limits, as_json=args.json, as_ratios=args.ratios)


def _labels(names: Sequence[str]) -> list[str]:
    """The labels of variants of a stored run as a user names them; one named again means its second use."""
    counts: dict[str, int] = {}
    labels = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        labels.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return labels


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


def _begin(args: argparse.Namespace, known: Mapping[str, Variant]) -> Run | Plan:
    """What is to be measured: a stored run to go on with, or the plan of a new one.  Usage errors come from here."""
    if args.resume is None:
        return _plan(args, known)
    _refuse(args, "--resume", ("quick", "payload", "users", "requests", "seed"))
    stored = load_run(find_run(args.results, args.resume or None))
    labels = [variant.label for variant in stored.header.plan.variants]
    if args.variants and args.variants != [variant.name for variant in stored.header.plan.variants]:
        raise UsageError(
            f"run {stored.header.run} compares {' '.join(labels)}, not {' '.join(args.variants)}",
            "name no variants with --resume, or start a new run",
        )
    if args.repeat is not None:
        _positive("--repeat", args.repeat, FULL_REPETITIONS)
    return repeated(stored, args.repeat)


def _plan(args: argparse.Namespace, known: Mapping[str, Variant]) -> Plan:
    variants = name_variants(args.variants, known)
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
            touch=topology.touch,
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
