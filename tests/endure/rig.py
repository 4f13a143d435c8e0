"""What is endured: two front ends behind one intermediary behind one back end, all nginx, all with ODB or all without."""

from __future__ import annotations

import random
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from odb import stats
from tests.e2e.chain import Settings, Tier
from tests.endure.clients import Place

FAST_SIZES = (16384, 65536, 262144, 1048576)
PATIENCE = "send_timeout 2h; proxy_read_timeout 2h; proxy_send_timeout 2h;"
"""nginx by itself gives up on a client at 10 KiB/s when the kernel's buffers have no room for a minute."""
PROCESSES = ("fe1", "fe2", "is", "be")
GAUGES = {"windows": "windows_live", "payloads": "payloads_live", "store": "store_bytes_live"}
"""What is looked at besides memory and descriptors -> the counter that says it."""


@dataclass(frozen=True)
class Sample:
    """One look at the worker of one nginx. memory: resident bytes that no file backs (with memory files), store: bytes."""

    memory: int
    descriptors: int
    windows: int = 0
    payloads: int = 0
    store: int = 0


class Content:
    """The files that the back ends of all rigs serve. Use as a context manager."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="odb-endure-"))
        self.folder.chmod(0o755)
        numbers = random.Random(4)
        self.files = {f"{size}.bin": numbers.randbytes(size) for size in sizes}

    def __enter__(self) -> Content:
        served = self.folder / "content"
        served.mkdir()
        for name, content in self.files.items():
            (served / name).write_bytes(content)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def paths(self, sizes: tuple[int, ...]) -> Mapping[str, bytes]:
        """path -> content. Below /memory/ the back end sends from memory, else with sendfile."""
        return {
            f"{prefix}/{size}.bin": self.files[f"{size}.bin"] for prefix in ("", "/memory") for size in sizes
        }


class Rig:
    """Use as a context manager. name: "odb" or "vanilla"."""

    def __init__(self, name: str, content: Content, library: Path, options: Mapping[str, str]) -> None:
        self.name = name
        self.content = content
        served = content.folder / "content"
        self._settings = Settings(
            libraries=frozenset(("fe", "is", "be")) if name == "odb" else frozenset(),
            options={"virtual_min": "32K", "memory_min": "32K", **options} if name == "odb" else {},
            http=dict.fromkeys(("fe", "is", "be"), PATIENCE),
            server={"be": f"location /memory/ {{ alias {served}/; sendfile off; output_buffers 2 128k; }}"},
        )
        self._library = library
        self.tiers: dict[str, Tier] = {}

    def __enter__(self) -> Rig:
        try:
            self._start("be", "be", None)
            self._start("is", "is", "be")
            self._start("fe1", "fe", "is")
            self._start("fe2", "fe", "is")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self, process: str, tier: str, follower: str | None) -> None:
        made = Tier(
            tier,
            self.content.folder / self.name / process,
            self._settings,
            self._library,
            self.content.folder / "content",
            next_port=self.tiers[follower].port if follower else None,
            next_speaks_odb=follower is not None and self.name == "odb",
        )
        made.start()
        self.tiers[process] = made

    def _stop(self) -> None:
        for tier in reversed(self.tiers.values()):
            tier.stop()
        self.tiers = {}

    def place(self, sizes: tuple[int, ...]) -> Place:
        """What clients need to know."""
        return Place([self.tiers[name].port for name in ("fe1", "fe2")], self.content.paths(sizes))

    def complaints(self) -> list[str]:
        """What nginx logs only when something is broken."""
        return [
            f"{self.name} {process}: {line}"
            for process, tier in self.tiers.items()
            for line in tier.complaints()
        ]

    def look(self) -> dict[str, Sample]:
        """process -> now. Raises RuntimeError when a worker is not the one of the beginning any more."""
        return {process: self._sample(process, tier) for process, tier in self.tiers.items()}

    def counters(self, process: str) -> dict[str, int]:
        """ODB's; empty without it."""
        return self.tiers[process].statistics()

    def _sample(self, process: str, tier: Tier) -> Sample:
        workers = tier.workers()
        if len(workers) != 1:
            raise RuntimeError(f"{self.name} {process} has {len(workers)} workers instead of 1: {tier.log()}")
        status = Path(f"/proc/{workers[0]}/status").read_text()
        memory = sum(
            int(kilobytes) for kilobytes in re.findall(r"^Rss(?:Anon|Shmem):\s+(\d+) kB", status, re.M)
        )
        reading = stats.read(tier.folder / "statistics", workers[0]).totals()
        gauges = {name: reading.get(counter, 0) for name, counter in GAUGES.items()}
        return Sample(memory * 1024, tier.descriptors(), **gauges)
