"""Says where a run is measured: machine, versions, library, and how cores were given to hosts."""

import os
import platform
from pathlib import Path

from testbed.record import Environment
from testbed.session import Testbed

_SECONDS = 30.0
# Runs under `odb run`: the library that is hashed is the one that is loaded.
_HASH_LIBRARY = """
import hashlib
paths = {line.split()[-1] for line in open("/proc/self/maps") if line.rstrip().endswith("/libodb.so")}
print(*(hashlib.sha256(open(path, "rb").read()).hexdigest() for path in sorted(paths)))
"""


def describe(testbed: Testbed) -> Environment:
    """The environment of a deployed testbed.  Asks its hosts for the versions of what runs on them."""
    nginx = testbed.run("fe", ["nginx", "-v"], timeout=_SECONDS)
    locust = testbed.run("client", [testbed.host("client").tool("locust"), "--version"], timeout=_SECONDS)
    topology = testbed.topology.as_json()
    return Environment(
        host=platform.node(),
        cores=os.cpu_count() or 1,
        cpu=_processor(),
        kernel=platform.release(),
        nginx=nginx.stderr.strip().rpartition("/")[2] or "unknown",
        locust=(locust.stdout.split() or ["", "unknown"])[1],
        library_sha256=_library_sha256(testbed),
        provider="local",
        pinning=testbed.core_rule,
        host_cores={host.name: host.cores for host in testbed.hosts},
        topology={name: str(value) for name, value in topology.items() if name != "payloads"},
    )


def _library_sha256(testbed: Testbed) -> str | None:
    """The digest of the library that `odb run` loads on the FE; None where it loads none."""
    fe = testbed.host("fe")
    done = testbed.run("fe", [fe.tool("odb"), "run", "--", fe.python, "-c", _HASH_LIBRARY], timeout=_SECONDS)
    return (done.stdout.strip() or None) if done.exit_code == 0 else None


def _processor() -> str:
    """The processor's name as the kernel tells it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
