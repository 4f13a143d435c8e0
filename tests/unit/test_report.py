"""The comparison as people and programs see it: complete JSON, and tables that fit their terminal."""

import io
import json
from dataclasses import replace

import pytest

from testbed.analysis import Comparison, compare
from testbed.record import Metric
from testbed.report.machine import as_json
from testbed.report.terminal import show
from tests.unit import record_samples as samples

pytestmark = pytest.mark.unit

ESCAPE = "\x1b["


def comparison(*labels: str, repetitions: int = 10) -> Comparison:
    head = samples.header(samples.plan(*labels, repetitions=repetitions))
    return compare(
        head,
        samples.measured(head, lambda label, name: 0.3 if (label, name) == ("odb", "is.cpu_us") else 1.0),
    )


def printed(of: Comparison, width: int) -> str:
    stream = io.StringIO()
    show(of, stream, width=width)
    return stream.getvalue()


def test_the_json_has_every_field_of_the_schema_and_no_other() -> None:
    made = json.loads(json.dumps(as_json(comparison("vanilla", "odb")), allow_nan=False))
    assert set(made) == {"schema", "run", "baseline", "environment", "cells"}
    assert (made["schema"], made["baseline"]) == (1, "vanilla")
    assert {"host", "cores", "kernel", "nginx", "library_sha256", "pinning"} <= set(made["environment"])
    assert len(made["cells"]) == 4
    for row in made["cells"]:
        assert set(row) == {"cell", "variant", "n", "valid", "metrics"}
        assert {"payload", "align", "strategy", "tiers"} <= set(row["cell"])
        assert (row["n"], row["valid"]) == (10, True)
        assert set(row["metrics"]) == set(samples.TYPICAL)
        for name, metric in row["metrics"].items():
            assert set(metric) == {"median", "low", "high", "unit", "ratio", "p"}
            assert metric["unit"] == samples.UNITS[name]
    odb = next(row for row in made["cells"] if row["variant"] == "odb")
    assert odb["metrics"]["is.cpu_us"]["ratio"] == pytest.approx(0.3, rel=0.1)
    assert odb["metrics"]["is.cpu_us"]["p"] < 0.05


def test_absent_values_are_null_with_their_reason_in_the_json() -> None:
    head = samples.header(samples.plan("vanilla", payloads=(16384,)))
    records = [
        replace(one, metrics={"fe.mem_bytes": Metric(None, "B", "the cgroup cannot be read")})
        for one in samples.measured(head, lambda label, name: 1.0)
    ]
    made = as_json(compare(head, records))
    cells = made["cells"]
    assert isinstance(cells, list) and isinstance(cells[0], dict)
    assert cells[0]["metrics"] == {"fe.mem_bytes": {"median": None, "reason": "the cgroup cannot be read"}}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    "labels", [("vanilla",), ("vanilla", "odb"), ("vanilla", "odb", "vanilla#2", "odb-classic")]
)
def test_tables_fit_their_width_and_lose_nothing(width: int, labels: tuple[str, ...]) -> None:
    text = printed(comparison(*labels), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for payload in ("16 KiB", "256 KiB"):
        assert payload in text
    for label in labels:
        assert f"{label} n=10" in text
    for line in ("FE CPU", "IS CPU", "BE CPU", "total CPU", "p50", "p99", "throughput", "IS bytes"):
        assert text.count(line) >= 2


def test_several_intermediaries_stand_below_their_sum() -> None:
    head = samples.header(samples.plan("vanilla", payloads=(65536,)))
    cell = replace(head.plan.cells[0], tiers=2)
    head = replace(head, plan=replace(head.plan, cells=(cell,)))
    records = [
        replace(
            one, metrics={**one.metrics, "is1.cpu_us": Metric(1.5, "us"), "is2.cpu_us": Metric(2.5, "us")}
        )
        for one in samples.measured(head, lambda label, name: 1.0)
    ]
    lines = printed(compare(head, records), 80).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("IS CPU"))
    assert lines[at + 1].split()[:3] == ["IS1", "CPU", "1.50"]
    assert lines[at + 2].split()[:3] == ["IS2", "CPU", "2.50"]
    assert "…" not in "".join(lines)


def test_the_table_names_run_versions_and_the_rule_of_cores() -> None:
    text = printed(comparison("vanilla", "odb"), 120)
    assert "Run 20260101T000000Z-abcd; nginx 1.22.1, library abababababab; Linux 6.1.0" in text
    assert "Cores: one core per tier (client 0, fe 1, is1 2, be 3)" in text


def test_a_proven_ratio_stands_alone_and_noise_carries_its_mark() -> None:
    lines = printed(comparison("vanilla", "odb"), 100).splitlines()
    is_line = next(line for line in lines if line.startswith("IS CPU"))
    fe_line = next(line for line in lines if line.startswith("FE CPU"))
    assert " 0.3" in is_line and "~" not in is_line and "?" not in is_line
    assert fe_line.rstrip().endswith("~")


def test_too_few_repetitions_are_marked_and_warned_about() -> None:
    text = printed(comparison("vanilla", "odb", repetitions=3), 100)
    assert next(line for line in text.splitlines() if line.startswith("IS CPU")).rstrip().endswith("?")
    assert "warning: n = 3 is too small" in text


def test_unusable_latencies_and_failures_are_shown() -> None:
    head = samples.header(samples.plan("vanilla", "odb", payloads=(16384,)))
    records = samples.measured(head, lambda label, name: 1.0)
    records[0] = replace(records[0], valid=False, remarks=("the load generator was saturated",))
    records[-1] = samples.record(
        head, records[-1].cell, records[-1].variant, 3, {}, failure="nginx did not start"
    )
    text = printed(compare(head, records), 100)
    assert "!" in next(line for line in text.splitlines() if line.startswith("latency p50"))
    assert "!" not in next(line for line in text.splitlines() if line.startswith("FE CPU"))
    assert "nginx did not start" in text
    assert "saturated" in text


def test_there_is_no_colour_off_a_terminal_or_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    of = comparison("vanilla", "odb")
    assert ESCAPE not in printed(of, 100)
    coloured = Terminal()
    show(of, coloured, width=100)
    assert f"{ESCAPE}32m" in coloured.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    show(of, plain, width=100)
    assert "[32m" not in plain.getvalue()
