"""Makes a failing case smaller while it keeps failing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.property.cases import Case, Hop

_NEEDED = ("--receive", "--send", "--readiness", "--buffer")
_PLAIN = {"--receive": "recv_into", "--send": "send", "--readiness": "threads", "--buffer": "65536"}


def minimise(case: Case, fails: Callable[[Case], bool]) -> Case:
    """A case that fails and of which no simpler one fails, as far as one step shows."""
    shrunk = True
    while shrunk:
        shrunk = False
        for simpler in _simpler(case):
            if fails(simpler):
                case, shrunk = simpler, True
                break
    return case


def _simpler(case: Case) -> Iterator[Case]:
    for at in range(1, len(case.hops) - 1):
        if len(case.hops) > 3:
            yield replace(case, hops=case.hops[:at] + case.hops[at + 1 :])
    for name, least in (
        ("count", 1),
        ("concurrency", 1),
        ("pipeline", 1),
        ("close", False),
        ("chunked", False),
    ):
        if getattr(case, name) != least:
            yield replace(case, **{name: least})
    if case.count > 2:
        yield replace(case, count=case.count // 2)
        yield replace(case, count=case.count - 1)
    for name in ("kinds", "sizes"):
        values = getattr(case, name)
        if len(values) > 1:
            yield from (replace(case, **{name: (value,)}) for value in dict.fromkeys(values))
            yield from (replace(case, **{name: values[:at] + values[at + 1 :]}) for at in range(len(values)))
    for at, hop in enumerate(case.hops):
        for other in _simpler_hop(hop):
            yield replace(case, hops=case.hops[:at] + (other,) + case.hops[at + 1 :])


def _simpler_hop(hop: Hop) -> Iterator[Hop]:
    if hop.options is not None:
        yield replace(hop, options=None)
        for key in hop.options:
            yield replace(hop, options={name: value for name, value in hop.options.items() if name != key})
    for at, word in enumerate(hop.flags):
        name, _, value = word.partition("=")
        if name not in _NEEDED:
            yield replace(hop, flags=hop.flags[:at] + hop.flags[at + 1 :])
        elif value != _PLAIN[name]:
            yield replace(hop, flags=hop.flags[:at] + (f"{name}={_PLAIN[name]}",) + hop.flags[at + 1 :])
