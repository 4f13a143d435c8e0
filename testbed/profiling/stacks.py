"""Folds the stacks that `perf script` writes: equal stacks become one with a count.  Pure: text in, stacks out."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["kernel", "odb", "program", "library", "unknown"]
KINDS: tuple[Kind, ...] = ("kernel", "odb", "program", "library", "unknown")

_FRAME = re.compile(r"\s+[0-9a-f]+\s+(.*?)\s+\(([^()]*(?:\([^()]*\))?)\)\s*")
_LIBRARY = re.compile(r".*\.so[.0-9]*( \(deleted\))?")
_NO_KERNEL = frozenset({"[unknown]", "[heap]", "[stack]", "[vdso]", "[vsyscall]", "//anon"})


@dataclass(frozen=True, slots=True, order=True)
class Frame:
    """One function of a stack, and whose it is."""

    name: str
    kind: Kind


Stack = tuple[Frame, ...]
"""From the outermost function to the one that was running."""


def parse(lines: Iterable[str]) -> Counter[Stack]:
    """The stacks in the output of `perf script -F comm,ip,sym,dso` with how often each was seen.

    The program's name is the outermost frame.  Samples without any frame are the program's name alone.
    """
    found: Counter[Stack] = Counter()
    comm, frames = "", list[Frame]()

    def end() -> None:
        if comm:
            found[Frame(comm, "program"), *reversed(frames)] += 1

    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        if not line[0].isspace():
            end()
            comm, frames = line.strip(), []
            continue
        match = _FRAME.fullmatch(line.rstrip("\n"))
        if match is not None:
            frames.append(_frame(match[1], match[2]))
    end()
    return found


def folded(stacks: Mapping[Stack, int]) -> Iterator[str]:
    """A line per stack, `outer;inner;innermost count`, as other tools for flame graphs read them; `_[k]` marks the kernel."""
    for stack, count in sorted(stacks.items()):
        names = (f"{one.name}_[k]" if one.kind == "kernel" else one.name for one in stack)
        yield f"{';'.join(name.replace(';', ':') for name in names)} {count}"


def by_kind(stacks: Mapping[Stack, int]) -> dict[Kind, int]:
    """In whose code the samples were, by the innermost frame."""
    found: dict[Kind, int] = dict.fromkeys(KINDS, 0)
    for stack, count in stacks.items():
        found[stack[-1].kind] += count
    return found


def busiest(stacks: Mapping[Stack, int], most: int) -> list[tuple[Frame, int]]:
    """The functions that were running in most samples, `most` of them at most."""
    found: Counter[Frame] = Counter()
    for stack, count in stacks.items():
        found[stack[-1]] += count
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))[:most]


def _frame(symbol: str, place: str) -> Frame:
    kind = _kind(place)
    name = symbol.partition("@@")[0].partition("+0x")[0]
    if name in ("", "[unknown]"):
        name = f"[{place.removesuffix(' (deleted)').rpartition('/')[2].strip('[]')}]"
    return Frame(name, kind)


def _kind(place: str) -> Kind:
    if place in _NO_KERNEL or not place:
        return "library" if place == "[vdso]" else "unknown"
    if place.startswith("["):
        return "kernel"
    if place.removesuffix(" (deleted)").endswith("/libodb.so"):
        return "odb"
    if place.removesuffix(" (deleted)").endswith(".ko"):
        return "kernel"
    return "library" if _LIBRARY.fullmatch(place) else "program"
