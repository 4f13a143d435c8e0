"""What is wrong with what was endured, as sentences. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from tests.endure.clients import Tally
from tests.endure.rig import Sample

MEBIBYTE = 1 << 20
SLACK = {
    "memory": 6 * MEBIBYTE,
    "descriptors": 40,
    "windows": 1000,
    "payloads": 1000,
    "store": 24 * MEBIBYTE,
}
"""What may be more at the end than before, beside a tenth: less than a leak of one page per response makes in minutes."""
SAMPLES_MIN = 16
HARM_SHARE = 0.8
"""The fast clients of ODB have to keep this share of what those of vanilla keep when others misbehave."""


def grows(values: Sequence[int], slack: float) -> bool:
    """Did it go up in the second half of the time, and still does? False for a step, for a plateau, and for too few values."""
    if len(values) < SAMPLES_MIN:
        return False
    quarter = len(values) // 4
    second, third, last = (median(values[quarter * n : quarter * (n + 1)]) for n in (1, 2, 3))
    return last - second > slack + second / 10 and last - third > (slack + second / 10) / 4


def growth(samples: Mapping[str, Sequence[Sample]]) -> list[str]:
    """A sentence for everything that grows: process -> its samples, evenly spread over the time."""
    found = []
    for process, looks in samples.items():
        for what, slack in SLACK.items():
            values = [getattr(look, what) for look in looks]
            if grows(values, slack):
                middle = values[len(values) // 4]
                found.append(f"{process}: {what} grew from {middle:,} to {values[-1]:,} and still grows")
    return found


def misbehaviour(tallies: Mapping[str, Tally]) -> list[str]:
    """A sentence for every kind of client that got something wrong, nothing, or an error."""
    found = []
    for kind, tally in tallies.items():
        if tally.mismatches:
            found.append(f"{kind} clients: {tally.mismatches} bodies were not the file")
        problems = {what: count for what, count in tally.problems.items() if what != "mismatch"}
        if problems:
            found.append(f"{kind} clients: {sum(problems.values())} responses failed: {problems}")
        if not tally.good and not tally.bytes:
            found.append(f"{kind} clients: not a byte arrived")
    return found


def harm(calm: Mapping[str, float], adverse: Mapping[str, float]) -> list[str]:
    """A sentence when fast clients suffer more from the others with ODB than without: rig -> requests per second."""
    kept = {rig: adverse[rig] / calm[rig] for rig in calm if calm[rig] > 0}
    if "odb" not in kept or "vanilla" not in kept or kept["odb"] >= HARM_SHARE * kept["vanilla"]:
        return []
    return [
        f"fast clients keep {kept['odb']:.0%} of their requests per second beside the others, {kept['vanilla']:.0%} without ODB"
    ]
