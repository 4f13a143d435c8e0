"""Clocks that differ are noticed and corrected; the duration of a round trip is not taken for a difference."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import pytest

from testbed.clocks import offsets
from testbed.errors import RemoteError
from testbed.remote import Completed
from testbed.session import Testbed
from testbed.spec import Topology

pytestmark = pytest.mark.unit


class Hosts:
    """Hosts that say their time; `ahead` in seconds by role."""

    def __init__(self, ahead: dict[str, float], said: str | None = None) -> None:
        self.topology = Topology()
        self._ahead, self._said = ahead, said

    def run(self, role: str, command: Sequence[str], *, timeout: float) -> Completed:
        now = f"{time.time() + self._ahead.get(role, 0.0):.9f}" if self._said is None else self._said
        return Completed(tuple(command), 0, now + "\n", "")


def offsets_of(hosts: Any) -> dict[str, float]:
    return offsets(cast(Testbed, hosts))


def test_equal_clocks_have_no_offset() -> None:
    assert offsets_of(Hosts({"fe": 0.01})) == {"client": 0.0, "fe": 0.0, "is1": 0.0, "be": 0.0}


def test_a_clock_that_is_wrong_is_told_from_the_clients() -> None:
    found = offsets_of(Hosts({"client": 5.0, "is1": 8.0, "be": -2.0, "fe": 5.0}))
    assert found["client"] == found["fe"] == 0.0
    assert found["is1"] == pytest.approx(3.0, abs=0.5)
    assert found["be"] == pytest.approx(-7.0, abs=0.5)


def test_a_host_without_the_time_is_named() -> None:
    with pytest.raises(RemoteError, match="does not say its time"):
        offsets_of(Hosts({}, said="12:00.N"))
