"""Runs one case of the transparency property with new processes: python -m tests.property.reproduce CASE [--times N]."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.property.cases import Case
from tests.property.check import Mismatch, Nonsense, Tally, check, reproduction
from tests.property.minimise import minimise
from tests.property.pool import Pool


def library() -> Path:
    """The one that was built for the tests, unless ODB_LIBRARY names another one."""
    built = Path(__file__).resolve().parents[2] / "build" / "dev" / "libodb.so"
    return Path(os.environ.get("ODB_LIBRARY", built))


def main() -> int:
    """Exit code 1 when the case fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", help="what a failure of the test or of the soak prints")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="how often to try (%(default)s)")
    parser.add_argument("--minimise", action="store_true", help="also look for a simpler case that fails")
    parsed = parser.parse_args()
    tally = Tally()
    kinds: set[str] = set()

    with Pool(library()) as pool:

        def fails(case: Case) -> bool:
            for _ in range(parsed.times):
                try:
                    check(pool, case, tally)
                except Mismatch as error:
                    print(error, flush=True)
                    if not kinds:
                        kinds.add(error.kind)
                    return error.kind in kinds
                except Nonsense as error:
                    print(f"not counted: {error}", flush=True)
                    return False
            return False

        failed = fails(Case.loads(parsed.case))
        if failed and parsed.minimise:
            print(f"least: {reproduction(minimise(Case.loads(parsed.case), fails))}")
    print(tally.line())
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
