"""An FE that cannot fetch from the BE, although the IS can: an error or two, then real bytes; never a wrong byte.

Three namespaces in a row; only the one in the middle has a link to each of the others.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from odb import stats
from tests.e2e.chain import ROOT, STOP_SECONDS, missing_tools, odb_run
from tests.e2e.conftest import make_open_folder
from tests.e2e.others import program
from tests.namespaces import Namespace, Network

HIDDEN = "10.255.255.1"
LARGE, SMALL = "/262144.bin", "/4096.bin"

_NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log notice;
env LD_PRELOAD; env ODB_OPTIONS;
events {{ }}
http {{
  access_log off;
  sendfile on;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 80;
    location / {{ {location} }}
  }}
}}
"""


@dataclass(frozen=True)
class Row:
    """fe - middle - be, with the address at which each is reached by the one before it."""

    fe: Namespace
    middle: Namespace
    be: Namespace
    middle_address: str
    be_address: str


@pytest.fixture
def row(network: Network) -> Row:
    fe, middle, be = (network.namespace() for _ in range(3))
    _, middle_address = network.link(fe, middle)
    _, be_address = network.link(middle, be)
    return Row(fe, middle, be, middle_address, be_address)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = make_open_folder()
    yield made
    shutil.rmtree(made)


def start(
    namespace: Namespace, folder: Path, library: Path, location: str, options: Mapping[str, str] | None
) -> subprocess.Popen[bytes]:
    folder.mkdir()
    folder.chmod(0o755)
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=folder, location=location))
    launcher = odb_run(library, folder, options) if options is not None else []
    command = [*launcher, program("nginx"), "-p", str(folder), "-c", str(configuration)]
    process: subprocess.Popen[bytes] = namespace.popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    ask(namespace, "http://127.0.0.1/none", retry=True)
    return process


def ask(namespace: Namespace, url: str, *, retry: bool = False) -> subprocess.CompletedProcess[bytes]:
    """What curl says in a namespace."""
    patience = ["--retry", "100", "--retry-delay", "0", "--retry-connrefused", "--retry-max-time", "20"]
    words = ["--silent", "--max-time", "20", *(patience if retry else []), url]
    return namespace.run(["curl", *words], timeout=60, capture_output=True)


@pytest.mark.parametrize(
    "front",
    [{"connect": "{middle}"}, {"connect": "{middle}", "allow": "10.0.0.0/8"}],
    ids=["not allowed", "no route"],
)
@pytest.mark.parametrize("nobody", [False, True], ids=["but the intermediary can", "and nobody else"])
def test_an_origin_that_the_frontend_cannot_have_costs_a_request_or_two_and_no_wrong_byte(
    row: Row,
    folder: Path,
    library: Path,
    content: Path,
    files: dict[str, bytes],
    front: dict[str, str],
    nobody: bool,
) -> None:
    missing = missing_tools("nginx", "curl")
    if missing:
        pytest.skip(f"{missing} is not installed")
    options = {key: value.format(middle=row.middle_address) for key, value in front.items()}
    proxy = "proxy_buffering off; proxy_http_version 1.1; proxy_pass http://{};".format
    back = {"listen": ":80"}
    if nobody:  # it announces an address that is known in its own namespace only
        row.be.run(["ip", "address", "add", f"{HIDDEN}/32", "dev", "lo"], check=True)
        back["channel"] = f"{HIDDEN}:40000-40010"
    started = [
        start(row.be, folder / "be", library, f"root {content};", back),
        start(
            row.middle,
            folder / "is",
            library,
            proxy(row.be_address),
            {"listen": ":80", "connect": row.be_address, "allow": "10.0.0.0/8"},
        ),
        start(row.fe, folder / "fe", library, proxy(row.middle_address), options),
    ]
    failures = 0
    while (answer := ask(row.fe, f"http://127.0.0.1{LARGE}")).returncode != 0 and failures < 5:
        failures += 1
        assert answer.returncode in {18, 52, 56}, answer
        assert files[LARGE].startswith(answer.stdout)
        assert len(answer.stdout) < len(files[LARGE])
        small = ask(row.fe, f"http://127.0.0.1{SMALL}")
        assert (small.returncode, small.stdout == files[SMALL]) == (0, True)
    assert 1 <= failures <= (4 if nobody else 2)
    # By now the frontend has asked for real bytes, and says so on every new connection.
    for path in (LARGE, SMALL, LARGE):
        healed = ask(row.fe, f"http://127.0.0.1{path}")
        assert (healed.returncode, healed.stdout == files[path]) == (0, True)
    frontend, intermediary = (stats.read(folder / tier / "statistics").totals() for tier in ("fe", "is"))
    assert frontend["resets"] + intermediary["resets"] >= failures
    assert nobody or intermediary["fallback_wanted"] > 0
    wanted = stats.read(folder / "be" / "statistics").totals()["fallback_wanted"]
    assert (wanted > 0) == nobody
    # A client without the library: the intermediary turns spans, if it has any, into bytes.
    plain = ask(row.fe, f"http://{row.middle_address}{LARGE}")
    assert (plain.returncode, plain.stdout == files[LARGE]) == (0, True)
    for process in reversed(started):
        assert process.poll() is None
        process.terminate()
        assert process.wait(STOP_SECONDS) == 0
