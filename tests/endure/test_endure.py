"""A few seconds of what `make endure` does for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.chain import missing_tools
from tests.endure.rig import PROCESSES
from tests.endure.run import Plan, endure

pytestmark = pytest.mark.e2e


def test_fast_clients_beside_aborting_and_slow_ones_get_every_byte(library: Path) -> None:
    missing = missing_tools("nginx")
    if missing:
        pytest.skip(f"{missing} is not installed")
    phases: list[str] = []
    plan = Plan(4, fast=6, aborting=6, slow=4, vanilla=False, turn=0.5)
    endured = endure(plan, library, lambda phase, *_: phases.append(phase), lambda left: None)
    assert endured.problems() == []
    assert phases == ["calm", "adverse"]
    seen = endured.adverse["odb"].tallies
    assert seen["fast"].good > 20
    assert seen["aborting"].aborted > 5
    assert seen["slow"].bytes > 0
    assert set(endured.samples["odb"]) == set(PROCESSES)
    counted = {name: samples[-1] for name, samples in endured.samples["odb"].items()}
    assert counted["be"].payloads > 0
    assert all(sample.memory > 0 and sample.descriptors > 0 for sample in counted.values())
