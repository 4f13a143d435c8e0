"""Validates settings (defaults, profile, TOML file, `key=value`) and writes the flat option file that the runtime reads.

Precedence: `key=value` over file over profile over default. Every error names source, key, value and remedy.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import os
import re
import stat
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from odb.errors import ConfigError, PlatformError
from odb.tables import Option, OptionTable, option_table, parse_size

RULES_MAX = 64
"""How many rules one option of the runtime holds (ODB_RULES_MAX in core/rules.h)."""

_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Setting:
    """The canonical text of one option's value and where it comes from ("default", "profile classic", a path, "--set")."""

    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Config:
    """A value for every option of the table, all valid."""

    settings: Mapping[str, Setting]

    def __getitem__(self, name: str) -> str:
        return self.settings[name].value

    def flat(self) -> str:
        """The text of the flat option file: comments and `key = value` lines, sizes in bytes, times in milliseconds."""
        lines = ["# Options of the ODB runtime, written by `odb run`; the file is named after its content."]
        lines += [f"{name} = {setting.value}".rstrip() for name, setting in self.settings.items()]
        return "\n".join(lines) + "\n"


def load(
    *,
    profile: str | None = None,
    file: Path | None = None,
    assignments: Sequence[str] = (),
    table: OptionTable | None = None,
) -> Config:
    """Combine and validate all sources.

    profile: a profile's name; it wins over the key `profile` of the file. file: a TOML file of `option = value`.
    assignments: texts `key=value`. Raises ConfigError.
    """
    table = table or option_table()
    from_file = {} if file is None else _read_toml(file)
    named_in = "--profile"
    if "profile" in from_file:
        in_file = from_file.pop("profile")
        if profile is None:
            profile, named_in = str(in_file), str(file)
    settings = {name: Setting(option.default, "default") for name, option in table.options.items()}
    if profile is not None:
        _known(profile, table.profiles, named_in, "profile")
        for key, text in table.profiles[profile].values.items():
            source = f"profile {profile}"
            settings[key] = Setting(canonical(_find(key, table, source), text, source), source)
    for key, value in from_file.items():
        option = _find(key, table, str(file))
        settings[key] = Setting(canonical(option, _toml_text(option, value, str(file)), str(file)), str(file))
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {assignment!r}: write it as key=value, e.g. --set virtual_min=16K.")
        option = _find(key.strip(), table, "--set")
        settings[option.name] = Setting(canonical(option, text.strip(), "--set"), "--set")
    return Config(settings)


def canonical(option: Option, text: str, source: str) -> str:
    """The one way to write `text` for `option`: bytes and milliseconds as digits, sets without spaces. Raises ConfigError."""
    match option.kind:
        case "enum":
            if text in option.words:
                return text
            raise _bad(option, text, source, f"use {_either(option.words)}{_close(text, option.words)}")
        case "set":
            return _canonical_set(option, text, source)
        case "flag":
            if text in {"on", "off"}:
                return text
            raise _bad(option, text, source, "use on or off")
        case "size" | "count" | "ms":
            return _canonical_number(option, text, source)
        case "rules":
            return _canonical_rules(option, text, source)
        case _:
            if not text.startswith("/") or any(character in text for character in "\n\r\0#"):
                raise _bad(option, text, source, "use an absolute path on one line, without '#'")
            return text


def runtime_directory(environment: Mapping[str, str], uid: int) -> Path:
    """Where the flat option files of this user live: `/run/odb` for root, else below XDG_RUNTIME_DIR or /tmp."""
    if uid == 0:
        return Path("/run/odb")
    below = environment.get("XDG_RUNTIME_DIR")
    return Path(below) / "odb" if below else Path(f"/tmp/odb-{uid}")


def write_flat(config: Config, directory: Path) -> Path:
    """Write the flat file below `directory`/options, named after its content, readable by all, and return its path.

    The same content gives the same file, which is then left alone; a new one appears in one step. Raises
    PlatformError if the directory cannot be used or belongs to somebody else.
    """
    data = config.flat().encode()
    folder = directory / "options"
    target = folder / f"{hashlib.sha256(data).hexdigest()[:24]}.conf"
    try:
        for each in (directory, folder):
            each.mkdir(mode=0o755, parents=True, exist_ok=True)
            _refuse_foreign(each)
        if target.is_file() and target.read_bytes() == data:
            return target
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".new-")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            os.fchmod(stream.fileno(), 0o644)
        Path(temporary).replace(target)
    except OSError as error:
        raise PlatformError(f"The option file cannot be written to {folder}: {error.strerror}.") from error
    return target


def _refuse_foreign(directory: Path) -> None:
    """A directory below /tmp may have been put there by somebody else, who could then replace our options."""
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in {os.geteuid(), 0} or found.st_mode & 0o022:
        raise PlatformError(
            f"{directory} belongs to somebody else or can be written by others: remove it and try again."
        )


def _read_toml(file: Path) -> dict[str, object]:
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"{file}: the configuration cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not a TOML file: {error}.") from error


def _toml_text(option: Option, value: object, source: str) -> str:
    if isinstance(value, bool):
        if option.kind != "flag":
            raise _bad(option, str(value).lower(), source, f"{_wanted(option)}, not true or false")
        return "on" if value else "off"
    if isinstance(value, list):
        if option.kind not in {"set", "rules"} or not all(isinstance(item, str) for item in value):
            raise _bad(option, str(value), source, f"{_wanted(option)}, not this list")
        return ",".join(value)
    if isinstance(value, dict):
        raise ConfigError(
            f"{source}: [{option.name}] is a table; write the option as one line: {option.name} = ..."
        )
    if isinstance(value, (int, str)):
        return str(value)
    raise _bad(option, str(value), source, _wanted(option))


def _canonical_number(option: Option, text: str, source: str) -> str:
    try:
        value = (
            parse_size(text)
            if option.kind == "size"
            else int(text)
            if text.isascii() and text.isdigit()
            else None
        )
    except ValueError:
        value = None
    low, high = option.minimum or 0, option.maximum or 0
    if value is None or not low <= value <= high:
        raise _bad(option, text, source, _wanted(option))
    return str(value)


def _canonical_set(option: Option, text: str, source: str) -> str:
    words = _split(text)
    for word in words:
        if word not in option.words:
            raise _bad(
                option,
                text,
                source,
                f"{word!r} is not one of {_either(option.words)}{_close(word, option.words)}",
            )
    if len(set(words)) != len(words):
        raise _bad(option, text, source, "name each word once")
    return ",".join(words)


def _canonical_rules(option: Option, text: str, source: str) -> str:
    rules = [_canonical_rule(option, rule, source) for rule in _split(text)]
    if len(rules) > RULES_MAX:
        raise _bad(option, text, source, f"at most {RULES_MAX} rules fit; use networks and ranges of ports")
    return ",".join(rules)


def _canonical_rule(option: Option, rule: str, source: str) -> str:
    """[address[/prefix]][:port[-port]]; an IPv6 network stands in brackets when a port follows: [2001:db8::/32]:80."""
    ports: str | None = None
    if rule.startswith("["):
        network, bracket, rest = rule[1:].partition("]")
        if not bracket or not network or (rest and not rest.startswith(":")):
            raise _bad(
                option,
                rule,
                source,
                "write an IPv6 rule with a port as [address]:port or [address/prefix]:port",
            )
        ports = rest[1:] if rest else None
    elif rule.count(":") == 1:
        network, _, ports = rule.partition(":")
    else:
        network = rule
    if network and not _network_valid(network):
        raise _bad(option, rule, source, f"{network!r} is no IP address or network (names are not resolved)")
    if ports is not None and not _ports_valid(ports):
        raise _bad(option, rule, source, "a port is a number from 1 to 65535, a range is low-high")
    return rule


def _network_valid(text: str) -> bool:
    address, slash, prefix = text.partition("/")
    if "%" in address or (slash and not (prefix.isascii() and prefix.isdigit())):
        return False
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _ports_valid(text: str) -> bool:
    match = _PORTS.fullmatch(text)
    if match is None:
        return False
    low, high = int(match[1]), int(match[2] or match[1])
    return 1 <= low <= high <= 65535


def _find(key: str, table: OptionTable, source: str) -> Option:
    _known(key, table.options, source, "option")
    return table.options[key]


def _known(name: str, known: Mapping[str, object], source: str, what: str) -> None:
    if name not in known:
        raise ConfigError(
            f"{source}: there is no {what} {name!r}{_close(name, known)}; `odb options` lists what there is."
        )


def _bad(option: Option, value: str, source: str, remedy: str) -> ConfigError:
    return ConfigError(f"{source}: {option.name} = {value!r} is not possible: {remedy}.")


def _wanted(option: Option) -> str:
    match option.kind:
        case "size":
            return f"use a size from {option.minimum} to {option.maximum} bytes (suffixes K, M, G)"
        case "count":
            return f"use a number from {option.minimum} to {option.maximum}"
        case "ms":
            return f"use milliseconds from {option.minimum} to {option.maximum}"
        case "flag":
            return "use on or off"
        case "enum":
            return f"use {_either(option.words)}"
        case "set":
            return f"use a list of {_either(option.words)}"
        case "rules":
            return "use rules such as ':8080' or '10.0.0.0/24:80'"
        case _:
            return "use an absolute path"


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def _close(word: str, known: Iterable[str]) -> str:
    match = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""
