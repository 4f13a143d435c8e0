"""A made-up run as large as the original's, for tests of reports: both alignments, several variants, real histograms."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

from hdrh.histogram import HdrHistogram

from testbed.record import Cell, LoadResult, Metric, Plan, Record, RunHeader
from tests.unit import record_samples as samples

EVERYTHING = {
    **samples.TYPICAL,
    "fe.bytes": 527_000.0,
    "be.bytes": 264_000.0,
    "fe.mem_bytes": 6e6,
    "is.mem_bytes": 6e6,
    "be.mem_bytes": 6e6,
    "latency.p999_us": 9_000.0,
    "client.cpu_share": 0.4,
}
UNITS = {
    **samples.UNITS,
    "fe.bytes": "B",
    "be.bytes": "B",
    "fe.mem_bytes": "B",
    "is.mem_bytes": "B",
    "be.mem_bytes": "B",
    "latency.p999_us": "us",
    "client.cpu_share": "1",
}

Scale = Callable[[str, Cell, str], float]
"""The factor by which a metric (last) of a variant in a cell differs from the typical value."""


def plan(
    *labels: str, payloads: tuple[int, ...] = (16384, 262144), aligns: tuple[bool, ...] = (True,), n: int = 10
) -> Plan:
    base = samples.plan(*labels, payloads=payloads, repetitions=n)
    return replace(base, cells=tuple(Cell(payload, align) for align in aligns for payload in payloads))


def run(of: Plan, scale: Scale, *, noise: float = 0.01, seed: int = 3) -> tuple[RunHeader, list[Record]]:
    """Header and records: typical values times `scale`, with relative normal noise."""
    header = samples.header(of)
    generator = random.Random(seed)
    records: list[Record] = []
    for cell in of.cells:
        for variant in of.variants:
            for repetition in range(1, of.repetitions + 1):
                metrics = {
                    name: Metric(
                        value * scale(variant.label, cell, name) * generator.gauss(1, noise), UNITS[name]
                    )
                    for name, value in EVERYTHING.items()
                }
                made = samples.record(header, cell, variant, repetition, metrics, sequence=len(records))
                mean = 1000 * scale(variant.label, cell, "latency.mean_us") * generator.gauss(1, noise)
                assert made.load is not None
                records.append(replace(made, load=_load(made.load, mean, generator)))
    return header, records


def _load(load: LoadResult, mean: float, generator: random.Random) -> LoadResult:
    histogram = HdrHistogram(1, 3_600_000_000, 3)
    for _ in range(load.requests):
        histogram.record_value(max(1, int(generator.expovariate(1 / mean))))
    latency: Mapping[str, float | None] = {**load.latency_us, "mean": mean}
    return replace(load, latency_us=latency, histogram=histogram.encode().decode())
