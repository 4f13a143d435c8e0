"""Readiness, blocking and looking ahead answer in application bytes: nothing owed is forgotten, nothing announced in vain."""

from __future__ import annotations

import pytest

from tests.preload.harness import Preload

APIS = (
    "epoll",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_edge",
    "epoll_oneshot",
    "epoll_edge_oneshot",
    "epoll_samedata",
    "epoll_late",
    "epoll_edge_late",
    "epoll_mixed",
    "epoll_edge_mixed",
    "epoll_moved",
    "epoll_edge_moved",
    "poll",
    "ppoll",
    "select",
    "pselect",
)
FLAGS = (
    "receive_timeout",
    "peek_until_complete",
    "count_until_complete",
    "wait_for_all_parts",
    "without_waiting",
    "thrown_away",
    "bad_source",
)


@pytest.mark.parametrize("api", APIS)
def test_waiting_reports_exactly_the_bytes_that_are_owed(preload: Preload, api: str) -> None:
    outcome = preload.compare("waits", api)
    assert outcome.active
    assert not outcome.trouble


@pytest.mark.parametrize("api", ["epoll_gone", "epoll_pwait2_gone"])
def test_waiting_without_streams_reports_nothing_of_the_library(preload: Preload, api: str) -> None:
    outcome = preload.compare("waits", api)
    assert outcome.counters["streams_framed"] == 2
    assert not outcome.trouble


@pytest.mark.parametrize("flag", FLAGS)
def test_flag_means_what_it_means_on_a_plain_socket(preload: Preload, flag: str) -> None:
    outcome = preload.compare("flags", flag)
    assert outcome.counters["streams_framed"] == 2
    assert outcome.active or flag in {"bad_source", "without_waiting"}  # no payload is sent
    assert not outcome.trouble


@pytest.mark.parametrize("flag", FLAGS)
def test_flag_means_the_same_on_a_classic_connection_to_a_ruled_port(preload: Preload, flag: str) -> None:
    outcome = preload.compare("flags", flag, listen="127.0.0.1")
    assert outcome.counters["streams_classic"] == 1
    assert not outcome.active
    assert not outcome.trouble
