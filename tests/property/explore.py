"""Draws cases for a given time and collects what fails; the test and the soak are two callers of it."""

from __future__ import annotations

import sys
import time

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from tests.property.cases import Case, cases
from tests.property.check import Mismatch, Tally, check
from tests.property.pool import Pool

FAILURES_MAX = 5
REPORT_SECONDS = 60.0


class Enough(BaseException):
    """The time is up, or there is enough to look at. No Exception: hypothesis would take it for a failing case."""


def explore(pool: Pool, seconds: float, seed: int, *, failures_max: int = FAILURES_MAX) -> Tally:
    """Goes on behind a failure, until there are several. The failures, each with its reproduction, are in the tally."""
    tally = Tally()
    end = time.monotonic() + seconds
    report = time.monotonic() + REPORT_SECONDS

    @settings(
        max_examples=500,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def holds(case: Case) -> None:
        nonlocal report
        if time.monotonic() > end or len(tally.failures) >= failures_max:
            raise Enough
        if time.monotonic() > report:
            report += REPORT_SECONDS
            print(tally.line(), file=sys.stderr, flush=True)
        try:
            check(pool, case, tally)
        except Mismatch as error:
            tally.failures.append(str(error))
            print(f"{error}\n", file=sys.stderr, flush=True)

    try:
        while True:
            # A seed of its own for each round: the rounds must not repeat each other.
            seeded(seed)(holds)()
            seed += 1
    except Enough:
        return tally
