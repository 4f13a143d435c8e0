"""Server processes that live on from case to case, with and without the library, and answer each JSON line with one."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from odb import stats

# Rules name networks: whoever listens here speaks frames, whoever listens on 127.0.0.1 does not.
FRAMED, CLASSIC = "127.0.1.1", "127.0.0.1"
ANSWER_SECONDS = 40.0


class Died(Exception):
    """A process ended, or said nothing, where it owed an answer."""


class NotStarted(Exception):
    """`odb run` refuses: the library is not built, or not from these sources."""


class Batch:
    """One `odb serve batch`."""

    def __init__(self, command: list[str], environment: Mapping[str, str], errors: Path) -> None:
        self._errors = errors
        with errors.open("wb") as sink:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env=environment,
                bufsize=0,
            )
        self._unread = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, *words: object, limit: float | None = ANSWER_SECONDS) -> dict[str, Any]:
        """Raises Died when no answer comes in `limit` seconds; the process is of no use then."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(words).encode() + b"\n")
        except OSError as error:
            raise Died(self._obituary("does not listen")) from error
        while b"\n" not in self._unread:
            if not select.select([self._process.stdout], [], [], limit)[0]:
                os.kill(self.pid, signal.SIGUSR1)  # it writes down where it is
                select.select([self._process.stdout], [], [], 1)
                raise Died(self._obituary(f"says nothing for {limit} seconds"))
            part = os.read(self._process.stdout.fileno(), 1 << 20)
            if not part:
                self._check_start()
                raise Died(self._obituary("has ended"))
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _check_start(self) -> None:
        """Raises NotStarted when it was `odb run` that ended, and not a server."""
        if self._process.wait(10) in {2, 4}:
            raise NotStarted(self._errors.read_text(errors="replace"))

    def _obituary(self, how: str) -> str:
        status = ""
        if how == "has ended":
            status = f" with status {self._process.wait(10)}"
        said = self._errors.read_text(errors="replace")[-3000:]
        return f"a server process {how}{status}" + (f"; its standard error:\n{said}" if said else "")

    def end(self) -> int:
        """By the end of its input; killed if that does not help. Returns its exit status."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            return self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(10)
        finally:
            self._process.stdout.close()


class Pool:
    """At most `bound` processes; those that were not used for the longest time go first."""

    def __init__(self, library: Path, directory: Path | None = None, bound: int = 32) -> None:
        self._library = library
        self._folder = tempfile.TemporaryDirectory(prefix="odb-property-", dir=directory)
        self._directory = Path(self._folder.name)
        self._bound = bound
        self._batches: OrderedDict[tuple[str, int], Batch] = OrderedDict()
        self._started = 0
        self.statistics = self._directory / "statistics"

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
        self._folder.cleanup()

    def clear(self) -> None:
        """Ends all processes: the next case finds new ones."""
        while self._batches:
            self._batches.popitem()[1].end()

    def batch(self, options: Mapping[str, str] | None, place: int) -> Batch:
        """The process for the hop at this place of a chain."""
        key = (json.dumps(options, sort_keys=True), place)
        found = self._batches.pop(key, None) or self._start(options)
        self._batches[key] = found
        while len(self._batches) > self._bound:
            self._batches.popitem(last=False)[1].end()
        return found

    def _start(self, options: Mapping[str, str] | None) -> Batch:
        command = [sys.executable, "-m", "odb.cli"]
        if options is not None:
            named = (
                {}
                if options.get("mode") == "standalone"
                else dict.fromkeys(("listen", "connect"), f"{FRAMED}/32")
            )
            settings = {
                **named,
                "drain_ms": "0",
                "memory_min": "4096",
                "stats_dir": str(self.statistics),
                **options,
            }
            command += ["run", "--library", str(self._library)]
            command += [f"--set={key}={value}" for key, value in settings.items()]
            command += ["--", sys.executable, "-m", "odb.cli"]
        plain = {key: value for key, value in os.environ.items() if key not in {"LD_PRELOAD", "ODB_OPTIONS"}}
        self._started += 1
        return Batch([*command, "serve", "batch"], plain, self._directory / f"errors-{self._started}")

    def counters(self, pid: int) -> dict[str, int]:
        """Of one living process; empty without the library."""
        return stats.read(self.statistics, pid).totals()
