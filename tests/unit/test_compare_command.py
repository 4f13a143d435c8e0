"""The compare command on stored records and bad input: one sentence, the documented exit code, no deployment."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.cli import main
from testbed.record import Record
from testbed.runs import create_run, load_run, save_record
from tests.unit import record_samples as samples

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def no_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODB_TESTBED_STATE", str(tmp_path / "state" / "state.json"))


def store(tmp_path: Path, change: dict[str, object] | None = None, *, complete: bool = True) -> Path:
    """A run of three repetitions on disk; `change` is applied to its first record."""
    run = create_run(tmp_path, samples.plan("vanilla", "odb"), samples.ENVIRONMENT)
    records: list[Record] = samples.measured(run.header, lambda label, name: 1.0)
    for record in records if complete else records[:-1]:
        changed = replace(record, **change) if change and record.sequence == 0 else record  # type: ignore[arg-type]
        save_record(run.directory, changed, {})
    return run.directory


def refused(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> str:
    """Run the command, expect the exit code and one sentence on standard error; returns the sentence."""
    assert main(["compare", *words]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    return said.err


def test_an_unknown_variant_is_a_usage_error_that_names_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = refused(capsys, 2, "vanilla", "odbb")
    assert "odbb" in said
    assert "vanilla, odb, odb-classic" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("vanilla",), "two variants or more"),
        ((), "two variants or more"),
        (("vanilla", "odb", "--repeat", "0"), "--repeat is 0"),
        (("vanilla", "odb", "--users", "-3"), "--users is -3"),
        (("vanilla", "odb", "--payload", "64Q"), "64Q"),
        (("vanilla", "odb", "--from", "x", "--resume", "y"), "not allowed with"),
        (("--from", "x", "--quick"), "--quick has no meaning with --from"),
        (("--resume", "x", "--payload", "16K"), "--payload has no meaning with --resume"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    assert said in refused(capsys, 2, *words)


def test_stored_records_are_compared_without_a_deployment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = store(tmp_path)
    assert main(["compare", "--from", str(directory), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["run"] == directory.name
    assert len(made["cells"]) == 4
    assert main(["compare", "--from", directory.name, "--results", str(tmp_path)]) == 0
    assert "odb n=3" in capsys.readouterr().out


def test_variants_named_with_from_choose_rows_and_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = store(tmp_path)
    assert main(["compare", "odb", "vanilla", "--from", str(directory), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["baseline"] == "odb"
    said = refused(capsys, 2, "odb", "odb-classic", "--from", str(directory))
    assert "has no variant odb-classic" in said


def test_a_failed_cell_makes_the_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = store(tmp_path, {"failure": "nginx did not start", "metrics": {}, "load": None})
    assert main(["compare", "--from", str(directory)]) == 1
    assert "failed: " in capsys.readouterr().out


def test_a_failed_request_makes_the_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load = load_run(store(tmp_path)).records[0].load
    assert load is not None
    directory = store(tmp_path, {"load": replace(load, errors=1, error_kinds={"wrong hash": 1})})
    assert main(["compare", "--from", str(directory)]) == 1
    assert "failed requests: 1" in capsys.readouterr().out


def test_a_missing_or_corrupt_run_is_named_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no run nowhere" in refused(capsys, 1, "--from", "nowhere", "--results", str(tmp_path))
    directory = store(tmp_path)
    broken = next((directory / "cells").iterdir()) / "record.json"
    broken.write_text("{")
    said = refused(capsys, 1, "--from", str(directory))
    assert str(broken) in said
    assert "--resume" in said


def test_resuming_a_complete_run_prints_it_and_deploys_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store(tmp_path)
    assert main(["compare", "--resume", "--results", str(tmp_path), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["cells"]) == 4
    assert not (tmp_path / "state").exists()


def test_resuming_with_other_variants_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path, complete=False)
    said = refused(capsys, 2, "vanilla", "odb-classic", "--resume", "--results", str(tmp_path))
    assert "compares vanilla odb, not vanilla odb-classic" in said
