"""Fixtures of the unit tier: small shared libraries and programs compiled on the spot."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def compile_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """compile_c(name, source, *flags) -> path of what cc made of the C source."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler is installed")
    folder = tmp_path_factory.mktemp("compiled")

    def compile_one(name: str, source: str, *flags: str) -> Path:
        output = folder / name
        command = ["cc", "-x", "c", "-", "-o", str(output), *flags]
        subprocess.run(command, input=source.encode(), check=True, timeout=60)
        return output

    return compile_one


@pytest.fixture(scope="session")
def harmless(compile_c: Callable[..., Path]) -> Path:
    """A library that can be preloaded, takes every option file and does nothing."""
    source = "int odb_check_options(const char *path) { return path == 0; }"
    return compile_c("libharmless.so", source, "-shared", "-fPIC")
