"""How commands speak: progress as lines on standard error, tables on standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table


def progress_printer() -> Callable[[str], None]:
    """Return a function that writes one line of progress."""

    def show(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    return show


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of plain text under their headings; rich honours NO_COLOR and the width of the terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    # A pipe has no width to keep to: a long cell is not broken there.
    width = None if sys.stdout.isatty() else 250
    Console(width=width, highlight=False, markup=False, emoji=False).print(table)
