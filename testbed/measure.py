"""Measures one cell: starts the variant, verifies it, warms it up, loads it under watch, and makes the record.

Whatever goes wrong with a host, a server or the load becomes a record with its reason, so that a run goes on.
"""

import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from testbed import metrics
from testbed.calls import count_calls, stop_counting
from testbed.errors import ServingError, TestbedError
from testbed.load import LoadPlan
from testbed.loadrun import run_load, stop_load
from testbed.matrix import Step
from testbed.record import (
    SCHEMA,
    BodyCheck,
    Record,
    RunHeader,
    VariantUse,
    Verification,
)
from testbed.session import Testbed
from testbed.spec import ENCODED, Variant
from testbed.watch import Watch, stop_agents

_PROBE = Path(__file__).with_name("probe.py")
_PROBE_SECONDS = 120.0
_GROWS = {
    "be": ("payloads_captured", "spans_sent"),
    "is": ("spans_received", "spans_sent"),
    "fe": ("spans_received",),
}
"""The ODB counters that must grow on a tier when bodies pass it; the key is the role without its number."""

_MAY_IDLE = ("capture", "virtual_min", "memory_min", "mode")
"""Options with which ODB may have nothing to do for a body; what they switch off is then no failure."""
_MAY_REST = {"delivery": {("is", "spans_sent"), ("fe", "spans_received")}}
"""The same for single counters. An intermediary that fetches what it receives sends it on in parts that are too small
to become payloads; that the BE announces and the intermediary receives is still asked for."""
_WRK_WARMUP_SECONDS = 1.0

Counters = Mapping[str, Mapping[str, int]]


def measure(testbed: Testbed, header: RunHeader, step: Step, work: Path) -> Record:
    """Measure one step on a deployed testbed; raw files are left in the directory `work`.

    Servers, agents and load are stopped when this returns or raises, KeyboardInterrupt included.
    """
    record = failed(header, step, "")
    try:
        with ExitStack() as cleanup:
            cleanup.callback(testbed.stop)
            clear(testbed)
            testbed.start(_variant(step))
            proof = verify(testbed, step.variant)
            record = replace(record, verification=proof)
            record = _under_load(testbed, header, step, work, record, proof)
    except TestbedError as error:
        record = replace(record, failure=str(error), valid=False, metrics={})
    except (ValueError, KeyError, TypeError) as error:
        # What a host answered makes no sense: this cell is lost, not the run.
        reason = f"an answer could not be understood ({type(error).__name__}: {error})"
        record = replace(record, failure=reason, valid=False, metrics={})
    return replace(record, ended_at=time.time())


def failed(header: RunHeader, step: Step, reason: str) -> Record:
    """The record of a step that nothing was measured in."""
    now = time.time()
    return Record(
        schema=SCHEMA,
        run=header.run,
        environment=header.environment.fingerprint,
        cell=step.cell,
        variant=step.variant,
        repetition=step.repetition,
        sequence=step.sequence,
        seed=header.plan.seed,
        started_at=now,
        ended_at=now,
        failure=reason,
        valid=False,
        remarks=(),
        verification=None,
        load=None,
        tiers=(),
        metrics={},
    )


def clear(testbed: Testbed) -> None:
    """End what an earlier measurement left running on the hosts because its program was killed."""
    stop_load(testbed)
    stop_agents(testbed)
    stop_counting(testbed)


def verify(testbed: Testbed, variant: VariantUse) -> Verification:
    """Fetch every body through the chain and check it, and that ODB took part exactly if the variant says so.

    The servers have just been started, so that their counters have grown from nothing.
    ServingError says which body was wrong or on which tier ODB was absent, idle or present against the variant.
    """
    sizes = sorted(testbed.topology.payloads)
    client = testbed.host("client")
    command = [client.python, "-c", _PROBE.read_text(encoding="utf-8"), testbed.front_url(), *map(str, sizes)]
    command += [word for header in testbed.front_headers() for word in ("--header", header)]
    outcome = testbed.run("client", command, timeout=_PROBE_SECONDS)
    if outcome.exit_code != 0:
        raise ServingError(f"verification failed: {outcome.stderr.strip() or 'the probe said nothing'}")
    found = json.loads(outcome.stdout)
    bodies = tuple(
        BodyCheck(
            payload=body["payload"],
            length=body["length"],
            sha256=body["sha256"],
            expected_sha256=found["manifest"].get(str(body["payload"]), "not in the manifest"),
        )
        for body in found["bodies"]
    )
    for body in bodies:
        if (body.length, body.sha256) != (body.payload, body.expected_sha256):
            raise ServingError(
                f"verification failed: the body of {body.payload} bytes came with {body.length} bytes and SHA-256 "
                f"{body.sha256} instead of {body.expected_sha256}"
            )
    if testbed.topology.touch == "gzip" and found["encoded"] != len(bodies):
        raise ServingError(f"verification failed: {len(bodies) - found['encoded']} bodies came without gzip")
    after = counters(testbed)
    growth = grown({}, after)
    check_odb(variant, after, growth, may_idle=not testbed.topology.sendfile)
    return Verification(bodies, variant.odb, growth)


def check_odb(variant: VariantUse, present: Counters, growth: Counters, *, may_idle: bool = False) -> None:
    """ServingError unless the counters prove that ODB worked on every tier, or is loaded on none without it.

    may_idle: it is enough that it is loaded, because the bodies need not become payloads (a server without sendfile
    writes them in pieces that may be smaller than `memory_min`).
    """
    for role, values in present.items():
        if not variant.odb and values:
            raise ServingError(
                f"verification failed: {role} runs with the library in variant {variant.label}"
            )
        if variant.odb and not values:
            raise ServingError(
                f"verification failed: the servers on {role} publish no ODB counters in variant {variant.label}",
                "the library is off or does not fit this version: run 'make setup', then see 'odb doctor'",
            )
        if may_idle or any(name in variant.options for name in _MAY_IDLE):
            continue
        kind = role.rstrip("0123456789")
        resting = set().union(*(_MAY_REST.get(option, set()) for option in variant.options))
        idle = [name for name in _GROWS[kind] if not growth[role].get(name) and (kind, name) not in resting]
        if variant.odb and idle:
            raise ServingError(
                f"verification failed: ODB is loaded on {role} but idle in variant {variant.label}: "
                f"{idle[0]} did not grow"
            )


def counters(testbed: Testbed) -> dict[str, dict[str, int]]:
    """The live ODB counters of every serving role; an empty mapping where no process has the library."""
    chain = testbed.topology.chain
    with ThreadPoolExecutor(max_workers=len(chain)) as pool:
        return dict(zip(chain, pool.map(testbed.odb_stats, chain), strict=True))


def grown(before: Counters, after: Counters) -> dict[str, dict[str, int]]:
    """By how much each counter changed; unchanged ones are left out."""
    return {
        role: {
            name: value - before.get(role, {}).get(name, 0)
            for name, value in values.items()
            if value != before.get(role, {}).get(name, 0)
        }
        for role, values in after.items()
    }


def _variant(step: Step) -> Variant:
    """The variant as the servers are started in it: the cell's alignment is an option of the library."""
    use = step.variant
    options = dict(use.options)
    if use.odb:
        options.setdefault("align", "on" if step.cell.align else "off")
    return Variant(
        use.name,
        "",
        use.odb,
        use.profile,
        options,
        use.library,
        use.nginx,
        use.configuration,
        use.intermediary,
    )


def _under_load(
    testbed: Testbed, header: RunHeader, step: Step, work: Path, record: Record, proof: Verification
) -> Record:
    """Warm up, run the load with an agent on every host, and complete the record with what they found.

    Every body of the load is compared with what the verification found right.
    """
    plan = header.plan.load_of(step.cell)
    verified = next(body for body in proof.bodies if body.payload == step.cell.payload)
    target = LoadPlan(
        url=testbed.front_url(),
        payloads=(step.cell.payload,),
        users=plan.users,
        spawn_rate=plan.spawn_rate,
        requests_per_user=plan.requests_per_user,
        check="hash",
        sha256=verified.expected_sha256,
        processes=plan.processes,
        rate=plan.rate,
        together=plan.model == "closed",
        seconds=plan.seconds,
        hosts=plan.hosts,
        headers=testbed.front_headers(),
        encoded=testbed.topology.touch in ENCODED,
    )
    warm_up = replace(
        target,
        users=plan.warmup_users,
        spawn_rate=float(plan.warmup_users),
        requests_per_user=plan.warmup_requests_per_user,
        processes=1,
        rate=None,
        together=False,
        # What warms a short load of wrk up must not take longer than itself, as the start of Locust does.
        seconds=None if plan.seconds is None else _WRK_WARMUP_SECONDS,
        hosts=1,
    )
    run_load(testbed, warm_up)
    before = counters(testbed) if step.variant.odb else {}
    with Watch(testbed, work) as watch:
        result = run_load(testbed, target)
    growth = grown(before, counters(testbed)) if step.variant.odb else {}
    tiers = watch.summarise(result.started_at, result.ended_at, growth)
    valid, remarks = metrics.remarks(result, tiers)
    found = metrics.derive(result, tiers)
    if step.variant.odb:
        found |= metrics.derive_counters(result, tiers)
    calls = None
    if plan.traced_seconds is not None and step.repetition == 1:
        calls = count_calls(testbed, replace(target, seconds=plan.traced_seconds))
        found |= metrics.derive_calls(calls)
    return replace(
        record,
        failure=None,
        valid=valid,
        remarks=remarks,
        load=result,
        tiers=tiers,
        metrics=found,
        calls=calls,
    )
