"""The comparison as a table for people: one block per cell, a line per metric, a column per variant.

Figures are medians with their spread (the wider side of the 95 % interval, in percent of the median); beside
them the ratio to the baseline and a mark: none is a proven difference, `~` noise, `?` too few repetitions to
tell, `!` a latency that must not be used. Nothing but the colour depends on the terminal, the layout only on
its width.
"""

from collections.abc import Iterator, Sequence
from typing import IO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from testbed.analysis import UNTESTED, Comparison, Row, Statistic
from testbed.record import Cell, size_name

_LINES = (
    ("fe.cpu_us", "FE CPU, us/request"),
    ("is.cpu_us", "IS CPU, us/request"),
    ("be.cpu_us", "BE CPU, us/request"),
    ("total.cpu_us", "total CPU, us/req."),
    ("total.steady_us", "at equal pace"),
    ("pace_ns", "pace, ns/call"),
    ("latency.p50_us", "latency p50, us"),
    ("latency.p99_us", "latency p99, us"),
    ("throughput_rps", "throughput, 1/s"),
    ("is.bytes", "IS bytes/request"),
    ("client.cpu_share", "generator, core"),
)
_MORE_IS_BETTER = frozenset({"throughput_rps"})
_NAME_WIDTH = 19
_VARIANT_WIDTH = 26
_MARKS = {"noise": "~", "undecided": "?"}


def show(comparison: Comparison, stream: IO[str], *, width: int | None = None) -> None:
    """Write the tables, failures and warnings to `stream`; colour only where rich finds a terminal that wants
    it.
    """
    console = Console(file=stream, width=width, highlight=False, emoji=False, markup=False)
    width_of_one = max(_VARIANT_WIDTH, *(len(variant.label) + 16 for variant in comparison.variants))
    per_block = max(1, (console.width - _NAME_WIDTH) // width_of_one - 1)
    others = [variant.label for variant in comparison.variants[1:]]
    blocks = [others[at : at + per_block] for at in range(0, len(others), per_block)] or [[]]
    for cell in dict.fromkeys(row.cell for row in comparison.rows):
        rows = {row.variant: row for row in comparison.rows if row.cell == cell}
        for block in blocks:
            shown = [rows[label] for label in (comparison.baseline, *block) if label in rows]
            if len(shown) > 1 or not block:
                console.print(_table(cell, shown))
                console.print()
    for line in footer(comparison):
        console.print(line, soft_wrap=False)


def _table(cell: Cell, rows: Sequence[Row]) -> Table:
    table = Table(title=_cell_title(cell), title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("", width=_NAME_WIDTH - 1, no_wrap=True)
    for at, row in enumerate(rows):
        count = f"n={row.n}"
        table.add_column(f"{row.variant} {count}", justify="right", no_wrap=True)
        if at:
            table.add_column("ratio", justify="right", no_wrap=True)
    for name, title in _lines(cell):
        cells: list[Text] = [Text(title)]
        for at, row in enumerate(rows):
            statistic = row.metrics.get(name)
            cells.append(_figure(name, statistic, row))
            if at:
                cells.append(Text("") if name in UNTESTED else _ratio(name, statistic))
        table.add_row(*cells)
    return table


def _lines(cell: Cell) -> Iterator[tuple[str, str]]:
    """Metric and title of every line; several intermediaries stand below their sum."""
    for name, title in _LINES:
        yield name, title
        if name.startswith("is.") and cell.tiers > 1:
            what = title.split()[1].split("/")[0].rstrip(",")
            for number in range(1, cell.tiers + 1):
                yield name.replace("is.", f"is{number}."), f"  IS{number} {what}"


def _cell_title(cell: Cell) -> str:
    chain = "1 intermediary" if cell.tiers == 1 else f"{cell.tiers} intermediaries"
    parts = [size_name(cell.payload), chain]
    parts.append(f"buffers {cell.buffer_size}")
    if not cell.align:
        parts.append("unaligned")
    if cell.strategy:
        parts.append(cell.strategy)
    if cell.buffering:
        parts.append("proxy_buffering on")
    if not cell.sendfile:
        parts.append("sendfile off")
    if cell.touch != "none":
        parts.append(f"touched by {cell.touch}")
    if cell.load:
        parts.append(f"load {cell.load}")
    return ", ".join(parts)


def _figure(name: str, statistic: Statistic | None, row: Row) -> Text:
    """Median and spread, such as `94.1 ±3%`."""
    if statistic is None or statistic.median is None:
        return Text("-", style="dim")
    text = Text(_number(statistic.median))
    if statistic.n > 1 and statistic.low is not None and statistic.high is not None and statistic.median:
        spread = max(statistic.high - statistic.median, statistic.median - statistic.low) / abs(
            statistic.median
        )
        text.append(f" ±{spread * 100:.0f}%".rjust(6), style="dim")
    if name.startswith("latency.") and not row.valid:
        text.append("!", style="yellow")
    return text


def _ratio(name: str, statistic: Statistic | None) -> Text:
    """The ratio to the baseline and its mark, coloured when samples differ."""
    if statistic is None or statistic.ratio is None:
        return Text("-", style="dim")
    text = f"{_number_of_ratio(statistic.ratio)} {mark_of(statistic)}"
    if statistic.verdict in ("noise", "absent"):
        return Text(text, style="dim")
    if statistic.n < 2:
        return Text(text)
    better = (statistic.ratio > 1) == (name in _MORE_IS_BETTER)
    return Text(text, style="green" if better else "red")


def mark_of(statistic: Statistic) -> str:
    """The mark behind a ratio: `~` noise, `?` undecided, a space where there is nothing to say."""
    return _MARKS.get(statistic.verdict, " ")


def _number_of_ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _number(value: float) -> str:
    """Three significant digits, thousands grouped: 0.123, 9.45, 94.1, 1,234."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def footer(comparison: Comparison) -> Iterator[Text]:
    """What stands below every comparison: marks, failures, warnings, where it was measured."""
    if len(comparison.variants) > 1:
        yield Text(
            f"Ratios are to {comparison.baseline}. ~ noise, or not told from it; "
            "? too few repetitions to prove it; "
            "± 95 % interval; ! latency unusable."
        )
    for failure in comparison.failures:
        yield Text(f"failed: {failure}", style="red")
    if comparison.errors:
        yield Text(f"failed requests: {comparison.errors}", style="red")
    for warning in comparison.warnings:
        yield Text(f"warning: {warning}", style="yellow")
    if comparison.agent_share is not None:
        yield Text(f"The agents that sampled used {comparison.agent_share:.1%} of a core at most.")
    environment = comparison.environment
    cores = ", ".join(
        f"{role} {'+'.join(map(str, numbers)) or 'all'}" for role, numbers in environment.host_cores.items()
    )
    library = f"library {environment.library_sha256[:12]}" if environment.library_sha256 else "no library"
    yield Text(f"Run {comparison.run}; nginx {environment.nginx}, {library}; Linux {environment.kernel}")
    yield Text(f"Cores: {environment.pinning}{f' ({cores})' if cores else ''}")
