"""`odb-testbed profile VARIANT`: samples every tier under load and draws a flame graph of each.

Deploys if nothing is deployed.  Writes RESULTS/profile/TIME-VARIANT-PAYLOAD/ROLE.svg, the folded stacks beside it (ROLE.folded)
and profile.json, and prints in whose code each tier was.  perf comes with the package linux-perf.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from testbed import deploy, measure
from testbed.commands import outcome
from testbed.errors import UsageError
from testbed.load import LoadPlan
from testbed.loadrun import run_load
from testbed.matrix import use_variant
from testbed.output import print_table, progress_printer
from testbed.profiling import flame
from testbed.profiling.capture import capture, require_perf
from testbed.profiling.stacks import KINDS, Stack, busiest, by_kind, folded
from testbed.record import Cell, LoadResult, encode, size_name
from testbed.session import Testbed
from testbed.spec import Topology, Variant, parse_size, pick_variant
from testbed.specfile import topology_of
from testbed.state import StateStore

_BUSIEST = 8
_WARMUP_SECONDS = 1.0

_EPILOG = """examples:
  odb-testbed profile odb                                 64 KiB, 32 connections, 5 seconds
  odb-testbed profile vanilla --payload 1m --buffer-size 64k
  odb-testbed profile odb --set coalesce=off --seconds 10
  odb-testbed profile odb --tiers 3 --sendfile off --destroy
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "profile",
        help="sample every tier under load and draw flame graphs",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("variant", nargs="?", default="odb", metavar="VARIANT", help="what is run (odb)")
    parser.add_argument("--payload", default="64k", metavar="SIZE", help="size of the bodies (64k)")
    parser.add_argument(
        "--buffer-size", default="16k", metavar="SIZE", help="nginx's proxy_buffer_size (16k)"
    )
    parser.add_argument("--sendfile", choices=("on", "off"), default="on", help="nginx's sendfile (on)")
    parser.add_argument("--tiers", type=int, default=1, metavar="N", help="intermediaries (1)")
    parser.add_argument("--users", type=int, default=32, metavar="N", help="connections of the load (32)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="how long it runs (5)")
    parser.add_argument("--frequency", type=int, default=499, metavar="HZ", help="samples a second (499)")
    parser.add_argument(
        "--set",
        dest="options",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the library, such as coalesce=off; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print what was found as one JSON object")
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="where profiles lie (results)"
    )
    parser.add_argument("--variants-file", type=Path, metavar="FILE", help="variants of your own")
    parser.add_argument(
        "--destroy", action="store_true", help="remove the testbed afterwards, unless it was deployed before"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    known = outcome.known_variants(args)
    variant = _variant(args, known)
    topology = _topology(args)
    progress = progress_printer()
    found = StateStore(args.state).load() is not None
    try:
        with deploy.ensure_deployed(topology, progress=progress, state_file=args.state) as testbed:
            require_perf(testbed)
            result, stacks = _profile(testbed, variant, known, args)
    finally:
        if args.destroy and not found:
            deploy.destroy(state_file=args.state, progress=progress)
    directory = _store(args, variant, result, stacks)
    _show(args, directory, result, stacks)
    return 0


def _variant(args: argparse.Namespace, known: Mapping[str, Variant]) -> Variant:
    """The variant with the options of the command line on top."""
    variant = pick_variant(known, args.variant)
    options = dict(variant.options)
    for text in args.options:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {text!r}", "write it as key=value, such as --set coalesce=off")
        options[key] = value
    if options and not variant.odb:
        raise UsageError(f"--set {args.options[0]}: {variant.name} is without the library", "leave it out")
    return replace(variant, options=options)


def _topology(args: argparse.Namespace) -> Topology:
    for name, least, most in (("users", 1, 10_000), ("seconds", 1, 600), ("frequency", 1, 10_000)):
        if not least <= getattr(args, name) <= most:
            raise UsageError(f"--{name} is {getattr(args, name)}", f"it must be from {least} to {most}")
    state = StateStore(args.state).load()
    cell = Cell(
        parse_size(args.payload, "--payload"),
        tiers=args.tiers,
        buffer_size=args.buffer_size,
        sendfile=args.sendfile == "on",
    )
    topology = topology_of(cell, state.topology if state is not None else None)
    return replace(topology, clients=max(topology.clients, args.users))


def _profile(
    testbed: Testbed, variant: Variant, known: Mapping[str, Variant], args: argparse.Namespace
) -> tuple[LoadResult, dict[str, Counter[Stack]]]:
    """Start the variant, verify it, load it and sample it; afterwards the servers are as they were before."""
    say, served = progress_printer(), known.get(testbed.serving or "")
    target = LoadPlan(
        url=testbed.front_url(),
        payloads=(parse_size(args.payload),),
        users=args.users,
        seconds=args.seconds,
    )
    try:
        measure.clear(testbed)
        say(f"starting and verifying {variant.name}")
        testbed.start(variant)
        measure.verify(testbed, use_variant(variant, variant.name))
        run_load(testbed, replace(target, seconds=_WARMUP_SECONDS))
        say(f"sampling every tier for {args.seconds:g} s")
        with tempfile.TemporaryDirectory(prefix="odb-testbed-") as work:
            found = capture(testbed, target, frequency=args.frequency, work=Path(work))
    finally:
        testbed.stop()
    if served is not None:
        testbed.start(served)
    return found


def _store(
    args: argparse.Namespace, variant: Variant, result: LoadResult, stacks: Mapping[str, Counter[Stack]]
) -> Path:
    """Write graphs, stacks and what they are of; the directory."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(result.started_at))
    directory = Path(args.results) / "profile" / f"{moment}-{variant.name}-{args.payload.lower()}"
    directory.mkdir(parents=True, exist_ok=True)
    size = size_name(parse_size(args.payload))
    changed = "".join(f", {text}" for text in args.options)
    for role, found in stacks.items():
        title = f"{role.upper()}: {variant.name}{changed}, {size}, buffers {args.buffer_size}, {args.users} connections"
        (directory / f"{role}.svg").write_text(flame.draw(found, title), encoding="utf-8")
        (directory / f"{role}.folded").write_text("\n".join(folded(found)) + "\n", encoding="utf-8")
    made = json.dumps(_summary(args, directory, result, stacks), indent=1)
    (directory / "profile.json").write_text(made + "\n", encoding="utf-8")
    return directory


def _summary(
    args: argparse.Namespace, directory: Path, result: LoadResult, stacks: Mapping[str, Counter[Stack]]
) -> dict[str, Any]:
    return {
        "schema": 1,
        "directory": str(directory),
        "variant": args.variant,
        "options": args.options,
        "payload": parse_size(args.payload),
        "buffer_size": args.buffer_size,
        "sendfile": args.sendfile,
        "tiers": args.tiers,
        "users": args.users,
        "frequency": args.frequency,
        "load": {
            name: value
            for name, value in dict(encode(result)).items()  # type: ignore[arg-type]
            if name not in ("histogram", "error_kinds")
        },
        "profiles": {
            role: {
                "samples": found.total(),
                "running": by_kind(found),
                "busiest": [
                    {"function": frame.name, "kind": frame.kind, "samples": count}
                    for frame, count in busiest(found, _BUSIEST)
                ],
            }
            for role, found in stacks.items()
        },
    }


def _show(
    args: argparse.Namespace, directory: Path, result: LoadResult, stacks: Mapping[str, Counter[Stack]]
) -> None:
    if args.json:
        print(json.dumps(_summary(args, directory, result, stacks)))
        return
    rows = []
    for role, found in stacks.items():
        total = found.total()
        shares = [f"{count / total:.1%}" for count in by_kind(found).values()]
        names = ", ".join(f"{frame.name} {count / total:.0%}" for frame, count in busiest(found, 4))
        rows.append((role, str(total), *shares, names))
    print_table(("tier", "samples", *KINDS, "busiest functions"), rows)
    print(f"{directory}/: {', '.join(f'{role}.svg' for role in stacks)}")
