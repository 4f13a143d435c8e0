"""The one table of a bench: a block per cell, the baseline in its units, a line of ratios per other variant.

Beside the ratios stand the library's counters per response, which a server without it does not have, as they are.  Marks
are those of the comparison: `~` noise, `?` too few repetitions to prove it, `!` a latency that must not be used.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from testbed.analysis import COUNTED, UNTESTED, Comparison, Row, Statistic
from testbed.record import Cell, size_name
from testbed.report.quantities import number
from testbed.report.terminal import footer, mark_of

_WIDTH = 1000
"""Room for the table: it takes what it needs, and its lines are not folded in a narrow terminal."""


@dataclass(frozen=True, slots=True)
class Column:
    """One metric: what it is called, and how a median is shown in its unit."""

    metric: str
    title: str
    show: Callable[[float], str] = number
    absolute: bool = False
    """Whether every variant's own value is shown instead of its ratio to the baseline's."""


def _milliseconds(value: float) -> str:
    return number(value / 1000)


def _kibibytes(value: float) -> str:
    return number(value / 1024)


COLUMNS = (
    Column("fe.cpu_us", "FE\nus"),
    Column("is.cpu_us", "IS\nus"),
    Column("be.cpu_us", "BE\nus"),
    Column("total.cpu_us", "CPU\nus"),
    Column("fe.steady_us", "steady\nFE us"),
    Column("is.steady_us", "steady\nIS us"),
    Column("be.steady_us", "steady\nBE us"),
    Column("total.steady_us", "steady\nCPU us"),
    Column("throughput_rps", "through-\nput 1/s"),
    Column("latency.p50_us", "p50\nms", _milliseconds),
    Column("latency.p99_us", "p99\nms", _milliseconds),
    Column("fe.calls", "FE\ncalls"),
    Column("is.calls", "IS\ncalls"),
    Column("be.calls", "BE\ncalls"),
    Column("is.bytes", "IS\nKiB", _kibibytes),
    Column("is.bytes", "IS bytes", absolute=True),
    Column("fe.faults", "FE\nfaults", absolute=True),
    Column("is.faults", "IS\nfaults", absolute=True),
    Column("fe.fetches", "FE\nfetches", absolute=True),
    Column("is.fetches", "IS\nfetches", absolute=True),
    Column("fe.guard_calls", "FE\nguards", absolute=True),
    Column("is.guard_calls", "IS\nguards", absolute=True),
    Column("be.pushes", "BE\npushes", absolute=True),
    Column("pace_ns", "pace\nns", absolute=True),
)
_MORE_IS_BETTER = frozenset({"throughput_rps"})


def show(comparison: Comparison, stream: IO[str]) -> None:
    """Write the table, failures and warnings to `stream`; colour only where rich finds a terminal that wants it."""
    console = Console(file=stream, highlight=False, emoji=False, markup=False)
    console.width = _WIDTH
    with console.capture() as captured:
        console.print(_table(comparison))
    for line in captured.get().splitlines():
        print(line.rstrip(), file=stream)
    print(
        f"First line of each block: {comparison.baseline}, per request, in the units of the columns; lines below: "
        "multiples of it.\nIS bytes to pace: each variant's own, per response but for the pace.",
        file=stream,
    )
    for line in _absent(comparison):
        print(line, file=stream)
    for note in footer(comparison):
        console.print(note, soft_wrap=True)


def _table(comparison: Comparison) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("n", justify="right")
    for column in COLUMNS:
        table.add_column(column.title, justify="right", no_wrap=True)
    for cell in dict.fromkeys(row.cell for row in comparison.rows):
        table.add_row(Text(title(cell), style="bold"))
        for row in (row for row in comparison.rows if row.cell == cell):
            table.add_row(*_line(row, row.variant == comparison.baseline))
        table.add_row("")
    return table


def _absent(comparison: Comparison) -> Iterator[str]:
    """Why calls were not counted where they should have been: a line per cell and variant."""
    for row in comparison.rows:
        reasons = {
            one.reason
            for name, one in row.metrics.items()
            if name in COUNTED and one.median is None and row.n
        }
        yield from (f"not measured: {title(row.cell)}, {row.variant}: {reason}" for reason in reasons)


def title(cell: Cell) -> str:
    """The heading of a block: short, since the first column is as wide as the longest."""
    words = [
        size_name(cell.payload),
        f"{cell.tiers} IS",
        f"buffers {cell.buffer_size}",
        None if cell.align else "unaligned",
        "buffering" if cell.buffering else None,
        None if cell.sendfile else "no sendfile",
        None if cell.touch == "none" else cell.touch,
        cell.load,
    ]
    return ", ".join(word for word in words if word)


def _line(row: Row, is_baseline: bool) -> Iterator[Text]:
    yield Text(f"  {row.variant}")
    yield Text(str(row.n), style="" if row.n else "red")
    for column in COLUMNS:
        yield field(column, row, is_baseline)


def field(column: Column, row: Row, is_baseline: bool) -> Text:
    """One field of the table; `-` where there is nothing to show."""
    statistic = row.metrics.get(column.metric)
    if statistic is None or statistic.median is None:
        return Text("- ", style="dim")
    unusable = "!" if column.metric.startswith("latency.") and not row.valid else ""
    if column.absolute or is_baseline:
        return Text(f"{column.show(statistic.median)}{unusable} ")
    if statistic.ratio is None:
        return Text("- ", style="dim")
    return Text(
        f"{number(statistic.ratio)}{unusable or mark_of(statistic)}", style=_style(column.metric, statistic)
    )


def _style(metric: str, statistic: Statistic) -> str:
    """Dim for noise; green or red for what is better or worse, proven or seeming."""
    if statistic.verdict == "noise":
        return "dim"
    if metric in UNTESTED | COUNTED or statistic.ratio is None or statistic.n < 2:
        return ""
    return "green" if (statistic.ratio > 1) == (metric in _MORE_IS_BETTER) else "red"
