"""Which measurements a run consists of, in which order, which are missing, and how long they will take.

Within each repetition every cell is measured in every variant in an order drawn from the run's seed, so that
a disturbance of the machine that lasts minutes does not fall on one variant alone.  Cells of one topology stay
together, since another one has to be deployed first.
"""

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import UsageError
from testbed.record import Cell, Plan, Record, VariantUse, size_name
from testbed.spec import Topology, Variant, parse_size, pick_variant


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
        cell = self.cell
        more = [
            None if cell.align else "unaligned",
            f"{cell.tiers} tiers" if cell.tiers > 1 else None,
            cell.buffer_size if cell.buffer_size != Topology().buffer_size else None,
            "buffering" if cell.buffering else None,
            None if cell.sendfile else "no sendfile",
            None if cell.touch == "none" else cell.touch,
            cell.load,
        ]
        words = [size_name(cell.payload), *filter(None, more), self.variant.label]
        return f"{' '.join(words)} (repetition {self.repetition})"


def steps(plan: Plan) -> tuple[Step, ...]:
    """Every measurement of the plan in the order to make them; equal plans give equal orders.  Repetitions
    from 1.
    """
    ordered: list[Step] = []
    for repetition in range(1, plan.repetitions + 1):
        generator = random.Random(f"{plan.seed}/{repetition}")
        groups = list(dict.fromkeys(map(topology_key, plan.cells)))
        generator.shuffle(groups)
        for group in groups:
            cells = [cell for cell in plan.cells if topology_key(cell) == group]
            block = [(cell, variant) for cell in cells for variant in plan.variants_of(cell)]
            generator.shuffle(block)
            ordered += [Step(len(ordered) + at, repetition, *pair) for at, pair in enumerate(block)]
    return tuple(ordered)


def topology_key(cell: Cell) -> tuple[int, str, bool, bool, str]:
    """What of a cell has to be deployed: tiers, buffer size, buffering, sendfile, touch.  The rest is set at a start."""
    return cell.tiers, cell.buffer_size, cell.buffering, cell.sendfile, cell.touch


def missing(plan: Plan, records: Iterable[Record]) -> tuple[Step, ...]:
    """The steps of the plan that have no record.  A failed one has a record and is not repeated."""
    done = {(record.repetition, record.cell, record.variant.label) for record in records}
    return tuple(step for step in steps(plan) if (step.repetition, step.cell, step.variant.label) not in done)


def remaining_seconds(done: Sequence[tuple[float, float]], rest: Sequence[float]) -> float:
    """How long the rest takes: its estimates, corrected by how (taken, estimated) came out for the steps done."""
    expected = sum(estimated for _, estimated in done)
    factor = sum(taken for taken, _ in done) / expected if expected > 0 else 1.0
    return factor * sum(rest)


def name_variants(names: Sequence[str], known: Mapping[str, Variant]) -> tuple[VariantUse, ...]:
    """The variants a user named, labelled apart when one is named twice.  UsageError names the known ones."""
    chosen: list[VariantUse] = []
    for name in names:
        variant = pick_variant(known, name)
        count = sum(other.name == name for other in chosen) + 1
        label = name if count == 1 else f"{name}#{count}"
        chosen.append(use_variant(variant, label))
    return tuple(chosen)


def use_variant(variant: Variant, label: str) -> VariantUse:
    """The variant as a run uses it, with the digests of builds of its own.  UsageError names one that cannot be read."""
    return VariantUse(
        label,
        variant.name,
        variant.odb,
        variant.profile,
        dict(variant.options),
        variant.library,
        variant.nginx,
        variant.configuration,
        variant.intermediary,
        {
            kind: _digest(variant.name, kind, path)
            for kind, path in (("library", variant.library), ("nginx", variant.nginx))
            if path is not None
        },
    )


def _digest(variant: str, kind: str, path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(
            f"variant {variant!r}: {kind} {path} cannot be read ({error.strerror})",
            "build it, or change its path in the variants file",
        ) from None


def parse_payloads(text: str) -> tuple[int, ...]:
    """`16K,64K,1M` or plain bytes, as bytes in ascending order without repetition.  UsageError names the bad
    one.
    """
    return tuple(sorted({parse_size(word.strip(), "payload") for word in text.split(",")}))
