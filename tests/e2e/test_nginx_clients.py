"""curl as the consumer: directly at a tier that speaks ODB, with and without the library itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from odb import stats
from tests.e2e.chain import ROOT, Settings, missing_tools, odb_run
from tests.e2e.conftest import Certificate, MakeChain


def curl(
    port: int,
    paths: list[str],
    folder: Path,
    *,
    launcher: list[str],
    arguments: tuple[str, ...] = (),
    scheme: str = "http",
    version: str = "1.1",
) -> list[bytes]:
    """What one run of curl stores for each path, all of it got by this version of HTTP."""
    missing = missing_tools("curl")
    if missing:
        pytest.skip(f"{missing} is not installed")
    stored = [folder / f"answer.{number}" for number in range(len(paths))]
    words = [
        word
        for path, file in zip(paths, stored, strict=True)
        for word in ("-o", str(file), f"{scheme}://127.0.0.1:{port}{path}")
    ]
    command = [
        *launcher,
        "curl",
        "--no-progress-meter",
        "--show-error",
        "--fail",
        "--write-out",
        "%{http_version}\\n",
        "--max-time",
        "20",
        *arguments,
        *words,
    ]
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr, set(done.stdout.split())) == (0, "", {version})
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


@pytest.mark.parametrize("buffering", [False, True], ids=["unbuffered", "buffered"])
def test_http2_clients_get_the_bytes_of_the_file(
    make_chain: MakeChain,
    certificate: Certificate,
    open_folder: Path,
    files: dict[str, bytes],
    buffering: bool,
) -> None:
    chain = make_chain(
        Settings(buffering=buffering, listen={"fe": "ssl http2"}, server={"fe": certificate.directives})
    )
    how = ("--http2", "--cacert", str(certificate.file))
    paths = [path for path in files if path != "/0.bin"]
    for arguments in (how, (*how, "--parallel", "--parallel-max", "20")):
        stored = curl(
            chain.port, paths * 2, open_folder, launcher=[], arguments=arguments, scheme="https", version="2"
        )
        assert stored == [files[path] for path in paths * 2]
    body = files["/1048576.bin"][:700_000]
    (open_folder / "body").write_bytes(body)
    refused = curl(
        chain.port,
        ["/65536.bin"],
        open_folder,
        launcher=[],
        arguments=(*how, "--no-fail", "--data-binary", f"@{open_folder}/body"),
        scheme="https",
        version="2",
    )
    assert b"405" in refused[0]
    assert chain.middle.statistics()["span_bytes_sent"] > 10_000_000
