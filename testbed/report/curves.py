"""Latency distributions from HDR histograms, merged over repetitions: figures and percentiles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hdrh.histogram import HdrHistogram
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from testbed.record import Cell, Record
from testbed.report.drawing import Drawing, draw, legend
from testbed.report.figures import plain
from testbed.report.palette import looks
from testbed.report.quantities import number
from testbed.report.settings import Setting

PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)
_LOWEST_US = 1
_HIGHEST_US = 3_600_000_000
_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Distribution:
    """All latencies of a cell in a variant, over `runs` repetitions.

    `steps` are latencies in milliseconds with the share (0 to 1) of requests at or below them, ascending; `percentiles`
    are in milliseconds by percent; `usable` is False if a repetition's latencies must not be used.
    """

    cell: Cell
    variant: str
    runs: int
    requests: int
    usable: bool
    steps: tuple[tuple[float, float], ...]
    percentiles: Mapping[float, float]
    maximum: float


def distributions(records: Sequence[Record]) -> dict[tuple[Cell, str], Distribution]:
    """The distribution of every cell and variant that has a readable histogram."""
    groups: dict[tuple[Cell, str], list[Record]] = {}
    for record in records:
        if record.failure is None and record.load is not None:
            groups.setdefault((record.cell, record.variant.label), []).append(record)
    made = {key: _distribution(*key, members) for key, members in groups.items()}
    return {key: one for key, one in made.items() if one is not None}


def _distribution(cell: Cell, label: str, records: Sequence[Record]) -> Distribution | None:
    merged: Any = HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)
    runs = 0
    for record in records:
        decoded = _decode(record)
        if decoded is not None:
            merged.add(decoded)
            runs += 1
    total = int(merged.get_total_count())
    if total == 0:
        return None
    steps, below = [], 0
    for item in merged.get_recorded_iterator():
        below += int(item.count_at_value_iterated_to)
        steps.append((float(item.value_iterated_to) / 1000, below / total))
    percentiles = {percent: float(merged.get_value_at_percentile(percent)) / 1000 for percent in PERCENTILES}
    usable = all(record.valid for record in records)
    return Distribution(cell, label, runs, total, usable, tuple(steps), percentiles, steps[-1][0])


def _decode(record: Record) -> Any:
    """The histogram of a record; None where it cannot be read, as nothing else depends on it."""
    if record.load is None:
        return None
    try:
        return HdrHistogram.decode(record.load.histogram)
    except Exception:  # the decoder has no base for its errors
        return None


def cumulative(
    found: Mapping[tuple[Cell, str], Distribution], labels: Sequence[str], setting: Setting
) -> Drawing | None:
    """The distributions of a setting as cumulative curves, a panel per cell; None without any."""
    cells = [cell for cell in setting.cells if any((cell, label) in found for label in labels)]
    if not cells:
        return None
    styles = looks(labels)

    def fill(figure: Figure, axes: list[Axes]) -> None:
        for panel, cell in zip(axes, cells, strict=False):
            for label, look in styles.items():
                one = found.get((cell, label))
                if one is not None:
                    steps = [(one.steps[0][0], 0.0), *_thinned(one.steps)]
                    panel.step(
                        [at for at, _ in steps],
                        [share * 100 for _, share in steps],
                        where="post",
                        color=look.colour,
                        linestyle=look.line,
                    )
            _dress(panel, setting.point(cell))
        for unused in axes[len(cells) :]:
            unused.set_axis_off()
        legend(figure, list(styles.items()), markers=False)

    columns = min(len(cells), 3)
    lines = -(-len(cells) // columns)
    slug = f"latency-cdf-{setting.slug}" if setting.slug else "latency-cdf"
    title = "Distribution of latencies" + (f", {setting.name}" if setting.name else "")
    size = (3.2 * columns if columns > 1 else 5.0, 2.9 * lines + 0.3)
    return draw(slug, title, _alt(title, cells, labels, found, setting), size, (lines, columns), fill)


def _thinned(steps: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The steps without those that move a curve by less than a thousandth, which nobody can see."""
    kept = [steps[0]]
    for step in steps[1:-1]:
        if step[1] - kept[-1][1] >= 0.001:
            kept.append(step)
    return [*kept, steps[-1]]


def _dress(panel: Axes, title: str) -> None:
    panel.set_title(title)
    panel.set_xscale("log")
    low, high = panel.get_xlim()
    panel.xaxis.set_major_locator(LogLocator(10, subs=(1.0,) if high / low > 500 else (1.0, 3.0)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_ylim(0, 101)
    panel.set_xlabel("latency, ms (logarithmic)")
    panel.set_ylabel("% of requests at or below")


def _alt(
    title: str,
    cells: Sequence[Cell],
    labels: Sequence[str],
    found: Mapping[tuple[Cell, str], Distribution],
    setting: Setting,
) -> str:
    sentences = []
    for cell in cells:
        parts = []
        for label in labels:
            one = found.get((cell, label))
            if one is not None:
                half, most = number(one.percentiles[50.0]), number(one.percentiles[99.0])
                parts.append(f"{label} 50 % within {half} ms and 99 % within {most} ms")
        sentences.append(f"{setting.point(cell)}: {'; '.join(parts)}.")
    return f"Cumulative curves: {title}. {' '.join(sentences)}"
