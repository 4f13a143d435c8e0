"""Chains of real nginx servers, FE -> IS -> BE, each tier with or without the library, for the tests of this directory.

A tier is started in the foreground, with the library through `odb run`, and ended by its recorded pid. All its files
are below one folder that a worker without privileges can enter, because nginx drops root where it has it.
sendfile_max_chunk is off because nginx 1.22 by itself cuts answers longer than that when a worker has to end gracefully.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from odb import stats
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent.parent
TIERS = ("fe", "is", "be")
START_SECONDS = 20.0
STOP_SECONDS = 20.0
BIND_TRIES = 3
PROGRAMS = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])

_TEMPLATE = """\
{main}
worker_processes {workers};
worker_rlimit_nofile 16384;
pid {folder}/pid;
error_log {folder}/error.log notice;
env LD_PRELOAD; env ODB_OPTIONS;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  default_type application/octet-stream;
  sendfile {sendfile};
  sendfile_max_chunk 0;
  tcp_nopush on;
  keepalive_requests 1000000;
  client_body_temp_path {folder}/temp/body;
  proxy_temp_path {folder}/temp/proxy;
  fastcgi_temp_path {folder}/temp/fastcgi;
  uwsgi_temp_path {folder}/temp/uwsgi;
  scgi_temp_path {folder}/temp/scgi;
  {http}
  {upstream}
  server {{
    listen 127.0.0.1:{port} backlog=4096 {listen};
    client_max_body_size 16m;
    {server}
    location / {{ {location} }}
  }}
}}
"""

_PROXY = """\
proxy_pass http://next;
proxy_http_version 1.1;
proxy_set_header Connection "";
proxy_connect_timeout 5s;
proxy_buffering {buffering};
proxy_request_buffering {request_buffering};
proxy_buffer_size {buffer};
proxy_buffers 8 {buffer};
"""


@dataclass(frozen=True)
class Settings:
    """What a chain is made of. `server`, `http` and `location` add directives to one tier's blocks; `options` are ODB's."""

    libraries: frozenset[str] = frozenset(TIERS)
    buffering: bool = False
    request_buffering: bool = True
    buffer: str = "16k"
    sendfile: bool = True
    align: bool = True
    workers: int = 1
    options: Mapping[str, str] = field(default_factory=dict)
    http: Mapping[str, str] = field(default_factory=dict)
    server: Mapping[str, str] = field(default_factory=dict)
    location: Mapping[str, str] = field(default_factory=dict)
    listen: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        tiers = "+".join(tier for tier in TIERS if tier in self.libraries) or "vanilla"
        switches = [
            f"buffering-{'on' if self.buffering else 'off'}",
            self.buffer,
            f"align-{'on' if self.align else 'off'}",
            f"sendfile-{'on' if self.sendfile else 'off'}",
        ]
        return " ".join([tiers, *switches])


def children(pid: int) -> list[int]:
    """The living children of a process."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in task.read_text().split()]
    return [each for each in found if stats.start_time_of(each) is not None]


def wait_gone(pid: int, seconds: float = STOP_SECONDS) -> bool:
    """Waits until a process, child of ours or not, has ended; False when it has not after `seconds`."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


def send_signal(pid: int, number: signal.Signals) -> None:
    """As os.kill, and nothing happens when the process has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def odb_run(library: Path, folder: Path, assignments: Mapping[str, str]) -> list[str]:
    """The words that start a command with the library; its statistics are kept below `folder`."""
    words = {"stats_dir": str(folder / "statistics"), **assignments}
    settings = [word for key, value in words.items() for word in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "odb.cli", "run", "--library", str(library), *settings, "--"]


class Tier:
    """One nginx. `next_port`: where it proxies to; None makes it a file server of `content`."""

    def __init__(
        self,
        name: str,
        folder: Path,
        settings: Settings,
        library: Path,
        content: Path,
        *,
        next_port: int | None,
        next_speaks_odb: bool,
    ) -> None:
        self.name = name
        self.folder = folder
        self.settings = settings
        self.library = library
        self.content = content
        self.next_port = next_port
        self.next_speaks_odb = next_speaks_odb
        self.has_library = name in settings.libraries
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.master = 0
        self.expected_deaths: set[int] = set()
        self._known: set[int] = set()
        (folder / "temp").mkdir(parents=True)

    # Life

    def start(self, *, daemon: bool = False) -> None:
        """Returns when its port is open and its workers are there. The same port as before, if it has run before."""
        for tries_left in reversed(range(BIND_TRIES)):
            chosen = self.port or free_port()
            self._write_configuration(chosen, daemon)
            if self._launch(chosen, daemon):
                self.port = chosen
                if not daemon:
                    self.wait_workers()
                return
            if self.port or not tries_left or "Address already in use" not in self.log():
                break
            (self.folder / "error.log").unlink()  # somebody else was faster: no complaint about this tier
        raise AssertionError(f"{self.name} did not start:\n{self.log()}\n{self._output()}")

    def _write_configuration(self, port: int, daemon: bool) -> None:
        settings, name = self.settings, self.name
        location = f"root {self.content};"
        upstream = ""
        if self.next_port is not None:
            upstream = f"upstream next {{ server 127.0.0.1:{self.next_port} max_fails=0; keepalive 64; }}"
            location = _PROXY.format(
                buffering="on" if settings.buffering else "off",
                request_buffering="on" if settings.request_buffering else "off",
                buffer=settings.buffer,
            )
        text = _TEMPLATE.format(
            main=f"daemon {'on' if daemon else 'off'};",
            workers=settings.workers,
            folder=self.folder,
            sendfile="on" if settings.sendfile else "off",
            http=settings.http.get(name, ""),
            upstream=upstream,
            port=port,
            listen=settings.listen.get(name, ""),
            server=settings.server.get(name, ""),
            location=location + settings.location.get(name, ""),
        )
        (self.folder / "nginx.conf").write_text(text)

    def options(self, port: int) -> dict[str, str]:
        """The ODB options of this tier when it listens on `port`."""
        options = {"align": "on" if self.settings.align else "off", "virtual_min": "8K", "memory_min": "4K"}
        if self.name != "fe":
            options["listen"] = f":{port}"
        if self.next_speaks_odb:
            options["connect"] = f"127.0.0.1:{self.next_port}"
        return {**options, **self.settings.options}

    def _launch(self, port: int, daemon: bool) -> bool:
        nginx = shutil.which("nginx", path=PROGRAMS)  # a whole path: a binary upgrade does not search
        assert nginx is not None
        command = [nginx, "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]
        if self.has_library:
            command = [*odb_run(self.library, self.folder, self.options(port)), *command]
        with (self.folder / "output").open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        if daemon:
            if process.wait(START_SECONDS) != 0:
                return False
            self.process, self.master = None, int((self.folder / "pid").read_text())
        else:
            self.process, self.master = process, process.pid
        return self._wait_open(port, None if daemon else process)

    @staticmethod
    def _wait_open(port: int, process: subprocess.Popen[bytes] | None) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return True
            if process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.01)
                    return False
        return False

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = STOP_SECONDS) -> float:
        """Ends it with a signal to its master, waits for every process of it, and returns how long that took."""
        if not self.master:
            return 0.0
        everybody = [self.master, *self.workers(), *self._known]
        begun = time.monotonic()
        send_signal(self.master, number)
        lingering = [pid for pid in everybody if not wait_gone(pid, seconds)]
        took = time.monotonic() - begun
        for pid in lingering:
            send_signal(pid, signal.SIGKILL)
        self._reap()
        assert not lingering, f"{self.name}: {lingering} did not end within {seconds} s of {number.name}"
        return took

    def kill(self) -> None:
        """kill -9 of the master and every worker, as a machine that fails would do it."""
        everybody = [self.master, *self.workers()]
        for pid in everybody:
            send_signal(pid, signal.SIGKILL)
        assert all(wait_gone(pid) for pid in everybody)
        self._reap()

    def _reap(self) -> None:
        if self.process is not None:
            self.process.wait(STOP_SECONDS)
        self.process, self.master = None, 0
        self._known.clear()

    def signal(self, number: signal.Signals) -> None:
        """To the master."""
        self._known.update(self.workers())
        os.kill(self.master, number)

    def adopt(self, master: int) -> None:
        """After a binary upgrade: from now on `master` is this tier's master."""
        self._known.update([self.master, *self.workers()])
        self.process, self.master = None, master

    def wait_ending(self, workers: Sequence[int]) -> None:
        """Waits until these workers take no more connections: nginx 1.22 lets the new ones begin 100 ms earlier."""
        deadline = time.monotonic() + START_SECONDS
        while not all(b"shutting down" in _command_line(pid) for pid in workers):
            assert time.monotonic() < deadline, f"{self.name}: its old workers go on:\n{self.log()}"
            select.select([], [], [], 0.01)

    def wait_workers(self, but: Sequence[int] = (), *, count: int | None = None) -> list[int]:
        """Waits until there are new workers, as many as configured and none of `but`, and those of `but` have gone."""
        for pid in but:
            assert wait_gone(pid), f"{self.name}: worker {pid} still lives"
        deadline = time.monotonic() + START_SECONDS
        wanted = count or self.settings.workers
        while time.monotonic() < deadline:
            now = [pid for pid in self.workers() if pid not in but]
            if len(now) == wanted:
                return now
            select.select([], [], [], 0.01)
        raise AssertionError(f"{self.name}: no {wanted} new workers:\n{self.log()}")

    # Facts

    def workers(self) -> list[int]:
        """The master's living children that are workers."""
        return (
            [pid for pid in children(self.master) if b"worker" in _command_line(pid)] if self.master else []
        )

    def statistics(self) -> dict[str, int]:
        """Counters summed over the living processes; empty without the library."""
        reading = stats.read(self.folder / "statistics")
        assert not reading.problems
        return reading.totals()

    def descriptors(self) -> int:
        """Open descriptors of the workers."""
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.workers())

    def memory(self) -> int:
        """Anonymous resident bytes of the workers."""
        total = 0
        for pid in self.workers():
            found = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
            assert found
            total += int(found[1]) * 1024
        return total

    def log(self) -> str:
        file = self.folder / "error.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def _output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")

    def complaints(self) -> list[str]:
        """Lines of the error log that nginx writes only when something is broken, but for deaths that were ordered."""
        found = []
        for line in self.log().splitlines():
            if not re.search(r"\[(alert|crit|emerg)\]", line):
                continue
            death = re.search(r"process (\d+) exited on signal 9", line)
            if death and int(death[1]) in self.expected_deaths:
                continue
            found.append(line)
        return found


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Chain:
    """FE, IS and BE, started in the order in which they need each other. Use as a context manager."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        library: Path,
        content: Path,
        *,
        origin_port: int | None = None,
    ) -> None:
        """origin_port: somebody else is the BE, listens there, and speaks ODB if `settings.libraries` has "be"."""
        self.settings = settings
        self.folder = folder
        self._library = library
        self._content = content
        self._origin_port = origin_port
        self.tiers: dict[str, Tier] = {}

    def __enter__(self) -> Chain:
        next_port = self._origin_port
        try:
            for name in ("be", "is", "fe") if self._origin_port is None else ("is", "fe"):
                follower = TIERS[TIERS.index(name) + 1] if name != "be" else ""
                tier = Tier(
                    name,
                    self.folder / name,
                    self.settings,
                    self._library,
                    self._content,
                    next_port=next_port,
                    next_speaks_odb=follower in self.settings.libraries,
                )
                self.tiers[name] = tier
                tier.start()
                next_port = tier.port
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        problems = self._end()
        if kind is None:
            assert not problems, "\n".join(problems)

    def _end(self) -> list[str]:
        problems = []
        for tier in reversed(self.tiers.values()):
            try:
                tier.stop()
            except AssertionError as error:
                problems.append(str(error))
            problems += [f"{tier.name}: {line}" for line in tier.complaints()]
        return problems

    def __iter__(self) -> Iterator[Tier]:
        return iter(self.tiers.values())

    @property
    def fe(self) -> Tier:
        return self.tiers["fe"]

    @property
    def middle(self) -> Tier:
        return self.tiers["is"]

    @property
    def be(self) -> Tier:
        return self.tiers["be"]

    @property
    def port(self) -> int:
        """Where clients connect."""
        return self.fe.port


def missing_tools(*names: str) -> str | None:
    """The first of these programs that is not installed."""
    return next((name for name in names if shutil.which(name, path=PROGRAMS) is None), None)
