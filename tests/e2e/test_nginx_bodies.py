"""Tiers that look at bodies (gzip, sub_filter, TLS, a cache) see and send what they would without the library."""

from __future__ import annotations

import gzip
import random
import ssl
from pathlib import Path

import pytest

from tests.e2e.chain import Settings
from tests.e2e.client import Connection, get
from tests.e2e.conftest import Certificate, MakeChain

WORDS = ("origin", "consumer", "window", "span", "payload", "lease", "MARK")
TEXT_SIZES = (100, 8192, 20_000, 65_536, 300_000, 2_000_000)


@pytest.fixture
def texts(own_content: Path) -> dict[str, bytes]:
    """path -> text that compresses, beside the random files."""
    numbers = random.Random(29)
    made = {}
    for size in TEXT_SIZES:
        words = numbers.choices(WORDS, k=size)
        made[f"/{size}.txt"] = " ".join(words).encode()[:size]
        (own_content / f"{size}.txt").write_bytes(made[f"/{size}.txt"])
    return made


@pytest.mark.parametrize("tier", ["fe", "is"])
@pytest.mark.parametrize("buffering", [False, True], ids=["unbuffered", "buffered"])
def test_compressed_bodies_unpack_to_the_file(
    make_chain: MakeChain,
    own_content: Path,
    texts: dict[str, bytes],
    files: dict[str, bytes],
    tier: str,
    buffering: bool,
) -> None:
    directives = "gzip on; gzip_types *; gzip_proxied any; gzip_min_length 1; gzip_comp_level 1;"
    chain = make_chain(Settings(buffering=buffering, server={tier: directives}), content=own_content)
    with Connection(chain.port) as kept:
        for path, text in {**texts, **files}.items():
            answer = kept.get(path, headers={"Accept-Encoding": "gzip"})
            assert (answer.status, answer.problem) == (200, ""), path
            packed = answer.headers.get("content-encoding") == "gzip"
            assert packed == (len(text) > 0), path
            assert (gzip.decompress(answer.body) if packed else answer.body) == text, path
            assert kept.get(path).body == text, path


@pytest.mark.parametrize("tier", ["fe", "is", "be"])
def test_substituted_bodies_are_the_substituted_file(
    make_chain: MakeChain, own_content: Path, texts: dict[str, bytes], files: dict[str, bytes], tier: str
) -> None:
    directives = "sub_filter MARK 'a longer replacement'; sub_filter_once off; sub_filter_types *;"
    chain = make_chain(Settings(server={tier: directives}), content=own_content)
    with Connection(chain.port) as kept:
        for path, text in {**texts, **files}.items():
            answer = kept.get(path)
            assert (answer.status, answer.problem) == (200, ""), path
            assert answer.body == text.replace(b"MARK", b"a longer replacement"), path


@pytest.mark.parametrize("buffering", [False, True], ids=["unbuffered", "buffered"])
def test_tls_clients_get_the_bytes_of_the_file(
    make_chain: MakeChain, files: dict[str, bytes], certificate: Certificate, buffering: bool
) -> None:
    chain = make_chain(
        Settings(buffering=buffering, server={"fe": certificate.directives}, listen={"fe": "ssl"})
    )
    trust = ssl.create_default_context(cafile=str(certificate.file))
    trust.check_hostname = False
    with Connection(chain.port, tls=trust) as kept:
        for path, content in files.items():
            answer = kept.get(path)
            assert (answer.status, answer.problem, answer.body == content) == (200, "", True), path
    assert chain.middle.statistics()["spans_received"] > 0
    assert chain.fe.statistics()["fetch_bytes"] > 0


def test_a_cache_at_the_intermediary_stores_and_serves_the_file(
    make_chain: MakeChain, files: dict[str, bytes]
) -> None:
    chain = make_chain(
        Settings(
            buffering=True,
            http={"is": "proxy_cache_path cache keys_zone=all:1m;"},
            location={
                "is": "proxy_cache all; proxy_cache_valid 200 5m; add_header X-Cache $upstream_cache_status;"
            },
        )
    )
    for expected in ("MISS", "HIT", "HIT"):
        for path, content in files.items():
            answer = get(chain.port, path)
            assert (answer.status, answer.problem, answer.body == content) == (200, "", True), (
                path,
                expected,
            )
            assert answer.headers["x-cache"] == expected, path
    asked = chain.be.statistics()["payloads_captured"]
    get(chain.port, "/262144.bin")
    assert chain.be.statistics()["payloads_captured"] == asked
    with Connection(chain.port) as kept:
        ranged = kept.get("/262144.bin", headers={"Range": "bytes=4000-90000"})
        assert (ranged.status, ranged.body == files["/262144.bin"][4000:90001]) == (206, True)


def test_error_pages_of_every_tier_arrive(make_chain: MakeChain, own_content: Path) -> None:
    page = random.Random(31).randbytes(50_000)
    (own_content / "sorry.html").write_bytes(page)
    chain = make_chain(Settings(server={"be": "error_page 404 /sorry.html;"}), content=own_content)
    with Connection(chain.port) as kept:
        missing = kept.get("/none")
        assert (missing.status, missing.problem, missing.body == page) == (404, "", True)
    chain.be.stop()
    answer = get(chain.port, "/65536.bin")
    assert (answer.status, answer.problem) == (502, "")
    chain.be.start()
    assert get(chain.port, "/65536.bin").status == 200
    chain.middle.stop()
    assert get(chain.port, "/65536.bin").status == 502
