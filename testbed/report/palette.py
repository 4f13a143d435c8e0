"""The look of figures: colours that people with colour-blindness tell apart, in pairs for light and dark pages.

Figures are drawn in the light colours. In a page each of them is replaced by a style variable, which is what makes one
drawing fit both. Nothing is told by colour alone: every variant has a marker and a line style of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

INK = "#1f2329"
MUTED = "#59626d"
RULE = "#d5dae0"


@dataclass(frozen=True, slots=True)
class Look:
    """How one variant is drawn: colours on light and dark ground, marker and line style in matplotlib's terms."""

    colour: str
    dark: str
    marker: str
    line: Any


# Okabe and Ito's colours, the baseline in grey; lightened for dark ground.
_LOOKS = (
    Look("#4d545c", "#c3cad2", "o", "-"),
    Look("#0072b2", "#5cb8f0", "s", (0, (5, 1.5))),
    Look("#d55e00", "#ff9552", "^", (0, (1.2, 1.2))),
    Look("#009e73", "#3fd6a7", "D", (0, (5, 1.5, 1.2, 1.5))),
    Look("#c0629a", "#eda3cd", "v", (0, (8, 2))),
    Look("#9a6a00", "#f0c24f", "P", (0, (2.5, 1))),
    Look("#7048c6", "#b59cff", "X", (0, (8, 1.5, 1.2, 1.5, 1.2, 1.5))),
)

VARIABLES: Mapping[str, tuple[str, str]] = {
    "--ink": (INK, "#e7eaee"),
    "--muted": (MUTED, "#a3acb7"),
    "--rule": (RULE, "#3a414a"),
    **{f"--look-{number}": (look.colour, look.dark) for number, look in enumerate(_LOOKS)},
}
"""Style variables by name: the colour on light ground (as drawn) and on dark ground."""

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "axes.unicode_minus": False,
}


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """A look for every variant, in their order; beyond seven the looks repeat."""
    return {label: _LOOKS[number % len(_LOOKS)] for number, label in enumerate(labels)}
