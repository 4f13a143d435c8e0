"""By how much the clocks of the hosts differ from the client's, so that samples can be cut at the moments of the load."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from testbed.errors import RemoteError
from testbed.session import Testbed

_SECONDS = 20.0
_COMMAND = ("date", "+%s.%N")
_SLACK_SECONDS = 0.05
"""Starting the command takes the host some time of the round trip."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """How far a host's clock is ahead of this machine's, and by how much that may be wrong; seconds."""

    ahead: float
    uncertainty: float


def offsets(testbed: Testbed) -> dict[str, float]:
    """Seconds by which the clock of every host is ahead of the client's; 0 where no difference can be told.

    RemoteError when a host does not say its time.
    """
    roles = testbed.topology.roles
    with ThreadPoolExecutor(max_workers=len(roles)) as pool:
        readings = dict(zip(roles, pool.map(lambda role: _read(testbed, role), roles), strict=True))
    return _relative(readings)


def _relative(readings: Mapping[str, _Reading]) -> dict[str, float]:
    client = readings["client"]
    result = {}
    for role, reading in readings.items():
        ahead = reading.ahead - client.ahead
        doubt = reading.uncertainty + client.uncertainty + _SLACK_SECONDS
        result[role] = ahead if role != "client" and abs(ahead) > doubt else 0.0
    return result


def _read(testbed: Testbed, role: str) -> _Reading:
    # The first command opens the connection; only the second one is timed.
    testbed.run(role, ["true"], timeout=_SECONDS)
    before = time.time()
    said = testbed.run(role, _COMMAND, timeout=_SECONDS).stdout.strip()
    after = time.time()
    try:
        theirs = float(said)
    except ValueError:
        raise RemoteError(f"host {role} does not say its time but {said!r}", "it needs GNU date") from None
    return _Reading(theirs - (before + after) / 2, (after - before) / 2)
