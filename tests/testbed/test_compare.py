"""A real, tiny comparison: deployed hosts, real nginx and Locust, records that survive being killed."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from testbed.runs import find_run, load_run
from testbed.session import Testbed
from testbed.spec import PAYLOAD_DIRECTORY
from tests.testbed.bench import Bench

TINY = ("--payload", "64K", "--repeat", "1", "--users", "8", "--requests", "10")
REQUESTS = 80
BODY = f"{PAYLOAD_DIRECTORY}/payload/65536.bin"


@pytest.fixture(scope="module")
def compared(bench: Bench) -> dict[str, Any]:
    """The JSON of one comparison of equals."""
    done = bench.compare("vanilla", "vanilla", "--json", *TINY)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.timeout(400)
def test_a_comparison_measures_every_documented_metric(compared: dict[str, Any]) -> None:
    assert (compared["schema"], compared["baseline"]) == (1, "vanilla")
    assert [(row["variant"], row["n"]) for row in compared["cells"]] == [("vanilla", 1), ("vanilla#2", 1)]
    for row in compared["cells"]:
        metrics = row["metrics"]
        assert row["cell"]["payload"] == 65536
        assert metrics["errors"]["median"] == 0
        for name in (
            "fe.cpu_us",
            "is.cpu_us",
            "be.cpu_us",
            "total.cpu_us",
            "latency.p50_us",
            "latency.p99_us",
        ):
            assert metrics[name]["median"] > 0, name
        assert metrics["total.cpu_us"]["median"] == pytest.approx(
            sum(metrics[f"{tier}.cpu_us"]["median"] for tier in ("fe", "is", "be"))
        )
        # Without ODB the intermediary receives and sends every byte of the body, and headers beside it.
        assert 2 * 65536 < metrics["is.bytes"]["median"] < 2.5 * 65536
        assert 65536 < metrics["be.bytes"]["median"] < 1.5 * 65536


@pytest.mark.timeout(400)
def test_with_odb_the_payload_bypasses_the_intermediary(bench: Bench) -> None:
    done = bench.compare("vanilla", "odb", "--json", *TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["environment"]["library_sha256"] is not None
    rows = {row["variant"]: row["metrics"] for row in found["cells"]}
    assert rows["odb"]["errors"]["median"] == 0
    assert rows["odb"]["is.bytes"]["ratio"] < 0.05
    active = {record.variant.label: record.verification for record in bench.newest().records}
    assert active["odb"] is not None and active["odb"].odb_active
    assert active["odb"].odb_growth["is1"]["spans_sent"] > 0
    assert active["vanilla"] is not None and active["vanilla"].odb_growth == {"fe": {}, "is1": {}, "be": {}}


@pytest.mark.timeout(400)
def test_records_hold_the_raw_results(bench: Bench, compared: dict[str, Any]) -> None:
    run = load_run(find_run(bench.results, compared["run"]))
    assert len(run.records) == 2
    for record in run.records:
        assert record.failure is None
        assert record.load is not None and record.verification is not None
        assert (record.load.requests, record.load.errors, record.load.complete) == (REQUESTS, 0, True)
        assert not record.verification.odb_active
        assert {body.payload for body in record.verification.bodies} == {16384, 65536, 262144}
        assert [tier.role for tier in record.tiers] == ["client", "fe", "is1", "be"]
    place = run.directory / "cells" / "001-65536b-aligned-t1-16k-vanilla"
    assert {file.name for file in place.iterdir()} == {
        "record.json",
        *(f"agent-{role}.jsonl.gz" for role in ("client", "fe", "is1", "be")),
    }


@pytest.mark.timeout(400)
def test_stored_records_print_the_same_again(bench: Bench, compared: dict[str, Any]) -> None:
    again = bench.compare("--from", compared["run"], "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == compared
    table = bench.compare("--from", compared["run"])
    assert "vanilla#2 n=1" in table.stdout
    assert "IS bytes/request" in table.stdout
    assert "\x1b" not in table.stdout


@pytest.mark.timeout(400)
def test_an_interrupted_run_ends_cleanly_and_keeps_its_records(bench: Bench) -> None:
    with bench.start("compare", "vanilla", "vanilla", *TINY) as interrupted:
        assert interrupted.stderr is not None
        for line in interrupted.stderr:
            if line.startswith("[1/2]"):
                break
        interrupted.send_signal(signal.SIGINT)
        rest = interrupted.stderr.read()
        assert interrupted.wait(60) == 130
    assert f"compare --resume {bench.newest().directory}" in rest
    assert len(bench.newest().records) == 1
    assert bench.background_processes() == []
    with Testbed.open(bench.state) as testbed:
        assert testbed.serving is None


@pytest.mark.timeout(400)
def test_a_cell_that_fails_is_recorded_and_the_rest_goes_on(bench: Bench) -> None:
    """A payload that one tier damages is found by the verification, before anything is measured."""
    with Testbed.open(bench.state) as testbed:
        damage = "cp $0 $0.kept && printf x | dd of=$0 conv=notrunc"
        assert testbed.run("be", ["sh", "-c", damage, BODY], timeout=20).exit_code == 0
    try:
        done = bench.compare("vanilla", "vanilla", *TINY)
    finally:
        with Testbed.open(bench.state) as testbed:
            mend = "mv $0.kept $0"
            assert testbed.run("be", ["sh", "-c", mend, BODY], timeout=20).exit_code == 0
    assert done.returncode == 1
    failures = [record.failure for record in bench.newest().records]
    assert len(failures) == 2
    assert all(failure and "the body of 65536 bytes" in failure for failure in failures)
    assert "failed: " in done.stdout
