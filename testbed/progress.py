"""How far a run is and how long it will take, on standard error: a bar on a terminal, a line per step elsewhere."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from testbed.matrix import remaining_seconds


class RunProgress:
    """A context that shows the steps of a run.  One thread."""

    def __init__(self) -> None:
        self._estimates: list[float] = []
        self._done: list[tuple[float, float]] = []
        self._began = time.monotonic()
        self._title = ""
        console = Console(file=sys.stderr, highlight=False, emoji=False, markup=False)
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("preparing", total=None, left="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Say something that is to stay on the screen."""
        self._console.print(text, soft_wrap=True)

    def note(self, text: str) -> None:
        """Say what is being done outside of the steps, such as deploying; on a terminal only for the moment."""
        if self._console.is_terminal:
            self._bar.update(self._task, description=text)
        else:
            self._console.print(text)

    def expect(self, estimates: Sequence[float]) -> None:
        """Steps will follow that are estimated to take so many seconds each."""
        self._estimates = list(estimates)
        self._done = []
        self._bar.update(self._task, total=len(self._estimates), completed=0, left=self._left())

    def begin(self, title: str) -> None:
        """A step begins."""
        self._began = time.monotonic()
        self._title = title
        self._bar.update(self._task, description=title, left=self._left())

    def end(self, failure: str | None) -> None:
        """The step has ended, well or with a failure; failures are always printed."""
        taken = time.monotonic() - self._began
        self._done.append((taken, self._estimates[len(self._done)]))
        self._bar.update(self._task, advance=1, left=self._left())
        outcome = f"failed: {failure}" if failure else f"{taken:.1f} s"
        if failure or not self._console.is_terminal:
            self._console.print(
                f"[{len(self._done)}/{len(self._estimates)}] {self._title}: {outcome}; {self._left()}",
                soft_wrap=True,
            )

    def _left(self) -> str:
        seconds = remaining_seconds(self._done, self._estimates[len(self._done) :])
        return f"{clock(seconds)} left"


def clock(seconds: float) -> str:
    """`4:05`, or `2:04:05` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
