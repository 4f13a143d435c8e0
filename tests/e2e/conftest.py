"""Fixtures of the end-to-end tests: the files that a BE serves, and chains of nginx.

Tests marked `soak` run only with `-m soak`.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.chain import Chain, Settings, missing_tools

SIZES = (0, 1, 4095, 4096, 8191, 8192, 16384, 65536, 100000, 262144, 1048576, 5000001)

EVERYWHERE = Settings()

MakeChain = Callable[..., Chain]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "soak: the full product of settings, many minutes; runs only with -m soak"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "soak" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("soak") is not None]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def make_open_folder() -> Path:
    """A directory that every user may enter (pytest's own are private), because workers of nginx drop root."""
    folder = Path(tempfile.mkdtemp(prefix="odb-e2e-"))
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """path -> content of what a BE serves: /<size>.bin, pseudo-random and the same in every run."""
    numbers = random.Random(20240)
    return {f"/{size}.bin": numbers.randbytes(size) for size in SIZES}


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        (folder / path.lstrip("/")).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def content(files: dict[str, bytes]) -> Iterator[Path]:
    """The directory that holds `files`; nobody changes it."""
    folder = make_open_folder()
    yield write_files(folder, files)
    shutil.rmtree(folder)


@pytest.fixture
def own_content(files: dict[str, bytes]) -> Iterator[Path]:
    """As `content`, for one test to change."""
    folder = make_open_folder()
    yield write_files(folder, files)
    shutil.rmtree(folder)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A directory for one test that every user may enter."""
    folder = make_open_folder()
    yield folder
    shutil.rmtree(folder)


@dataclass(frozen=True)
class Certificate:
    """A self-signed one for 127.0.0.1: its file, and the directives of a server of nginx that shows it."""

    file: Path
    directives: str


@pytest.fixture(scope="session")
def certificate() -> Iterator[Certificate]:
    missing = missing_tools("openssl")
    if missing:
        pytest.skip(f"{missing} is not installed")
    folder = make_open_folder()
    key, file = folder / "key.pem", folder / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    name = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*request, "-days", "2", *name, "-keyout", str(key), "-out", str(file)],
        check=True,
        capture_output=True,
    )
    yield Certificate(file, f"ssl_certificate {file}; ssl_certificate_key {key};")
    shutil.rmtree(folder)


@pytest.fixture
def make_chain(library: Path, content: Path) -> Iterator[MakeChain]:
    """make_chain(Settings(...), content=..., origin_port=...) -> a running chain, ended after the test.

    Ending it fails the test when nginx has logged an alert (a crashed worker, a descriptor gone astray).
    """
    missing = missing_tools("nginx")
    if missing:
        pytest.skip(f"{missing} is not installed")
    folders = []
    with ExitStack() as stack:

        def make(
            settings: Settings = EVERYWHERE, *, content: Path = content, origin_port: int | None = None
        ) -> Chain:
            folders.append(make_open_folder())
            chain = Chain(settings, folders[-1], library, content, origin_port=origin_port)
            return stack.enter_context(chain)

        yield make
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=os.geteuid() != 0)
