"""Runs the transparency property for a given time with new cases each time: python -m tests.property.soak MINUTES [SEED]."""

from __future__ import annotations

import os
import sys

from tests.property.explore import explore
from tests.property.pool import Pool
from tests.property.reproduce import library


def main() -> int:
    """Exit code 1 when anything failed."""
    minutes = float(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}", file=sys.stderr)
    with Pool(library()) as pool:
        tally = explore(pool, minutes * 60, seed)
    print(tally.line())
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
