"""The report command on stored records: what it writes and where, and bad input."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.cli import main
from testbed.collect.summary import SCHEMA
from testbed.commands import report
from testbed.runs import create_run, save_record
from tests.unit import record_samples
from tests.unit import report_samples as samples

pytestmark = pytest.mark.unit


def store(tmp_path: Path, *, records: bool = True) -> Path:
    """A run of one payload and one repetition on disk."""
    plan = samples.plan("vanilla", "odb", payloads=(65536,), n=1)
    run = create_run(tmp_path, plan, record_samples.ENVIRONMENT)
    made = samples.run(plan, lambda label, cell, name: 1.0)[1]
    for record in made if records else ():
        stored = record_samples.record(
            run.header,
            record.cell,
            record.variant,
            record.repetition,
            record.metrics,
            sequence=record.sequence,
        )
        save_record(run.directory, stored, {})
    return run.directory


def add_agent_samples(run: Path, write: Callable[[float], dict[str, float]]) -> None:
    """Ten samples a second of the FE's core from before the load to after it, in every record."""
    header = {"kind": "header", "schema": SCHEMA, "agent_inside": True}
    lines = [json.dumps(header)]
    for step in range(40):
        wall = 9.0 + step / 10
        sample = {
            "kind": "sample",
            "wall": wall,
            "monotonic": wall,
            "cpu_seconds": wall,
            "memory_bytes": 1,
            "memory_working_bytes": 1,
            "rx_bytes": 1,
            "tx_bytes": 1,
            "cores": {"1": write(wall)},
            "agent_cpu_seconds": 0.0,
            "agent_memory_bytes": 0,
        }
        lines.append(json.dumps(sample))
    for cell in (run / "cells").iterdir():
        (cell / "agent-fe.jsonl.gz").write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))


def refused(capsys: pytest.CaptureFixture[str], code: int, *words: str) -> str:
    assert main(["report", *words]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return said.err


def test_the_newest_run_is_reported_into_its_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = store(tmp_path)
    add_agent_samples(run, lambda wall: {"busy": wall / 2, "softirq": wall / 10, "steal": 0.0})
    assert main(["report", "--last", "--results", str(tmp_path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["schema"], said["run"], said["report"]) == (1, run.name, str(run / "report.html"))
    assert sum(said["findings"].values()) > 20
    names = {Path(name).name for name in said["figures"]}
    assert {"cpu.pdf", "cpu.svg", "cores-64KiB.pdf"} <= names
    assert names == {path.name for path in (run / "report-figures").iterdir()}
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "vanilla fe core 1 busy 50.0 % on average" in page


@pytest.mark.usefixtures("undrawn")
def test_out_names_the_page_and_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = store(tmp_path)
    out = tmp_path / "deep" / "paper.html"
    assert main(["report", str(run), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert out.is_file()
    assert (tmp_path / "deep" / "paper-figures" / "cpu.svg").is_file()
    assert not (run / "report.html").exists()


@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_report_leaves_the_old_page_and_nothing_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = store(tmp_path)
    page = run / "report.html"
    page.write_text("the old one", encoding="utf-8")

    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report.os, "fsync", interrupt)
    assert main(["report", str(run)]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == "the old one"
    assert [path.name for path in run.rglob("*partial*")] == []


@pytest.mark.usefixtures("undrawn")
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = store(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report.os, "fsync", full)
    said = refused(capsys, 4, str(run))
    assert "cannot be written (No space left on device)" in said
    assert "--out" in said
    assert list(run.rglob("*partial*")) == []


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "content",
    [gzip.compress(b"no JSON\n"), b"not compressed", gzip.compress(b"cut off")[:-9]],
    ids=["no-json", "not-compressed", "cut-off"],
)
def test_corrupt_samples_cost_the_time_series_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    run = store(tmp_path)
    for cell in (run / "cells").iterdir():
        (cell / "agent-fe.jsonl.gz").write_bytes(content)
    assert main(["report", str(run), "--json"]) == 0
    said = capsys.readouterr()
    assert "left out of the time series" in said.err
    assert not any("cores-" in name for name in json.loads(said.out)["figures"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("nowhere",), 1, "there is no run nowhere"),
        (("a", "--last"), 2, "--last has no meaning beside a RUN"),
        (("--out", "{tmp}"), 2, "is a directory"),
        (("--out", "{tmp}/report"), 2, "has no suffix"),
    ],
)
def test_bad_input_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, said: str
) -> None:
    store(tmp_path)
    given = [word.replace("{tmp}", str(tmp_path)) for word in words]
    assert said in refused(capsys, code, *given, "--results", str(tmp_path))


def test_a_run_without_records_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = store(tmp_path, records=False)
    said = refused(capsys, 1, str(run))
    assert "has no record yet" in said
    assert "--resume" in said
