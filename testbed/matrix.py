"""Which measurements a run consists of, in which order, which are missing, and how long they will take.

Within each repetition every cell is measured in every variant in an order drawn from the run's seed, so that
a disturbance of the machine that lasts minutes does not fall on one variant alone.
"""

import random
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from testbed.record import Cell, Plan, Record, VariantUse, size_name
from testbed.spec import Variant, parse_size, pick_variant


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement to make; `sequence` is its place in the run, from 0."""

    sequence: int
    repetition: int
    cell: Cell
    variant: VariantUse

    @property
    def title(self) -> str:
        """What a progress bar calls it."""
        return f"{size_name(self.cell.payload)} {self.variant.label} (repetition {self.repetition})"


def steps(plan: Plan) -> tuple[Step, ...]:
    """Every measurement of the plan in the order to make them; equal plans give equal orders.  Repetitions
    from 1.
    """
    ordered: list[Step] = []
    for repetition in range(1, plan.repetitions + 1):
        block = [(cell, variant) for cell in plan.cells for variant in plan.variants]
        random.Random(f"{plan.seed}/{repetition}").shuffle(block)
        ordered += [Step(len(ordered) + at, repetition, *pair) for at, pair in enumerate(block)]
    return tuple(ordered)


def missing(plan: Plan, records: Iterable[Record]) -> tuple[Step, ...]:
    """The steps of the plan that have no record.  A failed one has a record and is not repeated."""
    done = {(record.repetition, record.cell, record.variant.label) for record in records}
    return tuple(step for step in steps(plan) if (step.repetition, step.cell, step.variant.label) not in done)


def remaining_seconds(durations: Sequence[float], steps_left: int) -> float | None:
    """How long `steps_left` steps will take, from the durations of those done; None while none is done."""
    return statistics.median(durations) * steps_left if durations else None


def name_variants(names: Sequence[str], known: Mapping[str, Variant]) -> tuple[VariantUse, ...]:
    """The variants a user named, labelled apart when one is named twice.  UsageError names the known ones."""
    chosen: list[VariantUse] = []
    for name in names:
        variant = pick_variant(known, name)
        count = sum(other.name == name for other in chosen) + 1
        label = name if count == 1 else f"{name}#{count}"
        chosen.append(VariantUse(label, name, variant.odb, variant.profile, dict(variant.options)))
    return tuple(chosen)


def parse_payloads(text: str) -> tuple[int, ...]:
    """`16K,64K,1M` or plain bytes, as bytes in ascending order without repetition.  UsageError names the bad
    one.
    """
    return tuple(sorted({parse_size(word.strip(), "payload") for word in text.split(",")}))
