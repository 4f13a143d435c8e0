"""Turns the raw results of one cell into named metrics, and judges whether its latencies may be used.

Names and units are those of the machine-readable comparison: `<tier>.cpu_us` and `<tier>.bytes` per request, memory as
the peak during the load without the page cache, latency percentiles, throughput, failed requests, and the load
generator's own share of a core.  `<tier>.steady_us` is the CPU time as it would have been, had the cores kept the pace
`PACE_NS` all the time.  `is` is the sum over all intermediaries; with several of them `is1`, `is2`, ... stand
beside it.
"""

from collections.abc import Callable, Mapping, Sequence

from testbed.record import CallCount, LoadResult, Metric, TierUse

SATURATED_SHARE = 0.9
"""A load generator busier than this share of a core measured itself rather than the servers."""
DISTURBED_STEAL = 0.05
"""A share of time stolen from the tiers' cores above which the cell is flagged as disturbed."""
DISTURBED_FOREIGN = 0.2
"""A share of a core that other programs took from the tiers pinned to it above which the cell is flagged."""

PACE_NS = 200.0
"""The pace that `steady_us` is stated at: CPU time of a plain system call."""

_BROKEN = ("fetch_failures", "serve_failures", "protocol_errors", "resets")
"""ODB counters that stay at nothing when all is well."""
_NO_REQUEST = "no request succeeded"
COUNTED_TIERS = ("fe", "is", "be")
"""The tiers of counts; `is` stands for all intermediaries."""
COUNTERS = ("faults", "fetches", "guard_calls", "pushes")
"""ODB's counters that become metrics of each tier, per response."""


def derive(load: LoadResult, tiers: Sequence[TierUse]) -> dict[str, Metric]:
    """The metrics of one cell, per successful request where they are per request.

    `tiers` holds one entry per host; the clients' are left out, `client.cpu_share` is what the generator says.
    """
    generator = generator_share(load, tiers)
    tiers = [one for one in tiers if not one.role.startswith("client")]
    metrics: dict[str, Metric] = {}
    groups = _groups(tiers)
    for name, members in groups.items():
        metrics[f"{name}.cpu_us"] = _per_request(
            load, members, "cpu_seconds", lambda one: one.cpu_seconds, 1e6, "us"
        )
    metrics["total.cpu_us"] = _per_request(load, tiers, "cpu_seconds", lambda one: one.cpu_seconds, 1e6, "us")
    for name, members in (*groups.items(), ("total", tiers)):
        cpu = metrics[f"{name}.cpu_us"]
        metrics[f"{name}.steady_us"] = (
            cpu if cpu.value is None else _per_request(load, members, "pace_ns", _steady_seconds, 1e6, "us")
        )
    pace = _sum(tiers, "pace_ns", lambda one: one.pace_ns, "ns")
    metrics["pace_ns"] = pace if pace.value is None else Metric(pace.value / len(tiers), "ns")
    for name, members in groups.items():
        metrics[f"{name}.bytes"] = _per_request(load, members, "rx_bytes", _network_bytes, 1, "B")
    for name, members in groups.items():
        metrics[f"{name}.mem_bytes"] = _sum(members, "working_bytes", lambda one: one.working_peak_bytes, "B")
    for name in ("p50", "p99", "p999"):
        metrics[f"latency.{name}_us"] = _latency(load, name)
    succeeded = load.requests - load.errors
    metrics["throughput_rps"] = (
        Metric(succeeded / load.wall_seconds, "1/s")
        if load.wall_seconds > 0
        else Metric(None, "1/s", _NO_REQUEST)
    )
    metrics["errors"] = Metric(float(load.errors), "1")
    metrics["client.cpu_share"] = Metric(
        generator, "1", "the load generator did not report it" if generator is None else None
    )
    return metrics


def derive_counters(load: LoadResult, tiers: Sequence[TierUse]) -> dict[str, Metric]:
    """`<tier>.<counter>`: by how much ODB's counters of each tier grew per successful response."""
    succeeded = load.requests - load.errors
    return {
        f"{name}.{counter}": Metric(sum(one.odb.get(counter, 0) for one in members) / succeeded, "1")
        if succeeded > 0
        else Metric(None, "1", _NO_REQUEST)
        for name, members in _groups(tiers).items()
        if name in COUNTED_TIERS
        for counter in COUNTERS
    }


def derive_calls(counted: CallCount) -> dict[str, Metric]:
    """`<tier>.calls`: system calls of the servers of each tier per request; `is` is the sum over all intermediaries."""
    if counted.reason is not None:
        return {f"{tier}.calls": Metric(None, "1", counted.reason) for tier in COUNTED_TIERS}
    return {
        f"{tier}.calls": Metric(
            sum(
                sum(calls.values())
                for role, calls in counted.calls.items()
                if role.rstrip("0123456789") == tier
            )
            / counted.requests,
            "1",
        )
        for tier in COUNTED_TIERS
    }


def generator_share(load: LoadResult, tiers: Sequence[TierUse]) -> float | None:
    """How near to its limit the load generator was: the busiest of its processes, or all of them on a client's cores.

    1 is a core that has no time left, or all cores of a client host; None when nothing was reported.
    """
    shares = [
        one.cpu_seconds / (one.seconds * len(one.cores))
        for one in tiers
        if one.role.startswith("client") and one.cpu_seconds is not None and one.cores and one.seconds > 0
    ]
    return max([*shares, *([load.cpu_share] if load.cpu_share is not None else [])], default=None)


def remarks(load: LoadResult, tiers: Sequence[TierUse]) -> tuple[bool, tuple[str, ...]]:
    """Whether the latencies may be used, and everything that a reader of the figures should know.

    Remarks say what happened in words that do not vary, so that equal ones can be counted.
    """
    unusable: list[str] = []
    notes: list[str] = []
    generator = generator_share(load, tiers)
    if generator is not None and generator > SATURATED_SHARE:
        unusable.append(
            f"the load generator used more than {SATURATED_SHARE:.0%} of a core: latencies are its own"
        )
    if not load.complete:
        unusable.append("the load ended before every request was made")
    if load.errors:
        notes.append(failed_requests(load.errors, load.requests, load.error_kinds))
    for tier in tiers:
        if tier.clock_offset_seconds:
            notes.append(f"the clock of {tier.role} differs from the client's: its samples were shifted")
        broken = [name for name in _BROKEN if tier.odb.get(name)]
        if broken:
            notes.append(f"ODB on {tier.role} counted {' and '.join(broken)} under load")
    if any(tier.steal_share is not None and tier.steal_share > DISTURBED_STEAL for tier in tiers):
        notes.append(f"disturbed: more than {DISTURBED_STEAL:.0%} of the time of a host's cores was stolen")
    if foreign_share(tiers) > DISTURBED_FOREIGN:
        notes.append(
            f"disturbed: other programs of the machine used more than {DISTURBED_FOREIGN:.0%} of a host's core"
        )
    return not unusable, (*unusable, *notes)


def failed_requests(errors: int, requests: int, kinds: Mapping[str, int]) -> str:
    """How many requests failed and of what, in words."""
    why = ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))
    return f"{errors} of {requests} requests failed ({why})"


def foreign_share(tiers: Sequence[TierUse]) -> float:
    """The most that something else than the hosts pinned to it used of a core, as a share of the core's time.

    Only hosts of one core each can tell: what several cores did cannot be told apart by core.  Interrupts are left
    out, since the packets of a host are not always charged to it.
    """
    busy: dict[int, float] = {}
    own: dict[int, float] = {}
    for tier in tiers:
        if len(tier.cores) != 1 or tier.cpu_seconds is None or tier.seconds <= 0:
            continue
        core = tier.cores[0]
        use = tier.core_use.get(str(core))
        if use is not None:
            busy[core] = max(busy.get(core, 0.0), use.busy_share - use.softirq_share)
            own[core] = own.get(core, 0.0) + (tier.cpu_seconds + tier.agent_cpu_seconds) / tier.seconds
    return max((busy[core] - own[core] for core in busy), default=0.0)


def _groups(tiers: Sequence[TierUse]) -> dict[str, list[TierUse]]:
    """The tiers by metric name: fe, is (all intermediaries), is1, is2, ... when there are several, be."""
    between = [one for one in tiers if one.role.startswith("is")]
    groups = {one.role: [one] for one in tiers if one.role == "fe"}
    groups["is"] = between
    if len(between) > 1:
        groups |= {one.role: [one] for one in between}
    groups |= {one.role: [one] for one in tiers if one.role == "be"}
    return groups


def _steady_seconds(tier: TierUse) -> float | None:
    return None if not tier.pace_ns or tier.cpu_seconds is None else tier.cpu_seconds * PACE_NS / tier.pace_ns


def _network_bytes(tier: TierUse) -> float | None:
    return None if tier.rx_bytes is None or tier.tx_bytes is None else tier.rx_bytes + tier.tx_bytes


def _sum(tiers: Sequence[TierUse], field: str, value: Callable[[TierUse], float | None], unit: str) -> Metric:
    """The sum over tiers; absent when one of them is, with that one's reason."""
    total = 0.0
    for tier in tiers:
        one = value(tier)
        if one is None:
            return Metric(None, unit, f"{tier.role}: {_reason(tier.reasons, field)}")
        total += one
    return Metric(total, unit) if tiers else Metric(None, unit, "there is no such tier")


def _per_request(
    load: LoadResult,
    tiers: Sequence[TierUse],
    field: str,
    value: Callable[[TierUse], float | None],
    factor: float,
    unit: str,
) -> Metric:
    total = _sum(tiers, field, value, unit)
    succeeded = load.requests - load.errors
    if succeeded <= 0:
        return Metric(None, unit, _NO_REQUEST)
    return total if total.value is None else Metric(total.value * factor / succeeded, unit)


def _latency(load: LoadResult, name: str) -> Metric:
    value = load.latency_us.get(name)
    if load.requests <= load.errors:
        return Metric(None, "us", _NO_REQUEST)
    return Metric(value, "us", None if value is not None else "the load generator did not report it")


def _reason(reasons: Mapping[str, str], field: str) -> str:
    return reasons.get(field, f"{field} was not measured")
