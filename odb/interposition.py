"""Reads the tables of intercepted and passed calls and writes docs/INTERPOSITION.md from them: `python -m odb.interposition`.

The tables are C source (`runtime/hooks/hooks.def`) and text (`runtime/hooks/passed.def`): rows `ODB_KIND(...)` that may go
over several lines. Only the strings and the words that matter here are read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from odb.tables import TableError

_HOOKS = Path(__file__).parent / "runtime" / "hooks"
HOOKS_FILE = _HOOKS / "hooks.def"
PASSED_FILE = _HOOKS / "passed.def"

_STRING = r'(?:"(?:[^"\\]|\\.)*"\s*)+'
_POLICY = re.compile(rf"^ODB_POLICY\(\s*(\w+),\s*({_STRING}),\s*({_STRING}),\s*({_STRING})\)$", re.MULTILINE)
_HOOK = re.compile(r"^ODB_HOOK\(([^,]*?),\s*(\w+),\s*\((.*)\),\s*\(.*\),\s*(\w+)\)$", re.MULTILINE)
_PASSED = re.compile(rf"^ODB_PASSED\(\s*(\w+),\s*({_STRING}),\s*({_STRING})\)$", re.MULTILINE)
_SECTION = re.compile(r"^/\* (.*) \*/$", re.MULTILINE)
_ROWS = re.compile(r"^ODB_[A-Z]+\(", re.MULTILINE)

_HEAD = """\
# Interposition

This file is written by `make docs` from `hooks.def` and `passed.def` in `odb/runtime/hooks`; a test holds it to them.

The library exports the functions of the first tables in libc's place. A call on a descriptor that is no stream, with memory in
which nothing is guarded, goes to libc after a look at two words of memory. What happens otherwise is the call's *policy*; its
*fallback* is what happens to everything else. Whenever the library is unsure, real bytes are sent and the reason is counted.

Tests are files `tests/preload/test_NAME.py`. In `rows` every row has an intercepted case (on a stream, or with a window) and a
bypassed one (on a plain descriptor, with plain memory), each compared with the same program without the library.

Structures, arrays and addresses that are handed to these calls may lie in windows themselves (`structures`). Memory that is not
there is refused with EFAULT wherever the library copies in the kernel's stead (`absent`).

Not seen are calls that do not go through libc's dynamic symbols: programs without libc (Go) or with a static one are classic
peers, and so is what code does with system call instructions of its own.
"""

_PASSED_HEAD = """\
## Not intercepted

What programs import besides, and why it needs nothing. `*` stands for anything. A test fails when nginx, HAProxy, curl, Python
or redis import a function of libc that is in neither table.
"""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the library does with some calls. `tests` are names of test files, without `test_` and `.py`."""

    name: str
    section: str
    what: str
    fallback: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hook:
    """One intercepted function."""

    name: str
    policy: Policy


@dataclass(frozen=True, slots=True)
class Passed:
    """Functions that need no hook; `names` are patterns in which `*` stands for anything."""

    group: str
    reason: str
    names: tuple[str, ...]

    def covers(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.names)


def hooks(path: Path = HOOKS_FILE) -> tuple[Hook, ...]:
    """The intercepted functions in the order of the table. Raises TableError."""
    text = path.read_text(encoding="utf-8")
    found: list[Hook] = []
    policies: dict[str, Policy] = {}
    section = ""
    count = 0
    for kind, match in _in_order(text):
        if kind == "section":
            section = match[1]
            continue
        count += 1
        if kind == "policy":
            name, what, fallback, tests = match[1], *(_text(match[i]) for i in (2, 3, 4))
            policies[name] = Policy(name, section, what, fallback, tuple(tests.split()))
        elif match[4] not in policies:
            raise TableError(f"{path.name}: {match[2]} has the policy {match[4]}, which is not in the table")
        else:
            found.append(Hook(match[2], policies[match[4]]))
    if count != len(_ROWS.findall(text)):
        raise TableError(f"{path.name}: some of the rows cannot be read")
    return tuple(found)


def passed(path: Path = PASSED_FILE) -> tuple[Passed, ...]:
    """The groups of functions that are not intercepted. Raises TableError."""
    text = path.read_text(encoding="utf-8")
    found = tuple(
        Passed(match[1], _text(match[2]), tuple(_text(match[3]).split())) for match in _PASSED.finditer(text)
    )
    if len(found) != len(_ROWS.findall(text)):
        raise TableError(f"{path.name}: some of the rows cannot be read")
    return found


def markdown() -> str:
    """The whole document."""
    table = hooks()
    parts = [_HEAD]
    for section in dict.fromkeys(hook.policy.section for hook in table):
        parts += [f"## {section[:1].upper()}{section[1:]}\n", "| call | policy | fallback | tests |"]
        parts.append("| --- | --- | --- | --- |")
        for hook in table:
            if hook.policy.section != section:
                continue
            tests = ", ".join(hook.policy.tests)
            parts.append(f"| `{hook.name}` | {hook.policy.what} | {hook.policy.fallback} | {tests} |")
        parts.append("")
    parts += [_PASSED_HEAD, "| group | reason | calls |", "| --- | --- | --- |"]
    for group in passed():
        names = " ".join(f"`{name}`" for name in group.names)
        parts.append(f"| {group.group.replace('_', ' ')} | {group.reason} | {names} |")
    return "\n".join(parts) + "\n"


def _in_order(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    kinds = (("section", _SECTION), ("policy", _POLICY), ("hook", _HOOK))
    found = [(kind, match) for kind, pattern in kinds for match in pattern.finditer(text)]
    return iter(sorted(found, key=lambda entry: entry[1].start()))


def _text(literal: str) -> str:
    parts = re.findall(r'"((?:[^"\\]|\\.)*)"', literal)
    return "".join(re.sub(r"\\(.)", r"\1", part) for part in parts)


if __name__ == "__main__":
    sys.stdout.write(markdown())
