"""Tables of a report: the numbers that figures show, with intervals, ratios and what may be said of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from testbed.analysis import Comparison, Row, Statistic
from testbed.record import Cell, Record, size_name
from testbed.report.curves import PERCENTILES, Distribution
from testbed.report.quantities import BYTES, CPU, LATENCY, MEMORY, THROUGHPUT, Quantity, number, ratio_text
from testbed.report.settings import Setting
from testbed.report.timeline import CoreTimeline, of_cell

Tone = Literal["", "good", "bad", "flat", "warn"]


FOREIGN = 0.1
"""Other work on a tier's core above this share of it is a warning."""


@dataclass(frozen=True, slots=True)
class Value:
    """One field of a table: `note` is smaller text below it, lines kept; the tone never says more than the text does."""

    text: str
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its caption; the first `heads` fields of a row name it."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    heads: int = 1


SLIGHT = 0.05
"""Differences below this are worth a word but no colour."""

GLANCE = (*CPU, *(one for one in BYTES if one.name == "is.bytes"), *LATENCY[:2], THROUGHPUT, *MEMORY)


def glance(comparison: Comparison, setting: Setting, label: str) -> Table:
    """The ratios of one variant to the baseline: a line per metric, a column per cell."""
    rows = []
    for item in GLANCE:
        fields = [
            _ratio_value(
                item,
                _metric(comparison, cell, label, item.name),
                _row(comparison, cell, label),
                _row(comparison, cell, comparison.baseline),
            )
            for cell in setting.cells
        ]
        rows.append((Value(item.title), *fields))
    where = f" ({setting.name})" if setting.name else ""
    columns = ("", *(setting.call(cell) for cell in setting.cells))
    return Table(
        f"{label}{where}: medians as multiples of those of {comparison.baseline}", columns, tuple(rows)
    )


def over_cells(
    comparison: Comparison, setting: Setting, quantities: Sequence[Quantity], caption: str
) -> Table:
    """The numbers behind a figure: a line per cell and variant, a column per quantity."""
    rows = []
    for cell in setting.cells:
        for variant in comparison.variants:
            row = _row(comparison, cell, variant.label)
            fields = [
                _measured(
                    item,
                    _metric(comparison, cell, variant.label, item.name),
                    row,
                    _row(comparison, cell, comparison.baseline),
                )
                for item in quantities
            ]
            rows.append((Value(setting.point(cell)), Value(variant.label, _count(row)), *fields))
    columns = (setting.axis_title, "variant", *(f"{item.title}, {item.unit}" for item in quantities))
    return Table(caption, columns, tuple(rows), heads=2)


def percentiles(
    found: Mapping[tuple[Cell, str], Distribution], labels: Sequence[str], setting: Setting
) -> Table:
    """The percentiles of the merged distributions of a setting, in milliseconds."""
    rows = []
    for cell in setting.cells:
        for label in labels:
            one = found.get((cell, label))
            if one is None:
                continue
            note = "" if one.usable else "not usable"
            values = [number(one.percentiles[percent]) for percent in PERCENTILES] + [number(one.maximum)]
            fields = [Value(text, tone="" if one.usable else "warn") for text in values]
            requests = Value(f"{one.requests:,}", f"{one.runs} repetitions")
            rows.append((Value(setting.point(cell)), Value(label, note), requests, *fields))
    columns = (
        setting.axis_title,
        "variant",
        "requests",
        *(f"{percent:g} %" for percent in PERCENTILES),
        "maximum",
    )
    return Table("Latency in ms within which so many of all requests were answered", columns, tuple(rows), 2)


def busy(timelines: Sequence[CoreTimeline], labels: Sequence[str], cell: Cell) -> Table:
    """The mean load of the cores in a figure."""
    rows = []
    mine = of_cell(timelines, cell)
    for role, core in dict.fromkeys((one.role, one.core) for one in mine):
        fields = []
        for label in labels:
            one = next((t for t in mine if (t.role, t.core, t.variant) == (role, core, label)), None)
            fields.append(
                Value("-")
                if one is None
                else Value(
                    f"{number(one.mean(one.busy) * 100)} %",
                    f"softirq {number(one.mean(one.softirq) * 100)} %",
                )
            )
        rows.append((Value(f"{role}, core {core}"), *fields))
    return Table("Busy share of each core, mean while the load ran", ("core", *labels), tuple(rows))


def quality(comparison: Comparison, records: Sequence[Record]) -> Table:
    """How far every cell may be believed: repetitions, errors, generator, agents, checked bodies, ODB's presence."""
    rows = []
    for row in comparison.rows:
        mine = [one for one in records if one.cell == row.cell and one.variant.label == row.variant]
        rows.append((Value(_cell_name(row.cell)), Value(row.variant), *_quality(row, mine)))
    columns = (
        "cell",
        "variant",
        "n",
        "requests (failed)",
        "latency",
        "generator, %",
        "agents, %",
        "stolen, %",
        "pace, ns",
        "others, %",
        "bodies checked",
        "ODB",
    )
    return Table(
        "The worst of all repetitions of each cell; shares are of one core", columns, tuple(rows), heads=2
    )


def counters(records: Sequence[Record], cell: Cell, label: str) -> Table:
    """How much ODB's counters grew per request of a cell: a line per counter, a column per host."""
    mine = [
        one for one in records if one.cell == cell and one.variant.label == label and one.load is not None
    ]
    requests = sum(one.load.requests for one in mine if one.load is not None)
    sums: dict[str, dict[str, int]] = {}
    for record in mine:
        for tier in record.tiers:
            for name, grown in tier.odb.items():
                by_role = sums.setdefault(name, {})
                by_role[tier.role] = by_role.get(tier.role, 0) + grown
    roles = list(dict.fromkeys(tier.role for one in mine for tier in one.tiers if tier.odb))
    rows = tuple(
        (Value(name), *(Value(number(by_role.get(role, 0) / requests)) for role in roles))
        for name, by_role in sorted(sums.items())
        if requests
    )
    return Table(f"{label}, {_cell_name(cell)}: counters per request", ("counter", *roles), rows)


def _quality(row: Row, mine: Sequence[Record]) -> tuple[Value, ...]:
    loads = [one.load for one in mine if one.load is not None]
    requests, errors = sum(one.requests for one in loads), sum(one.errors for one in loads)
    generator = [one.metrics["client.cpu_share"].value for one in mine if "client.cpu_share" in one.metrics]
    shares = [share for share in generator if share is not None]
    tiers = [tier for one in mine for tier in one.tiers]
    agents = [tier.agent_cpu_seconds / tier.seconds for tier in tiers if tier.seconds > 0]
    stolen = [tier.steal_share for tier in tiers if tier.steal_share is not None]
    paces = [tier.pace_ns for tier in tiers if tier.pace_ns is not None]
    others = [share for one in mine for share in foreign_shares(one).values()]
    checks = [one.verification for one in mine if one.verification is not None]
    bodies = [body for check in checks for body in check.bodies]
    right = sum(body.sha256 == body.expected_sha256 and body.length == body.payload for body in bodies)
    active = {check.odb_active for check in checks}
    failed = len(mine) - row.n
    return (
        Value(str(row.n), f"{failed} failed" if failed else "", "bad" if failed else ""),
        Value(f"{requests:,}", f"{errors:,} failed" if errors else "none failed", "bad" if errors else ""),
        Value("usable") if row.valid else Value("not usable", tone="warn"),
        Value(_percent(shares)),
        Value(_percent(agents)),
        Value(_percent(stolen)),
        Value(_span(paces)),
        Value(_percent(others), tone="warn" if max(others, default=0) > FOREIGN else ""),
        Value(f"{right} of {len(bodies)} right", tone="" if right == len(bodies) else "bad"),
        Value({frozenset({True}): "active", frozenset({False}): "absent"}.get(frozenset(active), "-")),
    )


def foreign_shares(record: Record) -> dict[str, float]:
    """By role, the share of a core that something else than the tier and the kernel's network used on its cores.

    Cores that several hosts share tell nothing, and the client's may be the rest of the machine's: both are left out.
    """
    found = {}
    for tier in record.tiers:
        shared = any(set(tier.cores) & set(other.cores) for other in record.tiers if other is not tier)
        if shared or tier.role.startswith("client") or tier.cpu_seconds is None or tier.seconds <= 0:
            continue
        busy = sum(use.busy_share - use.softirq_share for use in tier.core_use.values())
        own = (tier.cpu_seconds + tier.agent_cpu_seconds) / tier.seconds
        found[tier.role] = max(0.0, busy - own)
    return found


def _span(values: Sequence[float]) -> str:
    return f"{min(values):.0f} to {max(values):.0f}" if values else "-"


def _percent(shares: Sequence[float]) -> str:
    return number(max(shares) * 100) if shares else "-"


def _cell_name(cell: Cell) -> str:
    """The payload, and what of the cell is out of the ordinary."""
    parts = [size_name(cell.payload)]
    rest = cell.slug.split("-")[1:]
    parts += [word for word in rest if word not in ("aligned", "t1", cell.buffer_size)]
    return ", ".join(parts)


def _row(comparison: Comparison, cell: Cell, label: str) -> Row | None:
    return next((row for row in comparison.rows if row.cell == cell and row.variant == label), None)


def _metric(comparison: Comparison, cell: Cell, label: str, name: str) -> Statistic | None:
    row = _row(comparison, cell, label)
    return None if row is None else row.metrics.get(name)


def _count(row: Row | None) -> str:
    return f"n = {row.n}" if row is not None else ""


def _unusable(item: Quantity, row: Row | None) -> bool:
    return row is not None and not row.valid and item.name.startswith("latency.")


def _measured(item: Quantity, one: Statistic | None, row: Row | None, base: Row | None) -> Value:
    """Median, interval and ratio of one metric; `base` is the baseline's row."""
    if one is None or one.median is None:
        return Value("-", one.reason or "" if one is not None else "not measured")
    notes = []
    if one.n > 1 and one.low is not None and one.high is not None:
        low, high = item.show(one.low), item.show(one.high)
        notes.append(low if low == high else f"{low} to {high}")
    if _unusable(item, row):
        notes.append("not usable")
        return Value(item.show(one.median), "\n".join(notes), "warn")
    if one.verdict != "baseline" and _unusable(item, base):
        return Value(item.show(one.median), "\n".join([*notes, "baseline not usable"]))
    if one.verdict != "baseline" and one.ratio is not None:
        notes.append(f"{ratio_text(one.ratio)} {standing(item, one)[0]}".strip())
    return Value(item.show(one.median), "\n".join(notes), "" if one.ratio is None else standing(item, one)[1])


def _ratio_value(item: Quantity, one: Statistic | None, row: Row | None, base: Row | None) -> Value:
    if one is None or one.ratio is None:
        return Value("-", "not measured")
    if _unusable(item, row):
        return Value(ratio_text(one.ratio), "not usable", "warn")
    if _unusable(item, base):
        return Value(ratio_text(one.ratio), "baseline not usable", "warn")
    words, tone = standing(item, one)
    return Value(ratio_text(one.ratio), words, tone)


def _alike(one: Statistic) -> bool:
    """Whether medians are so near to each other that more repetitions would hardly matter."""
    return one.ratio is not None and abs(one.ratio - 1) < SLIGHT


def standing(item: Quantity, one: Statistic) -> tuple[str, Tone]:
    """What may be said of a metric against the baseline, in words and as a tone."""
    if one.verdict in ("baseline", "absent") or one.ratio is None:
        return "", ""
    if one.verdict == "noise":
        return ("no clear difference" if one.decidable or _alike(one) else "n too small to tell"), "flat"
    if one.n < 2:
        return "one measurement", "flat"
    good = (one.ratio < 1) == (item.better == "less")
    words = "better" if good else "worse"
    small = abs(one.ratio - 1) < SLIGHT
    tone: Tone = "flat" if small else "good" if good else "bad"
    if small:
        words = f"slightly {words}"
    return (f"{words}, unproven" if one.verdict == "undecided" else words), tone
