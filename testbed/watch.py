"""Watches every host of a testbed while a load runs: agents are started, stopped, their samples fetched and cut."""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.clocks import offsets
from testbed.collect.summary import TierMetrics, read_samples, summarise
from testbed.record import CoreUse, TierUse
from testbed.session import Testbed
from testbed.spec import AGENT, Host

_NAME = "agent"
_REMOTE_OUT = "/tmp/odb-testbed-agent.jsonl"


def stop_agents(testbed: Testbed) -> None:
    """End the agents on all hosts; none is fine."""
    _everywhere(testbed.topology.roles, lambda role: testbed.stop_process(role, _NAME))


class Watch:
    """A context in which an agent samples on each host; afterwards `summarise` says what each used.

    The samples are left as `agent-ROLE.jsonl` in the directory `work`.
    """

    def __init__(self, testbed: Testbed, work: Path) -> None:
        self._testbed = testbed
        self._work = work
        self._offsets: Mapping[str, float] = {}
        self._hosts = {role: testbed.host(role) for role in testbed.topology.roles}

    def __enter__(self) -> Self:
        try:
            self._offsets = offsets(self._testbed)
            _everywhere(self._hosts, self._start)
        except BaseException:
            stop_agents(self._testbed)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop_agents(self._testbed)
        if kind is None:
            _everywhere(self._hosts, self._fetch)

    def summarise(
        self, start: float, end: float, odb_growth: Mapping[str, Mapping[str, int]]
    ) -> tuple[TierUse, ...]:
        """What each host used from `start` to `end`, the clients first, then the chain.

        The times are seconds since the epoch on the client's clock; hosts whose clocks differ are cut at their own time.
        """
        return tuple(
            self._tier_use(role, start, end, odb_growth.get(role, {}))
            for role in self._testbed.topology.roles
        )

    def _tier_use(self, role: str, start: float, end: float, odb: Mapping[str, int]) -> TierUse:
        offset = self._offsets[role]
        used = summarise(read_samples(self._file(role)), start + offset, end + offset)
        return _tier_use(self._hosts[role], role, used, odb, offset)

    def _start(self, role: str) -> None:
        host = self._hosts[role]
        command = [host.python, AGENT, "--interface", host.interface, "--out", _REMOTE_OUT]
        if host.cgroup is not None:
            command += ["--cgroup", host.cgroup]
        if host.cores:
            command += ["--cores", ",".join(map(str, host.cores))]
        self._testbed.start_process(role, _NAME, command)

    def _fetch(self, role: str) -> None:
        self._testbed.fetch(role, _REMOTE_OUT, self._file(role))

    def _file(self, role: str) -> Path:
        return self._work / f"agent-{role}.jsonl"


def _everywhere(roles: Collection[str], action: Callable[[str], object]) -> None:
    """Do something on every host at once; the first error is raised when all have ended."""
    with ThreadPoolExecutor(max_workers=len(roles)) as pool:
        for ended in [pool.submit(action, role) for role in roles]:
            ended.result()


def _tier_use(host: Host, role: str, used: TierMetrics, odb: Mapping[str, int], offset: float) -> TierUse:
    return TierUse(
        role=role,
        cores=host.cores,
        seconds=used.seconds,
        samples=used.samples,
        cpu_seconds=used.cpu_seconds,
        memory_mean_bytes=used.memory_mean_bytes,
        memory_peak_bytes=used.memory_peak_bytes,
        working_mean_bytes=used.working_mean_bytes,
        working_peak_bytes=used.working_peak_bytes,
        rx_bytes=used.rx_bytes,
        tx_bytes=used.tx_bytes,
        core_use={
            str(number): CoreUse(core.busy_share, core.softirq_share, core.steal_share)
            for number, core in used.cores.items()
        },
        steal_share=used.steal_share,
        agent_cpu_seconds=used.agent_cpu_seconds,
        odb=dict(odb),
        reasons=dict(used.reasons),
        clock_offset_seconds=offset,
        pace_ns=used.pace_ns,
    )
