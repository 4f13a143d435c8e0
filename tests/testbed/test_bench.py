"""One cell as a bench measures it: CPU under a load, then calls of every tier in a window of their own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from testbed.runs import find_run, load_run
from tests.testbed.bench import Bench

SPEC = """
variants = ["odb"]
repetitions = 1
[matrix]
payload = ["64k"]
[load.short]
model = "closed"
generator = "wrk"
users = 8
seconds = 1
traced_seconds = 1
"""


@pytest.mark.timeout(200)
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")
def test_a_cell_has_calls_and_counters_of_every_tier(bench: Bench, tmp_path: Path) -> None:
    spec = tmp_path / "one.toml"
    spec.write_text(SPEC)
    done = bench.run("run", str(spec), "--ratios", results=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "64 KiB, 1 intermediary" in done.stdout
    (record,) = load_run(find_run(tmp_path, None)).records
    assert record.calls is not None and record.calls.reason is None
    assert set(record.calls.calls) == {"fe", "is1", "be"}
    for calls in record.calls.calls.values():
        # The kernel knows one wait by several names.
        assert sum(count for name, count in calls.items() if name.startswith("epoll_")) > 0
    found = {name: metric.value for name, metric in record.metrics.items()}
    for tier in ("fe", "is", "be"):
        # A proxied request takes some calls; tracing that missed a server or counted another load would show here.
        assert 2 < (found[f"{tier}.calls"] or 0) < 100, tier
    assert found["is.fetches"] == 0
    assert 0 <= (found["is.guard_calls"] or 0) < 20
    assert 0 < (found["is.bytes"] or 0) < 65536
