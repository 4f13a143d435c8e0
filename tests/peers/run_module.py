"""Runs one module of the interpreter's own `test` package and writes what became of each of its tests.

    run_module.py OUT MODULE [--statistics DIR] [--only TEST ...]

A line `begin TEST` and a line `OUTCOME TEST` per test are appended to OUT, each at once, so that a crash or a hang names
its test; tests that OUT names already are left out, so that a second call goes on behind such a test. With --statistics,
the page of counters that the library keeps for this process is copied to OUT.<pid> at the end.
Stands alone (it runs under the library that it judges) and needs nothing but the standard library. No test may use the
network, large files or anything else that the test package calls a resource.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import shutil
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

TEST_SECONDS = 60.0
"""After this long a test counts as hanging: the stacks go to standard error and the process ends with status 1."""

ErrorInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class Recorder(unittest.TestResult):
    """Writes outcomes as they come. A test with a failed part is a failed test."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self._out = out
        self._current = "ok"

    def _write(self, word: str, name: str) -> None:
        with self._out.open("a") as file:
            file.write(f"{word} {name}\n")

    def _say(self, test: Any, error: ErrorInfo) -> None:
        print(f"==== {test.id()}\n{self._exc_info_to_string(error, test)}", file=sys.stderr)  # type: ignore[attr-defined]

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        faulthandler.dump_traceback_later(TEST_SECONDS, exit=True)
        self._current = "ok"
        self._write("begin", test.id())

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self._write(self._current, test.id())

    def addError(self, test: unittest.TestCase, err: ErrorInfo) -> None:
        super().addError(test, err)
        self._say(test, err)
        self._current = "error"
        if not isinstance(test, unittest.TestCase):  # of a whole class or module
            self._write("error", test.id())

    def addFailure(self, test: unittest.TestCase, err: ErrorInfo) -> None:
        super().addFailure(test, err)
        self._say(test, err)
        self._current = "failed"

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: ErrorInfo | None) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._say(subtest, err)
            self._current = "failed"

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        if self._current == "ok":
            self._current = "skipped"
        if not isinstance(test, unittest.TestCase):
            self._write("skipped", test.id())

    def addExpectedFailure(self, test: unittest.TestCase, err: ErrorInfo) -> None:
        super().addExpectedFailure(test, err)
        self._current = "expected-failure"

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self._current = "unexpected-success"


def flatten(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for part in suite:
        if isinstance(part, unittest.TestSuite):
            yield from flatten(part)
        else:
            yield part


def load(module: str, only: frozenset[str], but: frozenset[str]) -> unittest.TestSuite:
    """The tests of the module: all, or those in `only` (ids), without those in `but`."""
    suite = unittest.defaultTestLoader.loadTestsFromName(f"test.{module}")
    if not only and not but:
        return suite
    wanted = (test for test in flatten(suite) if not only or test.id() in only)
    return unittest.TestSuite(test for test in wanted if test.id() not in but)


def begun(out: Path) -> frozenset[str]:
    if not out.exists():
        return frozenset()
    lines = (line.split(" ", 1) for line in out.read_text().splitlines())
    return frozenset(name for word, name in lines if word == "begin")


def copy_statistics(directory: Path, out: Path) -> None:
    pid = os.getpid()
    for page in directory.glob(f"{pid}.*"):
        shutil.copy(page, out.with_name(f"{out.name}.{pid}"))


def main() -> int:
    parser = argparse.ArgumentParser(description="Run one module of the interpreter's test package.")
    parser.add_argument("out", type=Path)
    parser.add_argument("module")
    parser.add_argument("--statistics", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    sys.path.pop(0)  # this directory
    from test import support

    support.use_resources = []
    recorder = Recorder(arguments.out)
    load(arguments.module, frozenset(arguments.only), begun(arguments.out)).run(recorder)
    faulthandler.cancel_dump_traceback_later()
    if arguments.statistics is not None:
        copy_statistics(arguments.statistics, arguments.out)
    with arguments.out.open("a") as file:
        file.write("end .\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
