"""Reads the live statistics that each process with the library keeps in a shared page.

A page is `<directory>/<pid>.<start time>`: a 64-byte header, then named counters, in native byte order. Pages describe
themselves; nothing here depends on the list of counters. A page of a dead process is removed.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from odb.errors import PlatformError, StatsError

MAGIC = b"ODBSTAT1"
VERSION = 1
HEADER = struct.Struct("=8sIIQII16s")
HEADER_SIZE = 64
ENTRY = struct.Struct("=40sQ")
ENTRIES_MAX = 4096
DEFAULT_DIRECTORY = Path("/dev/shm/odb")


@dataclass(frozen=True, slots=True)
class Page:
    """The counters of one process. start_time: clock ticks since boot; counters in the order of the page."""

    pid: int
    start_time: int
    comm: str
    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a directory: the pages of living processes by pid, and a sentence for each page that is broken."""

    directory: Path
    pages: tuple[Page, ...]
    problems: tuple[str, ...]

    def totals(self) -> dict[str, int]:
        """Every counter summed over the processes."""
        sums: dict[str, int] = {}
        for page in self.pages:
            for name, value in page.counters.items():
                sums[name] = sums.get(name, 0) + value
        return sums


def bytes_avoided(counters: Mapping[str, int]) -> int:
    """Payload bytes that a process passed on without ever holding them: sent as spans, neither captured nor fetched here."""
    held = counters.get("payload_bytes_captured", 0) + counters.get("fetch_bytes", 0)
    return max(0, counters.get("span_bytes_sent", 0) - held)


def spans_forwarded(counters: Mapping[str, int]) -> int:
    """Descriptors passed on for payloads of others. Coalescing may send fewer descriptors than arrived."""
    return min(
        counters.get("spans_received", 0),
        max(0, counters.get("spans_sent", 0) - counters.get("payloads_captured", 0)),
    )


def fallbacks(counters: Mapping[str, int]) -> dict[str, int]:
    """The reasons (without the prefix) for which ODB sent or fetched real bytes, where it happened at all."""
    prefix = "fallback_"
    return {
        name.removeprefix(prefix): value
        for name, value in counters.items()
        if name.startswith(prefix) and value
    }


def parse_page(data: bytes) -> Page | None:
    """The page in `data`; None while its process is still filling the header in. Raises StatsError."""
    if len(data) < HEADER_SIZE or not data[:8].strip(b"\0"):
        return None
    magic, version, pid, start_time, count, entry_size, comm = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise StatsError("it does not begin with ODBSTAT1")
    if version != VERSION:
        raise StatsError(f"its version is {version}, this program reads version {VERSION}")
    if entry_size != ENTRY.size or count > ENTRIES_MAX or len(data) < HEADER_SIZE + count * ENTRY.size:
        raise StatsError(f"it is too short for {count} counters of {entry_size} bytes")
    counters: dict[str, int] = {}
    for index in range(count):
        name, value = ENTRY.unpack_from(data, HEADER_SIZE + index * ENTRY.size)
        counters[name.split(b"\0", 1)[0].decode("ascii", "replace")] = value
    return Page(pid, start_time, comm.split(b"\0", 1)[0].decode("utf-8", "replace"), counters)


def start_time_of(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (clock ticks since boot), or None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name (field 2) may hold spaces and parentheses: what follows its last ')' begins with field 3.
    fields = text.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in {"Z", "X"}:
        return None
    return int(fields[19])


def read(directory: Path = DEFAULT_DIRECTORY, pid: int | None = None) -> Reading:
    """The pages of living processes in `directory`, only that of `pid` if given.

    A missing directory is an empty reading: no process has the library. Pages of dead processes are removed where
    permitted. Raises PlatformError if the directory cannot be read.
    """
    pages: list[Page] = []
    problems: list[str] = []
    for file, owner, start_time in _files(directory):
        if start_time_of(owner) != start_time:
            with contextlib.suppress(OSError):
                file.unlink()
            continue
        if pid is not None and owner != pid:
            continue
        try:
            page = parse_page(file.read_bytes())
        except FileNotFoundError:
            continue  # its process has just ended
        except OSError as error:
            problems.append(f"{file}: cannot be read: {error.strerror}.")
        except StatsError as error:
            problems.append(f"{file}: not a page of statistics: {error}.")
        else:
            if page is not None:
                pages.append(page)
    return Reading(directory, tuple(sorted(pages, key=lambda page: page.pid)), tuple(problems))


def _files(directory: Path) -> Iterable[tuple[Path, int, int]]:
    try:
        names = sorted(directory.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise PlatformError(f"{directory}: the statistics cannot be listed: {error.strerror}.") from error
    for file in names:
        owner, dot, start_time = file.name.partition(".")
        if dot and owner.isdigit() and start_time.isdigit():
            yield file, int(owner), int(start_time)


def as_json(reading: Reading) -> dict[str, object]:
    """What `odb stat --json` prints: plain numbers, per process and in total."""
    totals = reading.totals()
    return {
        "schema": 1,
        "directory": str(reading.directory),
        "processes": [
            {
                "pid": page.pid,
                "start_time": page.start_time,
                "comm": page.comm,
                "counters": dict(page.counters),
                "spans_forwarded": spans_forwarded(page.counters),
                "bytes_avoided": bytes_avoided(page.counters),
                "fallbacks": fallbacks(page.counters),
            }
            for page in reading.pages
        ],
        "totals": {
            "counters": totals,
            "spans_forwarded": sum(spans_forwarded(page.counters) for page in reading.pages),
            "bytes_avoided": sum(bytes_avoided(page.counters) for page in reading.pages),
            "fallbacks": fallbacks(totals),
        },
        "problems": list(reading.problems),
    }
