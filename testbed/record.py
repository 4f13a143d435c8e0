"""What one measurement looks like on disk: frozen dataclasses and their checked JSON form.

A record holds the raw results of one cell in one variant and one repetition; every figure shown anywhere is
computed from records. Units are in the field names: `_us` microseconds, `_seconds` seconds, `_bytes` bytes,
`_share` 0..1. A value that could not be read is None and its reason stands in `Metric.reason`: absent is not
zero.
"""

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from testbed.errors import RecordError

SCHEMA = 1

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cell:
    """One point of the matrix, without the variant: what is asked for, how, and through which topology.

    `load` names one of the plan's `loads`; None: the plan's only `load`.  `touch` is what reads the bodies on their way.
    """

    payload: int
    align: bool = True
    strategy: str | None = None
    tiers: int = 1
    buffer_size: str = "16k"
    buffering: bool = False
    sendfile: bool = True
    load: str | None = None
    touch: str = "none"

    @property
    def slug(self) -> str:
        """A short name that is unique among cells and fit for a file name."""
        parts = [
            f"{self.payload}b",
            "aligned" if self.align else "unaligned",
            self.strategy,
            f"t{self.tiers}",
            self.buffer_size,
            "buffering" if self.buffering else None,
            None if self.sendfile else "nosendfile",
            self.load,
            None if self.touch == "none" else self.touch.replace("_", ""),
        ]
        return "-".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class VariantUse:
    """A variant as a run uses it.  `label` is unique in the run (`vanilla#2` when it is named twice).

    `library` and `nginx` are builds of its own instead of the installed ones, `digests` their SHA-256 by these names;
    `configuration` is how the servers refer to each other and `intermediary` the program on every IS.
    """

    label: str
    name: str
    odb: bool
    profile: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    library: str | None = None
    nginx: str | None = None
    configuration: str = "proxy"
    intermediary: str = "nginx"
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """The load of a cell: `users` arrive `spawn_rate` per second and make `requests_per_user` GETs each.

    `model` is "ramp" (clients arrive one after the other), "closed" (all of them at once, each asks again when it was
    answered) or "open" (`rate` requests per second in all, whatever the answers take; latency counts from the moment
    at which a request was due).  `generator` is "locust", or "wrk", which runs for `seconds` instead of making a
    number of requests.  `processes` is per client host, of which there are `hosts`.  `traced_seconds` is how long the
    same load runs once more, in the first repetition, while the system calls of every tier are counted.
    """

    users: int
    spawn_rate: float
    requests_per_user: int
    warmup_users: int
    warmup_requests_per_user: int
    model: str = "ramp"
    rate: float | None = None
    generator: str = "locust"
    seconds: float | None = None
    processes: int = 1
    hosts: int = 1
    traced_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to measure: every cell in every variant, `repetitions` times.  The first variant is the
    baseline.  `spec` names the matrix file that it comes from.  `variants_at` holds, by the slugs of cells that are not
    measured in every variant, the labels of theirs.
    """

    variants: tuple[VariantUse, ...]
    cells: tuple[Cell, ...]
    repetitions: int
    seed: int
    load: LoadPlan
    loads: Mapping[str, LoadPlan] = field(default_factory=dict)
    spec: str | None = None
    variants_at: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def load_of(self, cell: Cell) -> LoadPlan:
        """The load of one of its cells."""
        return self.load if cell.load is None else self.loads[cell.load]

    def variants_of(self, cell: Cell) -> tuple[VariantUse, ...]:
        """The variants in which a cell is measured."""
        labels = self.variants_at.get(cell.slug)
        return tuple(one for one in self.variants if labels is None or one.label in labels)


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a run was measured.  Records are compared only with records of an equal environment."""

    host: str
    cores: int
    cpu: str
    kernel: str
    nginx: str
    locust: str
    library_sha256: str | None
    provider: str
    pinning: str
    host_cores: Mapping[str, tuple[int, ...]]
    topology: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that differ when any field differs."""
        return hashlib.sha256(json.dumps(encode(self), sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, other: "Environment") -> tuple[str, ...]:
        """The names of the fields in which the two differ."""
        names = (item.name for item in dataclasses.fields(self))
        return tuple(name for name in names if getattr(self, name) != getattr(other, name))


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What the load generator reported.

    `complete` says whether every planned request was made; `histogram` is an HDR histogram of all latencies in
    microseconds, base64; `cpu_share` is the share of one core that the generator's busiest process used.
    """

    complete: bool
    requests: int
    errors: int
    error_kinds: Mapping[str, int]
    bytes: int
    users: int
    started_at: float
    ended_at: float
    latency_us: Mapping[str, float | None]
    histogram: str
    cpu_seconds: float | None
    wall_seconds: float
    cpu_share: float | None
    processes: int


@dataclass(frozen=True, slots=True)
class CoreUse:
    """How one core spent the load interval; softirq is part of busy, stolen time is not."""

    busy_share: float
    softirq_share: float
    steal_share: float


@dataclass(frozen=True, slots=True)
class TierUse:
    """What one host used during the load interval; `reasons` says by field name why a value is None.

    `cores` are the ones its processes were pinned to.  CPU and memory are those of the tier's cgroup without the
    agent's; `memory_*` is everything charged, `working_*` leaves the page cache out.  `odb` holds the growth of the
    tier's ODB counters, empty without ODB.  `clock_offset_seconds` is how far its clock was ahead of the client's, by
    which its samples were shifted.  `pace_ns` is the mean CPU time of a plain system call there during the load, None
    in records of older versions.
    """

    role: str
    cores: tuple[int, ...]
    seconds: float
    samples: int
    cpu_seconds: float | None
    memory_mean_bytes: float | None
    memory_peak_bytes: float | None
    working_mean_bytes: float | None
    working_peak_bytes: float | None
    rx_bytes: float | None
    tx_bytes: float | None
    core_use: Mapping[str, CoreUse]
    steal_share: float | None
    agent_cpu_seconds: float
    odb: Mapping[str, int]
    reasons: Mapping[str, str]
    clock_offset_seconds: float = 0.0
    pace_ns: float | None = None


@dataclass(frozen=True, slots=True)
class BodyCheck:
    """One body fetched in the verification pass, compared with the manifest of the BE."""

    payload: int
    length: int
    sha256: str
    expected_sha256: str


@dataclass(frozen=True, slots=True)
class Verification:
    """Proof that bodies are right and that ODB was on (growth of its counters per role) or absent."""

    bodies: tuple[BodyCheck, ...]
    odb_active: bool
    odb_growth: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class CallCount:
    """The system calls that the servers of each role made in a window of its own: by role, by name.

    `requests` were answered in it.  `reason` says why there are none.
    """

    requests: int
    calls: Mapping[str, Mapping[str, int]]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One number derived from the raw results; `reason` says why `value` is None."""

    value: float | None
    unit: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """One cell in one variant and one repetition.  `valid` tells whether its latencies may be used."""

    schema: int
    run: str
    environment: str
    cell: Cell
    variant: VariantUse
    repetition: int
    sequence: int
    seed: int
    started_at: float
    ended_at: float
    failure: str | None
    valid: bool
    remarks: tuple[str, ...]
    verification: Verification | None
    load: LoadResult | None
    tiers: tuple[TierUse, ...]
    metrics: Mapping[str, Metric]
    calls: CallCount | None = None


@dataclass(frozen=True, slots=True)
class RunHeader:
    """What `run.json` says: the plan and the environment that all records of the run share."""

    schema: int
    run: str
    created_at: float
    plan: Plan
    environment: Environment


def size_name(size: int) -> str:
    """`64 KiB` for 65536; bytes that are no whole multiple stay bytes."""
    for factor, unit in ((1024**2, "MiB"), (1024, "KiB")):
        if size >= factor and size % factor == 0:
            return f"{size // factor} {unit}"
    return f"{size} B"


def encode(value: Any) -> Json:
    """The JSON form of a dataclass, mapping, tuple or scalar.  Field order is kept."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: encode(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [encode(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form")


def dumps(value: Any) -> str:
    """The text of a record file.  NaN and infinities raise ValueError: they are not JSON."""
    return json.dumps(encode(value), indent=1, allow_nan=False) + "\n"


def loads(kind: type[T], text: str, where: str) -> T:
    """Read what `dumps` wrote.  RecordError names the file `where`, the field and what is wrong with it."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise _broken(where, f"it is not JSON ({error})") from None
    if not isinstance(data, dict):
        raise _broken(where, "it holds no JSON object")
    schema = data.get("schema")
    if schema != SCHEMA:
        raise RecordError(
            f"{where}: field schema is {schema!r}, this program reads schema {SCHEMA}",
            "use the version of odb-testbed that wrote it, or measure again",
        )
    result: T = _decode(kind, data, where, "")
    return result


def _broken(where: str, what: str) -> RecordError:
    return RecordError(
        f"{where}: {what}", f"remove the directory {Path(where).parent} and complete the run with --resume"
    )


def _decode(kind: Any, data: Any, where: str, path: str) -> Any:
    """Check `data` against the annotation `kind` and build it; `path` is the field's name for messages."""
    origin = typing.get_origin(kind)
    if origin is types.UnionType:
        return _decode_optional(kind, data, where, path)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _decode_dataclass(kind, data, where, path)
    if origin is tuple:
        _expect(isinstance(data, list), "a list", data, where, path)
        item_kind = typing.get_args(kind)[0]
        return tuple(_decode(item_kind, item, where, f"{path}[{index}]") for index, item in enumerate(data))
    if origin is Mapping:
        _expect(isinstance(data, dict), "an object", data, where, path)
        item_kind = typing.get_args(kind)[1]
        return {key: _decode(item_kind, item, where, f"{path}.{key}") for key, item in data.items()}
    if kind is float:
        _expect(isinstance(data, (int, float)) and not isinstance(data, bool), "a number", data, where, path)
        return float(data)
    if kind is int:
        _expect(isinstance(data, int) and not isinstance(data, bool), "an integer", data, where, path)
        return data
    _expect(isinstance(data, kind), "a string" if kind is str else "true or false", data, where, path)
    return data


def _decode_optional(kind: Any, data: Any, where: str, path: str) -> Any:
    if data is None:
        return None
    inner = next(option for option in typing.get_args(kind) if option is not types.NoneType)
    return _decode(inner, data, where, path)


def _decode_dataclass(kind: Any, data: Any, where: str, path: str) -> Any:
    _expect(isinstance(data, dict), "an object", data, where, path)
    hints = typing.get_type_hints(kind)
    items = dataclasses.fields(kind)
    names = [item.name for item in items]
    prefix = f"{path}." if path else ""
    # A field with a default may have come later than the record.
    missing = [
        item.name
        for item in items
        if item.name not in data
        and item.default is dataclasses.MISSING
        and item.default_factory is dataclasses.MISSING
    ]
    foreign = [name for name in data if name not in names]
    if missing:
        raise _broken(where, f"field {prefix}{missing[0]} is missing")
    if foreign:
        raise _broken(where, f"field {prefix}{foreign[0]} is not one of a record of schema {SCHEMA}")
    return kind(
        **{name: _decode(hints[name], data[name], where, f"{prefix}{name}") for name in names if name in data}
    )


def _expect(holds: bool, wanted: str, data: Any, where: str, path: str) -> None:
    if not holds:
        raise _broken(where, f"field {path} must be {wanted}, not {json.dumps(data)[:60]}")
