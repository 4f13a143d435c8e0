"""Servers other than nginx, as a tier between or behind nginx: HAProxy, Apache httpd, lighttpd, and small ones in Python.

A server runs in the foreground, with the library through `odb run`, and is ended by its recorded pid.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from odb import stats
from tests.e2e.chain import PROGRAMS, ROOT, START_SECONDS, STOP_SECONDS, odb_run
from tests.ports import free_port

APACHE_MODULES = Path("/usr/lib/apache2/modules")

_HAPROXY = """\
global
  maxconn 1000
  nbthread 2
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
  option http-keep-alive
  {options}
frontend front
  bind 127.0.0.1:{port}
  default_backend back
backend back
  http-reuse always
  server be 127.0.0.1:{next_port}
"""

_APACHE = """\
ServerRoot {folder}
ServerName test
PidFile {folder}/pid
ErrorLog {folder}/error.log
Listen 127.0.0.1:{port}
{modules}
User #{user}
Group #{group}
DocumentRoot {content}
<Directory {content}>
  Require all granted
</Directory>
StartServers 1
ServerLimit 1
ThreadsPerChild 32
MaxRequestWorkers 32
KeepAlive On
MaxKeepAliveRequests 0
EnableSendfile {sendfile}
EnableMMAP {mmap}
"""

_LIGHTTPD = """\
server.document-root = "{content}"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{folder}/error.log"
server.network-backend = "{backend}"
server.max-keep-alive-requests = 100000
mimetype.assign = ( "" => "application/octet-stream" )
"""


def haproxy(folder: Path, port: int, next_port: int, *, splice: bool) -> list[str]:
    options = "option splice-response\n  option splice-request" if splice else "no option splice-auto"
    file = folder / "haproxy.cfg"
    file.write_text(_HAPROXY.format(port=port, next_port=next_port, options=options))
    return [program("haproxy"), "-db", "-f", str(file)]


def apache(folder: Path, port: int, content: Path, *, how: str) -> list[str]:
    """how: "sendfile", "mmap" or "read"."""
    wanted = ("mpm_event", "authz_core")
    modules = "\n".join(f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so" for name in wanted)
    file = folder / "apache.conf"
    file.write_text(
        _APACHE.format(
            folder=folder,
            port=port,
            content=content,
            modules=modules,
            user=65534 if os.geteuid() == 0 else os.getuid(),
            group=65534 if os.geteuid() == 0 else os.getgid(),
            sendfile="On" if how == "sendfile" else "Off",
            mmap="On" if how == "mmap" else "Off",
        )
    )
    return [program("apache2"), "-f", str(file), "-DFOREGROUND"]


def lighttpd(folder: Path, port: int, content: Path, *, backend: str) -> list[str]:
    file = folder / "lighttpd.conf"
    file.write_text(_LIGHTTPD.format(folder=folder, port=port, content=content, backend=backend))
    return [program("lighttpd"), "-D", "-f", str(file)]


def python(module: str, *arguments: object) -> list[str]:
    """A module of this directory as a program."""
    return [sys.executable, "-m", f"tests.e2e.{module}", *map(str, arguments)]


def program(name: str) -> str:
    found = shutil.which(name, path=PROGRAMS)
    assert found is not None, f"{name} is not installed"
    return found


class Other:
    """A running server. `options` None: without the library."""

    def __init__(
        self,
        folder: Path,
        port: int,
        command: Sequence[str],
        *,
        library: Path,
        options: Mapping[str, str] | None,
        ends_with: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.folder = folder
        self.port = port
        self._ends_with = ends_with
        launcher = odb_run(library, folder, options) if options is not None else []
        with (folder / "output").open("wb") as output:
            self.process = subprocess.Popen(
                [*launcher, *command],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def __enter__(self) -> Other:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            try:
                self.process.wait(0.01)
                break
            except subprocess.TimeoutExpired:
                continue
        self.process.kill()
        self.process.wait()
        raise AssertionError(f"{self.process.args!r} did not start:\n{self.output()}")

    def __exit__(self, kind: object, *_: object) -> None:
        died = self.process.poll()
        self.process.send_signal(self._ends_with)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.process.args!r} does not end:\n{self.output()}") from None
        if kind is None:
            assert died is None, f"{self.process.args!r} died with status {died}:\n{self.output()}"

    def output(self) -> str:
        """What it has written to its standard streams and its error log."""
        files = [self.folder / "output", self.folder / "error.log"]
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def statistics(self) -> dict[str, int]:
        return stats.read(self.folder / "statistics").totals()


def new_port(folder: Path) -> int:
    """A port for a server whose files are in `folder`, which is made here for every user to enter."""
    folder.mkdir()
    folder.chmod(0o755)
    return free_port()
