"""Origin, relay and client, each with or without the library: every mixture delivers, and spans travel where both ends can."""

from __future__ import annotations

import itertools
import re
from contextlib import ExitStack

import pytest

from odb import stats
from tests.preload.harness import EVERYWHERE, TROUBLE, Preload


class Chain:
    """Starts the roles in order; a role's upstream rule names the next one only if that speaks ODB."""

    def __init__(self, preload: Preload, stack: ExitStack) -> None:
        self.preload = preload
        self.stack = stack

    def environment(self, odb: bool, upstream_odb: bool) -> dict[str, str]:
        if not odb:
            return self.preload.plain_environment()
        return self.preload.environment(listen=EVERYWHERE, connect=EVERYWHERE if upstream_odb else "")

    def serve(self, *arguments: str, environment: dict[str, str]) -> tuple[str, int]:
        """Starts a server that ends with the test; returns its port and pid."""
        process = self.preload.start("chain", *arguments, environment=environment)
        self.stack.callback(process.wait, 10)
        for stream in (process.stderr, process.stdout, process.stdin):
            assert stream is not None
            self.stack.callback(stream.close)
        assert process.stdout is not None
        match = re.fullmatch(r"port (\d+)\n", process.stdout.readline())
        assert match is not None, "the server did not start"
        return match[1], process.pid


def counters_of(preload: Preload, pid: int) -> dict[str, int]:
    return stats.read(preload.directory / "statistics", pid).totals()


@pytest.mark.parametrize(("client", "relay", "origin"), list(itertools.product([True, False], repeat=3)))
def test_mixture_of_roles_delivers_every_body(
    preload: Preload, client: bool, relay: bool, origin: bool
) -> None:
    with ExitStack() as stack:
        chain = Chain(preload, stack)
        origin_port, origin_pid = chain.serve("origin", environment=chain.environment(origin, False))
        relay_port, relay_pid = chain.serve(
            "relay", origin_port, environment=chain.environment(relay, origin)
        )
        outcome = preload.run("chain", "client", relay_port, environment=chain.environment(client, relay))
        assert (outcome.status, outcome.err) == (0, "")
        assert outcome.out.count("bytes") == 24
        of_origin, of_relay = counters_of(preload, origin_pid), counters_of(preload, relay_pid)
        assert (of_origin.get("spans_sent", 0) > 0) == (origin and relay)
        assert (of_relay.get("spans_received", 0) > 0) == (origin and relay)
        assert (of_relay.get("spans_sent", 0) > 0) == (relay and client)
        if origin and relay and client:
            # The relay forwards what it never holds; what it holds, it was made to fetch by overwriting its buffer in part.
            assert stats.bytes_avoided(of_relay) > 500_000
        assert not any(counters.get(name, 0) for counters in (of_origin, of_relay) for name in TROUBLE)
        assert not outcome.trouble


def test_rule_may_name_a_port_whose_clients_are_classic(preload: Preload) -> None:
    with ExitStack() as stack:
        chain = Chain(preload, stack)
        port, pid = chain.serve("origin", environment=chain.environment(True, False))
        outcome = preload.run("chain", "client", port, environment=preload.plain_environment())
        assert (outcome.status, outcome.err) == (0, "")
        counters = counters_of(preload, pid)
        assert counters["streams_classic"] == 3
        assert counters["streams_framed"] == counters["spans_sent"] == 0


def test_connection_that_no_rule_names_is_left_alone(preload: Preload) -> None:
    with ExitStack() as stack:
        chain = Chain(preload, stack)
        elsewhere = preload.environment(listen="127.0.0.1:1", connect="127.0.0.1:1")
        port, pid = chain.serve("origin", environment=elsewhere)
        outcome = preload.run("chain", "client", port, environment=elsewhere)
        assert (outcome.status, outcome.err) == (0, "")
        assert not any(value for name, value in outcome.counters.items() if not name.endswith("_live"))
        assert not any(counters_of(preload, pid).values())
