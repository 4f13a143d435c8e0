"""How busy the cores were while a load ran: one panel per host and variant."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from testbed.record import Cell
from testbed.report.drawing import Drawing, draw
from testbed.report.palette import MUTED, looks
from testbed.report.quantities import number
from testbed.report.settings import Setting


@dataclass(frozen=True, slots=True)
class CoreTimeline:
    """One core of one host during one measurement.

    `edges` are seconds since the load began; `busy` and `softirq` (a part of busy) are shares from 0 to 1 of each of the
    len(edges) - 1 intervals; the load took `seconds`.
    """

    cell: Cell
    variant: str
    repetition: int
    role: str
    core: int
    seconds: float
    edges: tuple[float, ...]
    busy: tuple[float, ...]
    softirq: tuple[float, ...]

    def mean(self, values: Sequence[float]) -> float:
        """The mean of `values` (busy or softirq) over time, within the load."""
        weights = [
            max(0.0, min(later, self.seconds) - max(earlier, 0.0))
            for earlier, later in zip(self.edges, self.edges[1:], strict=False)
        ]
        total = sum(weights)
        return sum(w * v for w, v in zip(weights, values, strict=True)) / total if total else 0.0


def of_cell(timelines: Sequence[CoreTimeline], cell: Cell) -> list[CoreTimeline]:
    """The timelines of one cell, hosts in the order of the chain."""
    return sorted(
        (one for one in timelines if one.cell == cell), key=lambda one: (_place(one.role), one.core)
    )


def busy_cores(
    timelines: Sequence[CoreTimeline], labels: Sequence[str], setting: Setting, cell: Cell
) -> Drawing | None:
    """The cores of a cell over time; None without timelines."""
    mine = of_cell(timelines, cell)
    shown = [label for label in labels if any(one.variant == label for one in mine)]
    rows = list(dict.fromkeys((one.role, one.core) for one in mine))
    if not mine:
        return None
    styles = looks(labels)
    by_place = {(one.role, one.core, one.variant): one for one in mine}

    def fill(figure: Figure, axes: list[Axes]) -> None:
        longest = max(one.edges[-1] for one in mine)
        for line, (role, core) in enumerate(rows):
            for column, label in enumerate(shown):
                panel = axes[line * len(shown) + column]
                one = by_place.get((role, core, label))
                if one is not None:
                    _areas(panel, one, styles[label].colour)
                panel.set(ylim=(0, 101), xlim=(min(0.0, mine[0].edges[0]), longest))
                panel.set_yticks([0, 50, 100])
                panel.set_ylabel(f"{role}, core {core}\n% busy" if column == 0 else "")
                panel.set_title(label if line == 0 else "")
                panel.set_xlabel("seconds since the load began" if line == len(rows) - 1 else "")
                panel.tick_params(labelbottom=line == len(rows) - 1, labelleft=column == 0)

    name = "-".join(filter(None, ("cores", setting.slug, setting.point(cell).replace(" ", ""))))
    title = ", ".join(filter(None, ("Cores over time", setting.call(cell), setting.name)))
    size = (9.6 if len(shown) > 1 else 5.5, 1.25 * len(rows) + 0.5)
    return draw(name, title, _alt(title, mine), size, (len(rows), len(shown)), fill)


def _areas(panel: Axes, one: CoreTimeline, colour: str) -> None:
    busy = [share * 100 for share in one.busy]
    softirq = [share * 100 for share in one.softirq]
    panel.stairs(busy, one.edges, color=colour, fill=True, alpha=0.30, linewidth=0)
    panel.stairs(busy, one.edges, color=colour, linewidth=1.2)
    panel.stairs(softirq, one.edges, color=colour, fill=True, alpha=0.85, linewidth=0)
    for border in (0.0, one.seconds):
        panel.axvline(border, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))


def _place(role: str) -> tuple[int, str]:
    """The order of the chain: client, front end, intermediaries, back end."""
    order = {"fe": 1, "be": 3}
    return 0 if role.startswith("client") else order.get(role, 2), role


def _alt(title: str, timelines: Sequence[CoreTimeline]) -> str:
    parts = [
        f"{one.variant} {one.role} core {one.core} busy {number(one.mean(one.busy) * 100)} % on average"
        for one in timelines
    ]
    return f"Area charts: {title}. {'; '.join(parts)}."
