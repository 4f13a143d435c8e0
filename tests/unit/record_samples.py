"""Records made up for tests of matrix, analysis and reports: real dataclasses, numbers from a seeded
generator.
"""

import random
from collections.abc import Callable, Mapping

from testbed.record import (
    SCHEMA,
    BodyCheck,
    Cell,
    CoreUse,
    Environment,
    LoadPlan,
    LoadResult,
    Metric,
    Plan,
    Record,
    RunHeader,
    TierUse,
    VariantUse,
    Verification,
)

UNITS = {
    "fe.cpu_us": "us",
    "is.cpu_us": "us",
    "be.cpu_us": "us",
    "total.cpu_us": "us",
    "is.bytes": "B",
    "latency.p50_us": "us",
    "latency.p99_us": "us",
    "throughput_rps": "1/s",
    "errors": "1",
}
TYPICAL = {
    "fe.cpu_us": 247.0,
    "is.cpu_us": 218.0,
    "be.cpu_us": 155.0,
    "total.cpu_us": 620.0,
    "is.bytes": 527_000.0,
    "latency.p50_us": 900.0,
    "latency.p99_us": 4_000.0,
    "throughput_rps": 600.0,
    "errors": 0.0,
}

ENVIRONMENT = Environment(
    host="somewhere",
    cores=4,
    cpu="a processor",
    kernel="6.1.0",
    nginx="1.22.1",
    locust="2.47.0",
    library_sha256="ab" * 32,
    provider="local",
    pinning="one core per tier",
    host_cores={"client": (0,), "fe": (1,), "is1": (2,), "be": (3,)},
    topology={"tiers": "1"},
)


def use(label: str, odb: bool = False) -> VariantUse:
    return VariantUse(label, label.split("#")[0], odb, "default" if odb else None, {})


def plan(
    *labels: str, payloads: tuple[int, ...] = (16384, 262144), repetitions: int = 3, seed: int = 1
) -> Plan:
    return Plan(
        variants=tuple(use(label, label.startswith("odb")) for label in labels),
        cells=tuple(Cell(payload) for payload in payloads),
        repetitions=repetitions,
        seed=seed,
        load=LoadPlan(32, 16.0, 20, 4, 5),
    )


def header(of: Plan, environment: Environment = ENVIRONMENT) -> RunHeader:
    return RunHeader(SCHEMA, "20260101T000000Z-abcd", 1.0, of, environment)


def record(
    of: RunHeader,
    cell: Cell,
    variant: VariantUse,
    repetition: int,
    metrics: Mapping[str, Metric],
    *,
    sequence: int = 0,
    failure: str | None = None,
    valid: bool = True,
    remarks: tuple[str, ...] = (),
) -> Record:
    failed = failure is not None
    load = LoadResult(
        complete=True,
        requests=640,
        errors=0,
        error_kinds={},
        bytes=640 * cell.payload,
        users=32,
        started_at=10.0,
        ended_at=12.0,
        latency_us={"p50": 900.0, "max": None},
        histogram="aGlzdA==",
        cpu_seconds=1.0,
        wall_seconds=2.0,
        cpu_share=0.5,
        processes=1,
    )
    proof = Verification((BodyCheck(cell.payload, cell.payload, "00", "00"),), variant.odb, {"fe": {}})
    return Record(
        schema=SCHEMA,
        run=of.run,
        environment=of.environment.fingerprint,
        cell=cell,
        variant=variant,
        repetition=repetition,
        sequence=sequence,
        seed=of.plan.seed,
        started_at=9.0,
        ended_at=13.0,
        failure=failure,
        valid=valid and not failed,
        remarks=remarks,
        verification=None if failed else proof,
        load=None if failed else load,
        tiers=() if failed else (tier("fe"),),
        metrics={} if failed else metrics,
    )


def tier(role: str, odb: Mapping[str, int] | None = None) -> TierUse:
    return TierUse(
        role=role,
        cores=(1,),
        seconds=2.1,
        samples=20,
        cpu_seconds=0.5,
        memory_mean_bytes=None,
        memory_peak_bytes=None,
        working_mean_bytes=1e6,
        working_peak_bytes=2e6,
        rx_bytes=100.0,
        tx_bytes=200.0,
        core_use={"1": CoreUse(0.4, 0.1, 0.0)},
        steal_share=0.0,
        agent_cpu_seconds=0.01,
        odb=odb or {},
        reasons={"memory_bytes": "not readable"},
    )


def measured(
    of: RunHeader, scale: Callable[[str, str], float], *, noise: float = 0.05, seed: int = 7
) -> list[Record]:
    """Records of the whole plan: typical values times `scale(label, metric)`, with relative normal noise."""
    generator = random.Random(seed)
    made: list[Record] = []
    for cell in of.plan.cells:
        for variant in of.plan.variants:
            for repetition in range(1, of.plan.repetitions + 1):
                metrics = {
                    name: Metric(value * scale(variant.label, name) * generator.gauss(1, noise), UNITS[name])
                    for name, value in TYPICAL.items()
                }
                made.append(record(of, cell, variant, repetition, metrics, sequence=len(made)))
    return made
