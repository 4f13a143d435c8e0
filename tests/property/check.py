"""Runs a case in a pool of processes, with the library and without, and says what differs."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any

from odb.config import load
from tests.property.cases import BREAKING, PAGE, SIZE_MAX, Case, Hop
from tests.property.pool import ANSWER_SECONDS, CLASSIC, FRAMED, Batch, Died, Pool

PATIENCE = 12.0
# Between peers that behave and stay, none of this may ever happen.
TROUBLE = ("protocol_errors", "resets", "fetch_failures", "serve_failures")
COUNTED = ("spans_sent", "spans_received", "fallback_wanted", "fallback_store_full", *TROUBLE)


class Mismatch(AssertionError):
    """The library was noticed. kind: "stall", "mismatch", or "died" when a process did."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


class Nonsense(AssertionError):
    """The case itself is wrong: the servers refuse it, or fail without the library."""


@dataclass
class Tally:
    """What a run of many cases adds up to. Bytes are content that a client received and compared."""

    cases: int = 0
    bytes: int = 0
    requests: int = 0
    active_hops: int = 0
    spans: int = 0
    mismatches: int = 0
    stalls: int = 0
    failures: list[str] = field(default_factory=list)

    def line(self) -> str:
        """All of it in one line."""
        return (
            f"cases {self.cases}, requests {self.requests}, bytes compared {self.bytes}, hops proven active "
            f"{self.active_hops}, descriptors received {self.spans}, mismatches {self.mismatches}, stalls {self.stalls}"
        )


@dataclass(frozen=True)
class Outcome:
    summary: dict[str, Any]
    moved: tuple[dict[str, int], ...]


def reproduction(case: Case) -> str:
    """The command that runs this case alone."""
    return f"python -m tests.property.reproduce {shlex.quote(case.dumps())}"


def run(pool: Pool, case: Case, patience: float = PATIENCE, *, answers: bool = True) -> Outcome:
    """One run of the chain: the client's summary, and by how much each hop's counters moved. Raises Died and Nonsense.

    Without the answers the run may take as long as it does, as long as something moves.
    """
    batches = [pool.batch(hop.options, place) for place, hop in enumerate(case.hops)]
    before = [_counters(pool, hop, batch) for hop, batch in zip(case.hops, batches, strict=True)]
    servers: list[tuple[Batch, int]] = []
    upstream = ""
    for place in range(len(case.hops) - 1, 0, -1):
        hop, batch = case.hops[place], batches[place]
        address = CLASSIC if hop.options is None else FRAMED
        role = (
            ["is", "--upstream", upstream] if upstream else ["be", *(["--chunked"] if case.chunked else [])]
        )
        answer = batch.say(*role, "--listen", address, "--port", "0", f"--seed={case.seed}", *hop.flags)
        if "error" in answer:
            raise Nonsense(f"a server does not start: {answer['error']}\n{reproduction(case)}")
        servers.append((batch, answer["port"]))
        upstream = f"{address}:{answer['port']}"
    words = ["fe", "--upstream", upstream, f"--patience={patience}", *case.client_words()]
    if answers:
        words.append("--answers")
    limit = ANSWER_SECONDS if answers else None
    summary = batches[0].say(*words, f"--seed={case.seed}", *case.hops[0].flags, limit=limit)
    after = [_counters(pool, hop, batch) for hop, batch in zip(case.hops, batches, strict=True)]
    for batch, port in servers:
        answer = batch.say("stop", port)
        if "error" in answer:
            raise Died(f"a server does not stop: {answer['error']}")
    moved = tuple(
        {name: new.get(name, 0) - old.get(name, 0) for name in COUNTED}
        for new, old in zip(after, before, strict=True)
    )
    return Outcome(summary, moved)


def _counters(pool: Pool, hop: Hop, batch: Batch) -> dict[str, int]:
    return {} if hop.options is None else pool.counters(batch.pid)


def check(pool: Pool, case: Case, tally: Tally, patience: float = PATIENCE) -> None:
    """Raises Mismatch, with the reproduction, when anything but the statistics tells that the library was there.

    patience: seconds without a byte that count as a stall.
    """
    tally.cases += 1
    try:
        classic = run(pool, case.classic(), patience).summary
        if "error" in classic or classic["ok"] != classic["requests"]:
            raise Nonsense(f"the servers themselves fail: {classic}\n{reproduction(case.classic())}")
        outcome = run(pool, case, patience)
        right = not difference(case, classic, outcome, descriptors=False)
        if right and _spoilt_by_earlier_cases(case, outcome):
            pool.clear()
            outcome = run(pool, case, patience)
    except Died as error:
        pool.clear()
        tally.mismatches += 1
        raise Mismatch(f"{error}\nto reproduce: {reproduction(case)}", "died") from error
    problem = difference(case, classic, outcome)
    if problem:
        pool.clear()
        stalled = outcome.summary.get("stalled", False)
        tally.stalls += stalled
        tally.mismatches += not stalled
        raise Mismatch(f"{problem}\nto reproduce: {reproduction(case)}", "stall" if stalled else "mismatch")
    tally.bytes += outcome.summary["bytes"]
    tally.requests += outcome.summary["requests"]
    tally.active_hops += len(surely_active(case))
    tally.spans += sum(moved["spans_received"] for moved in outcome.moved)


def keep_alive(pool: Pool, requests: int, tally: Tally) -> None:
    """Many small answers, and some that become descriptors, on one connection through three hops. Raises Mismatch."""
    flags = ("--receive=recv_into", "--send=send", "--readiness=epoll-edge", "--buffer=16384")
    hop = Hop(flags, {"virtual_min": "4096"})
    case = Case(
        (hop, hop, hop), ("get",), (100, 0, 5000, 1, 16384, 40, 20000), requests, 1, 16, False, False, 7
    )
    tally.cases += 1
    try:
        outcome = run(pool, case, answers=False)
    except Died as error:
        pool.clear()
        tally.mismatches += 1
        raise Mismatch(f"{error}\nto reproduce: {reproduction(case)}", "died") from error
    summary = outcome.summary
    tally.requests += summary["requests"]
    tally.bytes += summary["bytes"]
    tally.active_hops += 2
    tally.spans += sum(moved["spans_received"] for moved in outcome.moved)
    trouble = [{name: moved[name] for name in TROUBLE if moved[name]} for moved in outcome.moved]
    if summary["ok"] != requests or any(trouble):
        tally.stalls += summary["stalled"]
        tally.mismatches += not summary["stalled"]
        kind = "stall" if summary["stalled"] else "mismatch"
        raise Mismatch(f"{summary['errors']}, {trouble}\nto reproduce: {reproduction(case)}", kind)


def difference(case: Case, classic: dict[str, Any], outcome: Outcome, *, descriptors: bool = True) -> str:
    """What is wrong with a run, or nothing. descriptors: hops that surely had one to carry have to have done so."""
    summary = outcome.summary
    if "error" in summary:
        return f"the client fails: {summary['error']}"
    if summary["stalled"]:
        return f"stalled with bytes owed: {summary['errors']}"
    for expected, found in zip(classic["answers"], summary["answers"], strict=True):
        if expected != found:
            return f"without the library: {expected}\nwith the library:    {found}"
    if not set(BREAKING) & set(case.kinds):
        for place, moved in enumerate(outcome.moved):
            trouble = {name: moved[name] for name in TROUBLE if moved[name]}
            if trouble:
                return f"all bytes are right, but hop {place} counts {trouble}"
    for sender, receiver in surely_active(case) if descriptors else ():
        if not outcome.moved[sender]["spans_sent"] or not outcome.moved[receiver]["spans_received"]:
            return f"hops {sender} and {receiver} should have used descriptors: {outcome.moved}"
    return ""


def _spoilt_by_earlier_cases(case: Case, outcome: Outcome) -> bool:
    """Did a sender have reasons for real bytes that processes which live on bring along, instead of a descriptor?

    Payloads fill a store until their leases end, and a receiver that has learned so asks for real bytes for a while.
    """
    return any(
        not outcome.moved[sender]["spans_sent"]
        and (outcome.moved[sender]["fallback_wanted"] or outcome.moved[sender]["fallback_store_full"])
        for sender, _ in surely_active(case)
    )


def surely_active(case: Case) -> list[tuple[int, int]]:
    """Sender and receiver of each hop that certainly had a descriptor to carry.

    Both ends have the library, and the sender made a large payload itself and gave enough of it to one call.
    """
    asked = {(case.kinds[n % len(case.kinds)], case.sizes[n % len(case.sizes)]) for n in range(case.count)}
    last = len(case.hops) - 1
    found = []
    for sender, receiver, kinds in ((last, last - 1, {"get"}), (0, 1, {"echo", "digest"})):
        ours, theirs = case.hops[sender], case.hops[receiver]
        if ours.options is None or theirs.options is None:
            continue
        if case.chunked and sender == last:
            continue
        if ours.options.get("mode") != theirs.options.get("mode"):
            continue  # whoever asks around is not answered by rules
        size = max([size for kind, size in asked if kind in kinds], default=0)
        if _offers_whole(ours) and size >= _threshold(ours):
            found.append((sender, receiver))
    return found


def _offers_whole(hop: Hop) -> bool:
    """Does one send call get at least what makes a descriptor, if the payload has that?"""
    values = {name: value for name, _, value in (word.partition("=") for word in hop.flags)}
    options = hop.options or {}
    if int(options.get("store_max", 1 << 30)) < SIZE_MAX or "--vectors" in values:
        return False
    if "--send-buffer" in values:  # bounds what may be announced as well
        return False
    if int(values.get("--send-chunk", 1 << 30)) < _threshold(hop):
        return False
    file = values["--send"] == "sendfile"
    if not file and "--recycle" in values and int(values["--buffer"]) < _threshold(hop):
        return False
    return ("file" if file else "memory") in options.get("capture", "file,memory")


def _threshold(hop: Hop) -> int:
    """A payload of so many bytes holds a body that is large enough, wherever its pages begin."""
    options = load(assignments=[f"{name}={value}" for name, value in (hop.options or {}).items()])
    ends = int(options["unaligned_size"]) if options["strategy"] == "static" else PAGE
    return int(options["virtual_min"]) + 2 * ends + 2 * PAGE
