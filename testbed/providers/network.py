"""Bridges, network namespaces and the wires between them; the only module that imports pyroute2.

Every function is idempotent in the sense that removing what is not there is fine. Names are at most 15 characters for links.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
from collections.abc import Iterator
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

from pyroute2 import IPRoute, NetNS, netns
from pyroute2 import config as pyroute2_config
from pyroute2.netlink.exceptions import NetlinkError

from testbed.errors import ProviderError
from testbed.providers import namespaces

# pyroute2 enters a namespace in a forked child, which it ends by SIGTERM, perhaps before the child has returned. With this
# program's handler still in place the child would raise Interrupted and go on as a second copy of this program.
pyroute2_config.disable_mp_signal = True

NAMESPACES = Path("/run/netns")
UPLINK = "uplink"
_BRIDGE = "bridge"


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise ProviderError(f"cannot {what}", error.args[1] if len(error.args) > 1 else str(error)) from error
    except OSError as error:
        raise ProviderError(f"cannot {what}", error.strerror or str(error)) from error


def users_of(network: IPv4Network) -> list[str]:
    """Return what on this machine uses addresses of `network`: addresses and routes, in words."""
    found = []
    with _explained("read the addresses of this machine"), IPRoute() as route:
        names = {link["index"]: str(link.get_attr("IFLA_IFNAME")) for link in route.get_links()}
        for entry in route.get_addr(family=2):
            address, name = entry.get_attr("IFA_ADDRESS"), names.get(entry["index"], "?")
            used = ipaddress.ip_network(f"{address}/{entry['prefixlen']}", strict=False)
            if used.overlaps(network):
                found.append(f"{address}/{entry['prefixlen']} on {name}")
        for entry in route.get_routes(family=2, table=254):
            target, name = entry.get_attr("RTA_DST"), names.get(entry.get_attr("RTA_OIF") or 0, "?")
            if not target:
                continue
            used = ipaddress.ip_network(f"{target}/{entry['dst_len']}", strict=False)
            if used.overlaps(network) and not any(one.endswith(f" on {name}") for one in found):
                found.append(f"a route to {used} through {name}")
    return found


def link_exists(name: str) -> bool:
    """Tell whether this network namespace has a link of that name."""
    with IPRoute() as route:
        return bool(route.link_lookup(ifname=name))


def remove_link(name: str) -> None:
    """Remove a link, and with it the other end of its wire."""
    with _explained(f"remove the link {name}"), IPRoute() as route:
        for index in route.link_lookup(ifname=name):
            route.link("del", index=index)


def namespace_path(name: str) -> Path:
    """Return the file that names a network namespace."""
    return NAMESPACES / name


def namespace_exists(name: str) -> bool:
    """Tell whether a network namespace of that name is there and alive (a leftover file is not a namespace)."""
    try:
        return os.stat(namespace_path(name)).st_dev == os.stat("/proc/self/ns/net").st_dev
    except FileNotFoundError:
        return False


def create_namespace(name: str) -> None:
    """Create a network namespace; its loopback is up."""
    with _explained(f"create the network namespace {name}"):
        netns.create(name)
    if not namespace_exists(name):
        raise ProviderError(f"cannot create the network namespace {name}", "see 'odb-testbed doctor'")
    with _explained(f"start the loopback of {name}"), NetNS(name) as inside:
        inside.link("set", index=inside.link_lookup(ifname="lo")[0], state="up")


def remove_namespace(name: str) -> None:
    """Remove the name of a network namespace; it ends with its last process."""
    path = namespace_path(name)
    with _explained(f"remove the network namespace {name}"):
        try:
            namespaces.unmount(path)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
        path.unlink(missing_ok=True)


def create_switch(name: str, uplink: str, address: IPv4Interface) -> None:
    """Put a bridge into the namespace `name` and connect this machine to it by its link `uplink` with `address`.

    In a namespace of its own the bridge is out of reach of this machine's packet filter.
    """
    with _explained(f"create the bridge in {name}"):
        with NetNS(name) as inside:
            inside.link("add", ifname=_BRIDGE, kind="bridge", br_stp_state=0, br_forward_delay=0)
            inside.link("set", index=inside.link_lookup(ifname=_BRIDGE)[0], state="up")
        with IPRoute() as route:
            route.link("add", ifname=uplink, kind="veth", peer={"ifname": UPLINK, "net_ns_fd": name})
            index = route.link_lookup(ifname=uplink)[0]
            route.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
            route.link("set", index=index, state="up")
        _plug(name, UPLINK)


def connect(name: str, interface: str, switch: str, port: str, address: IPv4Interface) -> None:
    """Lay a wire from `port` of the bridge in `switch` to `interface`, which gets `address`, in the namespace `name`.

    The hardware address follows from the IP address: a host that is made anew is found by those who remember it.
    """
    hardware = ":".join(f"{byte:02x}" for byte in (0x02, 0x0D, *address.ip.packed))
    with _explained(f"connect {name} to the bridge in {switch}"):
        with NetNS(switch) as middle:
            peer = {"ifname": interface, "net_ns_fd": name, "address": hardware}
            middle.link("add", ifname=port, kind="veth", peer=peer)
        with NetNS(name) as inside:
            index = inside.link_lookup(ifname=interface)[0]
            inside.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
            inside.link("set", index=index, state="up")
        _plug(switch, port)


def is_connected(switch: str, port: str) -> bool:
    """Tell whether the bridge in `switch` exists and has that port."""
    if not namespace_exists(switch):
        return False
    with _explained(f"look at the bridge in {switch}"), NetNS(switch) as inside:
        bridges, ports = inside.link_lookup(ifname=_BRIDGE), inside.link_lookup(ifname=port)
        if not bridges or not ports:
            return False
        return bool(inside.get_links(ports[0])[0].get_attr("IFLA_MASTER") == bridges[0])


def disconnect(switch: str, port: str) -> None:
    """Remove a port of the bridge in `switch` with its wire; not there: fine."""
    if namespace_exists(switch):
        with _explained(f"remove the port {port} of {switch}"), NetNS(switch) as inside:
            for index in inside.link_lookup(ifname=port):
                inside.link("del", index=index)


def _plug(switch: str, port: str) -> None:
    with NetNS(switch) as inside:
        bridge, index = inside.link_lookup(ifname=_BRIDGE)[0], inside.link_lookup(ifname=port)[0]
        inside.link("set", index=index, master=bridge, state="up")


def names_directory_is_mounted() -> bool:
    """Tell whether the directory of named network namespaces has been set up (by `ip netns` or by us)."""
    with Path("/proc/self/mountinfo").open(encoding="utf-8") as table:
        return any(line.split()[4] == str(NAMESPACES) for line in table)


def release_names_directory() -> None:
    """Undo what the first named network namespace set up, unless somebody has named others since."""
    if names_directory_is_mounted() and not any(NAMESPACES.iterdir()):
        with _explained(f"unmount {NAMESPACES}"):
            namespaces.unmount(NAMESPACES)
    with contextlib.suppress(OSError):  # not empty, or not there
        NAMESPACES.rmdir()
