"""Compares two samples of one metric, wherever in the matrix they come from.

A comparison has one baseline and compares within a cell; the original's findings also speak of one variant in two
cells. The same tests are used for both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy
from scipy import stats

from testbed.analysis import ALPHA, holm, ratio_interval, smallest_p, t_test

MARGIN = 0.05
"""Medians that differ by no more than this are called similar, proven or not, where nothing else is said."""

Direction = Literal["lower", "similar", "higher", "undecided"]
"""`undecided`: samples that differ in their medians and are too few to tell whether that means anything."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """A sample against a reference: medians, ratio of them with its 95 % interval, and the direction.

    `p` is the Mann-Whitney p, `hint` that of a t-test of the logarithms, both corrected once `judge` has seen all contrasts;
    `proven` tells whether there were enough repetitions for the first to decide at all. Where there were not, the second has to
    tell samples apart: two of two repetitions each lie apart by chance every third time.
    """

    n: int
    m: int
    median: float
    reference: float
    ratio: float
    low: float | None
    high: float | None
    apart: bool
    p: float
    hint: float
    margin: float = MARGIN
    direction: Direction = "similar"
    proven: bool = False


def contrast(
    sample: Sequence[float], base: Sequence[float], seed: int, margin: float = MARGIN
) -> Contrast | None:
    """The contrast of two samples, not yet judged; None when a sample is empty or the reference's median is 0."""
    if not sample or not base or numpy.median(base) == 0:
        return None
    median, reference = float(numpy.median(sample)), float(numpy.median(base))
    low, high = ratio_interval(sample, base, seed)
    p = float(stats.mannwhitneyu(sample, base, alternative="two-sided").pvalue)
    return Contrast(
        n=len(sample),
        m=len(base),
        median=median,
        reference=reference,
        ratio=median / reference,
        low=low,
        high=high,
        apart=min(sample) > max(base) or max(sample) < min(base),
        p=1.0 if math.isnan(p) else p,
        hint=t_test(sample, base),
        margin=margin,
    )


def judge(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """The contrasts with directions, their p values corrected with Holm's method over all of them."""
    corrected = holm([one.p for one in contrasts])
    hints = holm([one.hint for one in contrasts])
    return [
        _judged(replace(one, p=p, hint=hint), len(contrasts))
        for one, p, hint in zip(contrasts, corrected, hints, strict=True)
    ]


def _judged(one: Contrast, tests: int) -> Contrast:
    decidable = smallest_p(one.n, one.m) * tests <= ALPHA
    direction: Direction = "lower" if one.ratio < 1 else "higher"
    if abs(one.ratio - 1) <= one.margin or (decidable and one.p >= ALPHA):
        direction = "similar"
    elif not decidable and not (one.apart and one.hint < ALPHA):
        direction = "undecided"
    return replace(one, direction=direction, proven=decidable)
