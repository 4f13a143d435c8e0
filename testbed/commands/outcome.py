"""How `run` and `compare` end: the comparison of a run on standard output, thresholds, and the exit code."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from testbed import thresholds
from testbed.analysis import compare
from testbed.errors import ThresholdError, UsageError
from testbed.report import machine, ratios, terminal
from testbed.runs import Run
from testbed.spec import Variant, load_variants
from testbed.thresholds import Threshold


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that both commands have."""
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="THRESHOLD",
        help="end with exit code 3 if this holds anywhere, such as 'is.cpu_us[256KiB] > 0.5' (ratio to the baseline) "
        "or 'latency.p99_us[odb] > 20ms'; may be repeated",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the comparison as one JSON object")
    form.add_argument(
        "--ratios", action="store_true", help="print one table: a line of ratios per cell and variant"
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="where runs lie (results)"
    )
    parser.add_argument(
        "--variants-file",
        type=Path,
        metavar="FILE",
        help="variants of your own instead of those that come along",
    )


def known_variants(args: argparse.Namespace) -> dict[str, Variant]:
    """The variants that the command line means."""
    return load_variants(args.variants_file)


def parse_thresholds(texts: Sequence[str]) -> list[Threshold]:
    """The thresholds that were asked for; UsageError names a bad one."""
    return [thresholds.parse(text) for text in texts]


def show(
    run: Run, labels: Sequence[str], limits: Sequence[Threshold], *, as_json: bool, as_ratios: bool = False
) -> int:
    """Print the comparison of the variants `labels`; the exit code: 1 when a cell or a request failed.

    ThresholdError, after everything was printed, when a threshold was passed and nothing failed.
    """
    known = [variant.label for variant in run.header.plan.variants]
    foreign = [label for label in labels if label not in known]
    if foreign:
        raise UsageError(f"run {run.header.run} has no variant {foreign[0]}", f"it has {', '.join(known)}")
    thresholds.check_plan(limits, run.header.plan)
    comparison = compare(run.header, run.records, labels or known)
    passed = list(thresholds.violations(comparison, limits))
    if as_json:
        print(json.dumps(machine.as_json(comparison), allow_nan=False))
    else:
        (ratios if as_ratios else terminal).show(comparison, sys.stdout)
    sys.stdout.flush()
    if comparison.failures or comparison.errors:
        for violation in passed:
            print(f"threshold: {violation}", file=sys.stderr)
        return 1
    if passed:
        raise ThresholdError("; ".join(passed))
    return 0
