"""Figures of metrics over the cells of a setting: one line per variant with 95 % intervals, one panel per metric."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from testbed.analysis import Comparison, Row, Statistic
from testbed.record import Cell
from testbed.report.drawing import Drawing, draw, legend
from testbed.report.palette import Look, looks
from testbed.report.quantities import Quantity
from testbed.report.settings import Setting

_WIDTH = 9.6
_HEIGHT = 2.9
_LOGARITHMIC = 25
"""Values of a panel that lie further apart than this factor are drawn on a logarithmic scale."""
_DODGE = 0.12
"""How far apart the variants of one cell stand, in units of cells, so that intervals do not cover each other."""


def over_cells(
    comparison: Comparison, setting: Setting, name: str, title: str, quantities: Sequence[Quantity]
) -> Drawing | None:
    """The figure of `quantities` over the cells of `setting`; None if there is not one value of any of them."""
    rows = [row for row in comparison.rows if row.cell in setting.cells]
    shown = [item for item in quantities if any(_median(row, item.name) is not None for row in rows)]
    if not shown:
        return None
    styles = looks([variant.label for variant in comparison.variants])

    def fill(figure: Figure, axes: list[Axes]) -> None:
        for panel, item in zip(axes, shown, strict=False):
            _panel(panel, item, setting, rows, styles)
        for unused in axes[len(shown) :]:
            unused.set_axis_off()
        legend(figure, list(styles.items()))

    slug = f"{name}-{setting.slug}" if setting.slug else name
    full = f"{title}, {setting.name}" if setting.name else title
    columns = min(len(shown), 4)
    lines = -(-len(shown) // columns)
    width = _WIDTH if columns > 2 else _WIDTH * 0.7
    size = (width, _HEIGHT * lines + 0.3)
    alt = _alt(full, shown, setting, rows)
    return draw(slug, full, alt, size, (lines, columns), fill)


def _panel(
    axes: Axes, item: Quantity, setting: Setting, rows: Sequence[Row], styles: dict[str, Look]
) -> None:
    seen: list[float] = []
    for place, (label, look) in enumerate(styles.items()):
        offset = (place - (len(styles) - 1) / 2) * min(_DODGE, 0.5 / len(styles))
        points = [
            (at + offset, statistic)
            for at, cell in enumerate(setting.cells)
            for statistic in [_statistic(rows, cell, label, item.name)]
            if statistic is not None and statistic.median is not None
        ]
        seen += [value for _, one in points for value in _bounds(one, item.scale)]
        _line(axes, points, item.scale, look)
    axes.set_title(item.title)
    axes.set_ylabel(item.unit)
    axes.set_xlabel(setting.axis_title)
    axes.set_xticks(range(len(setting.cells)), _ticks(setting))
    axes.set_xlim(-0.5, len(setting.cells) - 0.5)
    axes.grid(visible=False, axis="x")
    _scale(axes, seen)


def _line(axes: Axes, points: Sequence[tuple[float, Statistic]], scale: float, look: Look) -> None:
    if not points:
        return
    medians = [(one.median or 0.0) * scale for _, one in points]
    bounds = [_bounds(one, scale) for _, one in points]
    below = [max(0.0, median - low) for median, (low, _) in zip(medians, bounds, strict=True)]
    above = [max(0.0, high - median) for median, (_, high) in zip(medians, bounds, strict=True)]
    axes.errorbar(
        [at for at, _ in points],
        medians,
        yerr=[below, above],
        color=look.colour,
        marker=look.marker,
        linestyle=look.line,
        capsize=2.5,
        elinewidth=1.0,
    )


def _scale(axes: Axes, seen: Sequence[float]) -> None:
    positive = [value for value in seen if value > 0]
    if positive and len(positive) == len(seen) and max(positive) / min(positive) > _LOGARITHMIC:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 3.0)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(0, max(seen, default=0) * 1.08 or 1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


def plain(value: float) -> str:
    """A number at an axis: as short as it can be without losing digits that ticks have."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def _ticks(setting: Setting) -> list[str]:
    """The cells, on two lines where they would touch each other."""
    names = [setting.point(cell) for cell in setting.cells]
    return [name.replace(" ", "\n") for name in names] if len(names) > 3 else names


def _bounds(one: Statistic, scale: float) -> tuple[float, float]:
    median = one.median or 0.0
    low = median if one.low is None else one.low
    high = median if one.high is None else one.high
    return low * scale, high * scale


def _statistic(rows: Sequence[Row], cell: Cell, label: str, name: str) -> Statistic | None:
    for row in rows:
        if row.cell == cell and row.variant == label:
            return row.metrics.get(name)
    return None


def _median(row: Row, name: str) -> float | None:
    statistic = row.metrics.get(name)
    return None if statistic is None else statistic.median


def _alt(title: str, items: Sequence[Quantity], setting: Setting, rows: Sequence[Row]) -> str:
    """The figure in words: every line at its first and its last cell."""
    ends = list(dict.fromkeys((setting.cells[0], setting.cells[-1])))
    sentences = []
    for item in items:
        parts = []
        for label in dict.fromkeys(row.variant for row in rows):
            values = [
                f"{item.show(one.median)} at {setting.point(cell)}"
                for cell in ends
                for one in [_statistic(rows, cell, label, item.name)]
                if one is not None and one.median is not None
            ]
            if values:
                parts.append(f"{label} {' and '.join(values)}")
        sentences.append(f"{item.title} in {item.unit}: {'; '.join(parts)}.")
    return f"Line chart: {title} by {setting.axis_title}. {' '.join(sentences)}"
