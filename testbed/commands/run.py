"""`odb-testbed run SPEC`: measures the matrix of a TOML file, resumable, and prints the comparison of its variants.

Cells that fail are recorded with their reason, and the rest goes on. Killed at any moment, `--resume` goes on from the records.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from testbed import deploy, thresholds
from testbed.campaign import Campaign, Interrupted
from testbed.commands import outcome
from testbed.errors import UsageError
from testbed.estimate import Estimator, earlier_records
from testbed.matrix import missing, steps
from testbed.output import print_table
from testbed.progress import RunProgress, clock
from testbed.record import Cell, Plan, encode
from testbed.runs import Run, find_run, load_run, repeated
from testbed.spec import Variant, parse_size
from testbed.specfile import Spec, load_spec, shipped
from testbed.state import StateStore

INTERRUPTED = 130
_SWITCHES = {"true": True, "on": True, "false": False, "off": False}

_EPILOG = f"""specs that come with the testbed: {", ".join(shipped())}; or name a .toml file

examples:
  odb-testbed run smoke                               two minutes
  odb-testbed run seed --dry-run                      the plan, and how long it will take
  odb-testbed run seed --repeat 3 --only payload=16k,256k --only align=true
  odb-testbed run seed --resume                       goes on with the newest run of this plan
  odb-testbed run seed --resume --repeat 8            the same, and adds repetitions up to 8
  odb-testbed run --resume results/runs/RUN           goes on with that one
  odb-testbed run bench-quick --ratios --destroy      what 'make bench' does: one table of ratios, switches included
  odb-testbed run bench --ratios --destroy --resume   the whole of it ('make bench BENCH=full RESUME=1')
  odb-testbed run smoke --fail-if 'is.cpu_us[256KiB] > 0.9' --json

Exit codes: 0 fine, 1 a cell or a request failed, 2 usage, 3 threshold, 4 environment (a full disk as well), 130 interrupted.
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "run",
        help="measure the matrix of a spec; resumable",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("spec", nargs="?", metavar="SPEC", help="a shipped spec or a .toml file")
    parser.add_argument("--repeat", type=int, metavar="N", help="repetitions instead of the spec's")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the order instead of the spec's")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="KEY=VALUE[,VALUE...]",
        help="keep only these cells or variants, such as payload=16k,64k or variant=odb; may be repeated",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="go on with a run (directory or id); the newest of this plan when none is named",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the plan and how long it will take")
    parser.add_argument(
        "--destroy",
        action="store_true",
        help="remove the testbed afterwards, unless it was deployed before",
    )
    outcome.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    known = outcome.known_variants(args)
    spec = _spec(args, known)
    limits = outcome.parse_thresholds([*(spec.fail_if if spec else ()), *args.fail_if])
    begun = _begin(args, spec)
    plan = begun if isinstance(begun, Plan) else begun.header.plan
    thresholds.check_plan(limits, plan)
    if args.dry_run:
        return _dry_run(begun, args)
    if isinstance(begun, Plan) or missing(plan, begun.records):
        with RunProgress() as progress:
            progress.say(_amount(begun, args.results))
            found = StateStore(args.state).load() is not None
            campaign = Campaign(results=args.results, state_file=args.state, progress=progress)
            try:
                begun = campaign.complete(begun, restore=known)
            except Interrupted:
                return INTERRUPTED
            finally:
                if args.destroy and not found:
                    deploy.destroy(state_file=args.state, progress=progress.note)
    assert isinstance(begun, Run)
    return outcome.show(begun, [], limits, as_json=args.json, as_ratios=args.ratios)


def _spec(args: argparse.Namespace, known: Mapping[str, Variant]) -> Spec | None:
    """The spec with the command line's changes to it; None where a run is named instead."""
    if args.repeat is not None and args.repeat < 1:
        raise UsageError(f"--repeat is {args.repeat}", "it must be 1 or more")
    if args.spec is None:
        if args.resume is None or args.repeat is not None or args.seed is not None or args.only:
            raise UsageError(
                "no spec is named" if args.resume is None else "a run that is named by --resume has its plan",
                f"name one of {', '.join(shipped())}, or a .toml file",
            )
        return None
    spec = load_spec(args.spec, known)
    plan = spec.plan
    if args.repeat is not None:
        plan = replace(plan, repetitions=args.repeat)
    if args.seed is not None:
        plan = replace(plan, seed=args.seed)
    for choice in args.only:
        plan = only(plan, choice)
    return replace(spec, plan=plan)


def only(plan: Plan, choice: str) -> Plan:
    """The plan with only what `KEY=VALUE,VALUE` chooses; UsageError when a value chooses nothing."""
    key, _, values = choice.partition("=")
    words = [word.strip() for word in values.split(",")]
    if key == "variant":
        labels = [variant.label for variant in plan.variants]
        _require_found(choice, words, labels)
        kept = tuple(one for one in plan.variants if one.label in words)
        at = {
            slug: tuple(label for label in labels if label in words)
            for slug, labels in plan.variants_at.items()
        }
        return replace(plan, variants=kept, variants_at=at)
    names = [name for name in Cell.__dataclass_fields__ if name != "strategy"]
    if key not in names:
        raise UsageError(
            f"--only {choice}: there is no {key!r}", f"choose from {', '.join([*names, 'variant'])}"
        )
    wanted = [_cell_value(choice, key, word) for word in words]
    _require_found(choice, wanted, list(dict.fromkeys(getattr(cell, key) for cell in plan.cells)))
    cells = tuple(cell for cell in plan.cells if getattr(cell, key) in wanted)
    slugs = {cell.slug for cell in cells}
    at = {slug: labels for slug, labels in plan.variants_at.items() if slug in slugs}
    return replace(plan, cells=cells, variants_at=at)


def _cell_value(choice: str, key: str, word: str) -> object:
    if key == "payload":
        return parse_size(word, f"--only {choice}: payload")
    if key == "tiers":
        return int(word) if word.isdigit() else word
    if key in ("align", "buffering", "sendfile"):
        return _SWITCHES.get(word, word)
    return word


def _require_found(choice: str, wanted: Sequence[object], there: Sequence[object]) -> None:
    for value in wanted:
        if value not in there:
            raise UsageError(
                f"--only {choice}: the spec has no {value!r}", f"it has {', '.join(map(str, there))}"
            )


def _begin(args: argparse.Namespace, spec: Spec | None) -> Run | Plan:
    """What is to be measured: the plan of a new run, or a stored run to go on with."""
    if args.resume is None:
        assert spec is not None
        return spec.plan
    if args.resume or spec is None:
        stored = load_run(find_run(args.results, args.resume or None))
        if spec is not None and not _same_but_repetitions(stored.header.plan, spec.plan):
            raise UsageError(
                f"run {stored.header.run} has another plan than {args.spec}: {_difference(stored.header.plan, spec.plan)}",
                "name no spec with --resume RUN, or start a new run",
            )
        return repeated(stored, args.repeat)
    headers = sorted((args.results / "runs").glob("[!.]*/run.json"), reverse=True)
    fitting: Run | None = None
    for header in headers:
        stored = load_run(header.parent)
        if stored.header.plan == spec.plan:
            return stored
        if fitting is None and _same_but_repetitions(stored.header.plan, spec.plan):
            fitting = stored
    if fitting is not None:
        return repeated(fitting, spec.plan.repetitions)
    # It may have been killed before it had a directory.
    print(f"there is no run of this plan of {args.spec} yet: it begins now", file=sys.stderr)
    return spec.plan


def _same_but_repetitions(stored: Plan, wanted: Plan) -> bool:
    """Whether a run of the one plan can become one of the other by more repetitions of the same measurements."""
    return replace(stored, repetitions=wanted.repetitions) == wanted


def _difference(stored: Plan, wanted: Plan) -> str:
    names = [name for name in Plan.__dataclass_fields__ if getattr(stored, name) != getattr(wanted, name)]
    return f"{', '.join(names)} {'differs' if len(names) == 1 else 'differ'}"


def _amount(begun: Run | Plan, results: Path) -> str:
    """How many measurements there are, and how long those that are missing will take."""
    plan = begun if isinstance(begun, Plan) else begun.header.plan
    done = () if isinstance(begun, Plan) else begun.records
    todo = missing(plan, done)
    seconds = Estimator(plan, [*earlier_records(results, plan), *done]).total(todo)
    variants = (
        f"{len(plan.variants)} variants" if not plan.variants_at else f"up to {len(plan.variants)} variants"
    )
    return (
        f"{len(plan.cells)} cells x {variants} x {plan.repetitions} repetitions = "
        f"{len(steps(plan))} measurements, {len(todo)} to make: about {clock(seconds)}"
    )


def _dry_run(begun: Run | Plan, args: argparse.Namespace) -> int:
    """Print what would be measured, in its order, and how long it will take."""
    plan = begun if isinstance(begun, Plan) else begun.header.plan
    done = () if isinstance(begun, Plan) else begun.records
    todo = missing(plan, done)
    estimator = Estimator(plan, [*earlier_records(args.results, plan), *done])
    seconds = estimator.total(todo)
    if args.json:
        made = {
            "schema": 1,
            "plan": encode(plan),
            "steps": len(steps(plan)),
            "missing": [
                {
                    "sequence": step.sequence,
                    "repetition": step.repetition,
                    "cell": encode(step.cell),
                    "variant": step.variant.label,
                    "seconds": round(estimator.seconds(step), 1),
                }
                for step in todo
            ],
            "seconds": round(seconds, 1),
        }
        print(json.dumps(made))
        return 0
    rows = [(str(step.sequence + 1), step.title, f"{estimator.seconds(step):.0f} s") for step in todo]
    print_table(("step", "measurement", "estimate"), rows)
    print(_amount(begun, args.results))
    print(
        f"records would go to {Path(args.results) / 'runs'}; nothing was deployed or measured",
        file=sys.stderr,
    )
    return 0
