"""HTTP of the test servers: heads and bodies in pieces of any size, ranges, and what is no HTTP."""

from __future__ import annotations

import pytest

from odb.servers import http
from odb.servers.client import Request
from odb.servers.content import content, file_of


def content_of(body: http.Body, raw: bytes, step: int) -> tuple[bytes, int]:
    """What `body` takes for content when `raw` comes in pieces of `step` bytes, and how much of it it used."""
    found, used = b"", 0
    while not body.done and used < len(raw):
        taken, parts = body.take(memoryview(raw)[used : used + step])
        found += b"".join(parts)
        used += taken
    return found, used


@pytest.mark.parametrize("step", [1, 2, 3, 7, 100])
def test_chunked_body_ends_where_it_says_in_every_segmentation(step: int) -> None:
    body = http.Body(None, chunked=True)
    raw = b"5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
    assert content_of(body, raw + b"GET / HTTP/1.1", step) == (b"hello0123456789", len(raw))
    assert body.done


@pytest.mark.parametrize("step", [1, 4, 100])
def test_body_of_known_length_leaves_the_next_message_alone(step: int) -> None:
    body = http.Body(6)
    assert content_of(body, b"abcdefGET /", step) == (b"abcdef", 6)
    assert body.done


def test_body_until_the_end_of_the_connection_takes_everything() -> None:
    body = http.response_body(http.parse_head(b"HTTP/1.1 200 OK\r\n\r\n"), "GET")
    assert content_of(body, b"all of it", 4) == (b"all of it", 9)
    assert body.until_end
    assert not body.done


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified", b"100 Continue"])
def test_some_answers_have_no_body_whatever_they_announce(status: bytes) -> None:
    head = http.parse_head(b"HTTP/1.1 " + status + b"\r\nContent-Length: 9\r\n\r\n")
    assert http.response_body(head, "GET").done


def test_answer_to_head_has_no_body() -> None:
    head = http.parse_head(http.response(200, "OK", 100))
    assert http.response_body(head, "HEAD").done
    assert not http.response_body(head, "GET").done


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"hello\r\n\r\n",
        b"GET / SPDY/3\r\n\r\n",
        b"HTTP/1.1 ok OK\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"\x9d\x0b\x10\x00\x00\x00\x00\x10\r\n\r\n",
    ],
)
def test_what_is_no_head_is_refused(raw: bytes) -> None:
    with pytest.raises(http.PeerError):
        http.parse_head(raw)


@pytest.mark.parametrize("raw", [b"xyz\r\n", b"3\r\nabcd\r\n", b"1" * 5000])
def test_broken_chunks_are_refused(raw: bytes) -> None:
    with pytest.raises(http.PeerError):
        content_of(http.Body(None, chunked=True), raw, 3)


def test_wrong_length_is_refused() -> None:
    with pytest.raises(http.PeerError, match="wrong Content-Length"):
        http.request_body(http.parse_head(b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"))


@pytest.mark.parametrize(
    ("field", "part"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=5-", (5, 100)),
        ("bytes=99-1000", (99, 100)),
        ("bytes=100-", None),
        ("bytes=7-3", None),
        ("bytes=1-2,4-5", None),
        ("lines=1-2", None),
    ],
)
def test_range_is_cut_to_what_there_is(field: str, part: tuple[int, int] | None) -> None:
    head = http.parse_head(f"GET / HTTP/1.1\r\nRange: {field}\r\n\r\n".encode())
    assert http.wanted_part(head, 100) == part


def test_asking_for_a_part_and_understanding_it_agree() -> None:
    for number in range(200):
        request = Request("range", 1000, f"r{number}")
        assert request.part is not None
        begin, end = request.part
        assert 0 <= begin < end <= 1000
        head = http.parse_head(http.request("GET", request.path, "h", part=request.part))
        assert http.wanted_part(head, 1000) == request.part


def test_messages_are_broken_off_everywhere() -> None:
    stops = {Request("cut", 20, f"r{number}").stop for number in range(500)}
    assert stops == set(range(21))


def test_content_depends_on_seed_size_and_tag_and_files_hold_the_same() -> None:
    made = {content(1, 64, "a"), content(2, 64, "a"), content(1, 64, "b"), content(1, 65, "a")[:64]}
    assert len(made) == 4
    file = file_of(1, 64, "a")
    file.seek(0)
    assert file.read() == content(1, 64, "a")
    assert not file.writable()


def test_field_is_taken_out_of_a_head_and_the_rest_stays() -> None:
    head = http.parse_head(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nA: b\r\n\r\n")
    assert head.without("expect") == b"POST / HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n"


@pytest.mark.parametrize(
    ("raw", "stays"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\n\r\n", False),
    ],
)
def test_connections_stay_open_as_the_version_says(raw: bytes, *, stays: bool) -> None:
    assert http.parse_head(raw).keepalive is stays
