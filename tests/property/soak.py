"""Runs the transparency property for a given time with new cases each time: python -m tests.property.soak MINUTES [SEED]."""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.property.check import Mismatch, Tally, keep_alive
from tests.property.explore import explore
from tests.property.pool import NotStarted, Pool
from tests.property.reproduce import library

REPORT_SECONDS = 20.0
KEEPALIVE_REQUESTS = 100_000
KEEPALIVE_PER_SECOND = 20_000 / 60
"""Requests on one connection that is kept alive, per second of the whole time: enough for all of them in five minutes."""


class Progress:
    """Says every now and then, on standard error, what there is so far and how long it will take still."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._next = time.monotonic() + REPORT_SECONDS
        self._said = 0

    def __call__(self, tally: Tally) -> None:
        for failure in tally.failures[self._said :]:
            print(f"{failure}\n", file=sys.stderr, flush=True)
        self._said = len(tally.failures)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REPORT_SECONDS
            left = max(0, round(self._end - now))
            print(f"{tally.line()}; {left // 60}:{left % 60:02} left", file=sys.stderr, flush=True)


def main() -> int:
    """Exit code 1 when anything failed, 2 for wrong arguments, 4 when `odb run` refuses."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("minutes", type=float, help="how long, e.g. 5; a failure is made smaller beyond that")
    parser.add_argument("seed", type=int, nargs="?", help="of the cases; a new one for each run if not given")
    parsed = parser.parse_args()
    if not 0 < parsed.minutes <= 100_000:
        parser.error(f"{parsed.minutes} minutes is not possible: use a number above 0, e.g. make soak SOAK=5")
    seed = int.from_bytes(os.urandom(4), "big") if parsed.seed is None else parsed.seed
    print(f"soak: {parsed.minutes:g} minutes, seed {seed}", file=sys.stderr, flush=True)
    try:
        tally = soak(parsed.minutes * 60, seed)
    except NotStarted as error:
        print(f"soak: {error}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        return 130
    print(tally.line())
    return 1 if tally.failures or tally.mismatches or tally.stalls else 0


def soak(seconds: float, seed: int) -> Tally:
    """One long connection, then drawn cases for the rest of the time."""
    progress = Progress(seconds)
    end = time.monotonic() + seconds
    tally = Tally()
    with Pool(library()) as pool:
        try:
            keep_alive(pool, min(KEEPALIVE_REQUESTS, round(seconds * KEEPALIVE_PER_SECOND)), tally)
        except Mismatch as error:
            tally.failures.append(str(error))
        return explore(pool, end - time.monotonic(), seed, tally=tally, progress=progress)


if __name__ == "__main__":
    sys.exit(main())
