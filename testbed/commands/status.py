"""odb-testbed status: what is deployed and whether it is well."""

from __future__ import annotations

import argparse
import json
from typing import Any

from testbed.errors import TestbedError
from testbed.output import print_table
from testbed.remote import Remote
from testbed.session import LIBRARY, SERVER
from testbed.spec import Host
from testbed.state import State, StateStore

_EXAMPLES = """\
examples:
  odb-testbed status
  odb-testbed status --json     {"hosts": [{"name", "roles", "address", "cores", "state"}], ...}

State of a host: serving (its server runs), up (it can be reached), unreachable, incomplete (the deployment was interrupted).
"""


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "status",
        help="show what is deployed and how it is",
        description="Show the hosts, their addresses, cores and state.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Look at every host and report. Needs neither root nor the lock, but can then only see what it may."""
    store = StateStore(arguments.state)
    state = store.load()
    if state is None:
        print(
            json.dumps({"deployed": False, "hosts": []})
            if arguments.json
            else f"nothing is deployed ({store.path})"
        )
        return 0
    hosts = [_look(state, role) for role in state.topology.roles]
    if arguments.json:
        report = {
            "deployed": state.fingerprint is not None,
            "variant": state.serving,
            "network": state.network,
            "core_rule": state.core_rule,
            "topology": state.topology.as_json(),
            "state_file": str(store.path),
            "hosts": hosts,
        }
        print(json.dumps(report))
        return 0
    rows = [
        [h["name"], h["address"] or "", ",".join(map(str, h["cores"])), h["state"], h["note"] or ""]
        for h in hosts
    ]
    print_table(("host", "address", "cores", "state", "note"), rows)
    if state.fingerprint is None:
        print("the deployment is not complete: run 'odb-testbed deploy'")
    print(f"variant: {state.serving or 'none, the servers are stopped'}")
    print(state.core_rule)
    return 0


def _look(state: State, role: str) -> dict[str, Any]:
    host = state.hosts.get(role)
    if host is None:
        return _entry(role, None, "incomplete", "it was not made yet")
    try:
        with Remote(host) as remote:
            if remote.run(["test", "-e", host.python], timeout=10).exit_code != 0:
                return _entry(role, host, "incomplete", f"{host.python} is missing on it")
            if role.startswith("client"):
                remote.run(["true"], timeout=10, check=True)
                return _entry(role, host, "up", None)
            server = remote.status(SERVER, LIBRARY)
    except TestbedError as error:
        reached = state.fingerprint is None and "cannot be reached" not in error.message
        return _entry(role, host, "incomplete" if reached else "unreachable", error.message)
    library = "with libodb.so" if server["mapped"] else "without libodb.so"
    if server["alive"]:
        return _entry(role, host, "serving", f"{SERVER} {library}, {len(server['processes'])} processes")
    return _entry(role, host, "up", f"{SERVER} does not run")


def _entry(role: str, host: Host | None, state: str, note: str | None) -> dict[str, Any]:
    return {
        "name": role,
        "roles": [role],
        "address": host.address if host else None,
        "cores": list(host.cores) if host else [],
        "state": state,
        "note": note,
    }
