"""Says where a run is measured: machine, versions, library, and how cores were given to hosts."""

import os
import platform
from pathlib import Path

from testbed.errors import EnvironmentFault
from testbed.record import Environment, Plan
from testbed.session import HAPROXY, Testbed

_SECONDS = 30.0
_PINNING_VARIES = (
    "cores are shared anew for each number of intermediaries; every record says them for its tiers"
)
# Runs under `odb run`: the library that is hashed is the one that is loaded.
_HASH_LIBRARY = """
import hashlib
paths = {line.split()[-1] for line in open("/proc/self/maps") if line.rstrip().endswith("/libodb.so")}
print(*(hashlib.sha256(open(path, "rb").read()).hexdigest() for path in sorted(paths)))
"""


def describe(testbed: Testbed, plan: Plan) -> Environment:
    """The environment of a deployed testbed.  Asks its hosts for the versions of what runs on them.

    What differs between the cells of the plan is left out: each record says it of its own cell.
    """
    varying = {
        name
        for name in ("align", "tiers", "buffer_size", "buffering", "sendfile", "touch")
        if len({getattr(cell, name) for cell in plan.cells}) > 1
    }
    nginx = testbed.run("fe", ["nginx", "-v"], timeout=_SECONDS)
    locust = testbed.run("client", [testbed.host("client").tool("locust"), "--version"], timeout=_SECONDS)
    topology = testbed.topology.as_json() | {"align": plan.cells[0].align}
    return Environment(
        host=platform.node(),
        cores=os.cpu_count() or 1,
        cpu=_processor(),
        kernel=platform.release(),
        nginx=nginx.stderr.strip().rpartition("/")[2] or "unknown",
        locust=(locust.stdout.split() or ["", "unknown"])[1],
        library_sha256=_library_sha256(testbed),
        provider="local",
        pinning=_PINNING_VARIES if "tiers" in varying else testbed.core_rule,
        host_cores={} if "tiers" in varying else {host.name: host.cores for host in testbed.hosts},
        topology={name: str(value) for name, value in topology.items() if name not in {"payloads", *varying}},
    )


def require_programs(testbed: Testbed, plan: Plan) -> None:
    """EnvironmentFault when a variant or a load needs a program that its host does not have."""
    needed = []
    if any(variant.intermediary == HAPROXY for variant in plan.variants):
        needed += [(role, HAPROXY, "the intermediary of a variant") for role in testbed.topology.chain[1:-1]]
    if any(plan.load_of(cell).generator == "wrk" for cell in plan.cells):
        needed.append(("client", "wrk", "the generator of a load"))
    for role, program, what in needed:
        if testbed.run(role, ["which", program], timeout=_SECONDS).exit_code != 0:
            raise EnvironmentFault(
                f"{program} is missing on {role}: it is {what}", f"apt-get install {program}"
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
