"""Two FEs behind one IS, with fast, aborting and slow clients: python -m tests.endure MINUTES. See `make endure`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.e2e.chain import missing_tools
from tests.endure.clients import Tally
from tests.endure.rig import Sample
from tests.endure.run import Plan, Seen, endure
from tests.property.reproduce import library

HEAD = f"{'':8} {'':8} {'fast/s':>8} {'aborted':>8} {'slow KiB/s':>10} {'mismatch':>8} {'stalls':>6} {'failed':>6}"
PROCESS_HEAD = f"{'':8} {'':8} {'memory MiB':>10} {'fds':>6} {'windows':>8} {'payloads':>8} {'store MiB':>9}"
LINE_SECONDS = 30.0
"""Between two lines of progress where standard error is no terminal."""


class Report:
    """Tables on standard output, a line of progress on standard error."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._minute = 0
        self._next_line = seconds - LINE_SECONDS

    def tell(self, phase: str, seen: dict[str, Seen], processes: dict[str, dict[str, Sample]]) -> None:
        self._clear()
        self._minute += 1
        both = sum(each.active for each in seen.values())
        print(f"-- {self._minute}: {phase}, {both:.0f} s\n{HEAD}")
        for rig, each in seen.items():
            tally = Tally()
            for kind in each.tallies.values():
                tally.add(kind)
            slow = each.tallies["slow"].bytes / 1024 / both
            failed = sum(tally.problems.values()) - tally.problems["mismatch"]
            print(
                f"{rig:8} {'':8} {each.fast_per_second:8.0f} {tally.aborted:8} {slow:10.1f}"
                f" {tally.mismatches:8} {tally.stalls:6} {failed:6} {dict(tally.problems) or ''}"
            )
        print(PROCESS_HEAD)
        for rig, samples in processes.items():
            for process, look in samples.items():
                print(
                    f"{rig:8} {process:8} {look.memory / 1048576:10.1f} {look.descriptors:6} {look.windows:8}"
                    f" {look.payloads:8} {look.store / 1048576:9.1f}"
                )
        sys.stdout.flush()

    def progress(self, left: float) -> None:
        done = min(1.0, max(0.0, 1 - left / self._seconds))
        seconds = max(0, round(left))
        text = f"{done:4.0%}, {seconds // 60}:{seconds % 60:02} left"
        if sys.stderr.isatty():
            print(f"\r[{'#' * round(30 * done):30}] {text} ", end="", file=sys.stderr, flush=True)
        elif left <= self._next_line:
            self._next_line = left - LINE_SECONDS
            print(f"endure: {text}", file=sys.stderr, flush=True)

    @staticmethod
    def _clear() -> None:
        if sys.stderr.isatty():
            print("\r" + " " * 60 + "\r", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Exit code 1 when something grows, stalls, fails or is wrong, 2 for wrong arguments, 4 when nginx is missing."""
    parser = argparse.ArgumentParser(prog="endure", description=__doc__)
    parser.add_argument("minutes", type=float, help="how long, e.g. 10")
    parser.add_argument("--fast", type=int, default=12, metavar="N", help="fast clients (%(default)s)")
    parser.add_argument("--aborting", type=int, default=8, metavar="N", help="aborting clients (%(default)s)")
    parser.add_argument("--slow", type=int, default=8, metavar="N", help="slow clients per rig (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of ODB")
    parsed = parser.parse_args()
    if not 0 < parsed.minutes <= 100_000:
        parser.error(
            f"{parsed.minutes:g} minutes is not possible: use a number above 0, e.g. make endure MINUTES=10"
        )
    if missing := missing_tools("nginx"):
        print(f"endure: {missing} is not installed: run make setup", file=sys.stderr)
        return 4
    options = dict(word.partition("=")[::2] for word in parsed.set)
    seconds = parsed.minutes * 60
    report = Report(seconds)
    plan = Plan(seconds, parsed.fast, parsed.aborting, parsed.slow, options=options)
    try:
        endured = endure(plan, Path(library()), report.tell, report.progress)
    except KeyboardInterrupt:
        return 130
    except (AssertionError, RuntimeError) as error:
        print(f"endure: {error}", file=sys.stderr)
        return 1
    for phase, seen in (("calm", endured.calm), ("adverse", endured.adverse)):
        rates = ", ".join(f"{rig} {each.fast_per_second:.0f}" for rig, each in seen.items())
        print(f"{phase}: requests of fast clients per second: {rates}")
    problems = endured.problems()
    for sentence in problems:
        print(f"endure: {sentence}")
    print("endured" if not problems else "not endured")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
