"""Arranges the cells of a comparison as series that a figure can show: cells that differ in one thing only.

Most cells form series over their payload. What is left alone by that (one payload through chains of several lengths, say)
forms series over whatever else it differs in from other cells, which may then be part of two series.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.record import Cell, size_name

_WORDS = {
    ("align", True): "aligned",
    ("align", False): "unaligned",
    ("buffering", True): "proxy_buffering on",
    ("buffering", False): "proxy_buffering off",
    ("sendfile", True): "sendfile on",
    ("sendfile", False): "sendfile off",
    ("tiers", 1): "1 intermediary",
}
_AXES = ("payload", "tiers", "buffer_size")
"""What figures have a series over, the preferred one first; all else is told apart by settings."""
_TITLES = {"tiers": "intermediaries", "buffer_size": "buffer size", "buffering": "proxy_buffering"}
_FACTORS = {"k": 1024, "m": 1024**2, "g": 1024**3}


@dataclass(frozen=True, slots=True)
class Setting:
    """Cells that differ in `axis` (a field of theirs) only, in ascending order of it.

    `name` says what this setting has and other cells of the report have not, `slug` is a form of it fit for file names;
    both are empty when there is only one setting.
    """

    name: str
    slug: str
    axis: str
    cells: tuple[Cell, ...]

    @property
    def axis_title(self) -> str:
        """What the axis is called."""
        return _TITLES.get(self.axis, self.axis.replace("_", " "))

    def point(self, cell: Cell) -> str:
        """What a cell of the setting is called at its axis."""
        value = getattr(cell, self.axis)
        if self.axis == "payload":
            return size_name(value)
        if isinstance(value, bool):
            return "on" if value else "off"
        return "default" if value is None else str(value)

    def call(self, cell: Cell) -> str:
        """The same where no axis stands beside it."""
        return word(self.axis, getattr(cell, self.axis))


def settings(cells: Sequence[Cell]) -> tuple[Setting, ...]:
    """The settings of `cells`, in order of appearance; every cell is in one of them at least."""
    groups = list(dict.fromkeys(_groups(list(dict.fromkeys(cells)))))
    varying = [name for name in _fields() if _values(cells, name) > 1]
    made = []
    for number, (axis, members) in enumerate(groups, start=1):
        words = [word(name, getattr(members[0], name)) for name in varying if name != axis]
        several = len(groups) > 1
        made.append(
            Setting(", ".join(words) if several else "", f"s{number}" if several else "", axis, members)
        )
    return tuple(made)


def common(cells: Sequence[Cell]) -> str:
    """What all cells have in common, in words: `aligned, 1 intermediary, buffers of 16k, ...`."""
    shared = [name for name in _fields() if name != "payload" and cells and _values(cells, name) == 1]
    return ", ".join(
        word(name, getattr(cells[0], name)) for name in shared if getattr(cells[0], name) is not None
    )


def word(name: str, value: object) -> str:
    """A field of a cell in words."""
    if isinstance(value, bool | int) and (name, value) in _WORDS:
        return _WORDS[name, value]
    if name == "payload" and isinstance(value, int):
        return size_name(value)
    if name == "tiers":
        return f"{value} intermediaries"
    if name == "buffer_size":
        return f"buffers of {value}"
    if name == "touch":
        return "untouched" if value == "none" else f"touched by {value}"
    return f"{name.replace('_', ' ')} {value if value is not None else 'default'}"


def _groups(cells: Sequence[Cell]) -> Iterator[tuple[str, tuple[Cell, ...]]]:
    """Axis and cells of every setting."""
    for cell in cells:
        series = {axis: _series(cell, axis, cells) for axis in _AXES}
        axis = max(_AXES, key=lambda one: (one == "payload" and len(series[one]) > 1, len(series[one])))
        yield axis, series[axis]


def _series(cell: Cell, axis: str, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The cells that differ from `cell` in `axis` only, itself included."""
    same = [other for other in cells if _without(other, axis) == _without(cell, axis)]
    return tuple(sorted(same, key=lambda other: _order(getattr(other, axis))))


def _without(cell: Cell, axis: str) -> tuple[Any, ...]:
    return tuple(getattr(cell, name) for name in _fields() if name != axis)


def _order(value: object) -> tuple[float, str]:
    """Numbers by size, sizes such as 16k too, everything else by its text."""
    text = str(value)
    if isinstance(value, int | float):
        return float(value), ""
    if text[:-1].isdigit() and text[-1:].lower() in _FACTORS:
        return float(int(text[:-1]) * _FACTORS[text[-1:].lower()]), ""
    return 0.0, text


def _fields() -> list[str]:
    return [item.name for item in dataclasses.fields(Cell)]


def _values(cells: Sequence[Cell], name: str) -> int:
    return len({getattr(cell, name) for cell in cells})
