"""Reads from the agents' samples of stored runs how busy the cores were while the loads ran."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from testbed.collect.summary import CollectError, Sample, read_samples
from testbed.record import Record
from testbed.report.timeline import CoreTimeline
from testbed.runs import Run, place_name

_MOST_INTERVALS = 90
_SHORTEST_INTERVAL = 0.2
_MARGIN_SECONDS = 1.0
"""What is shown before the load begins and after it ends."""


def timelines(runs: Sequence[Run]) -> Iterator[CoreTimeline]:
    """The cores over time of the first repetition of every cell and variant that has samples."""
    done: set[tuple[object, str, str]] = set()
    for run in runs:
        for record in sorted(run.records, key=lambda one: one.repetition):
            if record.failure is not None or record.load is None:
                continue
            for tier in record.tiers:
                key = (record.cell, record.variant.label, tier.role)
                path = run.directory / "cells" / place_name(record) / f"agent-{tier.role}.jsonl.gz"
                if key in done or not path.is_file():
                    continue
                found = list(_of_host(record, tier.role, tier.cores, path))
                if found:
                    done.add(key)
                yield from found


def _of_host(record: Record, role: str, cores: Sequence[int], path: Path) -> Iterator[CoreTimeline]:
    assert record.load is not None
    start, end = record.load.started_at, record.load.ended_at
    try:
        samples = read_samples(path)
    except CollectError as error:
        print(f"left out of the time series: {error}", file=sys.stderr)
        return
    kept = _thinned(
        [one for one in samples if start - _MARGIN_SECONDS <= one.wall <= end + _MARGIN_SECONDS], end - start
    )
    for core in cores:
        shares = [
            (_share(a, b, core, "busy"), _share(a, b, core, "softirq")) for a, b in itertools.pairwise(kept)
        ]
        if shares:
            yield CoreTimeline(
                cell=record.cell,
                variant=record.variant.label,
                repetition=record.repetition,
                role=role,
                core=core,
                seconds=end - start,
                edges=tuple(one.wall - start for one in kept),
                busy=tuple(busy for busy, _ in shares),
                softirq=tuple(softirq for _, softirq in shares),
            )


def _thinned(samples: Sequence[Sample], seconds: float) -> list[Sample]:
    """Samples so far apart that a figure shows shares rather than clock ticks."""
    step = max(_SHORTEST_INTERVAL, seconds / _MOST_INTERVALS)
    kept: list[Sample] = []
    for sample in samples:
        if not kept or sample.wall - kept[-1].wall >= step * 0.99:
            kept.append(sample)
    return kept


def _share(earlier: Sample, later: Sample, core: int, counter: str) -> float:
    """The share of the time between two samples; 0 where the core was not there."""
    before, after = earlier.cores.get(core), later.cores.get(core)
    if before is None or after is None:
        return 0.0
    return min(1.0, max(0.0, (after[counter] - before[counter]) / (later.wall - earlier.wall)))
