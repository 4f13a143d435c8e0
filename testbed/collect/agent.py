#!/usr/bin/env python3
"""Samples a host's CPU, memory and network at a fixed rate until it is told to stop, one JSON object per line.

One file, standard library only, any Python from 3.9 on: it is copied to a host and run there.

The first line is a header (schema, interval, what is read from where), then come samples, then an end line with the
agent's own cost. Counters are cumulative, so that any interval can be cut out later: CPU in seconds, network in
bytes. A sample carries the wall clock and the monotonic clock. A value that cannot be read is null, and "reasons"
says why. SIGTERM, SIGINT and SIGHUP end the agent after one last sample.

    agent.py --cgroup /odb-1a2b/fe --interface eth0 --cores 1 --out /tmp/fe.jsonl
    agent.py --cgroup-cpu /sys/fs/cgroup/fe --cgroup-memory /sys/fs/cgroup/fe --interface eth0
    agent.py --once --cores 0,1
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, TextIO, Tuple

SCHEMA = 1
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
READ_BYTES = 1 << 16
PACE_GOES = 3
PACE_CALLS = 200


class Unreadable(Exception):
    """A value cannot be read; the message is the reason."""


class KeptFile:
    """A kernel file that stays open and is read from its start at every sample.

    A file that is a `listing` of records comes in pieces; any other in one, and asking for more would make the kernel
    write it all again.
    """

    def __init__(self, path: str, *, listing: bool = False) -> None:
        self.path = path
        self._listing = listing
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Unreadable(f"{path}: {error.strerror}") from error

    def read(self) -> str:
        """The file's content now."""
        try:
            content = os.pread(self._descriptor, READ_BYTES, 0)
            more = self._listing or len(content) == READ_BYTES
            while more:
                part = os.pread(self._descriptor, READ_BYTES, len(content))
                content += part
                more = bool(part)
            return content.decode("ascii", "replace")
        except OSError as error:
            raise Unreadable(f"{self.path}: {error.strerror}") from error

    def table(self) -> Dict[str, int]:
        """The file's lines "name number" as a table."""
        try:
            return {name: int(value) for name, value in (line.split() for line in self.read().splitlines())}
        except ValueError as error:
            raise Unreadable(f"{self.path}: not lines of a name and a number") from error


class Source:
    """One named value: `read` gives it, or there is only the reason why it cannot be read."""

    def __init__(self, make: Callable[[], Tuple[str, Callable[[], Any]]]) -> None:
        self.origin: Optional[str] = None
        self._read: Optional[Callable[[], Any]] = None
        self._reason = ""
        try:
            self.origin, self._read = make()
        except Unreadable as error:
            self._reason = str(error)

    def sample(self, name: str, reasons: Dict[str, str]) -> Any:
        """The value now, or None with its reason put into `reasons` under `name`."""
        if self._read is None:
            reasons[name] = self._reason
            return None
        try:
            return self._read()
        except Unreadable as error:
            reasons[name] = str(error)
            return None


# Cores.


def core_times(text: str) -> Dict[str, Dict[str, float]]:
    """Seconds per core out of /proc/stat: busy (with softirq, without steal), softirq, steal, idle."""
    cores = {}
    for line in text.splitlines():
        if not line.startswith("cpu"):
            break
        name, *fields = line.split()
        if name == "cpu":
            continue
        user, nice, system, idle, iowait, irq, softirq, steal = (
            int(field) / TICKS_PER_SECOND for field in fields[:8]
        )
        cores[name[3:]] = {
            "busy": round(user + nice + system + irq + softirq, 2),
            "softirq": round(softirq, 2),
            "steal": round(steal, 2),
            "idle": round(idle + iowait, 2),
        }
    return cores


def cores_source(wanted: Optional[List[str]]) -> Tuple[str, Callable[[], Any]]:
    kept = KeptFile("/proc/stat")

    def read() -> Dict[str, Any]:
        cores = core_times(kept.read())
        if wanted is None:
            return dict(cores)
        return {name: cores.get(name) for name in wanted}

    return kept.path, read


def pace_ns() -> float:
    """How fast this core is now: the CPU time of a plain system call in nanoseconds, the least of some goes.

    On a virtual machine it changes by a third within seconds, with what the other thread of the physical core does,
    and none of that is counted as stolen.
    """
    goes = []
    for _ in range(PACE_GOES):
        began = time.thread_time_ns()
        for _ in range(PACE_CALLS):
            os.getppid()
        goes.append(time.thread_time_ns() - began)
    return min(goes) / PACE_CALLS


# Control groups.


def cgroup_mounts() -> Tuple[Dict[str, str], Optional[str]]:
    """Where the version 1 controllers are mounted, by name, and where version 2 is, if at all."""
    controllers: Dict[str, str] = {}
    unified = None
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        left, _, right = line.partition(" - ")
        mount = left.split()[4]
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2":
            unified = mount
        elif kind == "cgroup":
            for name in options.split(","):
                controllers.setdefault(name, mount)
    return controllers, unified


def find_cgroup(name: str, controller: str, probes: List[str]) -> str:
    """The directory of the cgroup `name` in which one of the files `probes` is."""
    controllers, unified = cgroup_mounts()
    places = [mount for mount in (controllers.get(controller), unified) if mount is not None]
    for mount in places:
        directory = os.path.normpath(f"{mount}/{name.strip('/')}")
        if any(Path(directory, probe).exists() for probe in probes):
            return directory
    if not places:
        raise Unreadable(f"no cgroup tree with the controller {controller} is mounted")
    raise Unreadable(f"no cgroup {name} with {' or '.join(probes)} below {' or '.join(places)}")


def cpu_directory(path: Optional[str], name: Optional[str]) -> str:
    if path is not None:
        return path
    if name is None:
        raise Unreadable("no cgroup was named")
    return find_cgroup(name, "cpuacct", ["cpuacct.usage", "cpu.stat"])


def cpu_source(path: Optional[str], name: Optional[str]) -> Tuple[str, Callable[[], Any]]:
    directory = cpu_directory(path, name)
    if Path(directory, "cpuacct.usage").exists():
        kept = KeptFile(f"{directory}/cpuacct.usage")
        return kept.path, lambda: int(kept.read()) / 1e9
    kept = KeptFile(f"{directory}/cpu.stat")

    def read() -> float:
        table = kept.table()
        if "usage_usec" not in table:
            raise Unreadable(f"{kept.path}: has no usage_usec")
        return table["usage_usec"] / 1e6

    return kept.path, read


def memory_source(
    path: Optional[str], name: Optional[str], cpu_path: Optional[str]
) -> Tuple[str, Callable[[], Any]]:
    """Reads {"usage", "working"} in bytes: all that is charged, and without the page cache of files."""
    try:
        directory = path
        if directory is None:
            if name is None:
                raise Unreadable("no cgroup was named")
            directory = find_cgroup(name, "memory", ["memory.usage_in_bytes", "memory.current"])
        usage_name = "memory.usage_in_bytes"
        if not Path(directory, usage_name).exists():
            usage_name = "memory.current"
        usage = KeptFile(f"{directory}/{usage_name}")
        stat = KeptFile(f"{directory}/memory.stat")
    except Unreadable as error:
        return resident_source(cpu_path, name, str(error))

    def read() -> Dict[str, Any]:
        table = stat.table()
        # Version 1 says total_ for the group with its children; version 2 always counts them.
        anonymous = table.get("total_rss", table.get("anon"))
        shared = table.get("total_shmem", table.get("shmem", 0))
        working = None if anonymous is None else anonymous + shared
        return {"usage": int(usage.read()), "working": working}

    return usage.path, read


def resident_source(
    cpu_path: Optional[str], name: Optional[str], reason: str
) -> Tuple[str, Callable[[], Any]]:
    """Without a memory controller: the resident pages of the cgroup's processes; what they share counts often."""
    try:
        procs = KeptFile(f"{cpu_directory(cpu_path, name)}/cgroup.procs", listing=True)
    except Unreadable as error:
        raise Unreadable(f"{reason}; {error}") from error

    def read() -> Dict[str, Any]:
        pages = 0
        for pid in procs.read().split():
            try:
                pages += int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
            except (OSError, IndexError):
                continue  # it has ended since
        return {"usage": pages * PAGE_BYTES, "working": pages * PAGE_BYTES}

    return f"{procs.path} (resident pages of its processes)", read


def agent_is_inside(cpu_path: Optional[str], name: Optional[str]) -> bool:
    """Whether this process is counted in the cgroup that it measures."""
    try:
        directory = cpu_directory(cpu_path, name)
        return str(os.getpid()) in KeptFile(f"{directory}/cgroup.procs", listing=True).read().split()
    except Unreadable:
        return False


# Network.


def network_source(interface: Optional[str]) -> Tuple[str, Callable[[], Any]]:
    if interface is None:
        raise Unreadable("no interface was named")
    # Not /sys/class/net: that shows the interfaces of the namespace in which /sys was mounted.
    kept = KeptFile("/proc/self/net/dev", listing=True)

    def read() -> Dict[str, int]:
        for line in kept.read().splitlines():
            name, colon, counters = line.partition(":")
            if colon and name.strip() == interface:
                fields = counters.split()
                return {"rx": int(fields[0]), "tx": int(fields[8])}
        raise Unreadable(f"{kept.path}: there is no interface {interface}")

    read()
    return f"{kept.path}: {interface}", read


# The agent.


class Agent:
    """Takes samples of all sources and writes them to `out`."""

    def __init__(self, options: argparse.Namespace, out: TextIO) -> None:
        cores = None if options.cores is None else options.cores.split(",")
        self._out = out
        self._interval = options.interval
        self._cores = Source(lambda: cores_source(cores))
        self._cpu = Source(lambda: cpu_source(options.cgroup_cpu, options.cgroup))
        self._memory = Source(
            lambda: memory_source(options.cgroup_memory, options.cgroup, options.cgroup_cpu)
        )
        self._network = Source(lambda: network_source(options.interface))
        self._inside = agent_is_inside(options.cgroup_cpu, options.cgroup)
        self._own = KeptFile("/proc/self/statm")
        self._began = time.monotonic()
        self._began_cpu = time.process_time()
        self._samples = 0
        self._missed = 0

    def _write(self, content: Dict[str, Any]) -> None:
        self._out.write(json.dumps(content, separators=(",", ":")) + "\n")
        self._out.flush()

    def header(self) -> None:
        """Write what is sampled and from where."""
        self._write(
            {
                "kind": "header",
                "schema": SCHEMA,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "interval": self._interval,
                "agent_inside": self._inside,
                "sources": {
                    "cores": self._cores.origin,
                    "cpu": self._cpu.origin,
                    "memory": self._memory.origin,
                    "network": self._network.origin,
                },
            }
        )

    def sample(self) -> None:
        """Take and write one sample."""
        reasons: Dict[str, str] = {}
        monotonic, wall = time.monotonic(), time.time()
        cpu = self._cpu.sample("cpu", reasons)
        memory = self._memory.sample("memory", reasons) or {"usage": None, "working": None}
        network = self._network.sample("network", reasons) or {"rx": None, "tx": None}
        cores = self._cores.sample("cores", reasons)
        for name, times in (cores or {}).items():
            if times is None:
                reasons[f"cores.{name}"] = f"there is no core {name}"
        _, resident, shared = (int(field) for field in self._own.read().split()[:3])
        sample = {
            "kind": "sample",
            # More digits would be noise, and more than half of what a stored recording takes.
            "wall": round(wall, 5),
            "monotonic": round(monotonic, 5),
            "cpu_seconds": None if cpu is None else round(cpu, 6),
            "memory_bytes": memory["usage"],
            "memory_working_bytes": memory["working"],
            "rx_bytes": network["rx"],
            "tx_bytes": network["tx"],
            "cores": cores,
            "pace_ns": round(pace_ns(), 1),
            "agent_cpu_seconds": round(time.process_time(), 6),
            "agent_memory_bytes": (resident - shared) * PAGE_BYTES,
        }
        if reasons:
            sample["reasons"] = reasons
        self._write(sample)
        self._samples += 1

    def end(self, stopped_by: Optional[str]) -> None:
        """Write what sampling has cost, the interpreter's own start left out of the share."""
        wall = time.monotonic() - self._began
        cpu = time.process_time()
        self._write(
            {
                "kind": "end",
                "samples": self._samples,
                "missed": self._missed,
                "stopped_by": stopped_by,
                "wall_seconds": wall,
                "agent_cpu_seconds": cpu,
                "agent_share": (cpu - self._began_cpu) / wall if wall else 0.0,
            }
        )

    def run(self) -> None:
        """Sample at every multiple of the interval until a stop signal comes, then once more."""
        turn = 0
        while True:
            self.sample()
            elapsed = time.monotonic() - self._began
            next_turn = max(turn + 1, int(elapsed / self._interval) + 1)
            self._missed += next_turn - turn - 1
            turn = next_turn
            # Stop signals are blocked and waited for here: none can arrive within a sample.
            stop = signal.sigtimedwait(STOP_SIGNALS, max(0.0, turn * self._interval - elapsed))
            if stop is not None:
                self.sample()
                self.end(signal.Signals(stop.si_signo).name)
                return


def _interval(text: str) -> float:
    value = float(text)
    if not 0.01 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: give seconds from 0.01 to 3600")
    return value


def _cores(text: str) -> str:
    if not all(part.isascii() and part.isdigit() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text}: give core numbers separated by commas, as 1,2")
    return text


def parse_arguments(arguments: Optional[List[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="agent.py",
        description="Sample this host's CPU, memory and network as JSON lines until SIGTERM.",
        epilog="example: agent.py --cgroup /odb-1a2b/fe --interface eth0 --cores 1 --out /tmp/fe.jsonl",
    )
    parser.add_argument(
        "--cgroup", metavar="NAME", help="cgroup to measure, below the root of each cgroup tree"
    )
    parser.add_argument("--cgroup-cpu", metavar="PATH", help="its directory for CPU, instead of finding it")
    parser.add_argument(
        "--cgroup-memory", metavar="PATH", help="its directory for memory, instead of finding it"
    )
    parser.add_argument("--interface", metavar="IF", help="network interface to measure")
    parser.add_argument("--cores", type=_cores, metavar="N[,N...]", help="cores to measure (default: all)")
    parser.add_argument(
        "--interval",
        type=_interval,
        default=0.1,
        metavar="SECONDS",
        help="time between samples (default: 0.1)",
    )
    parser.add_argument("--out", metavar="FILE", help="where to write (default: standard output)")
    parser.add_argument("--once", action="store_true", help="take one sample and end")
    return parser.parse_args(arguments)


def _run(options: argparse.Namespace, out: TextIO) -> None:
    agent = Agent(options, out)
    agent.header()
    if options.once:
        agent.sample()
        agent.end(None)
    else:
        agent.run()


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the agent; returns the exit code: 0, or 1 when the output cannot be written."""
    options = parse_arguments(arguments)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        if options.out is None:
            _run(options, sys.stdout)
        else:
            with Path(options.out).open("w", encoding="utf-8") as out:
                _run(options, out)
    except OSError as error:
        print(f"error: cannot write {options.out or 'standard output'}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
