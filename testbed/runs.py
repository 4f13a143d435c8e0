"""Where records lie: one directory per run, in it one per cell, variant and repetition, complete or absent.

    RESULTS/runs/RUN/run.json                      plan and environment
    RESULTS/runs/RUN/cells/001-65536b-...-odb/     record.json and the raw files it was made from

A directory is filled under a name that starts with `.partial-` and renamed when everything is on disk, so
that a process killed at any moment leaves complete records and nothing that looks like one.
"""

import fcntl
import gzip
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from testbed.errors import RecordError
from testbed.record import (
    SCHEMA,
    Cell,
    Environment,
    LoadPlan,
    Plan,
    Record,
    RunHeader,
    VariantUse,
    dumps,
    loads,
)

_PARTIAL = ".partial-"
_HEADER = "run.json"
_RECORD = "record.json"


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it lies on disk: its header and the records that are complete, in the order they were
    measured.
    """

    directory: Path
    header: RunHeader
    records: tuple[Record, ...]


def create_run(results: Path, plan: Plan, environment: Environment) -> Run:
    """Make the directory of a new run under `results`/runs and write its header."""
    runs = results / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    now = time.time()
    name = time.strftime("%Y%m%dT%H%M%SZ-", time.gmtime(now)) + secrets.token_hex(2)
    header = RunHeader(SCHEMA, name, now, plan, environment)
    partial = runs / (_PARTIAL + name)
    (partial / "cells").mkdir(parents=True)
    _write_durably(partial / _HEADER, dumps(header))
    partial.rename(runs / name)
    _sync_directory(runs)
    return Run(runs / name, header, ())


def extend_run(directory: Path, repetitions: int) -> None:
    """Let a run have more repetitions than it was begun with; what is recorded stays as it is, and in its place.

    The caller holds the run for writing.  A program killed meanwhile leaves the old header or the new one.
    """
    header = load_run(directory).header
    if repetitions > header.plan.repetitions:
        partial = directory / (_PARTIAL + _HEADER)
        plan = replace(header.plan, repetitions=repetitions)
        _write_durably(partial, dumps(replace(header, plan=plan)))
        partial.rename(directory / _HEADER)
        _sync_directory(directory)


def repeated(run: Run, repetitions: int | None) -> Run:
    """The run with a plan of at least so many repetitions; on disk it is changed when it is measured."""
    plan = run.header.plan
    if repetitions is None or repetitions <= plan.repetitions:
        return run
    return replace(run, header=replace(run.header, plan=replace(plan, repetitions=repetitions)))


def load_run(directory: Path) -> Run:
    """Read a run.  RecordError names the file that is missing, corrupt, foreign or of another environment."""
    path = directory / _HEADER
    header = loads(RunHeader, _read(path, "name a run directory that holds it"), str(path))
    places = sorted((directory / "cells").glob("[!.]*"))
    records = [_load_record(place / _RECORD, header) for place in places]
    return Run(directory, header, tuple(sorted(records, key=lambda record: record.sequence)))


def find_run(results: Path, name: str | None) -> Path:
    """The directory of the run `name` (an id or a path); of the newest run when `name` is None."""
    runs = results / "runs"
    if name is not None:
        for candidate in (Path(name), runs / name):
            if (candidate / _HEADER).is_file():
                return candidate
        raise RecordError(
            f"there is no run {name} under {runs} and no run directory of that name", f"see ls {runs}"
        )
    known = sorted(runs.glob(f"[!.]*/{_HEADER}"))
    if not known:
        raise RecordError(f"there is no run under {runs}", "start one with odb-testbed compare vanilla odb")
    return known[-1].parent


def merge(runs: Sequence[Run]) -> Run:
    """Several runs as one, under the name of the first.

    RecordError if they differ in environment or load, or mean different things by one variant: such do not compare.
    """
    first = runs[0]
    variants: dict[str, VariantUse] = {}
    loads: dict[str, LoadPlan] = {}
    cells: dict[Cell, None] = {}
    for run in runs:
        _require_equal(first, run, variants, loads)
        loads |= run.header.plan.loads
        variants |= {variant.label: variant for variant in run.header.plan.variants}
        cells |= dict.fromkeys(run.header.plan.cells)
    plan = replace(
        first.header.plan,
        variants=tuple(variants.values()),
        cells=tuple(cells),
        loads=loads,
        variants_at=_variants_at([run.header.plan for run in runs]),
    )
    records = tuple(record for run in runs for record in run.records)
    return Run(first.directory, replace(first.header, plan=plan), records)


def _variants_at(plans: Sequence[Plan]) -> dict[str, tuple[str, ...]]:
    """The variants of each cell that is not measured in every variant of its plan, from all plans that have it."""
    limited = {slug for plan in plans for slug in plan.variants_at}
    found: dict[str, dict[str, None]] = {}
    for plan in plans:
        for cell in plan.cells:
            if cell.slug in limited:
                found.setdefault(cell.slug, {}).update({one.label: None for one in plan.variants_of(cell)})
    return {slug: tuple(labels) for slug, labels in found.items()}


def _require_equal(
    first: Run, run: Run, variants: Mapping[str, VariantUse], loads: Mapping[str, LoadPlan]
) -> None:
    differing = first.header.environment.differences(run.header.environment)
    plans = first.header.plan, run.header.plan
    unnamed = any(cell.load is None for plan in plans for cell in plan.cells)
    if unnamed and plans[0].load != plans[1].load:
        differing += ("load",)
    for name, load in run.header.plan.loads.items():
        if loads.get(name, load) != load:
            differing += (f"load {name}",)
    for variant in run.header.plan.variants:
        if variants.get(variant.label, variant) != variant:
            differing += (f"variant {variant.label}",)
    if differing:
        raise RecordError(
            f"{run.directory} differs from {first.directory} in {', '.join(differing)}",
            "records of different environments are not merged; compare each run by itself",
        )


def place_name(record: Record) -> str:
    """The directory name of a record: repetition, cell and variant."""
    return f"{record.repetition:03d}-{record.cell.slug}-{record.variant.label.replace('#', '.')}"


def save_record(run: Path, record: Record, raw: Mapping[str, Path]) -> Path:
    """Store `record` and its raw files, compressed, as the keys of `raw` + ".gz"; complete when this returns."""
    name = place_name(record)
    partial = run / "cells" / (_PARTIAL + name)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for file_name, source in raw.items():
        if source.is_file():
            # Without a time in it, equal samples make equal files.
            (partial / f"{file_name}.gz").write_bytes(gzip.compress(source.read_bytes(), mtime=0))
    _write_durably(partial / _RECORD, dumps(record))
    _sync_directory(partial)
    final = run / "cells" / name
    try:
        partial.rename(final)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise RecordError(
            f"the record {final} could not be completed ({error.strerror})", "move it away"
        ) from None
    _sync_directory(final.parent)
    return final


@contextmanager
def only_writer(run: Path) -> Iterator[None]:
    """Hold the run for writing and clear what a killed writer left; RecordError if another process writes to
    it.
    """
    descriptor = os.open(run / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecordError(
                f"another odb-testbed is writing to the run {run}", "wait until it ends"
            ) from None
        for leftover in (run / "cells").glob(_PARTIAL + "*"):
            shutil.rmtree(leftover)
        yield
    finally:
        os.close(descriptor)


def _load_record(path: Path, header: RunHeader) -> Record:
    record = loads(Record, _read(path, "remove its directory and complete the run with --resume"), str(path))
    if record.run != header.run:
        raise RecordError(
            f"{path} belongs to run {record.run}, not to {header.run}", "move its directory away"
        )
    if record.environment != header.environment.fingerprint:
        raise RecordError(
            f"{path} was measured in environment {record.environment}, "
            f"its run in {header.environment.fingerprint}",
            "records of different environments are not merged; move its directory away",
        )
    return record


def _read(path: Path, remedy: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({error.strerror})", remedy) from None
    except UnicodeDecodeError:
        raise RecordError(f"{path} is not text", remedy) from None


def _write_durably(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
