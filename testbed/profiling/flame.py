"""Draws folded stacks as a flame graph: one SVG file that needs nothing else, with a tooltip for every frame.

A box is a function, as wide as its share of the samples, on top of the one that called it.  Neighbours are in the order of
their names: the horizontal axis is no time.
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape

from testbed.profiling.stacks import KINDS, Frame, Kind, Stack

_WIDTH = 1200.0
_MARGIN = 10.0
_LINE = 17.0
_HEAD = 62.0
_NARROWEST = 0.4
"""Boxes narrower than this many pixels are not drawn."""
_CHARACTER = 6.7
"""How wide a character of the font is, in pixels."""

# Hue, saturation and lightness; the lightness of a box varies a little with its name, so that neighbours can be told apart.
_COLOURS: Mapping[Kind, tuple[int, int, int]] = {
    "kernel": (24, 75, 70),
    "odb": (208, 70, 70),
    "program": (48, 80, 68),
    "library": (110, 30, 72),
    "unknown": (0, 0, 80),
}
_NAMES: Mapping[Kind, str] = {
    "kernel": "kernel",
    "odb": "libodb",
    "program": "server",
    "library": "other libraries",
    "unknown": "unknown",
}


@dataclass(slots=True)
class _Node:
    """A function as called by one chain of callers: its samples and those of what it called."""

    count: int = 0
    children: dict[Frame, "_Node"] = field(default_factory=dict)


def draw(stacks: Mapping[Stack, int], title: str) -> str:
    """The SVG text of the flame graph.  ValueError when there are no samples."""
    root = _tree(stacks)
    if not root.count:
        raise ValueError("there are no samples to draw")
    height = _HEAD + _LINE * (_depth(root) + 1) + _MARGIN
    scale = (_WIDTH - 2 * _MARGIN) / root.count
    boxes = _boxes(root, 0, 0, scale, height - _MARGIN - _LINE, root.count)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {height:g}" width="{_WIDTH:g}" '
            f'height="{height:g}" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="11">',
            "<style>g:hover rect { stroke: #000; stroke-width: 1 } text { pointer-events: none }</style>",
            f'<rect width="{_WIDTH:g}" height="{height:g}" fill="#ffffff"/>',
            f'<text x="{_MARGIN:g}" y="22" font-size="15">{escape(title)}</text>',
            *_legend(stacks, root.count),
            *boxes,
            "</svg>",
            "",
        ]
    )


def _tree(stacks: Mapping[Stack, int]) -> _Node:
    root = _Node()
    for stack, count in stacks.items():
        node = root
        node.count += count
        for frame in stack:
            node = node.children.setdefault(frame, _Node())
            node.count += count
    return root


def _depth(node: _Node) -> int:
    return max((1 + _depth(child) for child in node.children.values()), default=0)


def _boxes(node: _Node, before: int, depth: int, scale: float, floor: float, total: int) -> Iterator[str]:
    """The boxes above a node; `before` is how many samples stand to its left."""
    for frame, child in sorted(node.children.items()):
        width = child.count * scale
        if width >= _NARROWEST:
            left, top = _MARGIN + before * scale, floor - depth * _LINE
            yield _box(frame, child.count, left, top, width, total)
            yield from _boxes(child, before, depth + 1, scale, floor, total)
        before += child.count


def _box(frame: Frame, count: int, left: float, top: float, width: float, total: int) -> str:
    share = f"{frame.name} ({_NAMES[frame.kind]}): {count:,} samples, {count / total:.1%}"
    room = int((width - 5) / _CHARACTER)
    shown = frame.name if len(frame.name) <= room else f"{frame.name[: room - 2]}.." if room >= 5 else ""
    text = f'<text x="{left + 3:.1f}" y="{top + 12:.1f}">{escape(shown)}</text>' if shown else ""
    return (
        f"<g><title>{escape(share)}</title>"
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(width - 0.5, 0.3):.1f}" height="{_LINE - 1:g}" rx="1.5" '
        f'fill="{_colour(frame)}"/>{text}</g>'
    )


def _colour(frame: Frame) -> str:
    hue, saturation, lightness = _COLOURS[frame.kind]
    return f"hsl({hue}, {saturation}%, {lightness + zlib.crc32(frame.name.encode()) % 13 - 4}%)"


def _legend(stacks: Mapping[Stack, int], total: int) -> Iterator[str]:
    """Whose code was running, with its share of all samples."""
    running = dict.fromkeys(KINDS, 0)
    for stack, count in stacks.items():
        running[stack[-1].kind] += count
    left = _MARGIN
    for kind, count in running.items():
        if not count:
            continue
        hue, saturation, lightness = _COLOURS[kind]
        words = f"{_NAMES[kind]} {count / total:.1%}"
        yield f'<rect x="{left:g}" y="34" width="12" height="12" fill="hsl({hue}, {saturation}%, {lightness}%)"/>'
        yield f'<text x="{left + 17:g}" y="44">{escape(words)}</text>'
        left += 17 + _CHARACTER * len(words) + 22
    yield f'<text x="{_WIDTH - _MARGIN:g}" y="44" text-anchor="end">{total:,} samples of running code</text>'
