"""Ablations come from the table of options: every switch is a row, and what the file says is checked against the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from odb.tables import OptionTable, option_table
from testbed.ablations import ABLATIONS_FILE, ablated
from testbed.errors import UsageError
from testbed.spec import Variant, load_variants

pytestmark = pytest.mark.unit

TABLE = """
ODB_ENUM(mode, "ports", "off|ports", "Not a mechanism.")
ODB_FLAG(splice, "on", "A flag.")
ODB_ENUM(driver, "loop", "loop|thread|blocking", "One of several.")
ODB_SET(capture, "file,memory", "file|memory", "Some of several.")
ODB_SET(alone, "file", "file|memory", "A set of one word.")
ODB_SIZE(hold, "32K", 4096, 1048576, "A number.")
ODB_PROFILE(default, "", "Everything at its default.")
ODB_PROFILE(slow, "driver=thread splice=off", "Other values.")
"""


@pytest.fixture
def table(tmp_path: Path) -> OptionTable:
    file = tmp_path / "options.def"
    file.write_text(TABLE)
    return option_table(file)


def variant(profile: str = "default", **options: str) -> Variant:
    return Variant("odb", "the library", True, profile, options)


def rows(file: Path, content: str, table: OptionTable, of: Variant | None = None) -> list[str]:
    file.write_text(content)
    return [one.label for one in ablated(of or variant(), file=file, table=table)]


def test_every_switch_of_the_table_is_a_row(tmp_path: Path, table: OptionTable) -> None:
    file = tmp_path / "ablations.toml"
    assert rows(file, 'leave = ["mode"]', table) == [
        "splice=off",
        "driver=thread",
        "driver=blocking",
        "capture=memory",
        "capture=file",
    ]
    assert rows(file, "", table)[0] == "mode=off"


def test_rows_differ_from_what_profile_and_options_say(tmp_path: Path, table: OptionTable) -> None:
    content = 'leave = ["mode", "capture"]\n[values]\nhold = ["4K", "32k", "1M"]'
    file = tmp_path / "ablations.toml"
    assert rows(file, content, table, variant("slow", hold="4096")) == [
        "splice=on",
        "driver=loop",
        "driver=blocking",
        "hold=32k",
        "hold=1M",
    ]


def test_an_ablation_keeps_what_else_the_variant_says(tmp_path: Path, table: OptionTable) -> None:
    file = tmp_path / "ablations.toml"
    file.write_text("")
    made = {one.label: one.variant for one in ablated(variant("slow", hold="4K"), file=file, table=table)}
    assert made["driver=loop"].profile == "slow"
    assert dict(made["driver=loop"].options) == {"hold": "4K", "driver": "loop"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('leave = ["hodl"]', "hodl"),
        ('[values]\nhodl = ["1K"]', "hodl"),
        ('[values]\nhold = ["1K"]', "hold"),
        ("[values]\nhold = [4096]", "values.hold"),
        ('[values]\ndriver = ["magic"]', "magic"),
        ('rows = ["hold"]', "rows"),
        ("leave =", "TOML"),
    ],
)
def test_what_the_table_does_not_know_is_refused(
    tmp_path: Path, table: OptionTable, content: str, said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        rows(tmp_path / "ablations.toml", content, table)
    assert said in str(caught.value) and "ablations.toml" in str(caught.value)


def test_the_shipped_file_fits_the_shipped_table() -> None:
    made = {one.option for one in ablated(load_variants()["odb"])}
    switches = {
        one.name
        for one in option_table().options.values()
        if one.kind in ("flag", "enum") or (one.kind == "set" and "," in one.default)
    }
    assert switches - made == {"mode"}
    assert {"strategy", "coalesce", "align", "capture", "delivery", "virtual_min"} <= made
    assert ABLATIONS_FILE.exists()
