"""Groups the cells of a comparison by everything but their payload, and names what tells the groups apart."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.record import Cell

_WORDS = {
    ("align", True): "aligned",
    ("align", False): "unaligned",
    ("buffering", True): "proxy_buffering on",
    ("buffering", False): "proxy_buffering off",
    ("sendfile", True): "sendfile on",
    ("sendfile", False): "sendfile off",
    ("tiers", 1): "1 intermediary",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """Cells that differ in their payload only, in ascending order of it.

    `name` says in which way this setting differs from the other ones of the report, `slug` says it in a form fit for
    file names; both are empty when there is only one.
    """

    name: str
    slug: str
    cells: tuple[Cell, ...]


def settings(cells: Sequence[Cell]) -> tuple[Setting, ...]:
    """The settings of `cells`, in order of appearance."""
    groups: dict[Cell, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(dataclasses.replace(cell, payload=0), []).append(cell)
    varying = [item.name for item in dataclasses.fields(Cell) if _values(list(groups), item.name) > 1]
    made = []
    for number, (key, members) in enumerate(groups.items(), start=1):
        words = [_word(name, getattr(key, name)) for name in varying]
        ordered = tuple(sorted(members, key=lambda cell: cell.payload))
        made.append(Setting(", ".join(words), f"s{number}" if varying else "", ordered))
    return tuple(made)


def common(cells: Sequence[Cell]) -> str:
    """What all cells have in common, in words: `aligned, 1 intermediary, buffers 16k, ...`."""
    fields = [item.name for item in dataclasses.fields(Cell) if item.name != "payload"]
    shared = [name for name in fields if cells and _values(cells, name) == 1]
    return ", ".join(
        _word(name, getattr(cells[0], name)) for name in shared if getattr(cells[0], name) is not None
    )


def _values(cells: Sequence[Cell], name: str) -> int:
    return len({getattr(cell, name) for cell in cells})


def _word(name: str, value: object) -> str:
    if isinstance(value, bool | int) and (name, value) in _WORDS:
        return _WORDS[name, value]
    if name == "tiers":
        return f"{value} intermediaries"
    if name == "buffer_size":
        return f"buffers of {value}"
    return f"{name.replace('_', ' ')} {value if value is not None else 'default'}"
