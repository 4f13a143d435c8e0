"""The page "the original's findings, and ours": statements with verdicts in words, and their numbers."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from testbed.analysis import Comparison
from testbed.record import Cell, Json, encode, size_name
from testbed.report.findings import OUTCOMES, VERDICTS, Evidence, Finding, Verdict
from testbed.report.quantities import number, quantity, ratio_text
from testbed.report.settings import word
from testbed.report.statements import Original
from testbed.report.tables import Table, Tone, Value

_TONES: Mapping[Verdict, Tone] = {
    "same": "flat",
    "better": "good",
    "otherwise": "bad",
    "not measured": "",
}
_EXPECTED = {
    "lower": "lower",
    "similar": "similar",
    "higher": "higher",
    "not_lower": "equal or higher",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One statement as shown: verdict in words, a sentence on how it came about, and a table of evidence."""

    id: str
    source: str
    statement: str
    verdict: str
    tone: Tone
    remark: str
    note: str
    table: Table


def entries(findings: Sequence[Finding]) -> tuple[Entry, ...]:
    """The findings that are measured, in their order, with their numbers."""
    return tuple(
        Entry(
            id=finding.statement.id,
            source=finding.statement.source,
            statement=finding.statement.statement,
            verdict=finding.verdict,
            tone=_TONES[finding.verdict],
            remark=_remark(finding),
            note=finding.statement.note or "",
            table=_table(finding),
        )
        for finding in findings
        if finding.evidence
    )


def overview(findings: Sequence[Finding]) -> Table:
    """Every statement with its verdict and how that came about, in the original's order."""
    rows = [
        (
            Value(finding.statement.statement, finding.statement.source),
            Value(finding.verdict, tone=_TONES[finding.verdict]),
            Value(_remark(finding)),
        )
        for finding in findings
    ]
    return Table("Every statement and its verdict", ("statement", "verdict", "because"), tuple(rows))


def counts(findings: Sequence[Finding]) -> dict[str, int]:
    """How many findings have each verdict."""
    found = Counter(finding.verdict for finding in findings)
    return {verdict: found[verdict] for verdict in VERDICTS}


def setup(original: Original, comparison: Comparison) -> Table:
    """The original's set-up beside that of the run."""
    plan, environment = comparison.plan, comparison.environment
    cells = plan.cells
    sizes = sorted({cell.payload for cell in cells})
    tiers = sorted({cell.tiers for cell in cells})
    buffering = sorted({"on" if cell.buffering else "off" for cell in cells})
    ours = {
        "Hosts": f"{len(environment.host_cores)} hosts of the provider {environment.provider} on {environment.host}",
        "Servers": f"1 worker each; {environment.pinning}",
        "Chain": f"front end, {_either(tiers)} intermediar{'y' if tiers == [1] else 'ies'}, back end",
        "proxy_buffering": _either(buffering),
        "Load": load_text(comparison),
        "Payloads": ", ".join(size_name(size) for size in sizes),
        "Strategies": ", ".join(
            f"{variant.label}: {variant.options.get('strategy') or f'profile {variant.profile}'}"
            for variant in comparison.variants
            if variant.odb
        ),
    }
    rows = [
        (Value(aspect), Value(text), Value(ours.get(aspect, "-"))) for aspect, text in original.setup.items()
    ]
    return Table("The set-ups", ("", "the original", "this run"), tuple(rows))


def load_text(comparison: Comparison) -> str:
    """The load, or the loads, of a run in words."""
    plan = encode(comparison.plan)
    more = plan.get("loads") if isinstance(plan, dict) else None
    if isinstance(more, dict) and more:
        return "; ".join(f"{name}: {_load(load)}" for name, load in more.items())
    return _load(encode(comparison.plan.load))


def _load(load: Json) -> str:
    if not isinstance(load, dict):
        return "-"
    users, each, model = load["users"], load["requests_per_user"], load.get("model", "ramp")
    assert isinstance(users, int)
    assert isinstance(each, int)
    seconds = load.get("seconds")
    amount = f"{users * each:,} GETs" if seconds is None else f"for {seconds:g} s"
    if model == "open":
        return f"{load['rate']:g} requests per second whatever the answers take, {amount}"
    generator = "" if load.get("generator", "locust") == "locust" else f", by {load['generator']}"
    if model == "closed":
        return f"{users:,} clients at once, {amount}{generator}"
    return f"{load['spawn_rate']:g} clients per second up to {users:,} clients, {amount}{generator}"


def _either(values: Sequence[object]) -> str:
    return " or ".join(map(str, values))


def _remark(finding: Finding) -> str:
    if not finding.evidence:
        reason = finding.reason or ""
        return reason[:1].upper() + reason[1:] + ("" if reason.endswith(".") else ".")
    found = Counter(item.outcome for item in finding.evidence)
    total = len(finding.evidence)
    parts = [f"{found[outcome]} {outcome}" for outcome in OUTCOMES if found[outcome]]
    text = f"{total} comparison{'s' if total > 1 else ''}: {', '.join(parts)}."
    return text if finding.proven else f"{text} Too few repetitions to prove it."


def _table(finding: Finding) -> Table:
    rows = []
    cells = [item.subject[1] for item in finding.evidence]
    for item in finding.evidence:
        of = quantity(item.metric)
        rows.append(
            (
                Value(f"{of.title}, {of.unit}" if of.unit else of.title),
                Value(size_name(item.subject[1].payload), _apart(item.subject[1], cells)),
                Value(of.show(item.contrast.median), _side(item, item.subject)),
                Value(of.show(item.contrast.reference), _side(item, item.reference)),
                Value(ratio_text(item.contrast.ratio), _interval(item)),
                Value(_EXPECTED[item.expect], ratio_text(item.factor) if item.factor else ""),
                Value(item.contrast.direction, "" if item.contrast.proven else "unproven"),
                Value(item.outcome, tone="" if item.outcome == "undecided" else _TONES[item.outcome]),
            )
        )
    columns = ("metric", "payload", "measured", "against", "ratio", "the original", "ours", "verdict")
    return Table(
        "Medians, their ratio with its 95 % interval, and what follows", columns, tuple(rows), heads=2
    )


def _apart(cell: Cell, cells: Sequence[Cell]) -> str:
    """What tells a cell from others of its payload."""
    names = [field.name for field in dataclasses.fields(Cell) if field.name not in ("payload", "align")]
    varying = [name for name in names if len({getattr(one, name) for one in cells}) > 1]
    return ", ".join(word(name, getattr(cell, name)) for name in varying)


def _side(item: Evidence, side: tuple[str, object]) -> str:
    """The variant, and its alignment where that is what differs."""
    label = side[0]
    if item.subject[1].align == item.reference[1].align:
        return label
    cell = item.subject[1] if side is item.subject else item.reference[1]
    return f"{label}, {'aligned' if cell.align else 'unaligned'}"


def _interval(item: Evidence) -> str:
    low, high = item.contrast.low, item.contrast.high
    if low is None or high is None:
        return ""
    return f"{number(low)} to {number(high)}"


def headline(findings: Sequence[Finding]) -> str:
    """The verdicts in one sentence."""
    found = counts(findings)
    parts = ", ".join(f"{count} {verdict}" for verdict, count in found.items())
    few = sum(finding.verdict == "not measured" and bool(finding.evidence) for finding in findings)
    more = f" ({few} of them for too few repetitions)" if few else ""
    return f"Of {len(findings)} statements: {parts}{more}."
