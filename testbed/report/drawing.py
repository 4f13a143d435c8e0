"""Turns a matplotlib figure into what reports carry: SVG for a page, SVG and PDF files for a paper."""

import io
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from testbed.report.palette import STYLE, VARIABLES, Look

# It tells of fonts and cache directories, which is nothing to a reader of reports.
logging.getLogger("matplotlib").setLevel(logging.ERROR)


_REM_PER_INCH = 6.6
_LEAST_REM_PER_INCH = 4.6
"""How wide figures get in pages, so that letters of all of them have one size; narrower pages scroll them."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure that is done: `name` is fit for a file name and unique in its report, `alt` says in words what it
    shows; `inline` is SVG markup for a page, `svg` and `pdf` are files.
    """

    name: str
    title: str
    alt: str
    inline: str
    svg: bytes
    pdf: bytes


def draw(
    name: str,
    title: str,
    alt: str,
    size: tuple[float, float],
    grid: tuple[int, int],
    fill: Callable[[Figure, list[Axes]], None],
) -> Drawing:
    """Make a figure of `size` (inches) with `grid` (rows, columns) of axes, filled by `fill`, equal for equal content."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(*grid, squeeze=False)
        fill(figure, [one for row in axes for one in row])
        svg, pdf = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Title": title})
        figure.set_layout_engine("none")  # it has done its work
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None, "Title": title})
    text = _rounded(svg.getvalue().decode())
    return Drawing(name, title, alt, _inline(text, name, size[0]), text.encode(), pdf.getvalue())


def _rounded(svg: str) -> str:
    """SVG with coordinates of paths to a hundredth of a point, which nobody sees, instead of a millionth."""
    return re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)


def legend(figure: Figure, looks: Sequence[tuple[str, Look]], *, markers: bool = True) -> None:
    """A legend of variants above everything."""
    handles = [
        Line2D(
            [], [], color=look.colour, marker=look.marker if markers else "", linestyle=look.line, label=label
        )
        for label, look in looks
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(len(handles), 5), handlelength=3)


def _inline(svg: str, name: str, inches: float) -> str:
    """SVG for use inside a page: nothing but the drawing, ids of its own, colours that follow the page's."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<title>.*?</title>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    # Attributes do not take var(), style declarations do; matplotlib writes colours as declarations.
    for variable, (light, _) in VARIABLES.items():
        svg = re.sub(rf"{light}\b", f"var({variable})", svg, flags=re.IGNORECASE)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r">\s+<", "><", svg)
    widths = f"max-width: {inches * _REM_PER_INCH:.1f}rem; min-width: {inches * _LEAST_REM_PER_INCH:.1f}rem"
    opening = f'<svg aria-hidden="true" focusable="false" style="{widths}"'
    return svg.replace("<svg", opening, 1)
