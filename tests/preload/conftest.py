"""The library and the programs of this directory, built: as users have them, and watched by sanitizers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.preload.harness import Preload
from tests.preload.watching import SANITIZERS, sanitized

# Their programs are not of this directory, or Python's.
UNWATCHED = {"test_bystanders", "test_discovery", "test_handover", "test_standalone"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test of the programs of this directory is made once more for each sanitizer: nothing is left out."""
    if "preload_in" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] not in UNWATCHED:
        metafunc.parametrize("preload_in", ["plain", *SANITIZERS], indirect=True, scope="session")


@pytest.fixture(scope="session")
def preload_in(library: Path, build_dev: Path, request: pytest.FixtureRequest) -> Callable[[Path], Preload]:
    """Makes the library for a test's directory: the usual one, or that of a sanitizer."""
    name = getattr(request, "param", "plain")
    programs = build_dev / "preload"
    if name == "plain":
        return lambda directory: Preload(library, programs, directory)
    watched, watch = sanitized(name, programs)
    return lambda directory: Preload(watched, programs, directory, watch)


@pytest.fixture
def preload(preload_in: Callable[[Path], Preload], tmp_path: Path) -> Iterator[Preload]:
    made = preload_in(tmp_path)
    yield made
    assert made.reports() == ""
