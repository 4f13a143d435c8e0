"""Thresholds of a comparison: `is.cpu_us[256KiB] > 0.5` names what must not hold.

    METRIC[CELL, ...] OPERATOR NUMBER[UNIT]

Without a unit the number is the ratio to the baseline, for every other variant; for what has no ratio (`errors`,
`client.cpu_share`, the library's counters such as `is.faults`) the value itself.  With one (us, ms, s, B, KiB, MiB, rps) it
is the median of every variant.  The brackets choose payload sizes, `aligned` or `unaligned`, `tiers=N`, variants and loads
by name.  What was not measured does not pass.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from testbed.analysis import UNTESTED, Comparison, Row, Statistic
from testbed.errors import UsageError
from testbed.record import Cell, Plan, size_name
from testbed.spec import parse_size

_FORM = re.compile(
    r"\s*([a-z0-9_.]+)\s*(?:\[([^\]]*)\])?\s*(<=|>=|<|>)\s*([0-9]+(?:\.[0-9]*)?(?:e-?[0-9]+)?)\s*([A-Za-z]*)\s*"
)
_METRIC = re.compile(
    r"(?:fe|is|is[1-9]|be|total)\.(?:cpu_us|steady_us|bytes|mem_bytes)|latency\.p(?:50|99|999)_us"
    r"|(?:fe|is|be)\.(?:calls|faults|fetches|guard_calls|pushes)"
    r"|throughput_rps|errors|pace_ns|client\.cpu_share"
)
_ALIASES = {"cpu_per_request": "cpu_us", "bytes_per_request": "bytes", "memory": "mem_bytes"}
_UNITS = {
    "us": ("us", 1.0), "ms": ("us", 1e3), "s": ("us", 1e6),
    "B": ("B", 1.0), "KiB": ("B", 1024.0), "MiB": ("B", 1048576.0),
    "rps": ("1/s", 1.0),
}  # fmt: skip
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_SIZE = re.compile(r"([1-9][0-9]*)\s*([kKmM]?)(?:i?B)?")


@dataclass(frozen=True, slots=True)
class Threshold:
    """One condition that must hold nowhere among the rows that `chosen` picks."""

    text: str
    metric: str
    operator: str
    number: float
    unit: str | None
    chosen: tuple[str, ...]

    def applies(self, cell: Cell, variant: str, baseline: str) -> bool:
        """Whether the threshold is about this row."""
        groups: dict[str, list[bool]] = {}
        for word in self.chosen:
            kind, holds = _matches(word, cell, variant)
            groups.setdefault(kind, []).append(holds)
        if not all(any(holds) for holds in groups.values()):
            return False
        return variant != baseline or not self.is_ratio or "variant" in groups

    @property
    def is_ratio(self) -> bool:
        """Whether the number is a ratio to the baseline."""
        return self.unit is None and self.metric not in UNTESTED

    def violation(self, row: Row) -> str | None:
        """Why the row is beyond the threshold, as a sentence; None if it is not."""
        where = f"{self.text}: {_title(row.cell)} {row.variant}"
        statistic = row.metrics.get(self.metric)
        value = self._value(statistic)
        if statistic is None or value is None:
            reason = statistic.reason if statistic is not None and statistic.reason else "it was not measured"
            return f"{where} cannot be judged: {reason}"
        if self.metric.startswith("latency.") and not row.valid:
            return f"{where} cannot be judged: its latencies are not valid"
        if not _OPERATORS[self.operator](value, self.number):
            return None
        shown = f"{value:.4g} times the baseline" if self.is_ratio else f"{value:.6g} {statistic.unit}"
        return f"{where} has {shown}"

    def _value(self, statistic: Statistic | None) -> float | None:
        if statistic is None:
            return None
        return statistic.ratio if self.is_ratio else statistic.median


def parse(text: str) -> Threshold:
    """Read a threshold; UsageError says what is wrong with it."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise UsageError(
            f"--fail-if {text!r} is no threshold",
            "write METRIC[CELL] > NUMBER, such as 'is.cpu_us[256KiB] > 0.5'",
        )
    prefix, _, last = match[1].rpartition(".")
    metric = f"{prefix}.{_ALIASES.get(last, last)}" if prefix else last
    if not _METRIC.fullmatch(metric):
        raise UsageError(
            f"--fail-if {text!r}: there is no metric {match[1]!r}",
            "choose one such as is.cpu_us, total.cpu_us, is.bytes, fe.mem_bytes, latency.p99_us, throughput_rps, errors",
        )
    number, unit = float(match[4]), None
    if match[5]:
        unit, factor = _UNITS.get(match[5], (None, 1.0))
        if unit is None or unit != _unit_of(metric):
            raise UsageError(
                f"--fail-if {text!r}: {match[5]} is no unit of {metric}",
                f"it is measured in {_unit_of(metric)}",
            )
        number *= factor
    words = tuple(word.strip() for word in (match[2] or "").split(",") if word.strip())
    return Threshold(text.strip(), metric, match[3], number, unit, words)


def check_plan(thresholds: Sequence[Threshold], plan: Plan) -> None:
    """UsageError for a threshold that no row of the plan's comparison will be judged by."""
    baseline = plan.variants[0].label
    for threshold in thresholds:
        if not any(
            threshold.applies(cell, variant.label, baseline)
            for cell in plan.cells
            for variant in plan.variants
        ):
            raise UsageError(
                f"--fail-if {threshold.text!r} fits no cell of this comparison",
                f"variants are {', '.join(variant.label for variant in plan.variants)}; payloads "
                + ", ".join(dict.fromkeys(size_name(cell.payload) for cell in plan.cells)),
            )


def violations(comparison: Comparison, thresholds: Sequence[Threshold]) -> Iterator[str]:
    """A sentence for every row that is beyond a threshold."""
    for threshold in thresholds:
        for row in comparison.rows:
            if threshold.applies(row.cell, row.variant, comparison.baseline):
                violation = threshold.violation(row)
                if violation is not None:
                    yield violation


def _matches(word: str, cell: Cell, variant: str) -> tuple[str, bool]:
    """What kind of choice a word in the brackets is, and whether it fits."""
    size = _SIZE.fullmatch(word)
    if size is not None:
        return "payload", parse_size(size[1] + size[2]) == cell.payload
    if word in ("aligned", "unaligned"):
        return "align", cell.align == (word == "aligned")
    if word.startswith("tiers="):
        return "tiers", word == f"tiers={cell.tiers}"
    if word == cell.load:
        return "load", True
    return "variant", word == variant


def _title(cell: Cell) -> str:
    words = [size_name(cell.payload), None if cell.align else "unaligned", cell.load]
    words.append(f"tiers={cell.tiers}" if cell.tiers > 1 else None)
    return " ".join(word for word in words if word)


def _unit_of(metric: str) -> str:
    if metric.endswith("_us"):
        return "us"
    if metric.endswith("bytes"):
        return "B"
    return "1/s" if metric == "throughput_rps" else "1"
