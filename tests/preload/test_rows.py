"""Every row of hooks.def has a case in which the library acts, and one in which it stays out: both end as without it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from odb import interposition
from tests.preload.harness import EVERYWHERE, Outcome, Preload

PROGRAMS = ("rows_data", "rows_life", "rows_image", "rows_memory")
ROWS = [hook.name for hook in interposition.hooks()]
KINDS = ("intercepted", "bypassed")


@pytest.fixture(scope="module")
def outcomes(
    preload_in: Callable[[Path], Preload], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, tuple[Outcome, Outcome]]:
    """Program -> its runs without and with the library."""
    found = {}
    for program in PROGRAMS:
        preload = preload_in(tmp_path_factory.mktemp(program))
        # Children end as soon as they have written: they stay until that is fetched.
        environment = preload.environment(listen=EVERYWHERE, connect=EVERYWHERE, drain_ms="2000")
        plain = preload.run(program, environment=preload.plain_environment())
        found[program] = plain, preload.run(program, environment=environment)
    return found


def cases(outcome: Outcome) -> dict[tuple[str, str], str]:
    """(row, kind) -> what the program has said of it."""
    lines = [line.split(" ", 2) for line in outcome.out.splitlines()]
    return {(line[0], line[1]): " ".join(line[2:]) for line in lines}


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_of_rows_shows_the_same(
    outcomes: Mapping[str, tuple[Outcome, Outcome]], program: str
) -> None:
    plain, outcome = outcomes[program]
    assert plain.seen == (0, plain.out, ""), "the program itself fails"
    assert outcome.seen == plain.seen
    assert outcome.counters["span_bytes_received"] > 0
    assert not outcome.trouble


@pytest.mark.parametrize("row", ROWS)
def test_row_has_an_intercepted_and_a_bypassed_case(
    outcomes: Mapping[str, tuple[Outcome, Outcome]], row: str
) -> None:
    plain: dict[tuple[str, str], str] = {}
    library: dict[tuple[str, str], str] = {}
    for without, with_library in outcomes.values():
        plain |= cases(without)
        library |= cases(with_library)
    for kind in KINDS:
        assert (row, kind) in plain, f"no program rows_*.c has a case for {row}"
        assert library.get((row, kind)) == plain[row, kind]


def test_cases_are_of_calls_that_are_intercepted(root_directory: Path) -> None:
    directory = root_directory / "tests/preload"
    text = "".join((directory / f"{program}.c").read_text() for program in PROGRAMS)
    named = re.findall(r'\{"(\w+)",\s*\w+\}', text)
    assert sorted(named) == sorted(ROWS)
