"""The run command without a deployment: plans, choices, what may be resumed, thresholds on stored records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from testbed import deploy, runs
from testbed.campaign import Campaign, Interrupted
from testbed.cli import main
from testbed.commands.run import only
from testbed.errors import UsageError
from testbed.matrix import missing, steps
from testbed.runs import create_run, extend_run, load_run, save_record
from testbed.spec import Topology, load_variants
from testbed.specfile import load_spec
from testbed.state import State, StateStore
from tests.unit import record_samples as samples

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def no_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODB_TESTBED_STATE", str(tmp_path / "state" / "state.json"))


def refused(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> str:
    """Run the command, expect the exit code and one sentence on standard error; returns the sentence."""
    assert main(["run", *words]) == code
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "Traceback" not in said.err
    return said.err


def stored(tmp_path: Path, scale: float = 1.0) -> Path:
    """A complete run of two cells, two variants and ten repetitions."""
    run = create_run(tmp_path, samples.plan("vanilla", "odb", repetitions=10), samples.ENVIRONMENT)
    for record in samples.measured(run.header, lambda label, name: scale if label == "odb" else 1.0):
        save_record(run.directory, record, {})
    return run.directory


def test_a_dry_run_prints_every_step_and_deploys_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "smoke", "--dry-run", "--results", str(tmp_path)]
    assert main(words) == 0
    assert "2 cells x 2 variants x 2 repetitions = 8 measurements" in capsys.readouterr().out
    assert main([*words, "--json", "--repeat", "3", "--only", "payload=16k"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["steps"], len(made["missing"])) == (6, 6)
    assert made["seconds"] == pytest.approx(sum(step["seconds"] for step in made["missing"]))
    assert {step["cell"]["payload"] for step in made["missing"]} == {16384}
    assert list(tmp_path.iterdir()) == []


def test_the_estimate_follows_earlier_records_of_the_same_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = load_spec("smoke", load_variants()).plan
    run = create_run(tmp_path, plan, samples.ENVIRONMENT)
    save_record(run.directory, samples.record(run.header, plan.cells[0], plan.variants[0], 1, {}), {})
    assert main(["run", "smoke", "--dry-run", "--json", "--results", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)["missing"]
    assert len(found) == 8
    same = [one["seconds"] for one in found if (one["cell"]["payload"], one["variant"]) == (16384, "vanilla")]
    assert same == [4.0, 4.0]


def test_choices_keep_what_they_name(tmp_path: Path) -> None:
    plan = load_spec("seed", load_variants()).plan
    chosen = only(only(plan, "payload=16k,256K"), "align=off")
    assert [(cell.payload, cell.align) for cell in chosen.cells] == [(16384, False), (262144, False)]
    assert [one.label for one in only(plan, "variant=odb-dynamic").variants] == ["odb-dynamic"]
    for choice in ("payload=1k", "payload=x", "colour=red", "align=perhaps", "variant=odb", "tiers=x"):
        with pytest.raises(UsageError) as caught:
            only(plan, choice)
        assert f"--only {choice}" in str(caught.value)
        assert caught.value.remedy


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no spec is named"),
        (("smok",), "there is no spec smok"),
        (("smoke", "--repeat", "0"), "--repeat is 0"),
        (("--resume", "x", "--repeat", "2"), "has its plan"),
        (("smoke", "--fail-if", "is.cpu_us[1MiB] > 1"), "fits no cell"),
        (("smoke", "--fail-if", "is.cpu > 1"), "no metric 'is.cpu'"),
        (("smoke", "--fail-if", "is.cpu_us = 1"), "is no threshold"),
        (("smoke", "--fail-if", "is.cpu_us > 1 KiB"), "KiB is no unit"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert said in refused(capsys, 2, *words)


def test_a_run_of_another_plan_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = stored(tmp_path)
    said = refused(capsys, 2, "smoke", "--resume", str(directory))
    assert "has another plan than smoke" in said and "repetitions" in said


def test_a_complete_run_is_printed_and_not_measured_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = stored(tmp_path)
    assert main(["run", "--resume", str(directory), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == directory.name
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("threshold", "passed"),
    [
        ("is.cpu_per_request[256KiB] > 0.5", True),
        ("is.cpu_per_request[256KiB] > 0.7", False),
        ("is.cpu_us[16KiB, odb] > 0.5", True),
        ("is.cpu_us[vanilla] > 100us", True),
        ("is.cpu_us[odb] > 0.19 ms", False),
        ("errors > 0", False),
        ("throughput_rps < 0.7", True),
        ("latency.p99_us[256KiB] >= 1s", False),
        ("is.bytes_per_request > 10KiB", True),
        ("client.cpu_share > 0.5", True),  # not in these records: what was not measured does not pass
        ("fe.mem_bytes > 1000MiB", True),
    ],
)
def test_a_threshold_gives_exit_code_3_after_the_comparison_was_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], threshold: str, passed: bool
) -> None:
    directory = stored(tmp_path, 0.6)
    words = ["compare", "--from", str(directory), "--json", "--fail-if", threshold]
    assert main(words) == (3 if passed else 0)
    said = capsys.readouterr()
    assert len(json.loads(said.out)["cells"]) == 4
    assert (threshold in said.err) == passed


def test_a_latency_that_is_not_valid_does_not_pass_a_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = samples.plan("vanilla", "odb", payloads=(65536,), repetitions=1)
    run = create_run(tmp_path, plan, samples.ENVIRONMENT)
    for record in samples.measured(run.header, lambda label, name: 1.0):
        values = {"cell": record.cell, "variant": record.variant, "repetition": 1, "metrics": record.metrics}
        save_record(run.directory, samples.record(run.header, **values, valid=False), {})  # type: ignore[arg-type]
    assert main(["compare", "--from", str(run.directory), "--fail-if", "latency.p99_us > 100s"]) == 3
    assert "latencies are not valid" in capsys.readouterr().err


@pytest.mark.parametrize(("deployed", "interrupted"), [(False, False), (False, True), (True, False)])
def test_only_a_testbed_that_was_not_there_before_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deployed: bool, interrupted: bool
) -> None:
    directory, removed = stored(tmp_path / "results"), []

    def complete(self: Campaign, begun: object, *, restore: object) -> object:
        if interrupted:
            raise Interrupted
        return load_run(directory)

    monkeypatch.setattr(Campaign, "complete", complete)
    monkeypatch.setattr(deploy, "destroy", lambda **_: removed.append(True))
    state = tmp_path / "state.json"
    if deployed:
        store = StateStore(state)
        with store.lock():
            store.save(State.fresh("10.77.0.0/24", Topology()))
    words = ["run", "smoke", "--destroy", "--state", str(state), "--results", str(tmp_path / "results")]
    assert main(words) == (130 if interrupted else 0)
    assert removed == ([] if deployed else [True])


def test_more_repetitions_are_added_to_a_run_and_its_measurements_keep_their_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = load_spec("smoke", load_variants()).plan
    run = create_run(tmp_path, plan, samples.ENVIRONMENT)
    for step in steps(plan)[:-1]:
        made = samples.record(run.header, step.cell, step.variant, step.repetition, {})
        save_record(run.directory, replace(made, sequence=step.sequence), {})
    kept = {place: (place / "record.json").read_bytes() for place in (run.directory / "cells").iterdir()}
    words = ["run", "smoke", "--resume", "--dry-run", "--json", "--results", str(tmp_path)]
    assert main([*words, "--repeat", "5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["steps"], len(found["missing"])) == (20, 13)
    assert load_run(run.directory).header.plan.repetitions == 2, "nothing is changed before it is measured"
    extend_run(run.directory, 5)
    stored_run = load_run(run.directory)
    assert stored_run.header == replace(run.header, plan=replace(plan, repetitions=5))
    assert [step.sequence for step in missing(stored_run.header.plan, stored_run.records)] == [
        7,
        *range(8, 20),
    ]
    assert {place: (place / "record.json").read_bytes() for place in kept} == kept
    extend_run(run.directory, 3)
    assert load_run(run.directory).header.plan.repetitions == 5, "a run never loses repetitions"
    assert main([*words, "--repeat", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 20


def test_of_several_runs_the_one_with_as_many_repetitions_is_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = load_spec("smoke", load_variants()).plan
    begun = []
    for at, repetitions in enumerate((2, 4)):
        monkeypatch.setattr(runs.time, "time", lambda at=at: 1.8e9 + at)
        begun.append(create_run(tmp_path, replace(plan, repetitions=repetitions), samples.ENVIRONMENT))
    words = ["run", "smoke", "--resume", "--dry-run", "--json", "--results", str(tmp_path), "--repeat"]
    for wanted, steps_of_it in (("2", 8), ("4", 16), ("9", 36)):
        assert main([*words, wanted]) == 0
        assert json.loads(capsys.readouterr().out)["steps"] == steps_of_it
