"""The library and the programs of this directory, built."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.preload.harness import Preload


@pytest.fixture
def preload(library: Path, build_dev: Path, tmp_path: Path) -> Preload:
    return Preload(library, build_dev / "preload", tmp_path)
