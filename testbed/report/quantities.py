"""What the metrics of a comparison are called in a report, in which unit they are shown, and which way is better."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Better = Literal["less", "more"]

TIERS = ("fe", "is", "be")


@dataclass(frozen=True, slots=True)
class Quantity:
    """One metric as shown: `name` is the record's, `scale` turns the record's unit into `unit`."""

    name: str
    title: str
    unit: str
    scale: float = 1.0
    better: Better = "less"

    def show(self, value: float) -> str:
        """The value in the quantity's unit with three significant digits, without the unit."""
        return number(value * self.scale)


def number(value: float) -> str:
    """Three significant digits, thousands grouped: 0, 0.0123, 0.920, 9.45, 94.1, 1,234."""
    size = abs(value)
    if size == 0:
        return "0"
    if size < 0.001:
        return f"{value:.1e}"
    # The rounded value decides: 0.9996 is 1.00.
    decimals = 2 - math.floor(math.log10(float(f"{size:.2e}")))
    return f"{value:,.{max(0, decimals)}f}"


def ratio_text(value: float) -> str:
    """A ratio, with a sign that tells it from a quantity: the one of multiplication, then 0.66."""
    return f"\N{MULTIPLICATION SIGN}{number(value)}"


def _per_tier(suffix: str, what: str, unit: str, scale: float) -> tuple[Quantity, ...]:
    return tuple(Quantity(f"{tier}.{suffix}", f"{tier.upper()} {what}", unit, scale) for tier in TIERS)


CPU = (
    *_per_tier("cpu_us", "CPU", "µs per request", 1.0),
    Quantity("total.cpu_us", "CPU of all tiers", "µs per request"),
)
STEADY = (
    *_per_tier("steady_us", "CPU at equal pace", "µs per request", 1.0),
    Quantity("total.steady_us", "CPU of all tiers at equal pace", "µs per request"),
)
BYTES = _per_tier("bytes", "network bytes", "KiB per request", 1 / 1024)
MEMORY = _per_tier("mem_bytes", "memory, peak", "MiB", 1 / 1024**2)
LATENCY = (
    Quantity("latency.p50_us", "latency, median", "ms", 1e-3),
    Quantity("latency.p99_us", "latency, 99th percentile", "ms", 1e-3),
    Quantity("latency.p999_us", "latency, 99.9th percentile", "ms", 1e-3),
)
THROUGHPUT = Quantity("throughput_rps", "throughput", "requests per second", 1.0, "more")
GENERATOR = Quantity("client.cpu_share", "load generator", "% of a core", 100.0)

ALL = (*CPU, *STEADY, *BYTES, *MEMORY, *LATENCY, THROUGHPUT, GENERATOR)


def of_each_intermediary(shown: Sequence[Quantity], tiers: int) -> tuple[Quantity, ...]:
    """The quantities with those of every single intermediary behind the sum over them, where there are several."""
    made: list[Quantity] = []
    for item in shown:
        made.append(item)
        if tiers > 1 and item.name.startswith("is."):
            made += [quantity(item.name.replace("is.", f"is{at}.", 1)) for at in range(1, tiers + 1)]
    return tuple(made)


def quantity(name: str) -> Quantity:
    """The quantity of a metric's name; a name that no table knows is shown as it is recorded."""
    for known in ALL:
        if known.name == name:
            return known
    role, _, suffix = name.partition(".")
    for known in ALL:
        if known.name == f"is.{suffix}" and role.startswith("is"):
            return Quantity(name, known.title.replace("IS", role.upper()), known.unit, known.scale)
    if name == "latency.mean_us":
        return Quantity(name, "latency, mean", "ms", 1e-3)
    if name.startswith("odb."):
        return Quantity(name, name.removeprefix("odb.").replace("_", " ").replace(".", ": "), "per request")
    return Quantity(name, name, "")
