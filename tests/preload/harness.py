"""Runs the programs of this directory with and without the library, and looks at the statistics while they wait."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from odb import stats

EVERYWHERE = "127.0.0.1"
# Nothing of this may ever happen on loopback between peers that behave.
TROUBLE = ("protocol_errors", "resets", "fetch_failures", "serve_failures")


@dataclass(frozen=True)
class Outcome:
    """What a program showed: its exit status, standard output and error, and the counters of its processes, summed."""

    status: int
    out: str
    err: str
    counters: Mapping[str, int] = field(default_factory=dict)

    @property
    def seen(self) -> tuple[int, str, str]:
        """What must not depend on the library."""
        return self.status, self.out, self.err

    @property
    def active(self) -> bool:
        """Did payloads travel as descriptors, in both directions of looking at them?"""
        return self.counters.get("spans_sent", 0) > 0 and self.counters.get("spans_received", 0) > 0

    @property
    def trouble(self) -> dict[str, int]:
        return {name: self.counters[name] for name in TROUBLE if self.counters.get(name, 0)}


@dataclass(frozen=True)
class Watch:
    """A sanitizer in the library: the programs that go with it, and variables that tell it what to do and where."""

    programs: Path
    environment: Mapping[str, str]


@dataclass(frozen=True)
class Preload:
    """The library, and the directory in which programs and option files of one test live.

    With a watch the library is that of a sanitizer. Runs without the library are the same as ever: they are what
    those with it are held against.
    """

    library: Path
    programs: Path
    directory: Path
    watch: Watch | None = None

    def environment(self, **options: str) -> dict[str, str]:
        """The environment that loads the library with these options (by default without waiting at exit)."""
        statistics = self.directory / "statistics"
        statistics.mkdir(exist_ok=True)
        settings = {
            "mode": "ports",
            "stats_dir": str(statistics),
            "drain_ms": "0",
            "virtual_min": "8K",
            "memory_min": "4K",
            **options,
        }
        file = self.directory / f"options-{abs(hash(frozenset(settings.items())))}"
        file.write_text("".join(f"{key} = {value}\n" for key, value in settings.items()))
        telling = self.watch.environment if self.watch else {}
        watching = {name: value.format(directory=self.directory) for name, value in telling.items()}
        loading = {"ODB_OPTIONS": str(file), "LD_PRELOAD": str(self.library)}
        return {**self.plain_environment(), **loading, **watching}

    @staticmethod
    def plain_environment() -> dict[str, str]:
        return {
            name: value
            for name, value in os.environ.items()
            if name not in {"LD_PRELOAD", "ODB_OPTIONS"} and not name.lower().endswith("_proxy")
        } | {"LC_ALL": "C"}

    def counters(self) -> dict[str, int]:
        """Sums over the processes that are alive now."""
        return stats.read(self.directory / "statistics").totals()

    def reports(self) -> str:
        """What a sanitizer has found so far, in any process that was started here."""
        return "".join(file.read_text() for file in sorted(self.directory.glob("sanitizer.*")))

    def start(self, name: str, *arguments: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
        loaded = "ODB_OPTIONS" in environment
        programs = self.watch.programs if self.watch and loaded else self.programs
        return subprocess.Popen(
            [programs / name, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=self.directory,
        )

    def run(self, name: str, *arguments: str, environment: Mapping[str, str]) -> Outcome:
        """Runs a program to its line "end", looks at the counters, and lets it go."""
        with self.start(name, *arguments, environment=environment) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            lines = []
            for line in process.stdout:
                if line == "end\n":
                    break
                lines.append(line)
            counters = self.counters()
            rest, err = process.communicate(timeout=30)
            assert self.reports() == ""
            return Outcome(process.returncode, "".join(lines) + rest, err, counters)

    def compare(self, name: str, *arguments: str, **options: str) -> Outcome:
        """Runs a program plain and with the library on all of loopback (or as `options` say); both must end well and
        show the same. Returns the run with the library."""
        with_library = self.environment(**(options or {"listen": EVERYWHERE, "connect": EVERYWHERE}))
        plain = self.run(name, *arguments, environment=self.plain_environment())
        assert plain.seen == (0, plain.out, ""), "the program itself fails"
        assert plain.out
        outcome = self.run(name, *arguments, environment=with_library)
        assert outcome.seen == plain.seen
        return outcome
