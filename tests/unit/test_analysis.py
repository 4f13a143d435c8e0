"""Statistics say what samples allow and no more: equal variants are noise, clear differences are not."""

import itertools
import warnings
from dataclasses import replace

import pytest
from scipy import stats

from testbed.analysis import compare, holm, median_interval, ratio_interval, smallest_p
from testbed.record import Metric
from tests.unit import record_samples as samples

pytestmark = pytest.mark.unit


def verdicts(comparison, label: str) -> dict[tuple[int, str], str]:  # type: ignore[no-untyped-def]
    return {
        (row.cell.payload, name): statistic.verdict
        for row in comparison.rows
        if row.variant == label
        for name, statistic in row.metrics.items()
        if statistic.p is not None
    }


@pytest.mark.parametrize("seed", range(10))
def test_equal_variants_come_out_as_noise(seed: int) -> None:
    head = samples.header(samples.plan("vanilla", "vanilla#2", repetitions=10))
    comparison = compare(head, samples.measured(head, lambda label, name: 1.0, seed=seed))
    found = verdicts(comparison, "vanilla#2")
    assert len(found) == 16
    assert set(found.values()) == {"noise"}


@pytest.mark.parametrize("seed", range(10))
def test_equal_variants_are_noise_with_three_repetitions_too(seed: int) -> None:
    head = samples.header(samples.plan("vanilla", "vanilla#2", repetitions=3))
    comparison = compare(head, samples.measured(head, lambda label, name: 1.0, seed=seed))
    assert set(verdicts(comparison, "vanilla#2").values()) == {"noise"}


def test_a_great_difference_in_three_repetitions_is_left_undecided() -> None:
    head = samples.header(samples.plan("vanilla", "odb", repetitions=3))
    factors = {"is.bytes": 0.01, "is.cpu_us": 0.3}
    records = samples.measured(head, lambda label, name: factors.get(name, 1.0) if label == "odb" else 1.0)
    for (_, name), verdict in verdicts(compare(head, records), "odb").items():
        assert verdict == ("undecided" if name in factors else "noise"), name


@pytest.mark.parametrize("seed", range(10))
def test_a_clear_difference_is_proven_and_the_rest_stays_noise(seed: int) -> None:
    head = samples.header(samples.plan("vanilla", "odb", repetitions=10))
    factors = {"is.cpu_us": 0.3, "throughput_rps": 1.6}
    records = samples.measured(
        head, lambda label, name: factors.get(name, 1.0) if label == "odb" else 1.0, seed=seed
    )
    for (_, name), verdict in verdicts(compare(head, records), "odb").items():
        assert verdict == {"is.cpu_us": "lower", "throughput_rps": "higher"}.get(name, "noise")


def test_ratio_median_and_interval_describe_the_samples() -> None:
    head = samples.header(samples.plan("vanilla", "odb", payloads=(65536,), repetitions=10))
    records = samples.measured(head, lambda label, name: 0.5 if label == "odb" else 1.0)
    comparison = compare(head, records)
    base, odb = (row.metrics["is.cpu_us"] for row in comparison.rows)
    assert base.ratio == 1.0
    assert base.p is None
    assert base.verdict == "baseline"
    assert odb.ratio == pytest.approx(0.5, rel=0.1)
    assert odb.median is not None and odb.low is not None and odb.high is not None
    assert odb.low <= odb.median <= odb.high
    assert odb.ratio_low is not None and odb.ratio_high is not None
    assert odb.ratio_low <= odb.ratio <= odb.ratio_high < 1
    assert odb.n == 10


def test_three_repetitions_prove_nothing_and_the_warning_says_how_many_would() -> None:
    head = samples.header(samples.plan("vanilla", "odb", repetitions=3))
    comparison = compare(head, samples.measured(head, lambda label, name: 0.2 if label == "odb" else 1.0))
    assert set(verdicts(comparison, "odb").values()) == {"undecided"}
    assert any("n = 3 is too small" in warning and "--repeat" in warning for warning in comparison.warnings)
    ten = samples.header(samples.plan("vanilla", "odb", repetitions=10))
    enough = compare(ten, samples.measured(ten, lambda label, name: 0.2 if label == "odb" else 1.0))
    assert enough.warnings == ()


def test_with_three_repetitions_equal_variants_are_never_called_different() -> None:
    head = samples.header(samples.plan("vanilla", "vanilla#2", repetitions=3))
    for seed in range(10):
        found = verdicts(
            compare(head, samples.measured(head, lambda label, name: 1.0, seed=seed)), "vanilla#2"
        )
        assert set(found.values()) <= {"noise", "undecided"}
        assert list(found.values()).count("noise") > len(found) / 2


def test_a_regular_difference_below_one_percent_is_noise() -> None:
    head = samples.header(samples.plan("vanilla", "odb", repetitions=10))
    records = samples.measured(head, lambda label, name: 1.004 if label == "odb" else 1.0, noise=0.0001)
    assert set(verdicts(compare(head, records), "odb").values()) == {"noise"}


def test_counts_that_hardly_vary_are_compared_without_a_word() -> None:
    head = samples.header(samples.plan("vanilla", "odb", repetitions=3))
    records = samples.measured(head, lambda label, name: 0.5 if label == "odb" else 1.0, noise=1e-15)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = verdicts(compare(head, records), "odb")
    assert set(found.values()) == {"undecided"}


def paced(of_odb: float):  # type: ignore[no-untyped-def]
    head = samples.header(samples.plan("vanilla", "odb", repetitions=3))
    records = [
        replace(
            one,
            metrics={**one.metrics, "pace_ns": Metric(of_odb if one.variant.label == "odb" else 200.0, "ns")},
        )
        for one in samples.measured(head, lambda label, name: 1.0)
    ]
    return compare(head, records)


def test_cores_that_were_slower_under_one_variant_are_told_of() -> None:
    comparison = paced(250.0)
    assert [line for line in comparison.warnings if "the cores were 25% slower under odb" in line]
    assert all(row.metrics["pace_ns"].p is None for row in comparison.rows)


def test_cores_that_kept_their_pace_are_not() -> None:
    assert not [line for line in paced(204.0).warnings if "the cores were" in line]


def test_samples_that_are_all_equal_are_noise() -> None:
    head = samples.header(samples.plan("vanilla", "odb", repetitions=10))
    found = verdicts(compare(head, samples.measured(head, lambda label, name: 1.0, noise=0.0)), "odb")
    assert set(found.values()) == {"noise"}


def test_one_repetition_has_a_median_and_no_ratio_interval() -> None:
    head = samples.header(samples.plan("vanilla", "odb", payloads=(16384,), repetitions=1))
    comparison = compare(
        head, samples.measured(head, lambda label, name: 0.5 if label == "odb" else 1.0, noise=0.0)
    )
    statistic = comparison.rows[1].metrics["fe.cpu_us"]
    assert (statistic.median, statistic.low, statistic.high) == (123.5, 123.5, 123.5)
    assert statistic.ratio == 0.5
    assert statistic.ratio_low is None
    assert statistic.verdict == "undecided"


def test_what_was_not_measured_is_absent_with_its_reason() -> None:
    head = samples.header(samples.plan("vanilla", "odb", payloads=(16384,)))
    records = [
        replace(one, metrics={**one.metrics, "is.mem_bytes": Metric(None, "B", "the cgroup cannot be read")})
        for one in samples.measured(head, lambda label, name: 1.0)
    ]
    statistic = compare(head, records).rows[1].metrics["is.mem_bytes"]
    assert statistic.median is None
    assert statistic.verdict == "absent"
    assert statistic.reason == "the cgroup cannot be read"


def test_a_failed_variant_keeps_its_row_its_reason_and_the_others_figures() -> None:
    head = samples.header(samples.plan("vanilla", "odb", payloads=(16384,)))
    records = [
        samples.record(head, one.cell, one.variant, one.repetition, {}, failure="nginx did not start")
        if one.variant.label == "odb"
        else one
        for one in samples.measured(head, lambda label, name: 1.0)
    ]
    comparison = compare(head, records)
    base, odb = comparison.rows
    assert (base.n, base.valid) == (3, True)
    assert (odb.n, odb.valid) == (0, False)
    assert odb.metrics["fe.cpu_us"].median is None
    assert odb.metrics["fe.cpu_us"].reason == "nginx did not start"
    assert len(comparison.failures) == 3


def test_an_unusable_repetition_marks_its_row_and_says_why() -> None:
    head = samples.header(samples.plan("vanilla", "odb", payloads=(16384,)))
    records = samples.measured(head, lambda label, name: 1.0)
    records[0] = replace(records[0], valid=False, remarks=("the load generator was saturated",))
    comparison = compare(head, records)
    assert [row.valid for row in comparison.rows] == [False, True]
    assert any("saturated" in warning for warning in comparison.warnings)


def test_choosing_variants_chooses_the_baseline() -> None:
    head = samples.header(samples.plan("vanilla", "odb", "odb-classic", payloads=(16384,)))
    records = samples.measured(
        head, lambda label, name: {"vanilla": 1.0, "odb": 0.5}.get(label, 0.25), noise=0.0
    )
    comparison = compare(head, records, ["odb", "odb-classic"])
    assert comparison.baseline == "odb"
    assert [row.variant for row in comparison.rows] == ["odb", "odb-classic"]
    assert comparison.rows[1].metrics["fe.cpu_us"].ratio == 0.5


def test_equal_records_give_equal_comparisons() -> None:
    head = samples.header(samples.plan("vanilla", "odb"))
    records = samples.measured(head, lambda label, name: 1.0)
    assert compare(head, records) == compare(head, records)


def test_holm_is_monotone_never_below_the_raw_value_and_known_for_an_example() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_smallest_p_is_the_one_the_exact_test_gives() -> None:
    for n, m in itertools.product((2, 3, 5, 8), repeat=2):
        exact = stats.mannwhitneyu(
            range(n), range(100, 100 + m), alternative="two-sided", method="exact"
        ).pvalue
        assert smallest_p(n, m) == pytest.approx(float(exact))


def test_the_interval_of_the_median_holds_it_and_one_value_is_its_own() -> None:
    low, high = median_interval([1.0, 2.0, 3.0, 4.0, 5.0], seed=1)
    assert 1.0 <= low <= 3.0 <= high <= 5.0
    assert median_interval([4.0], seed=1) == (4.0, 4.0)
    assert ratio_interval([1.0, 2.0], [0.0, 1.0], seed=1) == (None, None)
