"""Matrix files: what a run measures, as typed and validated TOML, and the plan that it amounts to.

variants = ["vanilla", "odb"]        # the first one is the baseline
repetitions = 10
seed = 1

[matrix]                             # every combination; [[matrix]] several times: one block after the other
payload = ["16k", "64k"]
align = [true, false]
strategy = ["dynamic"]               # makes a variant odb-dynamic of every variant with ODB
load = ["calm"]
variants = ["vanilla", "odb"]        # instead of the ones above, for this block
ablations = "odb"                    # and every mechanism of that variant switched off by itself: see ablations.py

[load.calm]
model = "open"
rate = 200
users = 50
requests_per_user = 40
traced_seconds = 2                   # a window of its own in which system calls are counted
"""

import itertools
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from testbed.ablations import ablated
from testbed.errors import UsageError
from testbed.matrix import use_variant
from testbed.record import Cell, LoadPlan, Plan, VariantUse
from testbed.spec import ENCODED, MAX_GENERATORS, TOUCHES, Topology, Variant, parse_size, pick_variant

DIRECTORY = Path(__file__).with_name("specs")
STRATEGIES = ("static", "dynamic", "anticipated", "direct")
MODELS = ("ramp", "closed", "open")
GENERATORS = ("locust", "wrk")
MAX_CELLS = 10_000

_TOP = ("description", "variants", "repetitions", "seed", "fail_if", "matrix", "load")
_AXES = ("payload", "align", "strategy", "tiers", "buffer_size", "buffering", "sendfile", "load", "touch")
_CHOICES = ("variants", "ablations")
_LOAD_DEFAULTS = LoadPlan(
    users=1000, spawn_rate=50.0, requests_per_user=30, warmup_users=20, warmup_requests_per_user=10
)


@dataclass(frozen=True, slots=True)
class Spec:
    """A matrix file: its plan, what it is for, and the thresholds that its comparison must keep."""

    description: str
    plan: Plan
    fail_if: tuple[str, ...]


def shipped() -> tuple[str, ...]:
    """The names of the specs that come with the testbed."""
    return tuple(sorted(file.stem for file in DIRECTORY.glob("*.toml")))


def load_spec(name: str, variants: Mapping[str, Variant]) -> Spec:
    """Read the shipped spec of that name, or the file of that path.  UsageError names file, key, value and remedy."""
    path = Path(name) if name.endswith(".toml") or "/" in name else DIRECTORY / f"{name}.toml"
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"there is no spec {name}", f"choose one of {', '.join(shipped())}, or name a .toml file"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot read the spec {path}", error.strerror or str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML", str(error)) from error
    return _spec(_Table(str(path), "", content), path.stem, variants)


def _spec(top: "_Table", name: str, known: Mapping[str, Variant]) -> Spec:
    top.refuse_others(_TOP)
    loads = {
        key: _load(top.table("load").table(key))
        for key in (top.table("load").content if top.has("load") else {})
    }
    blocks = [_block(table, loads, known) for table in top.tables("matrix")]
    cells = tuple(dict.fromkeys(cell for block in blocks for cell in block.cells))
    if len(cells) > MAX_CELLS:
        raise top.bad("matrix", f"{len(cells)} cells", f"{MAX_CELLS} at most")
    strategies = tuple(dict.fromkeys(one for block in blocks for one in block.strategies))
    names = _names(top, known)
    variants = _variants(top, names, strategies, known)
    chosen = [block.variants or variants for block in blocks]
    every = {use.label: use for uses in (variants, *chosen) for use in uses}
    _require_comparable(top, strategies, variants, blocks)
    plan = Plan(
        variants=tuple(every.values()),
        cells=cells,
        repetitions=top.number("repetitions", 10, 1, 1000),
        seed=top.number("seed", 1, 0, 1 << 63),
        load=next(iter(loads.values()), _LOAD_DEFAULTS),
        loads=loads,
        spec=name,
        variants_at=_variants_at(cells, blocks, chosen) if any(block.variants for block in blocks) else {},
    )
    return Spec(top.text("description", ""), plan, tuple(top.texts("fail_if")) if top.has("fail_if") else ())


@dataclass(frozen=True, slots=True)
class _Block:
    cells: tuple[Cell, ...]
    strategies: tuple[str, ...]
    variants: tuple[VariantUse, ...]
    """Its own; none where the spec's are meant."""


def _names(table: "_Table", known: Mapping[str, Variant]) -> list[str]:
    """The variants that a table names."""
    names = table.texts("variants")
    for at, variant in enumerate(names):
        if variant not in known:
            raise table.bad(f"variants[{at}]", variant, f"one of {', '.join(known)}")
    return names


def _require_comparable(
    top: "_Table", strategies: Sequence[str | None], variants: Sequence[VariantUse], blocks: Sequence[_Block]
) -> None:
    """UsageError where a block of its own variants lacks the baseline, or goes with the axis of strategies."""
    baseline = variants[0].label
    for at, block in enumerate(blocks):
        if block.variants and any(one is not None for one in strategies):
            raise top.bad(
                "matrix.strategy", strategies[0], "left out where blocks have variants of their own"
            )
        if block.variants and baseline not in {use.label for use in block.variants}:
            labels = [use.label for use in block.variants]
            raise top.bad(f"matrix[{at}].variants", labels, f"a list with the baseline {baseline!r}")


def _variants_at(
    cells: Sequence[Cell], blocks: Sequence[_Block], chosen: Sequence[Sequence[VariantUse]]
) -> dict[str, tuple[str, ...]]:
    """The variants of each cell: those of every block that has it."""
    found: dict[str, dict[str, None]] = {cell.slug: {} for cell in cells}
    for block, uses in zip(blocks, chosen, strict=True):
        for cell in block.cells:
            found[cell.slug].update({use.label: None for use in uses})
    return {slug: tuple(labels) for slug, labels in found.items()}


def _block(table: "_Table", loads: Mapping[str, LoadPlan], known: Mapping[str, Variant]) -> _Block:
    """Every combination of one [matrix] table; a missing axis has its one usual value."""
    table.refuse_others((*_AXES, *_CHOICES))
    if not table.has("payload"):
        raise UsageError(f"{table.file}: {table.path} has no payload", 'write payload = ["16k", "64k"]')
    if not table.has("load") and len(loads) > 1:
        raise UsageError(f"{table.file}: {table.path} names no load", f"choose from {', '.join(loads)}")
    cells = [
        Cell(payload, align, None, tiers, buffer_size, buffering, sendfile, load, touch)
        for payload, align, tiers, buffer_size, buffering, sendfile, load, touch in itertools.product(
            table.axis("payload", 65536, _payload),
            table.axis("align", True, _switch),
            table.axis("tiers", 1, _whole),
            table.axis("buffer_size", "16k", _buffer_size),
            table.axis("buffering", False, _switch),
            table.axis("sendfile", True, _switch),
            table.axis("load", next(iter(loads), None), _one_of(tuple(loads))),
            table.axis("touch", "none", _one_of(TOUCHES)),
        )
    ]
    for cell in cells:
        plan = loads.get(cell.load or "", _LOAD_DEFAULTS)
        if cell.touch in ENCODED and plan.generator != "wrk":
            raise table.bad(
                "touch", cell.touch, 'beside a load with generator = "wrk": others check each body'
            )
        try:
            topology_of(cell)
        except UsageError as error:
            raise UsageError(f"{table.file}: {table.path}: {error.message}", error.remedy) from None
    return _Block(
        tuple(cells), tuple(table.axis("strategy", None, _one_of(STRATEGIES))), _own_variants(table, known)
    )


def _own_variants(table: "_Table", known: Mapping[str, Variant]) -> tuple[VariantUse, ...]:
    """The variants of one [matrix] table, its ablations last; none where it names none."""
    if table.has("ablations") and not table.has("variants"):
        raise table.bad("variants", None, "given beside ablations: what they are compared with")
    if not table.has("variants"):
        return ()
    uses = [use_variant(known[name], name) for name in _names(table, known)]
    if table.has("ablations"):
        base = known.get(table.text("ablations", ""))
        if base is None or not base.odb:
            named = [name for name, variant in known.items() if variant.odb]
            raise table.bad("ablations", table.content["ablations"], f"one of {', '.join(named)}")
        uses += [replace(use_variant(one.variant, one.label), name=base.name) for one in ablated(base)]
    return tuple(uses)


def topology_of(cell: Cell, base: Topology | None = None) -> Topology:
    """What has to be deployed for a cell, everything else as in `base`.  UsageError where nothing such can be."""
    return replace(
        base or Topology(),
        tiers=cell.tiers,
        buffer_size=cell.buffer_size,
        buffering=cell.buffering,
        sendfile=cell.sendfile,
        touch=cell.touch,
        payloads=tuple(sorted({*(base.payloads if base else ()), cell.payload})),
    )


def _variants(
    top: "_Table", names: Sequence[str], strategies: Sequence[str | None], known: Mapping[str, Variant]
) -> tuple[VariantUse, ...]:
    """The variants, each with ODB once per strategy; None among the strategies keeps it as it is."""
    chosen: list[VariantUse] = []
    wanted = [one for one in strategies if one is not None]
    if wanted and not any(pick_variant(known, name).odb for name in names):
        raise top.bad("matrix.strategy", wanted[0], "left out: no variant has ODB")
    for name in names:
        variant = pick_variant(known, name)
        uses = [use_variant(variant, name)]
        if variant.odb and wanted:
            uses = [
                replace(
                    use_variant(variant, f"{name}-{strategy}"),
                    options={**variant.options, "strategy": strategy},
                )
                for strategy in wanted
            ]
        for use in uses:
            count = sum(other.label.split("#")[0] == use.label for other in chosen) + 1
            chosen.append(use if count == 1 else replace(use, label=f"{use.label}#{count}"))
    return tuple(chosen)


def _load(table: "_Table") -> LoadPlan:
    """One [load.NAME] table; keys that its model or generator does not have are refused."""
    table.refuse_others([item.name for item in fields(LoadPlan)])
    default = _LOAD_DEFAULTS
    model = table.choice("model", MODELS)
    generator = table.choice("generator", GENERATORS)
    users = table.number("users", default.users, 1, 100_000)
    plan = LoadPlan(
        users=users,
        spawn_rate=table.decimal("spawn_rate", default.spawn_rate if model == "ramp" else float(users)),
        requests_per_user=table.number("requests_per_user", default.requests_per_user, 1, 10_000_000),
        warmup_users=table.number("warmup_users", min(default.warmup_users, users), 1, 100_000),
        warmup_requests_per_user=table.number("warmup_requests_per_user", 10, 1, 100_000),
        model=model,
        rate=table.decimal("rate", None),
        generator=generator,
        seconds=table.decimal("seconds", None),
        processes=table.number("processes", 1, 1, 64),
        hosts=table.number("hosts", 1, 1, MAX_GENERATORS),
        traced_seconds=table.decimal("traced_seconds", None),
    )
    if plan.traced_seconds is not None and generator != "wrk":
        raise table.bad("traced_seconds", plan.traced_seconds, "left out: calls are counted under wrk alone")
    if (model == "open") != (plan.rate is not None):
        raise table.bad("rate", plan.rate, "given for the model open, and for no other")
    if model != "ramp" and table.has("spawn_rate"):
        raise table.bad(
            "spawn_rate", plan.spawn_rate, f"left out: clients of the model {model} begin at once"
        )
    if (generator == "wrk") != (plan.seconds is not None):
        raise table.bad("seconds", plan.seconds, "given for the generator wrk, and for no other")
    if generator == "wrk" and (model != "closed" or plan.hosts > 1 or table.has("requests_per_user")):
        raise table.bad(
            "generator", "wrk", 'with model = "closed", on one host, for a number of seconds, not of requests'
        )
    return plan


class _Table:
    """Takes typed values out of one TOML table; errors name file, key, value and what is wanted."""

    def __init__(self, file: str, path: str, content: Mapping[str, Any]) -> None:
        self.file, self.path, self.content = file, path, content

    def has(self, key: str) -> bool:
        return key in self.content

    def bad(self, key: str, value: object, wanted: str) -> UsageError:
        name = f"{self.path}.{key}" if self.path else key
        return UsageError(f"{self.file}: {name} is {value!r}", f"it must be {wanted}")

    def refuse_others(self, known: Sequence[str]) -> None:
        for key in self.content:
            if key not in known:
                where = f" in [{self.path}]" if self.path else ""
                raise UsageError(
                    f"{self.file}: there is no key {key!r}{where}", f"known keys are {', '.join(known)}"
                )

    def table(self, key: str) -> "_Table":
        value = self.content.get(key)
        if not isinstance(value, dict):
            raise self.bad(key, value, "a table")
        return _Table(self.file, f"{self.path}.{key}" if self.path else key, value)

    def tables(self, key: str) -> "list[_Table]":
        value = self.content.get(key)
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            return [_Table(self.file, f"{key}[{at}]", one) for at, one in enumerate(value)]
        return [self.table(key)]

    def text(self, key: str, default: str) -> str:
        value = self.content.get(key, default)
        if not isinstance(value, str):
            raise self.bad(key, value, "a text")
        return value

    def texts(self, key: str) -> list[str]:
        value = self.content.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
            raise self.bad(key, value, "a list of texts")
        return value

    def choice(self, key: str, known: Sequence[str]) -> str:
        value = self.content.get(key, known[0])
        if value not in known:
            raise self.bad(key, value, f"one of {', '.join(known)}")
        return str(value)

    def number(self, key: str, default: int, least: int, most: int) -> int:
        value = self.content.get(key, default)
        if type(value) is not int or not least <= value <= most:
            raise self.bad(key, value, f"a whole number from {least} to {most}")
        return value

    def decimal(self, key: str, default: float | None) -> Any:
        """A number above 0; `default`, which may be None, where there is none."""
        value = self.content.get(key, default)
        if value is None:
            return None
        if type(value) not in (int, float) or not 0 < value <= 1e6:
            raise self.bad(key, value, "a number above 0 and up to 1000000")
        return float(value)

    def axis(self, key: str, default: Any, read: "Callable[[Any], Any]") -> list[Any]:
        """The values of an axis, each checked by `read`, which raises ValueError with what is wanted."""
        if key not in self.content:
            return [default]
        given = self.content[key]
        if not isinstance(given, list) or not given:
            raise self.bad(key, given, "a list of values")
        values = []
        for at, value in enumerate(given):
            try:
                values.append(read(value))
            except ValueError as error:
                raise self.bad(f"{key}[{at}]", value, str(error)) from None
        if len(set(values)) != len(values):
            raise self.bad(key, given, "values that differ")
        return values


def _payload(value: Any) -> int:
    if type(value) is int:
        return value
    try:
        return parse_size(value) if isinstance(value, str) else _fail('a size such as "64k"')
    except UsageError:
        return _fail('a size such as "64k"')


def _buffer_size(value: Any) -> str:
    return value.lower() if isinstance(value, str) else str(_fail('a size such as "16k"'))


def _switch(value: Any) -> bool:
    return value if isinstance(value, bool) else bool(_fail("true or false"))


def _whole(value: Any) -> int:
    return value if type(value) is int else _fail("a whole number")


def _one_of(known: Sequence[str]) -> "Callable[[Any], str]":
    def read(value: Any) -> str:
        return value if value in known else str(_fail(f"one of {', '.join(known)}" if known else "left out"))

    return read


def _fail(wanted: str) -> int:
    raise ValueError(wanted)
