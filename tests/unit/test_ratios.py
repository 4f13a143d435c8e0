"""The one table of a bench: a block per cell, the baseline in its units, others as multiples, counters as they are."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from testbed.analysis import compare
from testbed.record import Metric, Record
from testbed.report import ratios
from tests.unit import record_samples as samples

pytestmark = pytest.mark.unit


def lines(records: list[Record], plan_of: samples.RunHeader) -> list[str]:
    stream = io.StringIO()
    ratios.show(compare(plan_of, records), stream)
    return stream.getvalue().splitlines()


def fields(found: list[str], variant: str, block: int = 0) -> list[str]:
    return [line.split() for line in found if line.startswith(f"  {variant} ")][block]


def test_the_baseline_is_in_units_and_the_others_are_multiples_with_marks() -> None:
    header = samples.header(samples.plan("vanilla", "odb", repetitions=10))
    made = samples.measured(
        header, lambda label, name: 0.5 if label == "odb" and name == "is.cpu_us" else 1.0, noise=0.001
    )
    made = [
        replace(
            one,
            metrics={
                **one.metrics,
                "is.calls": Metric(14.0 if one.variant.odb else 28.0, "1"),
                **({"is.guard_calls": Metric(2.0, "1")} if one.variant.odb else {}),
            },
        )
        for one in made
    ]
    found = lines(made, header)
    at = {column.metric: place + 2 for place, column in enumerate(ratios.COLUMNS)}
    vanilla, odb = fields(found, "vanilla"), fields(found, "odb")
    assert len(vanilla) == len(odb) == len(ratios.COLUMNS) + 2
    assert 210 < float(vanilla[at["is.cpu_us"]]) < 226
    assert 0.49 < float(odb[at["is.cpu_us"]]) < 0.51
    assert odb[at["fe.cpu_us"]].endswith("~")
    assert (vanilla[at["is.calls"]], odb[at["is.calls"]]) == ("28.0", "0.500")
    assert (vanilla[at["is.guard_calls"]], odb[at["is.guard_calls"]]) == ("-", "2.00")
    assert vanilla[at["latency.p50_us"]].startswith("0.")


def test_a_cell_has_only_the_variants_that_are_planned_for_it() -> None:
    plan = samples.plan("vanilla", "odb", "odb-x")
    small, large = plan.cells
    plan = replace(
        plan, variants_at={small.slug: ("vanilla", "odb"), large.slug: ("vanilla", "odb", "odb-x")}
    )
    header = samples.header(plan)
    made = [
        one
        for one in samples.measured(header, lambda label, name: 1.0)
        if one.cell == large or one.variant.label != "odb-x"
    ]
    found = lines(made, header)
    assert sum(line.startswith("  odb ") for line in found) == 2
    assert sum(line.startswith("  odb-x ") for line in found) == 1
    assert sum(line.startswith("  vanilla ") for line in found) == 2


def test_no_line_is_cut_or_folded_however_large_the_figures_are() -> None:
    header = samples.header(samples.plan("vanilla", "a-variant-with-a-long-name", payloads=(1 << 20,)))
    found = lines(samples.measured(header, lambda label, name: 12345.678), header)
    assert not [line for line in found if "\N{HORIZONTAL ELLIPSIS}" in line]
    assert len(fields(found, "a-variant-with-a-long-name")) == len(ratios.COLUMNS) + 2


def test_why_calls_are_absent_is_said() -> None:
    header = samples.header(samples.plan("vanilla", "odb", payloads=(16384,)))
    made = [
        replace(
            one,
            metrics={
                **one.metrics,
                "fe.calls": Metric(None, "1", "strace fell ill") if one.variant.odb else Metric(9.0, "1"),
            },
        )
        for one in samples.measured(header, lambda label, name: 1.0)
    ]
    said = [line for line in lines(made, header) if line.startswith("not measured")]
    assert said == ["not measured: 16 KiB, 1 IS, buffers 16k, odb: strace fell ill"]


def test_latencies_that_must_not_be_used_are_marked() -> None:
    header = samples.header(samples.plan("vanilla", "odb", payloads=(16384,)))
    made = [replace(one, valid=False) for one in samples.measured(header, lambda label, name: 1.0)]
    at = [column.metric for column in ratios.COLUMNS].index("latency.p99_us") + 2
    assert fields(lines(made, header), "odb")[at].endswith("!")
