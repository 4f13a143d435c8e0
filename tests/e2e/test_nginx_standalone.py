"""Mode `standalone` with nginx: without rules, every mixture of tiers with and without the library serves the same."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from odb import stats
from tests.e2e.chain import TIERS, Settings, Tier
from tests.e2e.client import get
from tests.e2e.conftest import MakeChain
from tests.ports import free_port

PATHS = ("/0.bin", "/4096.bin", "/65536.bin", "/100000.bin", "/1048576.bin")
TROUBLE = ("protocol_errors", "resets", "fetch_failures")
MIXTURES = [
    frozenset(names) for count in range(len(TIERS) + 1) for names in itertools.combinations(TIERS, count)
]


def counters_of(tier: Tier, statistics: Path) -> dict[str, int]:
    sums: dict[str, int] = {}
    for pid in [tier.master, *tier.workers()]:
        for name, value in stats.read(statistics, pid).totals().items():
            sums[name] = sums.get(name, 0) + value
    return sums


@pytest.mark.parametrize("libraries", MIXTURES, ids=lambda names: "+".join(sorted(names)) or "none")
def test_tiers_find_out_by_themselves_who_speaks_odb(
    make_chain: MakeChain, open_folder: Path, files: dict[str, bytes], libraries: frozenset[str]
) -> None:
    """The processes of one host have one stats_dir, as by default: so they know of each other at once."""
    statistics = open_folder / "statistics"
    options = {
        "mode": "standalone",
        "listen": "",
        "connect": "",
        "stats_dir": str(statistics),
        "discovery_port": str(free_port()),
    }
    chain = make_chain(Settings(libraries=libraries, options=options))
    for path in PATHS * 2:
        assert get(chain.port, path).body == files[path], path
    counters = {tier.name: counters_of(tier, statistics) for tier in chain}
    assert (counters["be"].get("spans_sent", 0) > 0) == {"be", "is"}.issubset(libraries)
    assert (counters["is"].get("spans_sent", 0) > 0) == {"is", "fe"}.issubset(libraries)
    for each in counters.values():
        assert not any(each.get(name, 0) for name in TROUBLE)
