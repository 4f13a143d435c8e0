"""Draws cases for a given time and collects what fails; the test and the soak are two callers of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from tests.property.cases import Case, cases
from tests.property.check import Mismatch, Nonsense, Tally, check, reproduction
from tests.property.minimise import minimise
from tests.property.pool import Pool

FAILURES_MAX = 5
ROUND = 200
"""Cases that share a few sets of options: each set costs the start of some processes."""
NUMBERS = 6
HASTE = 3.0
"""Patience, in seconds, with a case that is known to stall."""


class Enough(BaseException):
    """The time is up, or there is enough to look at. No Exception: hypothesis would take it for a failing case."""


def explore(
    pool: Pool,
    seconds: float,
    seed: int,
    *,
    tally: Tally | None = None,
    failures_max: int = FAILURES_MAX,
    shrink_seconds: float = 30.0,
    progress: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Goes on behind a failure, until there are several. The failures, each with its reproduction, are in the tally.

    A failing case is made smaller for at most `shrink_seconds`. tally: what it is added to. progress: called before each case.
    """
    tally = Tally() if tally is None else tally
    end = time.monotonic() + seconds

    def holds(case: Case) -> None:
        if time.monotonic() > end or len(tally.failures) >= failures_max:
            raise Enough
        progress(tally)
        try:
            check(pool, case, tally)
        except Mismatch as error:
            smaller = shrunk(pool, case, error.kind, shrink_seconds)
            tally.failures.append(f"{error}\nminimised:    {reproduction(smaller)}")
        except Nonsense as error:
            tally.failures.append(str(error))

    number = 1 + seed % 100_000 * 1000
    try:
        while True:
            # A seed of its own for each round: the rounds must not repeat each other.
            limits = settings(
                max_examples=ROUND,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            seeded(seed)(limits(given(cases(number, NUMBERS))(holds)))()
            seed += 1
            number += NUMBERS
    except Enough:
        return tally


def shrunk(pool: Pool, case: Case, kind: str, seconds: float) -> Case:
    """The smallest case found in that time that fails in the same way."""
    end = time.monotonic() + seconds

    def fails(simpler: Case) -> bool:
        if time.monotonic() > end:
            return False
        try:
            check(pool, simpler, Tally(), HASTE)
        except Mismatch as error:
            return error.kind == kind
        except Nonsense:
            return False
        return False

    return minimise(case, fails)
