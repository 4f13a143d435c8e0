"""odb-testbed deploy: hosts and what is on them, brought to the desired state."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from testbed.deploy import deploy
from testbed.output import progress_printer
from testbed.spec import TOUCHES, Topology, Variant, load_variants, parse_size, pick_variant
from testbed.state import StateStore

_EXAMPLES = """\
examples:
  odb-testbed deploy                              client, FE, one IS and BE, nginx running without ODB
  odb-testbed deploy --variant odb                the same hosts, nginx running with ODB
  odb-testbed deploy --tiers 3 --buffer-size 64k  three intermediaries with larger buffers
  odb-testbed deploy --json                       {"changed": 0, "hosts": [...]} when all was as wanted

An option that is not given keeps what is deployed. Exit codes: 0 fine, 1 failed, 2 usage, 4 this machine lacks something.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "deploy",
        help="make the hosts and install the servers; a second run changes nothing",
        description="Make the hosts, install FE, IS, BE and client, and start the servers. A second run changes nothing.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tiers", type=int, metavar="N", help="number of intermediaries, 1 to 8 (default 1)")
    parser.add_argument(
        "--buffer-size", metavar="SIZE", help="nginx's proxy_buffer_size, such as 16k (default 16k)"
    )
    for name, text in (
        ("buffering", "nginx's proxy_buffering (default off)"),
        ("sendfile", "nginx's sendfile (default on)"),
        ("align", "ODB's page-aligned buffers (default on)"),
    ):
        parser.add_argument(f"--{name}", choices=("on", "off"), help=text)
    parser.add_argument("--touch", choices=TOUCHES, help="what reads the bodies on their way (default none)")
    parser.add_argument("--payloads", metavar="SIZES", help="sizes that the BE serves, such as 16k,64k,1m")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="number that the payloads' content is made from (default 1)"
    )
    parser.add_argument(
        "--network", metavar="RANGE", help="address range of the hosts (default 10.77.0.0/24)"
    )
    parser.add_argument(
        "--variant", metavar="NAME", help="variant to leave running (default: as it runs, else vanilla)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Deploy and say what changed."""
    variant = _variant(arguments.variant)
    result = deploy(
        _topology(arguments),
        network=arguments.network,
        variant=variant,
        state_file=arguments.state,
        progress=progress_printer(),
    )
    if arguments.json:
        hosts = [
            {"name": h.name, "roles": list(h.roles), "address": h.address, "cores": list(h.cores)}
            for h in result.hosts
        ]
        print(json.dumps({"changed": result.changed, "hosts": hosts}))
        return 0
    print("nothing changed" if result.changed == 0 else f"changed: {result.changed}")
    for host in result.hosts:
        print(f"  {host.name:<8}{host.address:<16}cores {','.join(map(str, host.cores))}")
    front = next(host for host in result.hosts if "fe" in host.roles)
    print(f"the chain is entered at http://{front.address}")
    return 0


def _variant(name: str | None) -> Variant | None:
    return None if name is None else pick_variant(load_variants(), name)


def _topology(arguments: argparse.Namespace) -> Topology | None:
    """What the options ask for on top of what is deployed; None when no option is given."""
    given: dict[str, Any] = {
        "tiers": arguments.tiers,
        "buffer_size": arguments.buffer_size.lower() if arguments.buffer_size else None,
        "seed": arguments.seed,
        "touch": arguments.touch,
        **{name: _switch(getattr(arguments, name)) for name in ("buffering", "sendfile", "align")},
    }
    if arguments.payloads:
        given["payloads"] = tuple(
            parse_size(size.strip(), "payload") for size in arguments.payloads.split(",")
        )
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return None
    state = StateStore(arguments.state).load()
    return dataclasses.replace(state.topology if state else Topology(), **given)


def _switch(text: str | None) -> bool | None:
    return None if text is None else text == "on"
