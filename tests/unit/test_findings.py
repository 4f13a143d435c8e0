"""The original's findings held against records: every verdict for what must give it, and nothing claimed without data."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.errors import RecordError
from testbed.record import Cell, Metric, Record
from testbed.report.contrast import contrast, judge
from testbed.report.findings import Finding, evaluate
from testbed.report.statements import FILE, load_original
from tests.unit import report_samples as samples

pytestmark = pytest.mark.unit

ALL = ("vanilla", "odb", "odb-dynamic", "odb-anticipated")


def as_the_original(label: str, cell: Cell, metric: str) -> float:
    """Numbers that fit every statement of the original."""
    large = cell.payload >= 131072
    if label == "vanilla":
        return 1.0
    if label == "odb-anticipated":
        return (
            1.5 if metric == "is.cpu_us" and large else 1.1 if metric == "total.cpu_us" else odb(cell, metric)
        )
    return odb(cell, metric)


def odb(cell: Cell, metric: str) -> float:
    large = cell.payload >= 131072
    if metric == "is.cpu_us":
        return 0.4 if large else 1.0
    if metric in ("fe.cpu_us", "be.cpu_us"):
        return 1.5 if not large else 2.0 if cell.align else 2.5
    if metric.startswith("latency."):
        return 1.3 if not large else 1.6 if cell.align else 1.9
    return {"total.cpu_us": 0.9, "is.bytes": 0.01, "be.mem_bytes": 5.0}.get(metric, 1.0)


def judged(records: Sequence[Record], of: object) -> dict[str, Finding]:
    found = evaluate(load_original(), of, records)  # type: ignore[arg-type]
    return {finding.statement.id: finding for finding in found}


def test_every_statement_of_the_file_is_complete_and_says_how_it_is_judged() -> None:
    original = load_original()
    assert len(original.statements) > 20
    assert "Grid'5000" in original.setup["Hosts"]
    for statement in original.statements:
        assert statement.statement.endswith("."), statement.id
        assert statement.checks or statement.note, statement.id


def test_numbers_like_the_originals_are_found_the_same() -> None:
    plan = samples.plan(*ALL, payloads=(16384, 262144), aligns=(True, False))
    _, records = samples.run(plan, as_the_original)
    found = judged(records, plan)
    for name in (
        "is-cpu",
        "ends-cpu",
        "be-double",
        "latency",
        "unaligned-is",
        "unaligned-latency",
        "be-memory",
    ):
        assert found[name].verdict == "same", name
        assert found[name].proven, name
    for name in ("strategy-is", "strategy-choice", "align-cpu", "less-network", "less-cpu", "load-moves"):
        assert found[name].verdict == "same", name


def test_costs_that_do_not_appear_are_better_and_lost_gains_are_otherwise() -> None:
    def ours(label: str, cell: Cell, metric: str) -> float:
        if label == "vanilla" or metric == "is.cpu_us":
            return 1.0
        return 0.7 if metric.startswith("latency.") else 1.0

    plan = samples.plan("vanilla", "odb")
    _, records = samples.run(plan, ours)
    found = judged(records, plan)
    assert found["ends-cpu"].verdict == "better"
    assert found["latency"].verdict == "better"
    assert found["be-memory"].verdict == "better"
    assert found["is-cpu"].verdict == "otherwise"
    assert found["less-network"].verdict == "otherwise"


@pytest.mark.parametrize(("factor", "verdict"), [(1.4, "better"), (2.05, "same"), (2.8, "otherwise")])
def test_a_factor_that_the_original_names_is_compared_with_ours(factor: float, verdict: str) -> None:
    plan = samples.plan("vanilla", "odb")
    _, records = samples.run(plan, lambda label, cell, name: factor if label == "odb" else 1.0)
    assert judged(records, plan)["be-double"].verdict == verdict


def test_a_difference_between_conditions_is_otherwise_whatever_its_direction() -> None:
    plan = samples.plan("vanilla", aligns=(True, False))
    for factor in (0.7, 1.4):
        _, records = samples.run(
            plan,
            lambda label, cell, name, factor=factor: factor if cell.align else 1.0,  # type: ignore[misc]
        )
        assert judged(records, plan)["vanilla-align"].verdict == "otherwise"


def test_a_cost_that_stays_for_the_largest_payload_is_not_called_better() -> None:
    def ours(label: str, cell: Cell, metric: str) -> float:
        return 3.0 if label == "odb" and cell.payload == 262144 else 1.0

    plan = samples.plan("vanilla", "odb", payloads=(16384, 65536, 262144))
    _, records = samples.run(plan, ours)
    found = judged(records, plan)["ends-cpu"]
    assert [item.outcome for item in found.evidence].count("better") == 4
    assert found.verdict == "same"


def test_what_a_run_does_not_hold_is_not_measured_and_says_why() -> None:
    plan = samples.plan("vanilla", "odb", payloads=(16384,))
    _, records = samples.run(plan, as_the_original)
    found = judged(records, plan)
    assert (found["is-cpu"].verdict, found["align-cpu"].verdict) == ("not measured", "not measured")
    assert "no payload of the sizes" in str(found["is-cpu"].reason)
    assert "no unaligned cells" in str(found["align-cpu"].reason)
    assert "no variant odb-dynamic" in str(found["strategy-is"].reason)
    assert found["be-down"].reason == found["be-down"].statement.note


def test_a_gain_that_is_kept_while_the_costs_are_gone_is_better() -> None:
    plan = samples.plan("vanilla", "odb")
    _, records = samples.run(
        plan, lambda label, cell, name: 0.5 if (label, name) == ("odb", "is.cpu_us") else 1.0
    )
    found = judged(records, plan)["load-moves"]
    assert {item.outcome for item in found.evidence} == {"same", "better"}
    assert found.verdict == "better"


def test_few_samples_that_overlap_decide_nothing() -> None:
    plan = samples.plan("vanilla", "odb", n=2)
    _, records = samples.run(plan, lambda label, cell, name: 1.2 if label == "odb" else 1.0, noise=0.4)
    wide = contrast([1.0, 2.0], [0.8, 1.6], 1)
    assert wide is not None
    assert judge([wide])[0].direction == "undecided"
    undecided = [
        one for one in judged(records, plan).values() for item in one.evidence if item.outcome == "undecided"
    ]
    assert undecided
    for finding in undecided:
        if len({item.outcome for item in finding.evidence}) == 1:
            assert (finding.verdict, finding.reason) == ("not measured", "too few repetitions to tell")


def test_too_few_repetitions_prove_nothing() -> None:
    plan = samples.plan("vanilla", "odb", n=3)
    _, records = samples.run(plan, as_the_original)
    found = judged(records, plan)["is-cpu"]
    assert found.verdict == "same"
    assert not found.proven


def test_unusable_latencies_are_left_out() -> None:
    plan = samples.plan("vanilla", "odb")
    _, records = samples.run(plan, as_the_original)
    spoilt = [replace(one, valid=False) for one in records]
    found = judged(spoilt, plan)
    assert found["latency"].verdict == "not measured"
    assert found["latency"].reason == "no latency of the run may be used"
    assert found["is-cpu"].verdict == "same"


def test_equal_samples_are_similar_and_empty_ones_no_contrast() -> None:
    same = contrast([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], 1)
    assert same is not None
    assert judge([same])[0].direction == "similar"
    assert contrast([], [1.0], 1) is None
    assert contrast([1.0], [0.0], 1) is None
    apart = contrast([float(n) for n in range(10, 20)], [float(n) for n in range(30, 40)], 1)
    assert apart is not None
    only = judge([apart])[0]
    assert (only.direction, only.proven) == ("lower", True)
    assert math.isclose(only.ratio, 14.5 / 34.5)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('judge = "progress"', 'judge = "maybe"', "judge is 'maybe'"),
        ('expect = "lower"', 'expect = "less"', "expect is 'less'"),
        ('variant = "vanilla"', 'variant = "plain"', "subject is"),
        ('id = "is-cpu"', 'id = "latency"', "two findings have the id latency"),
        ("[setup]", "[setup", "is not TOML"),
    ],
)
def test_a_broken_file_is_refused_with_finding_and_field(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = FILE.read_text(encoding="utf-8")
    assert old in text
    broken = tmp_path / "findings.toml"
    broken.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(RecordError) as caught:
        load_original(broken)
    assert said in str(caught.value)


def test_what_came_out_better_once_and_undecided_else_is_not_called_the_same() -> None:
    plan = samples.plan("vanilla", "odb", payloads=(16384, 262144), n=3)
    _, records = samples.run(plan, lambda label, cell, name: 1.0)
    for at, one in enumerate(records):
        if one.variant.label == "odb" and one.load is not None:
            mean = 500.0 if one.cell.payload == 16384 else (900.0, 2_000.0, 3_000.0)[one.repetition - 1]
            latency = {**one.load.latency_us, "mean": mean}
            records[at] = replace(one, load=replace(one.load, latency_us=latency))
        elif one.load is not None:
            latency = {**one.load.latency_us, "mean": 1_000.0 + one.repetition}
            records[at] = replace(one, load=replace(one.load, latency_us=latency))
    found = judged(records, plan)["latency"]
    assert {item.outcome for item in found.evidence} == {"better", "undecided"}
    assert (found.verdict, found.reason) == ("not measured", "too few repetitions to tell")


def test_few_samples_that_lie_apart_by_chance_decide_nothing() -> None:
    """Two samples of two of the same thing lie apart every third time: among many comparisons that says nothing."""
    generator = random.Random(5)
    pairs = [[[generator.gauss(100, 8) for _ in range(2)] for _ in range(2)] for _ in range(40)]
    contrasts = [contrast(*pair, 1) for pair in pairs]
    found = [one for one in contrasts if one is not None]
    assert sum(one.apart and abs(one.ratio - 1) > one.margin for one in found) > 5
    assert {one.direction for one in judge(found)} <= {"similar", "undecided"}
    plain = contrast([10.0, 10.1, 10.2], [20.0, 20.1, 20.3], 1)
    assert plain is not None
    assert judge([plain, *found])[0].direction == "lower"
    assert not judge([plain, *found])[0].proven


def test_a_statement_of_which_most_is_undecided_is_not_called_the_same() -> None:
    plan = samples.plan("vanilla", "odb", payloads=(131072, 262144, 524288), n=2)
    _, records = samples.run(plan, lambda label, cell, name: 1.0)
    for at, one in enumerate(records):
        if one.variant.label == "odb" and one.cell.payload != 131072:
            spread = {name: replace(item, value=2.0 * one.repetition) for name, item in one.metrics.items()}
            records[at] = replace(one, metrics={**spread, "is.cpu_us": Metric(180.0 * one.repetition, "us")})
        elif one.variant.label == "odb":
            records[at] = replace(one, metrics={**one.metrics, "is.cpu_us": Metric(1e-3, "us")})
    found = judged(records, plan)["is-cpu"]
    assert [item.outcome for item in found.evidence].count("undecided") == 2
    assert (found.verdict, found.reason) == ("not measured", "too few repetitions to tell")
