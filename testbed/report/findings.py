"""Holds the original's statements against records: for each the comparisons, and one verdict.

The verdict of a statement is "otherwise" if a comparison came out otherwise; "better" if of the costs that it speaks of
more than half, and all those of the largest payload, came out better; else "same" if a comparison came out the same. It is
"not measured" if the records hold nothing to compare, or leave more than half of it undecided. Latencies of measurements that
are marked unusable are left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from testbed.record import Cell, Plan, Record
from testbed.report.contrast import Contrast, Direction, contrast, judge
from testbed.report.quantities import quantity
from testbed.report.statements import Check, Expectation, Original, Side, Statement

SAME_FACTOR = 0.1
"""A ratio this close (relatively) to the one that the original names is the same."""

Outcome = Literal["same", "better", "otherwise", "undecided"]
Verdict = Literal["same", "better", "otherwise", "not measured"]
OUTCOMES: tuple[Outcome, ...] = ("same", "better", "otherwise", "undecided")
VERDICTS: tuple[Verdict, ...] = ("same", "better", "otherwise", "not measured")

_ORDER: tuple[Direction, ...] = ("lower", "similar", "higher")


@dataclass(frozen=True, slots=True)
class Evidence:
    """One comparison: `metric` of `subject` (variant, cell) against `reference`, and what the original saw."""

    metric: str
    subject: tuple[str, Cell]
    reference: tuple[str, Cell]
    expect: Expectation
    factor: float | None
    contrast: Contrast
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Finding:
    """A statement with its verdict.  `reason` says why it is not measured; `proven` holds if every comparison had
    enough repetitions to decide.
    """

    statement: Statement
    verdict: Verdict
    evidence: tuple[Evidence, ...]
    proven: bool
    reason: str | None


def evaluate(original: Original, plan: Plan, records: Sequence[Record]) -> tuple[Finding, ...]:
    """Every statement of the original, in its order, held against the records of a run."""
    pending = [
        (statement, check, item)
        for statement in original.statements
        for check in statement.checks
        for item in _comparisons(check, plan, records)
    ]
    judged = judge([item.contrast for _, _, item in pending])
    evidence: dict[str, list[Evidence]] = {statement.id: [] for statement in original.statements}
    for (statement, check, item), of in zip(pending, judged, strict=True):
        outcome = _outcome(check, of, item.metric, progress=statement.judge == "progress")
        evidence[statement.id].append(replace(item, contrast=of, outcome=outcome))
    return tuple(
        _finding(statement, tuple(evidence[statement.id]), plan, records) for statement in original.statements
    )


def _comparisons(check: Check, plan: Plan, records: Sequence[Record]) -> Iterator[Evidence]:
    """What the records offer for a check: equal cells but for the alignment, in the original's topology."""
    subject, reference = _variant(check.subject, plan), _variant(check.reference, plan)
    if subject is None or reference is None:
        return
    for cell in _cells(check, plan):
        other = replace(cell, align=check.reference.align)
        for metric in check.metrics:
            base = samples(records, other, reference, metric)
            found = contrast(samples(records, cell, subject, metric), base, plan.seed, check.margin)
            if found is not None:
                yield Evidence(
                    metric, (subject, cell), (reference, other), check.expect, check.factor, found, "same"
                )


def _variant(side: Side, plan: Plan) -> str | None:
    """The label of the first variant of the run that may stand for the side."""
    labels = {variant.label for variant in plan.variants}
    return next((name for name in side.variants if name in labels), None)


def _cells(check: Check, plan: Plan) -> list[Cell]:
    """The cells of the run that a check speaks of: one intermediary, no buffering, its payloads."""
    return [
        cell
        for cell in plan.cells
        if cell.align == check.subject.align
        and cell.tiers == 1
        and not cell.buffering
        and check.min_payload <= cell.payload
        and (check.max_payload is None or cell.payload <= check.max_payload)
    ]


def samples(records: Sequence[Record], cell: Cell, label: str, metric: str) -> list[float]:
    """The values of a metric over the repetitions of a cell in a variant; beside the recorded metrics
    `latency.mean_us` and `odb.ROLE.COUNTER` (growth per successful request) are known.
    """
    found = []
    for record in records:
        if record.cell != cell or record.variant.label != label or record.failure is not None:
            continue
        if metric.startswith("latency.") and not record.valid:
            continue
        value = _value(record, metric)
        if value is not None:
            found.append(value)
    return found


def _value(record: Record, metric: str) -> float | None:
    if metric in record.metrics:
        return record.metrics[metric].value
    if record.load is None:
        return None
    if metric == "latency.mean_us":
        return record.load.latency_us.get("mean")
    succeeded = record.load.requests - record.load.errors
    if metric.startswith("odb.") and succeeded > 0:
        _, role, counter = metric.split(".", 2)
        grown = [tier.odb[counter] for tier in record.tiers if tier.role == role and counter in tier.odb]
        return sum(grown) / succeeded if grown else None
    return None


def _outcome(check: Check, of: Contrast, metric: str, *, progress: bool) -> Outcome:
    """How a comparison relates to what the original saw."""
    if of.direction == "undecided":
        return "undecided"
    if check.expect == "not_lower":
        deviation = -1 if of.direction == "lower" else 0
    elif check.factor is not None and of.direction == check.expect:
        relative = of.ratio / check.factor - 1
        deviation = 0 if abs(relative) <= SAME_FACTOR else -1 if relative < 0 else 1
    else:
        deviation = _ORDER.index(of.direction) - _ORDER.index(check.expect)
    if deviation == 0:
        return "same"
    gained = (deviation > 0) == (quantity(metric).better == "more")
    return "better" if progress and gained else "otherwise"


def _finding(
    statement: Statement, evidence: tuple[Evidence, ...], plan: Plan, records: Sequence[Record]
) -> Finding:
    if not evidence:
        reason = _why_not(statement, plan, records)
        return Finding(statement, "not measured", (), False, reason)
    outcomes = [item.outcome for item in evidence]
    verdict: Verdict = "same"
    if "otherwise" in outcomes:
        verdict = "otherwise"
    elif 2 * outcomes.count("undecided") > len(outcomes):
        return Finding(statement, "not measured", evidence, False, "too few repetitions to tell")
    elif _costs_are_gone(evidence):
        verdict = "better"
    elif "same" not in outcomes:
        # What came out better is too little to say so, and nothing came out as the original saw it.
        return Finding(statement, "not measured", evidence, False, "too few repetitions to tell")
    return Finding(statement, verdict, evidence, all(item.contrast.proven for item in evidence), None)


def _costs_are_gone(evidence: Sequence[Evidence]) -> bool:
    """Whether the original's costs came out better: most of them, and all of the largest payload, where they were highest.

    What the original found to be a gain is no cost: it can be kept or lost, not become better.
    """
    gain = {"less": "lower", "more": "higher"}
    costs = [one for one in evidence if one.factor or one.expect != gain[quantity(one.metric).better]]
    better = [one for one in costs if one.outcome == "better"]
    if 2 * len(better) <= len(costs):
        return False
    largest = max(one.subject[1].payload for one in costs)
    return all(one in better for one in costs if one.subject[1].payload == largest)


def _why_not(statement: Statement, plan: Plan, records: Sequence[Record]) -> str:
    """What the run lacks to judge a statement."""
    for check in statement.checks:
        for side in (check.subject, check.reference):
            if _variant(side, plan) is None:
                return f"the run has no variant {' or '.join(side.variants)}"
        aligned = {cell.align for cell in plan.cells}
        for side in (check.subject, check.reference):
            if side.align not in aligned:
                return f"the run has no {'aligned' if side.align else 'unaligned'} cells"
        if not _cells(check, plan):
            return "the run has no payload of the sizes in question with one intermediary and proxy_buffering off"
    if not statement.checks:
        return statement.note or ""
    latency_only = all(name.startswith("latency.") for check in statement.checks for name in check.metrics)
    if latency_only and records and not any(record.valid for record in records):
        return "no latency of the run may be used"
    return "the records hold no values for it"
