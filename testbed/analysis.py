"""What the records of a run say: medians, intervals, ratios to the baseline and whether a difference is
noise.

Intervals are 95 % percentile bootstrap intervals of the median (of the ratio of medians). Differences are
tested with the two-sided Mann-Whitney test, corrected with Holm's method over every test of the comparison.
With so few repetitions that even the clearest samples could not pass, nothing is claimed; a t-test of the
logarithms, corrected in the same way, then tells what more repetitions would decide from what is noise already: see `Verdict`.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from warnings import catch_warnings, simplefilter

import numpy
from scipy import stats

from testbed.metrics import COUNTED_TIERS, COUNTERS, failed_requests
from testbed.record import Cell, Environment, Metric, Plan, Record, RunHeader, VariantUse, size_name

ALPHA = 0.05
HINT_ALPHA = 0.005
"""Below this the t-test calls a difference worth more repetitions; stricter, since it assumes more."""
MINIMAL_EFFECT = 0.01
"""Relative differences of medians below this are called noise, however regular they are."""
RESAMPLES = 2000
UNEVEN_PACE = 0.03
"""A difference of the cores' pace between a variant and the baseline above which it is told."""
MOST_PLACES = 6
"""So many places of a disturbance are named."""
UNTESTED = frozenset(
    {
        "errors",
        "client.cpu_share",
        "pace_ns",
        *(f"{tier}.{name}" for tier in COUNTED_TIERS for name in COUNTERS),
    }
)
"""Metrics that are shown but not tested: they describe the quality of the measurement, or what the library did."""
COUNTED = frozenset(f"{tier}.calls" for tier in COUNTED_TIERS)
"""Metrics that have a ratio to the baseline but are not tested: they are counted once, and hardly vary."""

Verdict = Literal["baseline", "noise", "undecided", "lower", "higher", "absent"]
"""`lower`, `higher`: proven to differ from the baseline.  `undecided`: too few repetitions to prove a difference that there
seems to be, or to tell anything.  `noise`: no difference was found.  `absent`: there is nothing to compare."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """One metric of one cell and variant over its repetitions; `reason` says why `median` is None."""

    unit: str
    n: int
    median: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    p: float | None = None
    verdict: Verdict = "absent"
    reason: str | None = None
    decidable: bool = True
    """Whether there are repetitions enough for a verdict; without, `noise` means that nothing could be told."""


@dataclass(frozen=True, slots=True)
class Row:
    """One cell in one variant.  `n` counts repetitions that did not fail; `valid` holds if all of them are
    usable.
    """

    cell: Cell
    variant: str
    n: int
    valid: bool
    remarks: tuple[str, ...]
    metrics: Mapping[str, Statistic]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A whole run compared with its baseline.  `errors` counts requests that failed in any repetition; `agent_share` is
    the most of a core that the sampling on any host took in any of them.
    """

    run: str
    baseline: str
    variants: tuple[VariantUse, ...]
    environment: Environment
    plan: Plan
    rows: tuple[Row, ...]
    failures: tuple[str, ...]
    errors: int
    warnings: tuple[str, ...]
    agent_share: float | None = None


def compare(header: RunHeader, records: Sequence[Record], labels: Sequence[str] | None = None) -> Comparison:
    """Compare the variants `labels` (all of the run when None) with the first of them."""
    variants = _chosen(header.plan.variants, labels)
    cells = _cells(header.plan, records)
    baseline = variants[0].label
    rows: list[Row] = []
    for cell in cells:
        of_cell = {
            variant.label: [one for one in records if one.cell == cell and one.variant.label == variant.label]
            for variant in variants
        }
        planned = {variant.label for variant in header.plan.variants_of(cell)}
        rows += [
            _row(cell, variant.label, of_cell, baseline, header.plan.seed)
            for variant in variants
            if variant.label in planned or of_cell[variant.label]
        ]
    rows, undecidable = _judge(rows, baseline, of=_samples_by_row(rows, records))
    shown = [one for one in records if one.variant.label in {variant.label for variant in variants}]
    failures = tuple(f"{_title(one)}: {one.failure}" for one in shown if one.failure is not None)
    return Comparison(
        run=header.run,
        baseline=baseline,
        variants=variants,
        environment=header.environment,
        plan=header.plan,
        rows=tuple(rows),
        failures=failures,
        errors=sum(one.load.errors for one in shown if one.load is not None),
        warnings=_warnings(rows, undecidable, shown),
        agent_share=max(
            (
                tier.agent_cpu_seconds / tier.seconds
                for one in shown
                for tier in one.tiers
                if tier.seconds > 0
            ),
            default=None,
        ),
    )


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down correction; keeps the order of `values`."""
    order = sorted(range(len(values)), key=values.__getitem__)
    corrected = [1.0] * len(values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, values[index] * (len(values) - rank)))
        corrected[index] = highest
    return corrected


def median_interval(sample: Sequence[float], seed: int) -> tuple[float, float]:
    """The 95 % bootstrap interval of the median; a single value is its own interval."""
    if len(sample) < 2:
        return sample[0], sample[0]
    return _bootstrap((sample,), numpy.median, seed)


def ratio_interval(
    sample: Sequence[float], base: Sequence[float], seed: int
) -> tuple[float | None, float | None]:
    """The 95 % bootstrap interval of median(sample)/median(base); None where a median may be 0 or n is 1."""
    if min(base) <= 0 or len(base) < 2 or len(sample) < 2:
        return None, None
    return _bootstrap((sample, base), _ratio_of_medians, seed)


def smallest_p(n: int, m: int) -> float:
    """The smallest p value the exact two-sided Mann-Whitney test can give for samples of `n` and `m`."""
    return min(1.0, 2 / math.comb(n + m, n))


def _ratio_of_medians(sample: Any, base: Any, axis: int = -1) -> Any:
    return numpy.median(sample, axis=axis) / numpy.median(base, axis=axis)


def _bootstrap(samples: tuple[Sequence[float], ...], statistic: Any, seed: int) -> tuple[float, float]:
    interval = stats.bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=True,
        rng=numpy.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _chosen(variants: Sequence[VariantUse], labels: Sequence[str] | None) -> tuple[VariantUse, ...]:
    by_label = {variant.label: variant for variant in variants}
    return tuple(variants) if not labels else tuple(by_label[label] for label in labels)


def _cells(plan: Plan, records: Sequence[Record]) -> list[Cell]:
    """The cells of the plan, then those that only records know, each once."""
    return list(dict.fromkeys([*plan.cells, *(record.cell for record in records)]))


def _title(record: Record) -> str:
    return f"{record.cell.slug} {record.variant.label} repetition {record.repetition}"


def _usable(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.failure is None]


def _values(records: Sequence[Record], name: str) -> list[float]:
    found = (record.metrics[name].value for record in _usable(records) if name in record.metrics)
    return [value for value in found if value is not None]


def _samples_by_row(
    rows: Sequence[Row], records: Sequence[Record]
) -> dict[tuple[Cell, str, str], list[float]]:
    """The values of every metric, keyed by cell, variant and metric name."""
    return {
        (row.cell, row.variant, name): _values(
            [one for one in records if one.cell == row.cell and one.variant.label == row.variant], name
        )
        for row in rows
        for name in row.metrics
    }


def _row(cell: Cell, label: str, of_cell: Mapping[str, Sequence[Record]], baseline: str, seed: int) -> Row:
    mine = of_cell[label]
    usable = _usable(mine)
    everywhere = [record for records in of_cell.values() for record in _usable(records)]
    names = dict.fromkeys(name for record in everywhere for name in record.metrics)
    metrics = {
        name: _statistic(name, mine, None if label == baseline else of_cell[baseline], seed, everywhere)
        for name in names
    }
    remarks = list(dict.fromkeys(remark for record in usable for remark in record.remarks))
    remarks += [record.failure for record in mine if record.failure is not None]
    valid = bool(usable) and len(usable) == len(mine) and all(record.valid for record in usable)
    return Row(cell, label, len(usable), valid, tuple(remarks), metrics)


def _statistic(
    name: str, mine: Sequence[Record], base: Sequence[Record] | None, seed: int, everywhere: Sequence[Record]
) -> Statistic:
    """Median, interval and ratio; `base` is None for the baseline itself.  Verdicts come later, for all at
    once.
    """
    unit = next(record.metrics[name].unit for record in everywhere if name in record.metrics)
    sample = _values(mine, name)
    if not sample:
        return Statistic(unit, 0, reason=_why_absent(mine, name))
    median = float(numpy.median(sample))
    low, high = median_interval(sample, seed)
    result = Statistic(unit, len(sample), median, low, high)
    if base is None:
        return replace(result, ratio=1.0, ratio_low=1.0, ratio_high=1.0, verdict="baseline")
    base_sample = _values(base, name)
    base_median = float(numpy.median(base_sample)) if base_sample else 0.0
    if base_median == 0:
        return result
    ratio_low, ratio_high = ratio_interval(sample, base_sample, seed)
    return replace(result, ratio=median / base_median, ratio_low=ratio_low, ratio_high=ratio_high)


def _why_absent(records: Sequence[Record], name: str) -> str:
    metrics: list[Metric] = [record.metrics[name] for record in _usable(records) if name in record.metrics]
    reasons = [metric.reason for metric in metrics if metric.reason]
    failed = [record.failure for record in records if record.failure is not None]
    return next(iter(reasons + failed), "not measured yet")


def _judge(
    rows: Sequence[Row], baseline: str, of: Mapping[tuple[Cell, str, str], list[float]]
) -> tuple[list[Row], bool]:
    """Give every ratio its corrected p and its verdict; the flag tells that n was too small to decide
    anywhere.
    """
    tests = [
        (row.cell, row.variant, name)
        for row in rows
        for name, statistic in row.metrics.items()
        if row.variant != baseline and statistic.ratio is not None and name not in UNTESTED | COUNTED
    ]
    pairs = {key: (of[key], of[(key[0], baseline, key[2])]) for key in tests}
    corrected = dict(zip(tests, holm([_mann_whitney(*pairs[key]) for key in tests]), strict=True))
    undecidable = {key for key in tests if smallest_p(*map(len, pairs[key])) * len(tests) > ALPHA}
    hints = dict(zip(tests, holm([t_test(*pairs[key]) for key in tests]), strict=True))
    judged: list[Row] = []
    for row in rows:
        metrics = dict(row.metrics)
        for name, statistic in row.metrics.items():
            key = (row.cell, row.variant, name)
            if key in corrected:
                hint = hints[key] if key in undecidable else None
                verdict = _verdict(statistic, *pairs[key], corrected[key], hint)
                metrics[name] = replace(
                    statistic, p=corrected[key], verdict=verdict, decidable=key not in undecidable
                )
        judged.append(replace(row, metrics=metrics))
    return judged, bool(undecidable)


def _mann_whitney(sample: Sequence[float], base: Sequence[float]) -> float:
    p = float(stats.mannwhitneyu(sample, base, alternative="two-sided").pvalue)
    return 1.0 if math.isnan(p) else p


def t_test(sample: Sequence[float], base: Sequence[float]) -> float:
    """The p value of Student's t-test of the logarithms; 1 where samples are too small or not positive."""
    if min(len(sample), len(base)) < 2 or min(*sample, *base) <= 0:
        return 1.0
    if numpy.ptp(sample) == 0 and numpy.ptp(base) == 0:
        return 1.0 if sample[0] == base[0] else 0.0
    with catch_warnings():
        # Counts such as bytes may hardly vary; what rounding leaves of their variance is good enough to tell them apart.
        simplefilter("ignore", RuntimeWarning)
        p = float(stats.ttest_ind(numpy.log(sample), numpy.log(base)).pvalue)
    return 1.0 if math.isnan(p) else p


def _verdict(
    statistic: Statistic, sample: Sequence[float], base: Sequence[float], p: float, hint: float | None
) -> Verdict:
    """`hint` is the corrected p of the t-test where the rank test could not prove anything, None where it could."""
    ratio = statistic.ratio
    if ratio is None or abs(ratio - 1) < MINIMAL_EFFECT:
        return "noise"
    if hint is not None:
        return "undecided" if hint < HINT_ALPHA or min(len(sample), len(base)) < 2 else "noise"
    if p >= ALPHA:
        return "noise"
    return "higher" if ratio > 1 else "lower"


def _warnings(rows: Sequence[Row], undecidable: bool, shown: Sequence[Record]) -> tuple[str, ...]:
    warnings: list[str] = []
    if undecidable:
        least = min(row.n for row in rows)
        tests = sum(statistic.p is not None for row in rows for statistic in row.metrics.values())
        needed = next(n for n in range(2, 64) if smallest_p(n, n) * tests <= ALPHA)
        warnings.append(
            f"n = {least} is too small to prove a difference among {tests} tests; n >= {needed} would be needed: "
            f"--resume with --repeat {needed} adds the repetitions that are missing"
        )
    warnings += _uneven(rows)
    places: dict[str, list[str]] = {}
    for record in shown:
        load = record.load
        failed = "" if load is None else failed_requests(load.errors, load.requests, load.error_kinds)
        for remark in record.remarks:
            if remark != failed:
                places.setdefault(remark, []).append(_place(record))
    broken = [record for record in shown if record.load is not None and record.load.errors]
    if broken:
        places.setdefault(_all_failed(shown), []).extend(map(_place, broken))
    for remark, where in places.items():
        warnings.append(f"{remark}; {len(where)} of {len(shown)} measurements ({_distinct(where)})")
    return tuple(warnings)


def _uneven(rows: Sequence[Row]) -> list[str]:
    """Whether the cores were faster under some variants than under the baseline: a line at most."""
    measured = [(row, row.metrics["pace_ns"]) for row in rows if "pace_ns" in row.metrics]
    paces = [(row, one.ratio) for row, one in measured if one.verdict != "baseline" and one.ratio is not None]
    uneven = [(row, ratio) for row, ratio in paces if abs(ratio - 1) > UNEVEN_PACE]
    if not uneven:
        return []
    row, ratio = max(uneven, key=lambda one: abs(one[1] - 1))
    return [
        f"the cores were {abs(ratio - 1):.0%} {'slower' if ratio > 1 else 'faster'} under {row.variant} than under "
        f"the baseline at {size_name(row.cell.payload)}, and differed by more than {UNEVEN_PACE:.0%} in {len(uneven)} of "
        f"{len(paces)} comparisons: read CPU at equal pace; throughput and latency contain the difference"
    ]


def _all_failed(records: Sequence[Record]) -> str:
    """How many requests failed in all."""
    loads = [record.load for record in records if record.load is not None]
    kinds: Counter[str] = Counter()
    for load in loads:
        kinds.update(load.error_kinds)
    return failed_requests(sum(load.errors for load in loads), sum(load.requests for load in loads), kinds)


def _place(record: Record) -> str:
    """Cell and variant of a record, as warnings name them."""
    cell = record.cell
    more = [
        None if cell.align else "unaligned",
        f"{cell.tiers} tiers" if cell.tiers > 1 else None,
        cell.load,
    ]
    return " ".join([size_name(cell.payload), *filter(None, more), record.variant.label])


def _distinct(places: Sequence[str]) -> str:
    """Each place once, the first few of many."""
    names = list(dict.fromkeys(places))
    rest = len(names) - MOST_PLACES
    return ", ".join(names[:MOST_PLACES]) + (f" and {rest} more" if rest > 0 else "")
