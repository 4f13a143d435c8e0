"""Fixtures of the unit tier: small shared libraries and programs compiled on the spot, reports without drawings."""

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


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports whose figures have names, titles and words, but are not drawn: for tests of everything else."""
    from testbed.report import curves, figures, timeline
    from testbed.report.drawing import Drawing

    def draw(name: str, title: str, alt: str, *rest: object) -> Drawing:
        return Drawing(name, title, alt, "<svg></svg>", b"<svg/>", b"%PDF")

    for module in (curves, figures, timeline):
        monkeypatch.setattr(module, "draw", draw)
