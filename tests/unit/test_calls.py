"""What strace says becomes calls per request of each tier; what it does not say is absent, not zero."""

from __future__ import annotations

import pytest

from testbed.calls import parse_summary
from testbed.errors import RemoteError
from testbed.metrics import derive_calls, derive_counters
from testbed.record import CallCount
from tests.unit import record_samples as samples

pytestmark = pytest.mark.unit

SUMMARY = """\
strace: Process 17 attached
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 61.54    0.000016           0        40        12 recvfrom
 38.46    0.000010           3         3           sendfile64
  0.00    0.000000           0        57           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    0.000026           0       100        12 total
"""


def test_a_summary_is_read_with_and_without_errors() -> None:
    assert parse_summary(SUMMARY) == {"recvfrom": 40, "sendfile64": 3, "epoll_wait": 57}
    assert sum(parse_summary(SUMMARY).values()) == 100
    # Several tables, one for each personality, add up.
    assert parse_summary(SUMMARY + SUMMARY)["epoll_wait"] == 114


@pytest.mark.parametrize("text", ["", "strace: attach: ptrace(PTRACE_SEIZE, 17): Operation not permitted\n"])
def test_a_summary_without_calls_is_an_error(text: str) -> None:
    with pytest.raises(RemoteError):
        parse_summary(text)


def test_calls_are_per_request_and_intermediaries_add_up() -> None:
    counted = CallCount(
        10, {"fe": {"read": 100, "writev": 50}, "is1": {"read": 30}, "is2": {"read": 40}, "be": {"read": 5}}
    )
    found = derive_calls(counted)
    assert {name: metric.value for name, metric in found.items()} == {
        "fe.calls": 15.0,
        "is.calls": 7.0,
        "be.calls": 0.5,
    }


def test_calls_that_were_not_counted_are_absent() -> None:
    found = derive_calls(CallCount(0, {}, "strace is missing on fe"))
    assert {(metric.value, metric.reason) for metric in found.values()} == {(None, "strace is missing on fe")}


def test_counters_of_the_library_are_per_response() -> None:
    header = samples.header(samples.plan("odb"))
    record = samples.record(header, header.plan.cells[0], header.plan.variants[0], 1, {})
    assert record.load is not None
    tiers = [
        samples.tier("fe", {"faults": 64}),
        samples.tier("is1", {"guard_calls": 640}),
        samples.tier("is2", {"guard_calls": 1280}),
        samples.tier("be", {"pushes": 640}),
    ]
    found = {name: metric.value for name, metric in derive_counters(record.load, tiers).items()}
    assert found["fe.faults"] == 0.1
    assert found["is.guard_calls"] == 3.0
    assert found["be.pushes"] == 1.0
    assert found["is.fetches"] == 0.0
    assert not [name for name in found if name.startswith("is1.")]
