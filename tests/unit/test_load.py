"""The pure parts of the load: options, counts and their sum, checks of bodies, and reading a result back."""

from __future__ import annotations

import argparse
import hashlib
import json
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loadgen import result
from loadgen.histogram import HIGHEST_US, LatencyHistogram
from loadgen.options import LoadOptions, OptionError, add_arguments, parse
from loadgen.shape import clients_per_dispatch, payload_at
from loadgen.verify import BodyError, StatusError, Verifier, error_kind
from testbed.load import LoadError, LoadPlan, build_command, parse_result, read_result, run_load


def arguments(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_the_defaults_are_thirty_thousand_requests() -> None:
    defaults = arguments()
    options = parse(defaults)
    assert (defaults.num_users, defaults.spawn_rate, options.requests_per_user) == (1000, 50.0, 30)
    assert (options.payloads, options.check, options.sha256, options.result) == (
        (65536,),
        "length",
        None,
        None,
    )
    assert options.path(65536) == "/payload/65536.bin"


def test_options_take_their_form() -> None:
    digest = "AB" * 32
    words = ["--payload", "1024", "--check", "hash", "--sha256", digest, "--path-template", "/f?n={size}"]
    options = parse(arguments(*words, "--result", "r.json", "--read-timeout", "2"))
    assert (options.sha256, options.path(1024), options.result) == (digest.lower(), "/f?n=1024", "r.json")
    assert options.read_timeout == 2.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"payload": "16k"}, "--payload 16k"),
        ({"payload": "1,,2"}, "--payload 1,,2"),
        ({"check": "some"}, "--check some"),
        ({"sha256": "ab" * 32}, "--sha256 has no meaning"),
        ({"check": "hash", "sha256": "ab" * 32, "payload": "1,2"}, "one payload size"),
        ({"sha256": "xyz"}, "--sha256 xyz"),
        ({"path_template": "payload"}, "--path-template payload"),
        ({"manifest": "m.json"}, "--manifest m.json"),
        ({"requests_per_user": 0}, "--requests-per-user 0"),
        ({"connect_timeout": 0}, "--connect-timeout 0"),
        ({"read_timeout": float("inf")}, "--read-timeout inf"),
    ],
)
def test_wrong_values_from_the_web_page_are_named(changes: dict[str, Any], message: str) -> None:
    namespace = arguments()
    vars(namespace).update(changes)
    with pytest.raises(OptionError, match=message):
        parse(namespace)


def test_options_are_immutable() -> None:
    options: Any = parse(arguments())
    assert isinstance(options, LoadOptions)
    with pytest.raises(AttributeError):
        options.check = "none"


def test_clients_start_singly_up_to_fifty_per_second() -> None:
    assert [clients_per_dispatch(rate) for rate in (0.5, 1, 50, 51, 200, 1000)] == [1, 1, 1, 2, 4, 20]


def test_each_client_asks_for_every_size_equally_often() -> None:
    sizes = (1, 2, 3)
    asked = [payload_at(sizes, 4, request) for request in range(6)]
    assert asked == [2, 3, 1, 2, 3, 1]
    assert {payload_at(sizes, client, 0) for client in range(3)} == set(sizes)


def test_latencies_keep_three_digits_and_exact_sum_and_maximum() -> None:
    histogram = LatencyHistogram()
    for value in range(1, 100_001):
        histogram.record(value)
    assert histogram.count == 100_000
    assert histogram.mean_us() == 50_000.5
    assert histogram.max_us == 100_000
    for percent, exact in ((50, 50_000), (99, 99_000), (99.9, 99_900), (100, 100_000)):
        assert histogram.percentile_us(percent) == pytest.approx(exact, rel=1e-3)


def test_latencies_outside_of_the_range_still_count() -> None:
    histogram = LatencyHistogram()
    histogram.record(0)
    histogram.record(HIGHEST_US * 10)
    assert (histogram.count, histogram.max_us) == (2, HIGHEST_US)


def tally(latencies_ms: Sequence[float], *, start: float = 100.0, errors: int = 0) -> dict[str, Any]:
    counts = result.Tally()
    for number, latency in enumerate(latencies_ms):
        error = StatusError(502) if number < errors else None
        counts.record(start_time=start + number, response_ms=latency, body_bytes=10, error=error)
    return counts.snapshot()


def test_the_sum_of_processes_is_exact() -> None:
    snapshots = [tally([1, 2, 3], errors=1), tally([4, 5], start=90.0, errors=2), tally([])]
    total = result.merge(snapshots)
    content = result.document(total, users=5, expected=5)
    assert (content["requests"], content["errors"], content["bytes"]) == (5, 3, 50)
    assert content["error_kinds"] == {"status 502": 3}
    assert (content["started_at"], content["ended_at"]) == (90.0, pytest.approx(102.003))
    assert content["latency_us"]["max"] == 5000
    assert content["latency_us"]["mean"] == 3000
    assert (content["complete"], content["processes"]) == (True, 3)
    assert not result.document(total, users=5, expected=6)["complete"]


def written(tmp_path: Path) -> dict[str, Any]:
    content = result.document(result.merge([tally([1, 2, 30], errors=1)]), users=1, expected=3)
    result.write(tmp_path / "result.json", content)
    return content


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    content = written(tmp_path)
    found = read_result(tmp_path / "result.json")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert stat.S_IMODE((tmp_path / "result.json").stat().st_mode) == 0o644
    assert (found.requests, found.errors, dict(found.error_kinds)) == (3, 1, {"status 502": 1})
    assert dict(found.latency_us) == content["latency_us"]
    assert found.percentile_us(100) == 30_000
    assert [count for _, count in found.distribution_us()] == [1, 1, 1]
    assert found.throughput_rps == pytest.approx(2 / found.wall_seconds)


def test_a_result_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        result.write(tmp_path / "result.json", {"bad": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "has schema 2 instead of 1"),
        ({"requests": 4}, "has 4 requests but 3 latencies"),
        ({"requests": -3}, "has -3 as requests"),
        ({"requests": True}, "has True as requests"),
        ({"errors": 2}, "error count that does not fit"),
        ({"error_kinds": []}, "as error_kinds"),
        ({"histogram": "AAAA"}, "no readable histogram"),
        ({"histogram": 5}, "has 5 as histogram"),
        ({"ended_at": 1.0}, "ends before it starts"),
        ({"started_at": None}, "has None as started_at"),
        ({"wall_seconds": float("nan")}, "as wall_seconds"),
        ({"latency_us": {"p50": 1}}, "as latency_us.p90"),
        ({"complete": "yes"}, "has 'yes' as complete"),
    ],
)
def test_a_corrupt_result_is_refused_with_its_defect(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    content = {**written(tmp_path), **changes}
    with pytest.raises(LoadError, match=message):
        parse_result(json.dumps(content), "result.json")


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"'])
def test_text_that_is_no_result_is_refused(text: str) -> None:
    with pytest.raises(LoadError, match=r"the load result here (is corrupt|has schema)"):
        parse_result(text, "here")


def test_a_percentile_that_the_histogram_lacks_is_refused(tmp_path: Path) -> None:
    content = written(tmp_path)
    content["latency_us"]["p99"] = 1
    with pytest.raises(LoadError, match="has a p99 that its histogram does not have"):
        parse_result(json.dumps(content), "result.json")


def test_bodies_are_checked_as_asked() -> None:
    body = b"payload!"
    good = {8: hashlib.sha256(body).hexdigest()}
    Verifier("none", {}).check(8, b"")
    Verifier("length", {}).check(8, b"whatever")
    by_hash = Verifier("hash", good)
    for _ in range(2):
        by_hash.check(8, bytearray(body))
        with pytest.raises(BodyError, match="wrong hash"):
            by_hash.check(8, b"payloaD!")
        with pytest.raises(BodyError, match="wrong length: 7 bytes instead of 8"):
            by_hash.check(8, b"payload")
    with pytest.raises(BodyError, match="wrong length: 0 bytes"):
        Verifier("length", {}).check(8, None)


def test_failures_have_names() -> None:
    kinds = {
        error_kind(ConnectionRefusedError(111, "refused")): "connection refused",
        error_kind(ConnectionResetError(104, "reset")): "connection reset",
        error_kind(TimeoutError("timed out")): "timeout",
        error_kind(OSError(24, "too many")): "too many open files",
        error_kind(StatusError(503)): "status 503",
        error_kind(KeyError("x")): "KeyError",
    }
    assert all(found == named for found, named in kinds.items())
    assert len(kinds) == 6


def test_the_command_line_says_the_whole_plan() -> None:
    plan = LoadPlan("http://fe", (1, 2), users=5, spawn_rate=2.5, check="hash", processes=3)
    command = build_command(plan, result="/r", locust=["py", "-m", "locust"], locustfile="/l.py")
    assert command[:7] == ["py", "-m", "locust", "-f", "/l.py", "--headless", "--only-summary"]
    words = " ".join(command[7:])
    assert words == (
        "--host http://fe --users 5 --spawn-rate 2.5 --requests-per-user 30 --payload 1,2 --check hash "
        "--processes 3 --result /r"
    )


@dataclass(frozen=True)
class Finished:
    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0


class FakeHost:
    """Answers locust, cat and rm as a client host would; keeps the commands."""

    def __init__(self, locust: Finished, cat: Finished) -> None:
        self.commands: list[list[str]] = []
        self._answers = {"locust": locust, "cat": cat, "rm": Finished()}

    def __call__(self, command: Sequence[str], *, timeout: float) -> Finished:
        assert timeout > 0
        self.commands.append(list(command))
        return self._answers[command[0]]


def test_a_run_reads_its_result_and_removes_the_file(tmp_path: Path) -> None:
    host = FakeHost(Finished(exit_code=1), Finished(stdout=json.dumps(written(tmp_path))))
    found = run_load(host, LoadPlan("http://fe", (10,), users=1, requests_per_user=3))
    assert found.requests == 3
    assert [command[0] for command in host.commands] == ["locust", "cat", "rm"]
    assert host.commands[0][-1] == host.commands[1][-1] == host.commands[2][-1]


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("noise\nerror: cannot connect\n[log] Shutting down\n", "cannot connect"),
        ("usage: locust\nlocust: error: argument --payload: no\n", "argument --payload: no"),
        ("sh: locust: not found\n", "locust: not found"),
        ("", "exit code 7 and said nothing"),
    ],
)
def test_a_run_without_a_result_gives_locusts_own_reason(stderr: str, reason: str) -> None:
    host = FakeHost(Finished(stderr=stderr, exit_code=7), Finished(exit_code=1))
    with pytest.raises(LoadError, match=f"the load on http://fe failed: .*{reason}"):
        run_load(host, LoadPlan("http://fe", (10,)))
    assert host.commands[-1][0] == "rm"


def test_a_run_that_made_fewer_requests_is_no_result(tmp_path: Path) -> None:
    stderr = "error: the run ended early: 3 of 30 requests were made\n"
    host = FakeHost(Finished(stderr=stderr, exit_code=130), Finished(stdout=json.dumps(written(tmp_path))))
    with pytest.raises(LoadError, match="ended early: .*3 of 30"):
        run_load(host, LoadPlan("http://fe", (10,), users=1))
