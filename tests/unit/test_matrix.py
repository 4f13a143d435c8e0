"""The order of a run: complete, interleaved, drawn from the seed; resuming gives the same set of cells."""

import random

import pytest

from testbed.errors import UsageError
from testbed.matrix import missing, name_variants, parse_payloads, remaining_seconds, steps
from testbed.record import Metric, Record
from testbed.spec import load_variants
from tests.unit import record_samples as samples

pytestmark = pytest.mark.unit


def identity(step) -> tuple[int, int, str]:  # type: ignore[no-untyped-def]
    return step.repetition, step.cell.payload, step.variant.label


def record_of(plan, step, failure: str | None = None) -> Record:  # type: ignore[no-untyped-def]
    metrics = {"errors": Metric(0.0, "1")}
    return samples.record(
        samples.header(plan),
        step.cell,
        step.variant,
        step.repetition,
        metrics,
        sequence=step.sequence,
        failure=failure,
    )


def test_every_cell_is_measured_in_every_variant_once_per_repetition() -> None:
    plan = samples.plan("vanilla", "odb", "vanilla#2", payloads=(1, 2, 3), repetitions=4)
    made = [identity(step) for step in steps(plan)]
    assert sorted(made) == sorted(
        (repetition, payload, label)
        for repetition in (1, 2, 3, 4)
        for payload in (1, 2, 3)
        for label in ("vanilla", "odb", "vanilla#2")
    )
    assert [step.sequence for step in steps(plan)] == list(range(36))


def test_a_repetition_is_complete_before_the_next_begins() -> None:
    repetitions = [step.repetition for step in steps(samples.plan("vanilla", "odb", repetitions=5))]
    assert repetitions == sorted(repetitions)


def test_equal_seeds_give_equal_orders_and_others_differ() -> None:
    orders = {
        seed: tuple(map(identity, steps(samples.plan("vanilla", "odb", repetitions=6, seed=seed))))
        for seed in (1, 2)
    }
    assert orders[1] == tuple(map(identity, steps(samples.plan("vanilla", "odb", repetitions=6, seed=1))))
    assert orders[1] != orders[2]


def test_variants_are_interleaved_rather_than_grouped() -> None:
    plan = samples.plan("vanilla", "odb", payloads=(1, 2, 3), repetitions=10)
    first = [step.variant.label for step in steps(plan) if step.sequence % 6 == 0]
    assert {"vanilla", "odb"} == set(first)


def test_resuming_at_any_point_completes_the_same_set_of_cells() -> None:
    plan = samples.plan("vanilla", "odb", repetitions=3)
    everything = steps(plan)
    generator = random.Random(3)
    for _ in range(20):
        done = generator.sample(everything, generator.randrange(len(everything) + 1))
        rest = missing(plan, [record_of(plan, step) for step in done])
        assert {identity(step) for step in done}.isdisjoint(map(identity, rest))
        assert {*map(identity, done), *map(identity, rest)} == set(map(identity, everything))
        assert [step.sequence for step in rest] == sorted(step.sequence for step in rest)


def test_a_failed_cell_is_kept_and_not_measured_again() -> None:
    plan = samples.plan("vanilla", repetitions=1)
    failed = steps(plan)[0]
    rest = missing(plan, [record_of(plan, failed, failure="nginx did not start")])
    assert identity(failed) not in map(identity, rest)
    assert len(rest) == 1


def test_the_remaining_time_follows_the_cells_done() -> None:
    assert remaining_seconds([], [4.0, 6.0]) == 10.0
    assert remaining_seconds([(3.0, 2.0), (6.0, 4.0)], [10.0]) == 15.0
    assert remaining_seconds([(2.0, 1.0)], []) == 0.0


def test_a_variant_named_twice_gets_two_labels() -> None:
    chosen = name_variants(["vanilla", "odb", "vanilla", "vanilla"], load_variants())
    assert [variant.label for variant in chosen] == ["vanilla", "odb", "vanilla#2", "vanilla#3"]
    assert [variant.odb for variant in chosen] == [False, True, False, False]
    assert {variant.name for variant in chosen} == {"vanilla", "odb"}


def test_an_unknown_variant_names_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        name_variants(["vanilla", "odbb"], load_variants())
    assert "odbb" in str(caught.value)
    assert "vanilla, odb" in str(caught.value)
    assert caught.value.exit_code == 2


def test_payload_lists_are_read_as_bytes() -> None:
    assert parse_payloads("64K,16k, 1m,16384") == (16384, 65536, 1 << 20)


@pytest.mark.parametrize("text", ["", "16K,,64K", "-1", "4X", "0"])
def test_bad_payload_lists_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError):
        parse_payloads(text)
