"""Matrix files: what they amount to, and that every mistake is named with file, key, value and remedy."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from testbed.ablations import ablated
from testbed.errors import UsageError
from testbed.matrix import steps, topology_key
from testbed.record import Plan, RunHeader, dumps, loads
from testbed.report.ratios import title
from testbed.spec import load_variants
from testbed.specfile import load_spec, shipped, topology_of
from tests.unit import record_samples as samples

pytestmark = pytest.mark.unit
GOOD = 'variants = ["vanilla", "odb"]\n[matrix]\npayload = ["16k"]\n'


def plan_of(directory: Path, text: str) -> Plan:
    file = directory / "mine.toml"
    file.write_text(text)
    return load_spec(str(file), load_variants()).plan


def test_the_shipped_specs_are_valid_and_have_the_documented_extent() -> None:
    assert shipped() == ("bench", "bench-quick", "bench-touch", "seed", "smoke", "wide")
    touch = load_spec("bench-touch", load_variants()).plan
    assert {cell.touch for cell in touch.cells} == {"none", "gzip", "sub_filter", "tls", "cache", "temp_file"}
    assert {(cell.buffer_size, cell.buffering) for cell in touch.cells} == {
        (size, on) for size in ("4k", "16k", "64k") for on in (False, True)
    }
    seed = load_spec("seed", load_variants()).plan
    assert [variant.label for variant in seed.variants] == ["vanilla", "odb-dynamic", "odb-anticipated"]
    assert [variant.options for variant in seed.variants] == [
        {},
        {"strategy": "dynamic"},
        {"strategy": "anticipated"},
    ]
    assert {(cell.payload >> 10, cell.align) for cell in seed.cells} == {
        (payload, align) for payload in (16, 32, 64, 128, 256) for align in (True, False)
    }
    load = seed.load_of(seed.cells[0])
    assert (load.users, load.spawn_rate, load.users * load.requests_per_user) == (1000, 50.0, 30_000)
    wide = load_spec("wide", load_variants()).plan
    assert {cell.tiers for cell in wide.cells} == {1, 2, 3, 4, 5}
    assert (min(cell.payload for cell in wide.cells), max(cell.payload for cell in wide.cells)) == (
        4096,
        4 << 20,
    )
    assert "open" in {wide.load_of(cell).model for cell in wide.cells}


def test_the_bench_has_the_documented_extent_and_every_ablation() -> None:
    bench = load_spec("bench", load_variants()).plan
    competitors = ("vanilla", "odb", "odb-classic", "x-accel", "haproxy-splice")
    for model in ("closed", "open"):
        cells = {
            (cell.payload >> 10, cell.buffer_size, cell.sendfile, cell.tiers)
            for cell in bench.cells
            if bench.load_of(cell).model == model
            and set(competitors) <= {one.label for one in bench.variants_of(cell)}
        }
        assert cells == set(
            itertools.product((4, 16, 64, 256, 1024), ("4k", "16k", "64k"), (True, False), (1, 3))
        )
    assert all(
        bench.load_of(cell).traced_seconds for cell in bench.cells if bench.load_of(cell).model == "closed"
    )
    labels = {one.label for one in ablated(load_variants()["odb"])}
    for name in ("bench", "bench-quick"):
        plan = load_spec(name, load_variants()).plan
        assert any(labels <= {one.label for one in plan.variants_of(cell)} for cell in plan.cells)


def test_a_block_with_variants_of_its_own_is_measured_in_these_alone(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        'variants = ["vanilla", "x-accel"]\nrepetitions = 1\n[[matrix]]\npayload = ["16k", "64k"]\n'
        '[[matrix]]\npayload = ["64k", "256k"]\nvariants = ["vanilla", "odb"]\nablations = "odb"\n',
    )
    ablations = [one.label for one in ablated(load_variants()["odb"])]
    found = {cell.payload >> 10: [one.label for one in plan.variants_of(cell)] for cell in plan.cells}
    assert found == {
        16: ["vanilla", "x-accel"],
        64: ["vanilla", "x-accel", "odb", *ablations],
        256: ["vanilla", "odb", *ablations],
    }
    assert len(steps(plan)) == sum(map(len, found.values()))
    by_label = {one.label: one for one in plan.variants}
    coalesce = by_label["coalesce=off"]
    assert (coalesce.name, coalesce.odb, dict(coalesce.options)) == ("odb", True, {"coalesce": "off"})
    # What a run stores is what it reads again.
    assert loads(RunHeader, dumps(samples.header(plan)), "here").plan == plan


def test_axes_are_combined_and_blocks_are_joined_without_repetition(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        'variants = ["vanilla"]\nrepetitions = 3\nseed = 9\n'
        '[[matrix]]\npayload = ["16k", 65536]\nalign = [true, false]\n'
        '[[matrix]]\npayload = ["16k"]\ntiers = [1, 2]\nbuffering = [true, false]\n',
    )
    found = [(cell.payload, cell.align, cell.tiers, cell.buffering) for cell in plan.cells]
    assert len(found) == len(set(found)) == 7
    assert (65536, False, 1, False) in found and (16384, True, 2, True) in found
    assert (plan.repetitions, plan.seed, plan.spec) == (3, 9, "mine")


def test_cells_of_one_topology_are_measured_together(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        'variants = ["vanilla", "odb"]\nrepetitions = 4\n[matrix]\npayload = ["16k", "64k"]\ntiers = [1, 2, 3]\n',
    )
    keys = [topology_key(step.cell) for step in steps(plan)]
    changes = sum(one != other for one, other in itertools.pairwise(keys))
    assert len(keys) == 48 and changes <= 4 * 3 - 1
    assert len({tuple(dict.fromkeys(keys[at : at + 12])) for at in range(0, 48, 12)}) > 1


def test_what_touches_bodies_is_deployed_and_named(tmp_path: Path) -> None:
    load = '[load.busy]\nmodel = "closed"\ngenerator = "wrk"\nseconds = 1\n'
    plan = plan_of(tmp_path, GOOD + 'touch = ["none", "gzip", "temp_file"]\n' + load)
    assert [topology_of(cell).touch for cell in plan.cells] == ["none", "gzip", "temp_file"]
    assert len({topology_key(cell) for cell in plan.cells}) == 3
    assert len({cell.slug for cell in plan.cells}) == 3
    assert title(plan.cells[1]) == "16 KiB, 1 IS, buffers 16k, gzip, busy"


def test_a_strategy_concerns_only_variants_with_odb(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path, 'variants = ["x-accel", "odb"]\n[matrix]\npayload = [4096]\nstrategy = ["static"]\n'
    )
    assert [(variant.label, dict(variant.options)) for variant in plan.variants] == [
        ("x-accel", {}),
        ("odb-static", {"strategy": "static"}),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("variants = [", "not valid TOML"),
        ("[matrix]\npayload = [1]", "variants is None"),
        ('variants = ["vanilla"]', "matrix is None"),
        (GOOD + 'variants = ["odb"]', "the baseline 'vanilla'"),
        (GOOD + 'ablations = "odb"', "matrix.variants is None"),
        (GOOD + 'variants = ["vanilla"]\nablations = "x-accel"', "matrix.ablations is 'x-accel'"),
        (GOOD + 'variants = ["vanilla", "odb"]\nstrategy = ["static"]', "matrix.strategy is 'static'"),
        (GOOD + '[load.a]\nmodel = "closed"\ntraced_seconds = 1', "traced_seconds is 1.0"),
        ('variants = ["vanila"]\n[matrix]\npayload = [1]', "variants[0] is 'vanila'"),
        (GOOD + "colour = [1]", "no key 'colour' in [matrix]"),
        ("colour = 1\n" + GOOD, "no key 'colour'"),
        ("repetitions = 0\n" + GOOD, "repetitions is 0"),
        ("repetitions = true\n" + GOOD, "repetitions is True"),
        ('seed = "x"\n' + GOOD, "seed is 'x'"),
        (GOOD + "tiers = [9]", "tiers is 9"),
        (GOOD + "tiers = 2", "matrix.tiers is 2: it must be a list"),
        (GOOD + 'tiers = ["2"]', "matrix.tiers[0] is '2'"),
        (GOOD + "align = [1]", "matrix.align[0] is 1"),
        (GOOD + 'buffer_size = ["5k"]', "buffer size is '5k'"),
        (GOOD + 'strategy = ["eager"]', "matrix.strategy[0] is 'eager'"),
        (GOOD + 'load = ["calm"]', "matrix.load[0] is 'calm'"),
        (GOOD.replace('"16k"', '"16q"'), "matrix.payload[0] is '16q'"),
        (GOOD.replace('"16k"', '"16k", 16384'), "values that differ"),
        (GOOD.replace('"16k"', ""), "a list of values"),
        (GOOD.replace("payload", "tiers").replace('"16k"', "1"), "has no payload"),
        (GOOD.replace(', "odb"', "") + 'strategy = ["static"]', "no variant has ODB"),
        (GOOD + "[load.a]\nusers = 0", "load.a.users is 0"),
        (GOOD + '[load.a]\nmodel = "closd"', "load.a.model is 'closd'"),
        (GOOD + '[load.a]\nmodel = "open"', "load.a.rate is None"),
        (GOOD + "[load.a]\nrate = 5", "load.a.rate is 5.0"),
        (GOOD + '[load.a]\nmodel = "closed"\nspawn_rate = 5', "load.a.spawn_rate"),
        (GOOD + '[load.a]\nmodel = "closed"\ngenerator = "wrk"', "load.a.seconds is None"),
        (GOOD + '[load.a]\ngenerator = "wrk"\nseconds = 1', "load.a.generator is 'wrk'"),
        (GOOD + "[load.a]\nclients = 3", "no key 'clients' in [load.a]"),
        (GOOD + "[load.a]\n[load.b]", "names no load"),
        (GOOD + 'touch = ["gzipped"]', "matrix.touch[0] is 'gzipped'"),
        (GOOD + 'touch = ["tls"]', "matrix.touch is 'tls'"),
    ],
)
def test_a_bad_spec_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        plan_of(tmp_path, text)
    assert said in str(caught.value)
    assert "mine.toml" in str(caught.value)
    assert caught.value.remedy


def test_an_unknown_spec_names_those_that_come_along() -> None:
    with pytest.raises(UsageError, match="seed, smoke, wide"):
        load_spec("smok", load_variants())
