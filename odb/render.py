"""Tables for people: live statistics, findings and options, drawn with rich. Imported only by the commands that draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from odb.config import Config
from odb.doctor import Finding
from odb.reference import possible
from odb.stats import Page, Reading, bytes_avoided, fallbacks, spans_forwarded
from odb.tables import option_table, stat_docs

# What the counters of one process are grouped by when they are shown in full, by the beginnings of their names.
GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("streams", ("streams_", "resets", "protocol_errors", "parked_")),
    ("payloads", ("payload", "store_", "serve")),
    ("spans", ("span", "real_bytes_", "channels_", "fetch")),
    ("windows", ("windows_", "faults", "materialised_", "guard_")),
    ("fallbacks", ("fallback_",)),
)


def console() -> Console:
    """Standard output; without a terminal there is no width to fit into, so lines are as long as they need to be."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=200)


def amount(size: int) -> str:
    """Bytes for people: 1.5 MiB."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def statistics(reading: Reading, *, full: bool) -> RenderableType:
    """One row per process and their sum, then the fallbacks that happened; with `full` every counter with its meaning."""
    if not reading.pages:
        return Text(f"No living process has the library (looked in {reading.directory}).")
    if full:
        return Group(*(_counters(page) for page in reading.pages))
    parts: list[RenderableType] = [_overview(reading)]
    reasons = fallbacks(reading.totals())
    if reasons:
        parts.append(_reasons(reasons))
    return Group(*parts)


def _overview(reading: Reading) -> Table:
    table = Table(title="ODB, living processes", title_justify="left", caption_justify="left")
    table.add_column("pid", justify="right")
    table.add_column("program")
    for heading in (
        "streams",
        "payloads",
        "served",
        "spans",
        "bytes avoided",
        "fetched",
        "faults",
        "fallbacks",
        "lost",
    ):
        table.add_column(heading, justify="right")
    table.caption = (
        "payloads: captured here; served: to consumers; spans: descriptors passed on for others; bytes avoided: what they "
        "stood for and was never held here; lost: failed fetches"
    )
    for page in reading.pages:
        table.add_row(str(page.pid), page.comm, *_cells(page.counters, [page]))
    if len(reading.pages) > 1:
        table.add_section()
        table.add_row("", "total", *_cells(reading.totals(), reading.pages), style="bold")
    return table


def _cells(counters: Mapping[str, int], pages: Sequence[Page]) -> list[str]:
    """The cells of one process or of a sum; what one process avoided cannot be seen from sums, so it is added up."""
    return [
        str(counters.get("streams_framed", 0)),
        str(counters.get("payloads_captured", 0)),
        amount(counters.get("serve_bytes", 0)),
        str(sum(spans_forwarded(page.counters) for page in pages)),
        amount(sum(bytes_avoided(page.counters) for page in pages)),
        amount(counters.get("fetch_bytes", 0)),
        str(counters.get("faults", 0)),
        str(sum(fallbacks(counters).values())),
        str(counters.get("fetch_failures", 0)),
    ]


def _reasons(reasons: Mapping[str, int]) -> Table:
    docs = stat_docs()
    table = Table(title="Fallbacks", title_justify="left")
    table.add_column("reason")
    table.add_column("count", justify="right")
    table.add_column("what happened")
    for reason, count in reasons.items():
        table.add_row(reason, str(count), docs.get(f"fallback_{reason}", ""))
    return table


def _counters(page: Page) -> Table:
    docs = stat_docs()
    table = Table(title=f"{page.comm} ({page.pid})", title_justify="left")
    table.add_column("counter")
    table.add_column("value", justify="right")
    table.add_column("what it counts")
    rest = dict(page.counters)
    for _, beginnings in (*GROUPS, ("others", ("",))):
        names = [name for name in rest if name.startswith(beginnings)]
        for name in names:
            value = rest.pop(name)
            table.add_row(name, amount(value) if "bytes" in name else str(value), docs.get(name, ""))
        if names:
            table.add_section()
    return table


def findings(found: Sequence[Finding]) -> Table:
    """One row per check; what is wrong carries its hint."""
    styles = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table(title="Can ODB run here?", title_justify="left")
    for heading in ("check", "state", "found", "what to do"):
        table.add_column(heading)
    for finding in found:
        state = Text(finding.status, style=styles[finding.status])
        table.add_row(finding.name, state, Text(finding.detail), Text(finding.hint))
    return table


def options(config: Config) -> Table:
    """One row per option: the value that holds, where it comes from, what may be written."""
    table = Table(title="Options", title_justify="left")
    for heading in ("option", "value", "from", "possible", "meaning"):
        table.add_column(heading)
    for name, option in option_table().options.items():
        setting = config.settings[name]
        cells = (name, setting.value, setting.source, possible(option))
        table.add_row(*(Text(cell) for cell in cells), Text(option.doc))
    return table
