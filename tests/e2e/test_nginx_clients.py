"""curl as the consumer: directly at a tier that speaks ODB, with and without the library itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from odb import stats
from tests.e2e.chain import ROOT, Settings, missing_tools, odb_run
from tests.e2e.conftest import MakeChain


def curl(
    port: int, paths: list[str], folder: Path, *, launcher: list[str], arguments: tuple[str, ...] = ()
) -> list[bytes]:
    """What one run of curl stores for each path."""
    missing = missing_tools("curl")
    if missing:
        pytest.skip(f"{missing} is not installed")
    stored = [folder / f"answer.{number}" for number in range(len(paths))]
    words = [
        word
        for path, file in zip(paths, stored, strict=True)
        for word in ("-o", str(file), f"http://127.0.0.1:{port}{path}")
    ]
    command = [
        *launcher,
        "curl",
        "--no-progress-meter",
        "--show-error",
        "--fail",
        "--max-time",
        "20",
        *arguments,
        *words,
    ]
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [file.read_bytes() for file in stored]


@pytest.mark.parametrize("with_library", [True, False], ids=["odb-curl", "plain-curl"])
@pytest.mark.parametrize("tier", ["is", "be"])
def test_curl_stores_the_bytes_of_the_file(
    make_chain: MakeChain,
    library: Path,
    open_folder: Path,
    files: dict[str, bytes],
    tier: str,
    with_library: bool,
) -> None:
    chain = make_chain(Settings())
    port = chain.tiers[tier].port
    launcher = odb_run(library, open_folder, {"connect": f"127.0.0.1:{port}"}) if with_library else []
    paths = [path for path in files if path != "/0.bin"]
    assert curl(port, paths, open_folder, launcher=launcher) == [files[path] for path in paths]
    part = curl(
        port, ["/5000001.bin"], open_folder, launcher=launcher, arguments=("--range", "12345-4000000")
    )
    assert part == [files["/5000001.bin"][12345:4000001]]
    several = curl(port, paths * 3, open_folder, launcher=launcher, arguments=("--parallel", "--http1.1"))
    assert several == [files[path] for path in paths * 3]
    sent = chain.tiers[tier].statistics()["span_bytes_sent"]
    assert (sent > sum(map(len, files.values()))) == with_library
    assert not stats.read(open_folder / "statistics").pages
