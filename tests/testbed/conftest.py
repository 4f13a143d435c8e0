"""One deployment for all tests that measure: making it takes longer than measuring."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed.bench import COMMAND, Bench
from tests.testbed.machine import free_network, require_local_provider


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory, root_directory: Path) -> Iterator[Bench]:
    """Hosts in their default topology, removed at the end."""
    require_local_provider()
    directory = tmp_path_factory.mktemp("bench")
    made = Bench(directory / "state.json", directory / "results", root_directory)
    try:
        subprocess.run(
            [*COMMAND, "deploy", "--network", free_network()],
            cwd=made.root, env=made.environment(), check=True, capture_output=True, timeout=300,
        )  # fmt: skip
        yield made
    finally:
        subprocess.run([*COMMAND, "destroy"], cwd=made.root, env=made.environment(), check=True, timeout=120)
