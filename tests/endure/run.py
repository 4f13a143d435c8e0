"""Lets clients of all kinds loose on a rig with ODB and one without, in turns, and watches the processes.

First the fast clients are alone (calm), then aborting and slow ones join them (adverse). Fast and aborting clients visit the
rigs in turns, so that both see the same machine; slow clients stay with both all the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.endure.clients import SLOW_BYTES_PER_SECOND, Tally
from tests.endure.crowd import NOBODY, Crowd, Members
from tests.endure.rig import FAST_SIZES, PROCESSES, Content, Rig, Sample
from tests.endure.verdict import growth, harm, misbehaviour

CALM_SHARE = 0.15
TURN_SECONDS = 3.0
JUDGE_SPEED_SECONDS = 60.0
SEED = 1
KINDS = ("fast", "aborting", "slow")


@dataclass(frozen=True)
class Plan:
    """seconds: of everything. vanilla: compare with a rig without ODB."""

    seconds: float
    fast: int = 12
    aborting: int = 8
    slow: int = 8
    vanilla: bool = True
    turn: float = TURN_SECONDS
    options: dict[str, str] = field(default_factory=dict)

    @property
    def rigs(self) -> tuple[str, ...]:
        return ("odb", "vanilla") if self.vanilla else ("odb",)

    @property
    def slow_sizes(self) -> tuple[int, int]:
        """Bodies of slow clients: some are finished several times, some once in the whole time."""
        short, long = self.seconds / 8, self.seconds / 2.5
        return (
            max(70_001, round(short * SLOW_BYTES_PER_SECOND)),
            max(140_003, round(long * SLOW_BYTES_PER_SECOND)),
        )


@dataclass
class Seen:
    """What one rig has shown since some moment."""

    active: float = 0.0
    """Seconds in which it was the turn of this rig."""
    tallies: dict[str, Tally] = field(default_factory=lambda: {kind: Tally() for kind in KINDS})

    def add(self, other: Seen) -> None:
        self.active += other.active
        for kind, tally in other.tallies.items():
            self.tallies[kind].add(tally)

    @property
    def fast_per_second(self) -> float:
        return self.tallies["fast"].good / self.active if self.active else 0.0


@dataclass
class Endured:
    """The outcome: rig -> what was seen, process -> samples in the adverse time (of the rig with ODB)."""

    calm: dict[str, Seen]
    adverse: dict[str, Seen]
    samples: dict[str, dict[str, list[Sample]]]
    complaints: list[str] = field(default_factory=list)
    speed_is_judged: bool = True

    def problems(self) -> list[str]:
        """Sentences; empty when everything was endured."""
        found = list(self.complaints)
        seen = {kind: Tally() for kind in KINDS}
        for kind in KINDS:
            for phase in (self.calm, self.adverse):
                seen[kind].add(phase["odb"].tallies[kind])
        found += misbehaviour(seen) + growth(self.samples["odb"])
        if self.speed_is_judged:
            calm = {rig: seen.fast_per_second for rig, seen in self.calm.items()}
            found += harm(calm, {rig: seen.fast_per_second for rig, seen in self.adverse.items()})
        return found


Tell = Callable[[str, dict[str, Seen], dict[str, dict[str, Sample]]], None]
"""Called once a minute and at the end of a phase: the phase, what was seen since the last call, how the processes are."""
Progress = Callable[[float], None]
"""Called after every turn with the seconds that are left."""


class _Run:
    def __init__(
        self, plan: Plan, rigs: list[Rig], crowds: list[Crowd], tell: Tell, progress: Progress
    ) -> None:
        self.plan, self.rigs, self.crowds, self.tell, self.progress = plan, rigs, crowds, tell, progress
        self.end = time.monotonic() + plan.seconds
        self.samples: dict[str, dict[str, list[Sample]]] = {
            rig.name: {process: [] for process in PROCESSES} for rig in rigs
        }

    def phase(self, name: str, seconds: float, *, adverse: bool) -> dict[str, Seen]:
        """Turns for about `seconds`, at least one for each rig."""
        total = {rig.name: Seen() for rig in self.rigs}
        recent = {rig.name: Seen() for rig in self.rigs}
        end, told = time.monotonic() + seconds, time.monotonic()
        while True:
            for index, rig in enumerate(self.rigs):
                for name_of, seen in self._turn(index, adverse).items():
                    recent[name_of].add(seen)
                if adverse:
                    for process, sample in rig.look().items():
                        self.samples[rig.name][process].append(sample)
                self.progress(self.end - time.monotonic())
            over = time.monotonic() >= end
            if over or time.monotonic() - told >= 60:
                told = time.monotonic()
                self.tell(name, recent, {rig.name: rig.look() for rig in self.rigs})
                for rig_name, seen in recent.items():
                    total[rig_name].add(seen)
                recent = {rig.name: Seen() for rig in self.rigs}
            if over:
                return total

    def _turn(self, index: int, adverse: bool) -> dict[str, Seen]:
        """One rig has the fast clients for a while. What is seen of the others meanwhile is theirs."""
        begun = time.monotonic()
        self.crowds[0].order(active=index)
        self.crowds[1].order(active=index if adverse else NOBODY, slow=adverse)
        time.sleep(self.plan.turn)
        self.crowds[0].order()
        self.crowds[1].order(slow=adverse)
        active = time.monotonic() - begun
        seen = {rig.name: Seen() for rig in self.rigs}
        seen[self.rigs[index].name].active = active
        for crowd in self.crowds:
            for (place, kind), tally in crowd.report().items():
                seen[self.rigs[place].name].tallies[kind].add(tally)
        return seen


def endure(plan: Plan, library: Path, tell: Tell, progress: Progress) -> Endured:
    """Raises AssertionError when nginx does not start, RuntimeError when something dies."""
    with ExitStack() as stack:
        content = stack.enter_context(Content((*FAST_SIZES, *plan.slow_sizes)))
        rigs = [stack.enter_context(Rig(name, content, library, plan.options)) for name in plan.rigs]
        places = [rig.place(FAST_SIZES) for rig in rigs]
        slow_places = [rig.place(plan.slow_sizes) for rig in rigs]
        members = (Members(fast=plan.fast), Members(aborting=plan.aborting, slow=plan.slow))
        crowds = [stack.enter_context(Crowd(places, slow_places, each, SEED)) for each in members]
        run = _Run(plan, rigs, crowds, tell, progress)
        calm = run.phase("calm", plan.seconds * CALM_SHARE, adverse=False)
        adverse = run.phase("adverse", run.end - time.monotonic(), adverse=True)
        complaints = [line for rig in rigs for line in rig.complaints()]
        return Endured(
            calm, adverse, run.samples, complaints, plan.vanilla and plan.seconds >= JUDGE_SPEED_SECONDS
        )
