"""What counts as growth, misbehaviour and harm after an endurance run."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.endure.clients import Tally
from tests.endure.rig import Sample
from tests.endure.verdict import SAMPLES_MIN, grows, growth, harm, misbehaviour

pytestmark = pytest.mark.unit

MANY = 40


@pytest.mark.parametrize(
    "values",
    [
        [1000] * MANY,
        [10 * n for n in range(20)] + [200] * 20,
        [100 + 90 * (n % 2) for n in range(MANY)],
        [100] * 22 + [5000] * 18,
        list(range(0, 100 * SAMPLES_MIN - 100, 100)),
    ],
    ids=["level", "plateau", "swinging", "one step", "too few"],
)
def test_what_levels_off_does_not_grow(values: list[int]) -> None:
    assert not grows(values, 100)


@pytest.mark.parametrize(
    "values",
    [[100 * n for n in range(MANY)], [1000 + 40 * n + 90 * (n % 2) for n in range(MANY)]],
    ids=["steady", "swinging"],
)
def test_what_goes_on_and_on_grows(values: list[int]) -> None:
    assert grows(values, 100)


def test_growth_names_process_and_quantity() -> None:
    looks = [Sample(memory=10 << 20, descriptors=20 + 10 * n) for n in range(MANY)]
    level = [Sample(memory=10 << 20, descriptors=20)] * MANY
    (sentence,) = growth({"fe1": level, "be": looks})
    assert sentence.startswith("be: descriptors grew from ")


def test_clients_that_got_what_they_asked_for_are_no_complaint() -> None:
    assert misbehaviour({"fast": Tally(good=3, bytes=9), "slow": Tally(bytes=1)}) == []


@pytest.mark.parametrize(
    ("tally", "word"),
    [
        (Tally(good=1, mismatches=1, problems=Counter(mismatch=1)), "not the file"),
        (Tally(good=1, stalls=1, problems=Counter(stalled=1)), "stalled"),
        (Tally(good=1, problems=Counter(short=2)), "2 responses failed"),
        (Tally(), "not a byte"),
    ],
)
def test_each_kind_of_failure_is_a_complaint(tally: Tally, word: str) -> None:
    (sentence,) = misbehaviour({"slow": tally})
    assert word in sentence


def test_only_what_the_library_adds_is_harm() -> None:
    calm = {"odb": 1000.0, "vanilla": 500.0}
    assert harm(calm, {"odb": 500.0, "vanilla": 250.0}) == []
    assert harm(calm, {"odb": 900.0, "vanilla": 300.0}) == []
    assert len(harm(calm, {"odb": 300.0, "vanilla": 400.0})) == 1
