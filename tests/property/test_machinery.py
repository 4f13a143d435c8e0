"""The property test finds, shrinks and reports what fails: shown with failures that are made up."""

from __future__ import annotations

import shlex
import sys
from typing import cast

import pytest
from hypothesis import given, settings

from tests.property import explore as exploring
from tests.property import soak
from tests.property.cases import CHOICES, Case, cases, drawn_options
from tests.property.check import Mismatch, Tally, reproduction
from tests.property.minimise import minimise
from tests.property.pool import Pool

pytestmark = pytest.mark.unit

NO_POOL = cast(Pool, None)


@settings(max_examples=50, deadline=None)
@given(cases(1, 3))
def test_case_survives_being_written_down(case: Case) -> None:
    assert Case.loads(case.dumps()) == case
    command = shlex.split(reproduction(case))
    assert command[:3] == ["python", "-m", "tests.property.reproduce"]
    assert Case.loads(command[3]) == case


@settings(max_examples=30, deadline=None)
@given(cases(1, 3))
def test_case_is_made_as_small_as_it_can_be(case: Case) -> None:
    def fails(simpler: Case) -> bool:
        return simpler.count > 1 and sum("--offset" in word for hop in simpler.hops for word in hop.flags) > 1

    if not fails(case):
        return
    least = minimise(case, fails)
    assert fails(least)
    assert (len(least.hops), least.count, least.concurrency, least.pipeline) == (3, 2, 1, 1)
    assert sum(len(hop.flags) for hop in least.hops) == 3 * 4 + 2
    assert all(hop.options is None for hop in least.hops)


def test_options_are_drawn_once_for_each_number() -> None:
    assert drawn_options(0) == {}
    drawn = [drawn_options(number) for number in range(1, 200)]
    assert drawn == [drawn_options(number) for number in range(1, 200)]
    assert {options.get("strategy") for options in drawn} == set(CHOICES["strategy"])
    assert {options.get("delivery") for options in drawn} == set(CHOICES["delivery"])
    assert {options.get("readiness") for options in drawn} == {"inject", "level"}
    assert {options.get("align") for options in drawn} == {"on", "off"}


def test_failures_are_collected_with_the_command_that_shows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Case] = []

    def check(pool: Pool, case: Case, tally: Tally, patience: float = 0.0) -> None:
        seen.append(case)
        raise Mismatch(f"made up\nto reproduce: {reproduction(case)}", "mismatch")

    monkeypatch.setattr(exploring, "check", check)
    tally = exploring.explore(NO_POOL, 60, 1, failures_max=2, shrink_seconds=0)
    assert len(tally.failures) == 2
    assert reproduction(seen[0]) in tally.failures[0]
    assert "minimised: " in tally.failures[0]


def test_soak_says_by_exit_code_whether_anything_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [Tally(cases=3, bytes=7), Tally(cases=3, stalls=1), Tally(failures=["made up"])]
    monkeypatch.setattr(sys, "argv", ["soak", "1"])
    codes = []
    for tally in results:
        monkeypatch.setattr(soak, "soak", lambda seconds, seed, tally=tally: tally)
        codes.append(soak.main())
    assert codes == [0, 1, 1]
    assert "cases 3, requests 0, bytes compared 7," in capsys.readouterr().out


def test_soak_refuses_a_time_that_makes_no_sense(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["soak", "0"])
    with pytest.raises(SystemExit) as refusal:
        soak.main()
    assert refusal.value.code == 2
    assert "make soak SOAK=5" in capsys.readouterr().err
