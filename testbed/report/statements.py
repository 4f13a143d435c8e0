"""Reads the original's findings: the statements of `findings.toml`, checked and typed."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from testbed.errors import RecordError
from testbed.report.contrast import MARGIN

FILE = Path(__file__).with_name("findings.toml")

Expectation = Literal["lower", "similar", "higher", "not_lower"]
Judgement = Literal["progress", "direction"]

_EXPECTATIONS: tuple[Expectation, ...] = ("lower", "similar", "higher", "not_lower")
_JUDGEMENTS: tuple[Judgement, ...] = ("progress", "direction")


@dataclass(frozen=True, slots=True)
class Side:
    """What is compared: the variants that may stand for it, the preferred one first, and the alignment."""

    variants: tuple[str, ...]
    align: bool


@dataclass(frozen=True, slots=True)
class Check:
    """Metrics of `subject` against those of `reference`, for payloads from `min_payload` to `max_payload` bytes; medians
    whose ratio is within `margin` of 1 are similar.
    """

    metrics: tuple[str, ...]
    subject: Side
    reference: Side
    expect: Expectation
    factor: float | None
    margin: float
    min_payload: int
    max_payload: int | None


@dataclass(frozen=True, slots=True)
class Statement:
    """One finding of the original; without checks it cannot be held against records, and `note` says why."""

    id: str
    source: str
    statement: str
    judge: Judgement
    note: str | None
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Original:
    """The original's set-up, in words by aspect, and its statements."""

    setup: Mapping[str, str]
    statements: tuple[Statement, ...]


def load_original(path: Path = FILE) -> Original:
    """Read the file.  RecordError names the finding and the field that is wrong."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(
            f"{path} cannot be read ({error.strerror})", "install odb-testbed again: make setup"
        ) from None
    except ValueError as error:
        raise RecordError(f"{path} is not TOML ({error})", "correct it") from None
    groups = {name: tuple(map(str, members)) for name, members in content.get("variants", {}).items()}
    findings = content.get("finding", [])
    statements = tuple(_statement(finding, groups, path) for finding in findings)
    ids = [statement.id for statement in statements]
    for double in {one for one in ids if ids.count(one) > 1}:
        raise RecordError(f"{path}: two findings have the id {double}", "rename one")
    return Original({name: str(text) for name, text in content.get("setup", {}).items()}, statements)


def _statement(finding: Mapping[str, Any], groups: Mapping[str, tuple[str, ...]], path: Path) -> Statement:
    name = f"{path}: finding {finding.get('id', '(without id)')}"
    for field in ("id", "source", "statement", "judge"):
        if not isinstance(finding.get(field), str):
            raise RecordError(f"{name}: {field} is missing or no text", "write it as a string")
    judge = next((one for one in _JUDGEMENTS if one == finding["judge"]), None)
    if judge is None:
        raise RecordError(f"{name}: judge is {finding['judge']!r}", f"use one of {', '.join(_JUDGEMENTS)}")
    checks = tuple(_check(check, groups, name) for check in finding.get("check", []))
    note = finding.get("note")
    if not checks and not note:
        raise RecordError(f"{name}: it has neither a check nor a note", "say why it cannot be measured")
    return Statement(finding["id"], finding["source"], finding["statement"], judge, note, checks)


def _check(check: Mapping[str, Any], groups: Mapping[str, tuple[str, ...]], name: str) -> Check:
    expect = next((one for one in _EXPECTATIONS if one == check.get("expect")), None)
    if expect is None:
        raise RecordError(
            f"{name}: expect is {check.get('expect')!r}", f"use one of {', '.join(_EXPECTATIONS)}"
        )
    metrics = check.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        raise RecordError(f"{name}: metrics is missing or empty", "list the names of metrics")
    factor = check.get("factor")
    return Check(
        metrics=tuple(map(str, metrics)),
        subject=_side(check.get("subject"), groups, f"{name}: subject"),
        reference=_side(check.get("reference"), groups, f"{name}: reference"),
        expect=expect,
        factor=None if factor is None else float(factor),
        margin=float(check.get("margin", MARGIN)),
        min_payload=int(check.get("min_payload", 0)),
        max_payload=int(check["max_payload"]) if "max_payload" in check else None,
    )


def _side(side: Any, groups: Mapping[str, tuple[str, ...]], name: str) -> Side:
    known = isinstance(side, dict) and side.get("variant") in groups and isinstance(side.get("align"), bool)
    if not known:
        raise RecordError(
            f"{name} is {side!r}", f"give variant (one of {', '.join(groups)}) and align (true or false)"
        )
    return Side(groups[side["variant"]], side["align"])
