"""Fixtures that every tier of tests uses: the built library, the sanitized native tests, network namespaces."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests.namespaces import Network

ROOT = Path(__file__).resolve().parent.parent
TIERS = {"unit", "native", "preload", "e2e", "testbed"}
LONGEST_FIRST = ("testbed", "e2e", "preload", "native", "property")


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(ROOT / "tests").parts[0]


def _turn(item: pytest.Item) -> int:
    folder = _folder(item)
    return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)


def pytest_configure() -> None:
    """What started the tests in the background or below nohup ignores signals. So would all programs that tests start, and not
    end by them; a handler that does nothing is not inherited.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test carries the marker of its directory unless it names one itself. What takes longest begins first."""
    for item in items:
        folder = _folder(item)
        if folder in TIERS and not any(mark.name in TIERS for mark in item.iter_markers()):
            item.add_marker(folder)
    items.sort(key=_turn)


class Together(LoadFileScheduling):
    """The tests of a file run in one process, and so do all of the testbed, which share a deployment."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "tests/testbed" if file.startswith("tests/testbed/") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    return Together(config, log)


@pytest.fixture(scope="session")
def root_directory() -> Path:
    """The repository."""
    return ROOT


def build(preset: str, *targets: str) -> Path:
    """Bring a build directory up to date and return it; fails the test with the compiler's words if it cannot be built."""
    for tool in ("cmake", "ninja"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    commands = [["cmake", "--preset", preset], ["cmake", "--build", "--preset", preset]]
    if targets:
        commands[1] += ["--target", *targets]
    directory = ROOT / "build" / preset
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in commands:
            done = subprocess.run(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
            )
            if done.returncode != 0:
                words = (done.stdout + done.stderr)[-4000:]
                pytest.fail(f"{' '.join(command)} failed:\n{words}", pytrace=False)
    return directory


@pytest.fixture(scope="session")
def build_dev() -> Path:
    """build/dev, everything in it up to date."""
    return build("dev")


@pytest.fixture(scope="session")
def build_asan() -> Path:
    """build/asan with the native tests under AddressSanitizer and UndefinedBehaviorSanitizer."""
    return build("asan", "odb_tests")


@pytest.fixture(scope="session")
def build_tsan() -> Path:
    """build/tsan with the native tests under ThreadSanitizer."""
    return build("tsan", "odb_tests")


@pytest.fixture(scope="session")
def library(build_dev: Path) -> Path:
    """The libodb.so that the sources give."""
    return build_dev / "libodb.so"


@pytest.fixture
def network() -> Iterator[Network]:
    """Network namespaces made by this test and removed after it; skips without root."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("ip") is None:
        pytest.skip("iproute2 is not installed")
    with Network() as made:
        yield made
