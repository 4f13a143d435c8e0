"""The report as a page: whole, escaped, without anything from elsewhere, and every figure in words and numbers too."""

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from testbed.analysis import compare
from testbed.record import Cell, Metric
from testbed.report.document import Report, make
from testbed.report.palette import VARIABLES
from testbed.report.quantities import number
from testbed.report.settings import settings
from testbed.report.tables import foreign_shares
from testbed.report.timeline import CoreTimeline
from testbed.report.verdicts import load_text
from tests.unit import report_samples as samples
from tests.unit.record_samples import use

pytestmark = pytest.mark.unit

VOID = {"meta", "link", "br", "hr", "img", "input"}
SECTIONS = (
    *("glance", "cpu", "bytes", "latency", "distribution", "throughput"),
    *("memory", "cores", "trust", "findings", "environment", "method"),
)


class Page(HTMLParser):
    """Collects elements and refuses markup that is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def timeline(plan_cell: int, role: str, variant: str) -> CoreTimeline:
    cell = samples.plan("vanilla", payloads=(plan_cell,)).cells[0]
    return CoreTimeline(
        cell, variant, 1, role, 1, 2.0, (-0.5, 0.0, 1.0, 2.0), (0.1, 0.5, 0.7), (0.0, 0.1, 0.2)
    )


@pytest.fixture(scope="module")
def report() -> Report:
    plan = samples.plan("vanilla", "odb", n=3)
    header, records = samples.run(plan, lambda label, cell, name: 0.5 if label == "odb" else 1.0)
    return make(header, records, [timeline(262144, "fe", label) for label in ("vanilla", "odb")], "r-figures")


@pytest.fixture(scope="module")
def page(report: Report) -> Page:
    return Page(report.html)


def test_every_section_is_there_and_linked(page: Page) -> None:
    ids = Counter(attributes["id"] for _, attributes in page.elements if attributes.get("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    assert set(SECTIONS) <= set(ids)
    linked = {str(attributes["href"]).removeprefix("#") for attributes in page.all("a")}
    assert set(SECTIONS) <= linked <= set(ids)


def test_nothing_comes_from_elsewhere_and_nothing_runs(report: Report, page: Page) -> None:
    assert {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object"} == set()
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name in ("src", "srcset") for name in attributes), tag
        for name in ("href", "xlink:href"):
            assert str(attributes.get(name, "#")).startswith("#"), tag
    assert "@import" not in report.html
    assert set(re.findall(r"url\((.)", report.html)) <= {"#"}
    policy = next(one for one in page.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert str(policy["content"]).startswith("default-src 'none'")


def test_every_figure_is_told_in_words_and_in_numbers(report: Report, page: Page) -> None:
    words = [str(one["aria-label"]) for one in page.all("div") if one.get("role") == "img"]
    assert len(words) == len(report.drawings) == 7
    assert all(len(text) > 60 for text in words)
    assert any("odb 50 % within" in text for text in words)
    assert len(page.all("table")) > len(words)
    assert len(page.all("caption")) == len(page.all("table"))
    assert report.html.count("<figure>") == report.html.count("</figure>\n<details open>")


def test_colours_follow_the_page_and_files_stand_alone(report: Report) -> None:
    for drawing in report.drawings:
        for variable, (light, _) in VARIABLES.items():
            assert light not in drawing.inline, (drawing.name, variable)
        assert b"var(--" not in drawing.svg
        assert drawing.svg.startswith(b"<?xml")
        assert drawing.pdf.startswith(b"%PDF")
    assert "prefers-color-scheme: dark" in report.html


def test_equal_records_give_equal_reports(report: Report) -> None:
    plan = samples.plan("vanilla", "odb", n=3)
    header, records = samples.run(plan, lambda label, cell, name: 0.5 if label == "odb" else 1.0)
    again = make(
        header, records, [timeline(262144, "fe", label) for label in ("vanilla", "odb")], "r-figures"
    )
    assert again == report


def test_text_from_records_is_escaped() -> None:
    evil = '<script>alert("1")</script>&'
    plan = samples.plan("vanilla", n=1)
    plan = replace(plan, variants=(replace(use("vanilla"), label=evil, options={evil: evil}),))
    header, records = samples.run(plan, lambda label, cell, name: 1.0)
    header = replace(header, environment=replace(header.environment, host=evil, pinning=evil))
    records = [
        replace(
            one,
            environment=header.environment.fingerprint,
            remarks=(evil,),
            metrics={**one.metrics, "be.cpu_us": Metric(None, "us", evil)},
        )
        for one in records
    ]
    shown = Page(make(header, records, [], evil).html)
    assert shown.all("script") == []
    assert evil in "".join(shown.text)


@pytest.mark.usefixtures("undrawn")
def test_few_repetitions_failures_and_gaps_are_said_first() -> None:
    plan = samples.plan("vanilla", "odb", n=3)
    header, records = samples.run(plan, lambda label, cell, name: 1.0)
    failed = replace(records[0], failure="nginx did not start", load=None, tiers=(), metrics={}, valid=False)
    tired = replace(records[1], valid=False, remarks=("the load generator was saturated",))
    made = make(header, [failed, tired, *records[2:-1]], [], "f")
    said = " ".join(made.warnings)
    assert "1 of 12 measurements are missing" in said
    assert "nginx did not start" in said
    assert "saturated" in said
    assert "too small to prove" in said
    assert made.html.index("Read this first") < made.html.index('<h2 id="glance"')
    assert "not usable" in made.html


@pytest.mark.usefixtures("undrawn")
def test_foreign_work_on_a_core_of_a_server_is_a_warning() -> None:
    plan = samples.plan("vanilla", payloads=(16384,), n=1)
    header, records = samples.run(plan, lambda label, cell, name: 1.0)
    tier = records[0].tiers[0]
    core = tier.core_use["1"]
    quiet = replace(tier, core_use={"1": replace(core, busy_share=0.30, softirq_share=0.05)})
    noisy = replace(tier, core_use={"1": replace(core, busy_share=0.95, softirq_share=0.05)})
    shared = replace(noisy, role="be")
    assert foreign_shares(replace(records[0], tiers=(quiet,)))["fe"] < 0.02
    assert foreign_shares(replace(records[0], tiers=(noisy, shared))) == {}
    made = make(header, [replace(one, tiers=(noisy,)) for one in records], [], "f")
    assert any("other work" in warning and "1 of 1" in warning for warning in made.warnings)


@pytest.mark.usefixtures("undrawn")
def test_settings_are_kept_apart_and_named() -> None:
    plan = samples.plan("vanilla", payloads=(16384,), aligns=(True, False), n=1)
    header, records = samples.run(plan, lambda label, cell, name: 1.0)
    made = make(header, records, [], "f")
    shown = Page(made.html)
    text = "".join(shown.text)
    assert "unaligned" in text
    names = [drawing.name for drawing in made.drawings]
    assert len(names) == len(set(names)) == 12
    assert "CPU per request, unaligned" in [drawing.title for drawing in made.drawings]


@pytest.mark.usefixtures("undrawn")
def test_an_unreadable_histogram_costs_its_curve_only() -> None:
    plan = samples.plan("vanilla", n=1)
    header, records = samples.run(plan, lambda label, cell, name: 1.0)
    broken = [replace(one, load=replace(one.load, histogram="aGlzdA==")) for one in records if one.load]
    made = make(header, broken, [], "f")
    assert not any("cdf" in drawing.name for drawing in made.drawings)
    assert any(drawing.name == "cpu" for drawing in made.drawings)


@pytest.mark.usefixtures("undrawn")
def test_every_intermediary_of_a_chain_has_a_column() -> None:
    plan = samples.plan("vanilla", payloads=(16384,), n=1)
    plan = replace(plan, cells=tuple(replace(cell, tiers=2) for cell in plan.cells))
    header, records = samples.run(plan, lambda label, cell, name: 1.0)
    records = [
        replace(
            one,
            metrics={**one.metrics, "is1.cpu_us": Metric(12.5, "us"), "is2.cpu_us": Metric(0.99961, "us")},
        )
        for one in records
    ]
    text = "".join(Page(make(header, records, [], "f").html).text)
    assert "IS2 CPU, µs per request" in text
    assert "12.5" in text
    assert "1.00" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00012, "1.2e-04"),
        (0.92, "0.920"),
        (0.9996, "1.00"),
        (9.999, "10.0"),
        (1234.5, "1,234"),
        (-94.12, "-94.1"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_cells_are_arranged_by_what_they_differ_in() -> None:
    sizes = [Cell(payload, load="calm") for payload in (4096, 262144, 1048576)]
    chains = [Cell(262144, tiers=tiers, load="calm") for tiers in (1, 2, 3)]
    buffers = [
        Cell(262144, buffer_size=size, buffering=on, load="calm")
        for size in ("4k", "16k", "256k")
        for on in (False, True)
    ]
    alone = [Cell(65536, load="busy")]
    made = settings([*sizes, *chains, *buffers, *alone])
    assert [(one.axis, [one.point(cell) for cell in one.cells]) for one in made] == [
        ("payload", ["4 KiB", "256 KiB", "1 MiB"]),
        ("tiers", ["1", "2", "3"]),
        ("buffer_size", ["4k", "16k", "256k"]),
        ("buffer_size", ["4k", "16k", "256k"]),
        ("payload", ["64 KiB"]),
    ]
    assert len({one.slug for one in made}) == len({one.name for one in made}) == 5
    assert made[1].name == "256 KiB, buffers of 16k, proxy_buffering off, load calm"
    assert made[1].call(made[1].cells[2]) == "3 intermediaries"
    assert [one.name for one in settings(sizes)] == [""]


def test_loads_are_told_in_words() -> None:
    plan = samples.plan("vanilla", payloads=(16384,), n=1)
    loads = {
        "calm": replace(plan.load, model="open", rate=100.0),
        "busy": replace(plan.load, model="closed"),
        "wrk": replace(plan.load, model="closed", generator="wrk", seconds=10.0),
    }
    header, records = samples.run(plan, lambda label, cell, name: 1.0)
    assert load_text(compare(header, records)) == "16 clients per second up to 32 clients, 640 GETs"
    header, records = samples.run(replace(plan, loads=loads), lambda label, cell, name: 1.0)
    assert load_text(compare(header, records)) == (
        "calm: 100 requests per second whatever the answers take, 640 GETs; "
        "busy: 32 clients at once, 640 GETs; wrk: 32 clients at once, for 10 s, by wrk"
    )


@pytest.mark.usefixtures("undrawn")
def test_requests_that_failed_are_one_warning_that_says_where_and_of_what() -> None:
    plan = samples.plan("vanilla", "odb", payloads=(16384,), n=3)
    header, records = samples.run(plan, lambda label, cell, name: 1.0)
    for at, count in ((0, 3), (2, 4)):
        load = records[at].load
        assert load is not None
        load = replace(load, errors=count, error_kinds={"timeout": count})
        remark = f"{count} of {load.requests} requests failed ({count} x timeout)"
        records[at] = replace(records[at], load=load, remarks=(remark,))
    said = make(header, records, [], "f").warnings
    failed = [one for one in said if "failed" in one]
    requests = sum(one.load.requests for one in records if one.load is not None)
    assert len(failed) == 1
    assert failed[0].startswith(
        f"7 of {requests} requests failed (7 x timeout); 2 of 6 measurements (16 KiB "
    )


@pytest.mark.usefixtures("undrawn")
def test_the_page_says_how_many_repetitions_it_takes_and_marks_what_cannot_be_told() -> None:
    plan = samples.plan("vanilla", "odb", payloads=(16384,), n=2)
    factors = iter([1.0, 1.4, 0.7] * 1000)
    header, records = samples.run(plan, lambda label, cell, name: next(factors))
    made = make(header, records, [], "f")
    assert any("n = 2 is too small" in one and "n >= " in one for one in made.warnings)
    assert "n too small to tell" in made.html
    assert "n = 2" in made.html and "Was it quiet?" in made.html


@pytest.mark.usefixtures("undrawn")
def test_a_ratio_to_latencies_that_are_not_valid_says_so() -> None:
    plan = samples.plan("vanilla", "odb", payloads=(16384,), n=3)
    header, records = samples.run(plan, lambda label, cell, name: 1.0)
    spoilt = [replace(one, valid=False) if one.variant.label == "vanilla" else one for one in records]
    assert "baseline not usable" in make(header, spoilt, [], "f").html
    assert "baseline not usable" not in make(header, records, [], "f").html
