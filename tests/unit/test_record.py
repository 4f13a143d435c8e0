"""Records survive the disk unchanged, and what is no record of this run is refused with its file and a
remedy.
"""

import gzip
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.errors import RecordError
from testbed.record import Metric, Record, RunHeader, dumps, loads
from testbed.runs import create_run, find_run, load_run, merge, only_writer, save_record
from tests.unit import record_samples as samples

pytestmark = pytest.mark.unit


def one_record(run_name: str = "20260101T000000Z-abcd") -> Record:
    head = replace(samples.header(samples.plan("vanilla", "odb")), run=run_name)
    metrics = {
        "is.cpu_us": Metric(12.5, "us"),
        "fe.mem_bytes": Metric(None, "B", "the cgroup cannot be read"),
    }
    return samples.record(head, head.plan.cells[0], head.plan.variants[0], 1, metrics)


def stored_run(tmp_path: Path) -> tuple[Path, Path]:
    """A run with one record: its directory and the record's file."""
    run = create_run(tmp_path, samples.plan("vanilla", "odb"), samples.ENVIRONMENT)
    place = save_record(run.directory, one_record(run.header.run), {})
    return run.directory, place / "record.json"


def test_a_record_survives_its_json_form() -> None:
    record = one_record()
    assert loads(Record, dumps(record), "x.json") == record


def test_a_run_on_disk_gives_back_its_records_and_raw_files(tmp_path: Path) -> None:
    raw = tmp_path / "load.json"
    raw.write_text('{"schema": 1}')
    run = create_run(tmp_path, samples.plan("vanilla"), samples.ENVIRONMENT)
    record = one_record(run.header.run)
    place = save_record(run.directory, record, {"load.json": raw, "absent.log": tmp_path / "absent"})
    loaded = load_run(run.directory)
    assert loaded.records == (record,)
    assert loaded.header == run.header
    assert gzip.decompress((place / "load.json.gz").read_bytes()) == b'{"schema": 1}'
    assert {file.name for file in place.iterdir()} == {"record.json", "load.json.gz"}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: len(text) // 2], "not JSON"),
        (lambda text: "[]", "no JSON object"),
        (lambda text: text.replace('"schema": 1', '"schema": 99'), "schema is 99"),
        (
            lambda text: text.replace('"repetition": 1', '"repetition": "one"'),
            "field repetition must be an integer",
        ),
        (lambda text: text.replace('"payload": 16384', '"payload": null', 1), "field cell.payload"),
        (lambda text: text.replace('"valid": true', '"valid": true, "extra": 0'), "field extra"),
        (lambda text: text.replace('"sequence": 0,', ""), "field sequence is missing"),
        (lambda text: text.replace('"rx_bytes": 100.0', '"rx_bytes": "100"'), r"field tiers[0].rx_bytes"),
    ],
)
def test_a_corrupt_record_is_refused_with_its_file_and_a_remedy(tmp_path: Path, damage, said: str) -> None:  # type: ignore[no-untyped-def]
    directory, file = stored_run(tmp_path)
    before = file.read_text()
    after = damage(before)
    assert after != before
    file.write_text(after)
    with pytest.raises(RecordError) as caught:
        load_run(directory)
    assert str(file) in caught.value.message
    assert said in str(caught.value)
    assert caught.value.remedy


def test_a_record_of_another_run_is_refused(tmp_path: Path) -> None:
    directory, file = stored_run(tmp_path)
    file.write_text(dumps(one_record("20250101T000000Z-ffff")))
    with pytest.raises(RecordError, match="belongs to run 20250101T000000Z-ffff"):
        load_run(directory)


def test_a_record_of_another_environment_is_refused(tmp_path: Path) -> None:
    directory, file = stored_run(tmp_path)
    content = json.loads(file.read_text())
    content["environment"] = "0" * 16
    file.write_text(json.dumps(content))
    with pytest.raises(RecordError, match="records of different environments are not merged"):
        load_run(directory)


def test_a_directory_without_a_record_is_named(tmp_path: Path) -> None:
    directory, file = stored_run(tmp_path)
    file.unlink()
    with pytest.raises(RecordError, match=r"record\.json cannot be read"):
        load_run(directory)


def test_runs_of_different_environments_do_not_merge(tmp_path: Path) -> None:
    one = create_run(tmp_path, samples.plan("vanilla"), samples.ENVIRONMENT)
    other = create_run(
        tmp_path, samples.plan("vanilla"), replace(samples.ENVIRONMENT, kernel="6.2.0", cores=8)
    )
    with pytest.raises(RecordError, match=r"differs from .* in cores, kernel"):
        merge([one, other])


def test_runs_under_different_loads_do_not_merge(tmp_path: Path) -> None:
    plan = samples.plan("vanilla")
    one = create_run(tmp_path, plan, samples.ENVIRONMENT)
    other = create_run(tmp_path, replace(plan, load=replace(plan.load, users=1)), samples.ENVIRONMENT)
    with pytest.raises(RecordError, match="in load"):
        merge([one, other])


def test_runs_that_mean_different_things_by_one_variant_do_not_merge(tmp_path: Path) -> None:
    plan = samples.plan("vanilla", "odb")
    other_odb = replace(plan.variants[1], options={"coalesce": "off"})
    one = create_run(tmp_path, plan, samples.ENVIRONMENT)
    other = create_run(tmp_path, replace(plan, variants=(plan.variants[0], other_odb)), samples.ENVIRONMENT)
    with pytest.raises(RecordError, match="in variant odb"):
        merge([one, other])


def test_merged_runs_have_the_variants_cells_and_records_of_all(tmp_path: Path) -> None:
    one = create_run(tmp_path, samples.plan("vanilla", "odb", payloads=(1, 2)), samples.ENVIRONMENT)
    other = create_run(tmp_path, samples.plan("vanilla", "odb-classic", payloads=(2, 3)), samples.ENVIRONMENT)
    for run in (one, other):
        save_record(run.directory, one_record(run.header.run), {})
    merged = merge([load_run(one.directory), load_run(other.directory)])
    assert [variant.label for variant in merged.header.plan.variants] == ["vanilla", "odb", "odb-classic"]
    assert [cell.payload for cell in merged.header.plan.cells] == [1, 2, 3]
    assert len(merged.records) == 2


def test_the_newest_run_is_found_and_a_missing_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="there is no run under"):
        find_run(tmp_path, None)
    directory, _ = stored_run(tmp_path)
    assert find_run(tmp_path, None) == directory
    assert find_run(tmp_path, directory.name) == directory
    assert find_run(tmp_path, str(directory)) == directory
    with pytest.raises(RecordError, match="there is no run nowhere"):
        find_run(tmp_path, "nowhere")


def test_a_second_writer_is_turned_away_and_leftovers_are_cleared(tmp_path: Path) -> None:
    directory, file = stored_run(tmp_path)
    leftover = directory / "cells" / ".partial-003-x"
    leftover.mkdir()
    with only_writer(directory):
        assert not leftover.exists()
        with pytest.raises(RecordError, match="another odb-testbed is writing"), only_writer(directory):
            pytest.fail("the second writer got in")
    assert file.exists()


def test_a_writer_killed_while_storing_leaves_no_half_record(tmp_path: Path) -> None:
    run = create_run(tmp_path, samples.plan("vanilla"), samples.ENVIRONMENT)
    script = (
        "import os, sys, pathlib, testbed.runs as runs\n"
        "from tests.unit.test_record import one_record\n"
        "runs._sync_directory = lambda path: os.kill(os.getpid(), 9)\n"
        "runs.save_record(pathlib.Path(sys.argv[1]), one_record(sys.argv[2]), {})\n"
    )
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", script, str(run.directory), run.header.run],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == -9
    assert load_run(run.directory).records == ()
    with only_writer(run.directory):
        save_record(run.directory, one_record(run.header.run), {})
    assert len(load_run(run.directory).records) == 1


def test_a_record_is_never_overwritten(tmp_path: Path) -> None:
    directory, file = stored_run(tmp_path)
    before = file.read_bytes()
    with pytest.raises(RecordError, match="could not be completed"):
        save_record(directory, one_record(load_run(directory).header.run), {})
    assert file.read_bytes() == before


def test_runs_that_mean_different_loads_by_one_name_do_not_merge(tmp_path: Path) -> None:
    plan = samples.plan("vanilla", "odb")
    cells = tuple(replace(cell, load="calm") for cell in plan.cells)
    named = replace(plan, cells=cells, loads={"calm": plan.load})
    other = replace(named, loads={"calm": replace(plan.load, rate=5.0)})
    one = create_run(tmp_path, named, samples.ENVIRONMENT)
    assert merge([one, create_run(tmp_path, named, samples.ENVIRONMENT)]).header.plan.loads == named.loads
    with pytest.raises(RecordError, match="load calm"):
        merge([one, create_run(tmp_path, other, samples.ENVIRONMENT)])


def test_a_record_without_the_fields_of_later_versions_is_read(tmp_path: Path) -> None:
    plan = samples.plan("vanilla", "odb")
    text = dumps(samples.header(plan))
    old = json.loads(text)
    for cell in old["plan"]["cells"]:
        del cell["load"]
    for variant in old["plan"]["variants"]:
        for name in ("library", "nginx", "configuration", "intermediary", "digests"):
            del variant[name]
    for name in ("model", "rate", "generator", "seconds", "processes", "hosts"):
        del old["plan"]["load"][name]
    del old["plan"]["loads"], old["plan"]["spec"]
    assert loads(RunHeader, json.dumps(old), "old") == samples.header(plan)


def test_merged_runs_keep_which_cells_have_which_variants(tmp_path: Path) -> None:
    first = samples.plan("vanilla", "odb", payloads=(4096, 8192))
    small, large = first.cells
    limited = replace(first, variants_at={small.slug: ("vanilla",), large.slug: ("vanilla", "odb")})
    second = samples.plan("vanilla", "x-accel", payloads=(4096,))
    runs = [
        create_run(tmp_path / str(at), plan, samples.ENVIRONMENT) for at, plan in enumerate((limited, second))
    ]
    plan = merge(runs).header.plan
    assert [one.label for one in plan.variants_of(small)] == ["vanilla", "x-accel"]
    assert [one.label for one in plan.variants_of(large)] == ["vanilla", "odb"]
