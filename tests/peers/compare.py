"""`make peers`: the interpreter's own network tests, without and with the library, have the same results.

Runs test modules of CPython's `test` package plain and under `odb run --set mode=standalone`, where every TCP connection
on loopback whose both ends have the library is framed, and compares what became of each test. A test with two different
results is repeated by itself: only if it behaves the same in every repetition, with and without the library, does it count
as unsteady instead. Exit status 0: no difference; 1: some; 4: the interpreter has no `test` package.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from odb import stats

ROOT = Path(__file__).resolve().parent.parent.parent
RUNNER = Path(__file__).resolve().parent / "run_module.py"
MODULES = (
    "test_socket",
    "test_selectors",
    "test_asyncio",
    "test_ssl",
    "test_httpservers",
    "test_subprocess",
)
MODULE_SECONDS = 600.0
RESTARTS = 8
REPETITIONS = 3
EXIT_DIFFERENT, EXIT_ENVIRONMENT = 1, 4


@dataclass(frozen=True, slots=True)
class Run:
    """What became of the tests of a module, by id, and the counters of its processes (empty without the library).

    Outcomes are the words of run_module.py, and `crashed` (or hung) for a test that its process did not survive.
    """

    outcomes: Mapping[str, str]
    counters: Mapping[str, int]
    log: Path


def parse_outcomes(text: str) -> tuple[dict[str, str], bool]:
    """The outcomes in the file that run_module.py has written, and whether it came to the end."""
    outcomes: dict[str, str] = {}
    ended = False
    for line in text.splitlines():
        word, _, name = line.partition(" ")
        if word == "end":
            ended = True
        else:
            outcomes[name] = "crashed" if word == "begin" else word
    return outcomes, ended


def add_counters(out: Path) -> dict[str, int]:
    sums: dict[str, int] = {}
    for file in out.parent.glob(f"{out.name}.*"):
        page = stats.parse_page(file.read_bytes())
        for name, value in page.counters.items() if page is not None else ():
            sums[name] = sums.get(name, 0) + value
    return sums


def environment() -> dict[str, str]:
    """Neither a library nor a proxy from outside; addresses of this machine only."""
    left_out = {"LD_PRELOAD", "ODB_OPTIONS"}
    return {
        name: value
        for name, value in os.environ.items()
        if name not in left_out and not name.lower().endswith("_proxy")
    } | {"PYTHONDONTWRITEBYTECODE": "1"}


def run_once(command: Sequence[str], folder: Path, log: Path) -> None:
    """Runs to its end, or for MODULE_SECONDS; its whole process group ends with it."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            process.wait(MODULE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(module: str, library: Path | None, folder: Path, only: Sequence[str] = ()) -> Run:
    """Runs a module, or some tests of it. A process that does not survive a test is followed by one for the tests behind."""
    folder.mkdir(parents=True)
    (folder / "work").mkdir()
    out, log = folder / "outcomes", folder / "log"
    command = [sys.executable, str(RUNNER), str(out), module]
    if library is not None:
        statistics = folder / "statistics"
        options = ("mode=standalone", "virtual_min=8K", "memory_min=4K", f"stats_dir={statistics}")
        settings = [word for option in options for word in ("--set", option)]
        odb = [sys.executable, "-m", "odb.cli", "run", "--library", str(library), *settings, "--"]
        command = [*odb, *command, "--statistics", str(statistics)]
    if only:
        command += ["--only", *only]
    for _ in range(RESTARTS):
        run_once(command, folder / "work", log)
        outcomes, ended = parse_outcomes(out.read_text() if out.exists() else "")
        if ended:
            break
    return Run(outcomes, add_counters(out), log)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One module. `different` and `unsteady` map tests to their outcomes (plain, with the library)."""

    module: str
    plain: Run
    framed: Run
    different: Mapping[str, tuple[str, str]]
    unsteady: Mapping[str, tuple[str, str]]


def differences(plain: Run, framed: Run) -> dict[str, tuple[str, str]]:
    names = sorted({*plain.outcomes, *framed.outcomes})
    pairs = {
        name: (plain.outcomes.get(name, "absent"), framed.outcomes.get(name, "absent")) for name in names
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def is_unsteady(module: str, name: str, library: Path, folder: Path) -> bool:
    """Does the test, repeated by itself, have the same result every time, whether the library is there or not?"""
    seen = set()
    for turn in range(REPETITIONS):
        for kind, which in (("plain", None), ("framed", library)):
            repeated = run(module, which, folder / f"{kind}{turn}", [name])
            seen.add(repeated.outcomes.get(name, "absent"))
    return len(seen) == 1


def compare(module: str, library: Path, folder: Path) -> Comparison:
    plain = run(module, None, folder / "plain")
    framed = run(module, library, folder / "framed")
    print(f"{module}: has run", file=sys.stderr)
    found = differences(plain, framed)
    unsteady = {
        name: pair
        for index, (name, pair) in enumerate(found.items())
        if is_unsteady(module, name, library, folder / f"again{index}")
    }
    different = {name: pair for name, pair in found.items() if name not in unsteady}
    return Comparison(module, plain, framed, different, unsteady)


def table(comparisons: Sequence[Comparison]) -> str:
    """A row per module: tests by outcome, connections that were framed and spans that travelled, differences."""
    lines = [
        f"{'module':18}{'tests':>7}{'ok':>7}{'skipped':>9}{'other':>7}{'framed':>8}{'classic':>9}{'spans':>7}"
        f"{'different':>11}{'unsteady':>10}"
    ]
    for each in comparisons:
        outcomes = list(each.framed.outcomes.values())
        ok, skipped = outcomes.count("ok"), outcomes.count("skipped")
        counters = each.framed.counters
        lines.append(
            f"{each.module:18}{len(outcomes):7}{ok:7}{skipped:9}{len(outcomes) - ok - skipped:7}"
            f"{counters.get('streams_framed', 0):8}{counters.get('streams_classic', 0):9}"
            f"{counters.get('spans_received', 0):7}{len(each.different):11}{len(each.unsteady):10}"
        )
    return "\n".join(lines)


def details(comparison: Comparison) -> list[str]:
    return [
        f"{kind}: {name}: {pair[0]} without the library, {pair[1]} with it"
        for kind, pairs in (("different", comparison.different), ("unsteady", comparison.unsteady))
        for name, pair in pairs.items()
    ]


def missing_modules(modules: Sequence[str]) -> list[str]:
    """Those that this interpreter cannot import; asked in a process of its own because tests change the process."""
    code = "import importlib.util, sys; print(*(m for m in sys.argv[1:] if not importlib.util.find_spec('test.' + m)))"
    done = subprocess.run(
        [sys.executable, "-c", code, *modules],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    return done.stdout.split() if done.returncode == 0 else list(modules)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", default=MODULES, help="default: %(default)s")
    parser.add_argument("--library", type=Path, default=ROOT / "build" / "dev" / "libodb.so")
    parser.add_argument("--folder", type=Path, help="keep logs here; default: a temporary directory")
    parser.add_argument("--jobs", type=int, default=2, help="modules that run at the same time (default: 2)")
    arguments = parser.parse_args()
    missing = missing_modules(arguments.modules)
    if missing:
        print(
            f"{sys.executable} has no test.{missing[0]}: install the `test` package of this interpreter "
            "(on Debian: libpython3-testsuite), or make .venv with another one: make PYTHON=/path/to/python3 setup.",
            file=sys.stderr,
        )
        return EXIT_ENVIRONMENT
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="odb-peers-"))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        library = arguments.library.resolve()
        comparisons = list(
            pool.map(lambda module: compare(module, library, folder.resolve() / module), arguments.modules)
        )
    print(table(comparisons))
    for comparison in comparisons:
        for line in details(comparison):
            print(line)
    different = any(comparison.different for comparison in comparisons)
    print(f"{'some results differ' if different else 'no result differs'}; logs are in {folder}")
    return EXIT_DIFFERENT if different else 0


if __name__ == "__main__":
    sys.exit(main())
