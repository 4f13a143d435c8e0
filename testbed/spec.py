"""What the testbed is made of, typed and validated: hosts, topology and variants.

A leaf module: it imports nothing of the testbed but its errors.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from testbed.errors import UsageError

HTTP_PORT = 80
HTTPS_PORT = 443
"""Where the FE listens too in a topology with touch "tls"."""
# Where the playbooks put what we run on a host.
HOST_DIRECTORY = "/opt/odb-testbed"
HOSTPROC = f"{HOST_DIRECTORY}/hostproc.py"
AGENT = f"{HOST_DIRECTORY}/agent.py"
LOCUSTFILE = f"{HOST_DIRECTORY}/loadgen/odb.py"
NGINX_CONFIGURATION = "/etc/odb-testbed/nginx.conf"
X_ACCEL_CONFIGURATION = "/etc/odb-testbed/x-accel.conf"
CERTIFICATE = "/etc/odb-testbed/fe.pem"
"""The FE's certificate and its key, in one file."""
HAPROXY_CONFIGURATION = "/etc/odb-testbed/haproxy.cfg"
WRK = f"{HOST_DIRECTORY}/loadgen/wrk.py"
RUN_DIRECTORY = "/run/odb-testbed"
NGINX_PID_FILE = f"{RUN_DIRECTORY}/nginx.pid"
HAPROXY_PID_FILE = f"{RUN_DIRECTORY}/haproxy.pid"
NGINX_LOG = "/var/log/odb-testbed/nginx.log"
ODB_CONFIGURATION = "/etc/odb/odb.toml"
PAYLOAD_DIRECTORY = "/srv/odb-testbed"
MAX_TIERS = 8
MAX_GENERATORS = 4
CONFIGURATIONS = ("proxy", "x-accel")
INTERMEDIARIES = ("nginx", "haproxy")
TOUCHES = ("none", "gzip", "sub_filter", "tls", "cache", "temp_file")
DEFAULT_PAYLOADS = (16384, 65536, 262144)
VARIANTS_FILE = Path(__file__).with_name("variants.toml")

ENCODED = ("gzip", "tls")
"""Touches after which a client has to decode what it gets."""

_SIZE = re.compile(r"([1-9][0-9]*)([kKmM]?)")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_OPTION = re.compile(r"[a-z][a-z0-9_]*")
_VARIANT_KEYS = (
    "description",
    "odb",
    "profile",
    "options",
    "library",
    "nginx",
    "configuration",
    "intermediary",
)
_FACTOR = {"": 1, "k": 1024, "m": 1024 * 1024}


@dataclass(frozen=True, slots=True)
class Host:
    """One machine of the testbed, whatever provider made it; reached only through SSH.

    `roles` is one of client, fe, is1, is2, ..., be (one per host). `cores` are the CPUs its processes run on (empty: all).
    `cgroup` is the path below the root of every cgroup hierarchy, as in /proc/PID/cgroup ("/odb-1a2b/fe"); None: there is none.
    `python` is an interpreter on the host that has the project's packages; its directory also holds `odb` and `locust`.
    """

    name: str
    roles: tuple[str, ...]
    address: str
    ssh_port: int
    ssh_user: str
    ssh_key: Path
    cores: tuple[int, ...]
    cgroup: str | None
    interface: str
    python: str = "/usr/bin/python3"
    known_hosts: Path | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the host as plain JSON values; `from_json` reads them back."""
        plain = asdict(self)
        plain["ssh_key"] = str(self.ssh_key)
        plain["known_hosts"] = str(self.known_hosts) if self.known_hosts else None
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Build a host from what `as_json` returned. Raises KeyError or TypeError when a value is missing."""
        values = dict(plain)
        values["roles"] = tuple(values["roles"])
        values["cores"] = tuple(values["cores"])
        values["ssh_key"] = Path(values["ssh_key"])
        known = values.get("known_hosts")
        values["known_hosts"] = Path(known) if known else None
        return cls(**values)

    def tool(self, name: str) -> str:
        """Return the path, on the host, of a program installed beside its Python ("odb", "locust")."""
        return str(Path(self.python).with_name(name))


@dataclass(frozen=True, slots=True)
class Topology:
    """The chain client - FE - IS1 .. ISn - BE and how its servers are configured.

    `tiers` is the number of intermediaries; `buffer_size` is nginx's proxy_buffer_size; `payloads` are the sizes in bytes
    that the BE serves, their content made from `seed`; `clients` bounds the connections that a server must be able to hold;
    `generators` is the number of client hosts (client, client2, ...).  `touch` is what reads the bodies on their way: the
    FE compresses them (gzip), searches them (sub_filter) or encrypts them (tls), or every IS keeps them in files (cache,
    temp_file); "none" is a chain that only passes them on.
    """

    tiers: int = 1
    buffer_size: str = "16k"
    buffering: bool = False
    sendfile: bool = True
    align: bool = True
    payloads: tuple[int, ...] = DEFAULT_PAYLOADS
    seed: int = 1
    clients: int = 1000
    generators: int = 1
    touch: str = "none"

    def __post_init__(self) -> None:
        _require(
            type(self.tiers) is int and 1 <= self.tiers <= MAX_TIERS,
            "tiers",
            self.tiers,
            f"a number from 1 to {MAX_TIERS}",
        )
        size = parse_size(str(self.buffer_size), "buffer size")
        _require(
            4096 <= size <= 16 << 20 and size % 4096 == 0,
            "buffer size",
            self.buffer_size,
            "4k to 16m in steps of 4k",
        )
        for name in ("buffering", "sendfile", "align"):
            _require(type(getattr(self, name)) is bool, name, getattr(self, name), "on or off")
        _require(len(self.payloads) > 0, "payloads", self.payloads, "at least one size")
        for payload in self.payloads:
            _require(type(payload) is int and 1 <= payload <= 1 << 30, "payload", payload, "1 byte to 1 GiB")
        _require(
            len(set(self.payloads)) == len(self.payloads), "payloads", self.payloads, "sizes that differ"
        )
        _require(type(self.seed) is int and self.seed >= 0, "seed", self.seed, "a number from 0 on")
        _require(
            type(self.clients) is int and 1 <= self.clients <= 100_000, "clients", self.clients, "1 to 100000"
        )
        _require(
            type(self.generators) is int and 1 <= self.generators <= MAX_GENERATORS,
            "generators",
            self.generators,
            f"a number of client hosts from 1 to {MAX_GENERATORS}",
        )
        _require(self.touch in TOUCHES, "touch", self.touch, f"one of {', '.join(TOUCHES)}")

    @property
    def chain(self) -> tuple[str, ...]:
        """The serving roles in the order in which a request passes them: fe, is1, .., be."""
        return ("fe", *(f"is{number}" for number in range(1, self.tiers + 1)), "be")

    @property
    def roles(self) -> tuple[str, ...]:
        """All roles: the client hosts and then the chain."""
        return (*self.client_roles, *self.chain)

    @property
    def client_roles(self) -> tuple[str, ...]:
        """The hosts that make the load: client, client2, ...; the first one directs the others."""
        return ("client", *(f"client{number}" for number in range(2, self.generators + 1)))

    def as_json(self) -> dict[str, Any]:
        """Return the topology as plain JSON values; `from_json` reads them back."""
        plain = asdict(self)
        plain["payloads"] = list(self.payloads)
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Build a topology from what `as_json` returned. Raises TypeError on unknown keys, UsageError on bad values."""
        values = dict(plain)
        if "payloads" in values:
            values["payloads"] = tuple(values["payloads"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the servers: without the library, or with a profile of it and some options set.

    `library` and `nginx` are paths, on this machine, of builds to use instead of the installed ones.  `configuration` "x-accel"
    lets the BE answer with a reference that the FE fetches by itself; `intermediary` is the program on every IS.
    """

    name: str
    description: str
    odb: bool
    profile: str | None = None
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    library: str | None = None
    nginx: str | None = None
    configuration: str = "proxy"
    intermediary: str = "nginx"


def parse_size(text: str, what: str = "size") -> int:
    """Return the bytes that "16384", "16k" or "1m" mean (powers of 1024)."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{what} {text!r} is not a size", "write a number with an optional k or m, such as 16k"
        )
    return int(match[1]) * _FACTOR[match[2].lower()]


def load_variants(path: Path | None = None) -> dict[str, Variant]:
    """Return the variants of a TOML file (default: the one that comes with the testbed) by name, in the file's order."""
    source = path or VARIANTS_FILE
    try:
        tables = tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the variants file {source}", error.strerror or str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the variants file {source} is not valid TOML", str(error)) from error
    return {name: _variant(source, name, table) for name, table in tables.items()}


def pick_variant(variants: Mapping[str, Variant], name: str) -> Variant:
    """Return the variant of that name; the error for an unknown one lists those that exist."""
    try:
        return variants[name]
    except KeyError:
        raise UsageError(f"there is no variant {name!r}", f"choose one of {', '.join(variants)}") from None


def _variant(source: Path, name: str, table: object) -> Variant:
    where = f"{source}: variant {name!r}"
    if not _NAME.fullmatch(name):
        raise UsageError(f"{where} has a bad name", "use lower-case letters, digits and '-'")
    if not isinstance(table, dict):
        raise UsageError(f"{where} is not a table", f"write [{name}]")
    unknown = sorted(set(table) - set(_VARIANT_KEYS))
    if unknown:
        raise UsageError(
            f"{where} has the unknown key {unknown[0]!r}", f"known keys are {', '.join(_VARIANT_KEYS)}"
        )
    odb = table.get("odb")
    if not isinstance(odb, bool):
        raise UsageError(f"{where}: key 'odb' is {odb!r}", "write odb = true or odb = false")
    for key in ("description", "profile", "library", "nginx"):
        if not isinstance(table.get(key, ""), str):
            raise UsageError(f"{where}: key {key!r} is {table[key]!r}", "write a text in quotes")
    for key, known in (("configuration", CONFIGURATIONS), ("intermediary", INTERMEDIARIES)):
        if table.get(key, known[0]) not in known:
            raise UsageError(f"{where}: key {key!r} is {table[key]!r}", f"write one of {', '.join(known)}")
    variant = Variant(
        name,
        table.get("description", ""),
        odb,
        table.get("profile"),
        _options(where, table.get("options", {})),
        _build(source, table.get("library")),
        _build(source, table.get("nginx")),
        table.get("configuration", "proxy"),
        table.get("intermediary", "nginx"),
    )
    if not odb and (variant.profile is not None or variant.options or variant.library):
        raise UsageError(
            f"{where} sets a profile, options or a library without the library",
            "write odb = true or remove them",
        )
    return variant


def _build(source: Path, named: str | None) -> str | None:
    """The path of a build, taken from where the variants file lies."""
    return None if named is None else str((source.parent / named).absolute())


def _options(where: str, table: object) -> Mapping[str, str]:
    if not isinstance(table, dict):
        raise UsageError(f"{where}: 'options' is not a table", "write options = { key = value }")
    options: dict[str, str] = {}
    for key, value in table.items():
        if not _OPTION.fullmatch(key):
            raise UsageError(f"{where}: {key!r} is not the name of an option", "see 'odb run --help'")
        if isinstance(value, bool):
            options[key] = "on" if value else "off"
        elif isinstance(value, str | int):
            options[key] = str(value)
        else:
            raise UsageError(
                f"{where}: option {key!r} has the value {value!r}", "write a text, a number, true or false"
            )
    return MappingProxyType(options)


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise UsageError(f"{name} is {value!r}", f"it must be {wanted}")
