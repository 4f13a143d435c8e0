"""A deployment for tests that measure: commands on it, and where their records lie."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from testbed.runs import Run, find_run, load_run
from testbed.session import Testbed

COMMAND = (sys.executable, "-m", "testbed.cli")


@dataclass(frozen=True)
class Bench:
    """A deployment of its own and a directory for results."""

    state: Path
    results: Path
    root: Path

    def start(self, *words: str, results: Path | None = None) -> subprocess.Popen[str]:
        """Start a command that leaves records."""
        return subprocess.Popen(
            [*COMMAND, *words, "--results", str(results or self.results)],
            cwd=self.root,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, results: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run such a command to its end."""
        with self.start(*words, results=results) as process:
            out, err = process.communicate(timeout=200)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def compare(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `odb-testbed compare`."""
        return self.run("compare", *words)

    def environment(self) -> dict[str, str]:
        """The environment of its commands."""
        return {
            **os.environ,
            "ODB_TESTBED_STATE": str(self.state),
            "PYTHONPATH": str(self.root),
            "NO_COLOR": "1",
        }

    def newest(self, results: Path | None = None) -> Run:
        """The newest run."""
        return load_run(find_run(results or self.results, None))

    def background_processes(self) -> list[str]:
        """The load and the agents that still run on the hosts."""
        with Testbed.open(self.state) as testbed:
            return [
                f"{name} on {role}"
                for role in testbed.topology.roles
                for name in ("load", "agent")
                if testbed.stop_process(role, name)
            ]
