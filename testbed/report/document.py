"""Puts a report together: sections with figures and tables as one page of HTML that needs nothing else.

The page has no script and no reference to anything outside of it; its policy forbids both. All text goes through the
template's escaping; the only markup from elsewhere is that of the figures drawn here.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy
from jinja2 import Environment as Templates
from jinja2 import FileSystemLoader, StrictUndefined

from testbed.analysis import Comparison, compare
from testbed.record import Cell, Json, Record, RunHeader, encode, size_name
from testbed.report import curves, figures, quantities, tables, timeline, verdicts
from testbed.report.drawing import Drawing
from testbed.report.findings import Finding, evaluate
from testbed.report.palette import VARIABLES
from testbed.report.settings import Setting, common, settings
from testbed.report.statements import Original, load_original
from testbed.report.tables import Table, Value
from testbed.report.timeline import CoreTimeline

_MOST_TIMELINES = 12
"""With more cells than this, only the last one of each setting is shown over time."""


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a section: a heading (may be empty), a figure, tables."""

    heading: str = ""
    text: str = ""
    drawing: Drawing | None = None
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the page; `intro` says how to read it."""

    id: str
    title: str
    intro: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A report that is done: the page, its figures, and what a program wants to know of it."""

    html: str
    drawings: tuple[Drawing, ...]
    verdicts: Mapping[str, int]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Material:
    """What sections are made of."""

    comparison: Comparison
    records: Sequence[Record]
    settings: tuple[Setting, ...]
    labels: tuple[str, ...]
    timelines: Sequence[CoreTimeline]
    distributions: Mapping[tuple[Cell, str], curves.Distribution] = field(default_factory=dict)


def make(
    header: RunHeader,
    records: Sequence[Record],
    timelines: Sequence[CoreTimeline],
    figures_directory: str,
    progress: Callable[[str], None] = lambda section: None,
) -> Report:
    """The report on a run's records.

    `figures_directory` is the name under which the page mentions the figures' files; `progress` is told the title of every
    section that is done.
    """
    comparison = compare(header, records)
    measured = {record.cell for record in records}
    cells = [cell for cell in dict.fromkeys(row.cell for row in comparison.rows) if cell in measured]
    material = _Material(
        comparison,
        records,
        settings(cells),
        tuple(variant.label for variant in comparison.variants),
        timelines,
        curves.distributions(records),
    )
    sections = []
    for section in _sections(material):
        progress(section.title)
        if section.blocks:
            sections.append(section)
    original = load_original()
    findings = evaluate(original, header.plan, records)
    warnings = _warnings(header, comparison, records)
    html = _render(header, material, sections, original, findings, warnings, figures_directory)
    drawings = tuple(
        block.drawing for section in sections for block in section.blocks if block.drawing is not None
    )
    return Report(html, drawings, verdicts.counts(findings), warnings)


def _sections(material: _Material) -> Iterator[Section]:
    yield _glance(material)
    yield _of_quantities(
        material,
        "cpu",
        "CPU per request",
        quantities.CPU,
        "CPU time of each tier's processes (its cgroup, the measuring agent left out), divided by successful requests; "
        "IS is the sum of all intermediaries. Points are medians over repetitions, bars their 95 % bootstrap intervals.",
    )
    yield _of_quantities(
        material,
        "bytes",
        "Network bytes",
        quantities.BYTES,
        "What each tier received and sent on its network interface, headers of all layers included, divided by successful "
        "requests. The bytes of the IS are the point of ODB.",
    )
    yield _of_quantities(
        material,
        "latency",
        "Latency",
        quantities.LATENCY,
        "From the start of a request to the last byte of its body, of every request; percentiles of each repetition, then "
        "their medians.",
    )
    yield _distributions(material)
    yield _of_quantities(
        material,
        "throughput",
        "Throughput",
        (quantities.THROUGHPUT, quantities.GENERATOR),
        "Successful requests per second, and how busy the load generator's busiest process was. A ramp with a fixed number of "
        "requests is not a test of capacity: variants that keep up have equal throughput.",
    )
    yield _of_quantities(
        material,
        "memory",
        "Memory",
        quantities.MEMORY,
        "Peak of each tier's cgroup while the load ran, without the page cache of files and without the agent.",
    )
    yield _over_time(material)
    yield _trust(material)


def _glance(material: _Material) -> Section:
    others = [label for label in material.labels if label != material.comparison.baseline]
    blocks = tuple(
        Block(tables=(tables.glance(material.comparison, setting, label),))
        for label in others
        for setting in material.settings
    )
    return Section(
        "glance",
        "At a glance",
        f"Medians of every variant as multiples of those of {material.comparison.baseline}: less than 1 is less of it. "
        "“No clear difference” is noise; “unproven” means that there seems to be a difference but that there are too few "
        "repetitions to prove it; “n too small to tell”, that they are too few to tell it from noise, however large it looks.",
        blocks,
    )


def _of_quantities(
    material: _Material, name: str, title: str, shown: tuple[quantities.Quantity, ...], intro: str
) -> Section:
    blocks = []
    for setting in material.settings:
        drawing = figures.over_cells(material.comparison, setting, name, title, shown)
        if drawing is not None:
            longest = max(cell.tiers for cell in setting.cells)
            columns = quantities.of_each_intermediary(shown, longest)
            table = tables.over_cells(material.comparison, setting, columns, drawing.title)
            blocks.append(Block(heading=setting.name, drawing=drawing, tables=(table,)))
    return Section(name, title, intro, tuple(blocks))


def _distributions(material: _Material) -> Section:
    blocks = []
    for setting in material.settings:
        drawing = curves.cumulative(material.distributions, material.labels, setting)
        if drawing is not None:
            table = tables.percentiles(material.distributions, material.labels, setting)
            blocks.append(Block(heading=setting.name, drawing=drawing, tables=(table,)))
    return Section(
        "distribution",
        "Distribution of latencies",
        "The HDR histograms of all repetitions, added up: every request counts once, so that a slow repetition shows in the "
        "tail. Curves further to the left are faster.",
        tuple(blocks),
    )


def _over_time(material: _Material) -> Section:
    cells = [
        (setting, cell)
        for at, setting in enumerate(material.settings)
        for cell in setting.cells
        if not any(cell in earlier.cells for earlier in material.settings[:at])
    ]
    if len(cells) > _MOST_TIMELINES:
        cells = [(setting, setting.cells[-1]) for setting in material.settings]
    blocks = []
    for setting, cell in cells:
        drawing = timeline.busy_cores(material.timelines, material.labels, setting, cell)
        if drawing is not None:
            heading = ", ".join(filter(None, (setting.call(cell), setting.name)))
            table = tables.busy(material.timelines, material.labels, cell)
            blocks.append(Block(heading=heading, drawing=drawing, tables=(table,)))
    return Section(
        "cores",
        "Cores over time",
        "The cores on which each host's processes run, in the first repetition that did not fail. Pale: busy; dark: the part "
        "of it that is softirq, which is mostly the network; dashed: begin and end of the load.",
        tuple(blocks),
    )


def _trust(material: _Material) -> Section:
    blocks = [Block(tables=(tables.quality(material.comparison, material.records),))]
    counters = tuple(
        table
        for setting in material.settings
        for variant in material.comparison.variants
        if variant.odb
        for table in [tables.counters(material.records, setting.cells[-1], variant.label)]
        if table.rows
    )
    if counters:
        blocks.append(Block(heading="ODB's own counters", tables=counters))
    return Section(
        "trust",
        "How far this may be believed",
        "Before each load every body is fetched and compared with the manifest of the BE, and ODB's counters show whether it "
        "was at work. The agents' own use of CPU is taken off their tier's; where the load generator was saturated, "
        "latencies are its own and are marked as not usable. “Stolen” is time that the hypervisor took from the servers' "
        "cores, “others” what processes that are no part of the tier used of them.",
        tuple(blocks),
    )


def _warnings(header: RunHeader, comparison: Comparison, records: Sequence[Record]) -> tuple[str, ...]:
    plan = header.plan
    planned = sum(len(plan.variants_of(cell)) for cell in plan.cells) * plan.repetitions
    found = list(comparison.warnings)
    if len(records) < planned:
        found.insert(
            0, f"{planned - len(records)} of {planned} measurements are missing: the run is not complete"
        )
    busy = [
        record
        for record in records
        if max(tables.foreign_shares(record).values(), default=0) > tables.FOREIGN
    ]
    if busy:
        found.append(
            f"other work used more than {tables.FOREIGN * 100:.0f} % of a server's core in {len(busy)} of {len(records)} "
            "measurements: the machine was not quiet"
        )
    found += [f"failed: {failure}" for failure in comparison.failures]
    return tuple(found)


def _render(
    header: RunHeader,
    material: _Material,
    sections: Sequence[Section],
    original: Original,
    findings: Sequence[Finding],
    warnings: Sequence[str],
    figures_directory: str,
) -> str:
    templates = Templates(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    comparison = material.comparison
    return templates.get_template("page.html.j2").render(
        title=" and ".join(material.labels) if len(material.labels) < 3 else ", ".join(material.labels),
        run=header.run,
        measured=_span(header, material.records),
        common=common([cell for setting in material.settings for cell in setting.cells]),
        payloads=", ".join(
            size_name(size).replace(" ", "\N{NO-BREAK SPACE}")
            for size in sorted({cell.payload for setting in material.settings for cell in setting.cells})
        ),
        repetitions=header.plan.repetitions,
        machine=_machine(header),
        quiet=_quiet(material.records),
        load=verdicts.load_text(comparison),
        warnings=warnings,
        sections=sections,
        findings_headline=verdicts.headline(findings),
        statements=verdicts.overview(findings),
        findings=verdicts.entries(findings),
        setup=verdicts.setup(original, comparison),
        environment=_environment(header, comparison),
        figures_directory=figures_directory,
        variables=VARIABLES,
    )


def _span(header: RunHeader, records: Sequence[Record]) -> str:
    """When the run was measured, in UTC."""
    start = min((record.started_at for record in records), default=header.created_at)
    end = max((record.ended_at for record in records), default=header.created_at)
    first, last = (time.strftime("%Y-%m-%d %H:%M", time.gmtime(at)) for at in (start, end))
    return f"{first} to {last[11:] if last[:10] == first[:10] else last} UTC"


def _machine(header: RunHeader) -> str:
    """What it was measured on."""
    on = header.environment
    return (
        f"{on.host}: {on.cores} cores, {on.cpu}; Linux {on.kernel}; {len(on.host_cores) or 'virtual'} hosts"
    )


def _quiet(records: Sequence[Record]) -> str:
    """Whether the machine did other work during the loads: what else ran on the servers' cores, and what was stolen."""
    others = [max(shares.values()) for record in records if (shares := tables.foreign_shares(record))]
    stolen = [tier.steal_share for record in records for tier in record.tiers if tier.steal_share is not None]
    if not others:
        return "not known: hosts share cores"
    busy = sum(share > tables.FOREIGN for share in others)
    word = f"in {len(others) - busy} of {len(others)} measurements" if busy else "yes"
    return (
        f"{word}; other work used {numpy.median(others):.1%} of a server's core (median), {max(others):.0%} at most; "
        f"{max(stolen, default=0):.0%} stolen at most"
    )


def _environment(header: RunHeader, comparison: Comparison) -> tuple[Table, ...]:
    """Everything that the run knows of where, what and how it measured."""
    plan = encode(header.plan)
    assert isinstance(plan, dict)
    variants = plan.pop("variants")
    plan.pop("cells")
    rows = [*_flat(encode(header.environment)), *_flat(plan)]
    table = Table(
        "Environment and plan", ("", "value"), tuple((Value(name), Value(text)) for name, text in rows)
    )
    assert isinstance(variants, list)
    described = []
    for variant in variants:
        assert isinstance(variant, dict)
        label = str(variant.pop("label"))
        text = "; ".join(f"{name}: {value}" for name, value in _flat(variant))
        described.append((Value(label), Value(text)))
    return table, Table("Variants", ("variant", "what it is"), tuple(described))


def _flat(value: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of a JSON value with their names; what is empty is left out."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(item, f"{prefix} {name}".strip().replace("_", " "))
    elif isinstance(value, list):
        yield prefix, ", ".join(map(str, value)) or "none"
    elif value is not None:
        yield prefix, {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
