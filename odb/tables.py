"""Reads the tables that the C runtime and Python share: `options.def` and `stats.def`.

A row is one line `ODB_KIND(argument, ...)`; an argument is a C string, a word or a number. Comments are C comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_RUNTIME = Path(__file__).parent / "runtime"
OPTIONS_FILE = _RUNTIME / "options.def"
STATS_FILE = _RUNTIME / "stats.def"

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_ROW = re.compile(r"^ODB_([A-Z]+)\((.*)\)$")
_ARGUMENT = re.compile(r'\s*(?:((?:"(?:[^"\\]|\\.)*"\s*)+)|([^",\s]+))\s*(?:,|$)')
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that can be set.

    kind: enum, set, flag, size (bytes), count, ms (milliseconds), rules or path. `default` is canonical text, as it
    stands in the flat option file. `words` are the possible words of an enum or set; `minimum` and `maximum` bound
    the numeric kinds and are None for the others.
    """

    name: str
    kind: str
    default: str
    words: tuple[str, ...]
    minimum: int | None
    maximum: int | None
    doc: str


@dataclass(frozen=True, slots=True)
class Profile:
    """A named set of option values, as raw text."""

    name: str
    values: Mapping[str, str]
    doc: str


@dataclass(frozen=True, slots=True)
class OptionTable:
    """All options and profiles, in the order of the file."""

    options: Mapping[str, Option]
    profiles: Mapping[str, Profile]


class TableError(ValueError):
    """A table has a row that cannot be read: a fault of the source tree, not of the user."""


def parse_size(text: str) -> int:
    """Bytes from digits and an optional suffix K, M or G (powers of 1024, any case). Raises ValueError."""
    match = re.fullmatch(r"([0-9]+)([KMG]?)", text.strip().upper())
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _UNITS.get(match[2], 1)


@cache
def option_table(path: Path = OPTIONS_FILE) -> OptionTable:
    """The options and profiles of `path`. Raises TableError."""
    options: dict[str, Option] = {}
    profiles: dict[str, Profile] = {}
    for where, kind, arguments in _rows(path):
        if kind == "PROFILE":
            name, pairs, doc = _exactly(where, arguments, 3)
            profiles[name] = Profile(name, dict(_pair(where, pair) for pair in pairs.split()), doc)
        else:
            option = _option(where, kind, arguments)
            options[option.name] = option
    return OptionTable(options, profiles)


@cache
def stat_docs(path: Path = STATS_FILE) -> Mapping[str, str]:
    """Counter name -> what it counts, in the order of `path`. Raises TableError."""
    return dict(_exactly(where, arguments, 2) for where, _, arguments in _rows(path))


def _rows(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    text = _COMMENT.sub(lambda match: "\n" * match[0].count("\n"), path.read_text(encoding="utf-8"))
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _ROW.match(line.strip())
        where = f"{path.name}:{number}"
        if match is None:
            raise TableError(f"{where}: not a row of the table: {line.strip()!r}")
        yield where, match[1], _arguments(where, match[2])


def _arguments(where: str, text: str) -> list[str]:
    arguments: list[str] = []
    position = 0
    while position < len(text):
        match = _ARGUMENT.match(text, position)
        if match is None:
            raise TableError(f"{where}: cannot read the arguments from {text[position:]!r} on")
        quoted, bare = match.groups()
        if quoted is None:
            arguments.append(bare)
        else:
            arguments.append("".join(re.sub(r"\\(.)", r"\1", part) for part in _STRING.findall(quoted)))
        position = match.end()
    return arguments


def _exactly(where: str, arguments: list[str], count: int) -> list[str]:
    if len(arguments) != count:
        raise TableError(f"{where}: {count} arguments are expected, {len(arguments)} are there")
    return arguments


def _pair(where: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise TableError(f"{where}: {text!r} is not key=value")
    return key, value


def _option(where: str, kind: str, arguments: list[str]) -> Option:
    if kind in {"ENUM", "SET"}:
        name, default, words, doc = _exactly(where, arguments, 4)
        return Option(name, kind.lower(), default, tuple(words.split("|")), None, None, doc)
    if kind in {"FLAG", "RULES", "PATH"}:
        name, default, doc = _exactly(where, arguments, 3)
        return Option(name, kind.lower(), default, (), None, None, doc)
    if kind in {"SIZE", "COUNT", "MS"}:
        name, default, minimum, maximum, doc = _exactly(where, arguments, 5)
        value = str(parse_size(default))
        return Option(name, kind.lower(), value, (), parse_size(minimum), parse_size(maximum), doc)
    raise TableError(f"{where}: ODB_{kind} is not a kind of row")
