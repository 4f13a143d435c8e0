"""How long measurements will take: from records of the same cell and load where there are some, else from the plan."""

import itertools
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from testbed.errors import RecordError
from testbed.matrix import Step, topology_key
from testbed.record import Cell, LoadPlan, Plan, Record
from testbed.runs import load_run

OVERHEAD_SECONDS = 7.0
"""Starting servers, verification, warm-up, agents, a Locust that starts twice."""
TRACING_SECONDS = 4.0
"""Attaching strace to every tier, a generator's start, and letting go again."""
DEPLOY_SECONDS = 25.0
"""Deploying another topology onto hosts that are there."""
_CLOSED_RPS = 800.0
_LOOK_AT = 5
"""Runs whose records are looked at, the newest ones."""


class Estimator:
    """Estimates in seconds for the steps of one plan."""

    def __init__(self, plan: Plan, records: Iterable[Record]) -> None:
        self._plan = plan
        taken: dict[tuple[Cell, str], list[float]] = {}
        for record in records:
            if record.failure is None:
                key = record.cell, record.variant.label
                taken.setdefault(key, []).append(record.ended_at - record.started_at)
        self._taken = {key: statistics.median(values) for key, values in taken.items()}

    def seconds(self, step: Step) -> float:
        """How long one step will take, without deploying."""
        known = self._taken.get((step.cell, step.variant.label))
        if known is not None:
            return known
        load = self._plan.load_of(step.cell)
        traced = step.repetition == 1 and load.traced_seconds is not None
        tracing = TRACING_SECONDS + (load.traced_seconds or 0.0) if traced else 0.0
        return OVERHEAD_SECONDS + load_seconds(load) + tracing

    def total(self, steps: Sequence[Step]) -> float:
        """How long steps will take one after the other, with what has to be deployed in between."""
        keys = [topology_key(step.cell) for step in steps]
        changes = sum(one != other for one, other in itertools.pairwise(keys))
        return sum(map(self.seconds, steps)) + changes * DEPLOY_SECONDS


def load_seconds(load: LoadPlan) -> float:
    """How long the load itself takes at least, by its plan."""
    if load.seconds is not None:
        return load.seconds
    requests = load.users * load.requests_per_user
    if load.rate is not None:
        return requests / load.rate
    ramp = load.users / load.spawn_rate if load.model == "ramp" else 0.0
    return max(ramp, requests / _CLOSED_RPS)


def earlier_records(results: Path, plan: Plan) -> list[Record]:
    """Records of newest runs in which a cell of the plan was measured under the same load."""
    found: list[Record] = []
    for header in sorted((results / "runs").glob("[!.]*/run.json"), reverse=True)[:_LOOK_AT]:
        try:
            run = load_run(header.parent)
        except RecordError:
            continue  # an estimate is not worth an error
        theirs = run.header.plan
        found += [
            record
            for record in run.records
            if record.cell in plan.cells and theirs.load_of(record.cell) == plan.load_of(record.cell)
        ]
    return found
