"""ODB counts as proven on or off by its counters alone, on every tier."""

import dataclasses

import pytest

from testbed.errors import ServingError
from testbed.measure import check_odb, grown
from tests.unit import record_samples as samples

pytestmark = pytest.mark.unit

ACTIVE = {
    "fe": {"spans_received": 3},
    "is1": {"spans_received": 3, "spans_sent": 3},
    "be": {"payloads_captured": 3, "spans_sent": 3},
}
ABSENT: dict[str, dict[str, int]] = {"fe": {}, "is1": {}, "be": {}}
ODB = samples.use("odb", odb=True)
VANILLA = samples.use("vanilla")


def test_odb_that_worked_on_every_tier_is_proven() -> None:
    check_odb(ODB, ACTIVE, ACTIVE)


def test_vanilla_without_any_counter_is_proven() -> None:
    check_odb(VANILLA, ABSENT, ABSENT)


@pytest.mark.parametrize("role", ["fe", "is1", "be"])
def test_a_tier_without_the_library_is_named(role: str) -> None:
    with pytest.raises(ServingError, match=f"the servers on {role} publish no ODB counters in variant odb"):
        check_odb(ODB, {**ACTIVE, role: {}}, {**ACTIVE, role: {}})


@pytest.mark.parametrize(
    ("role", "counter"),
    [("fe", "spans_received"), ("is1", "spans_received"), ("is1", "spans_sent"), ("be", "payloads_captured")],
)
def test_a_tier_on_which_odb_is_idle_is_named_with_its_counter(role: str, counter: str) -> None:
    growth = {**ACTIVE, role: {name: value for name, value in ACTIVE[role].items() if name != counter}}
    with pytest.raises(ServingError, match=f"idle in variant odb: {counter} did not grow"):
        check_odb(ODB, ACTIVE, growth)


def test_odb_may_be_idle_but_not_absent_where_bodies_need_not_become_payloads() -> None:
    check_odb(ODB, ACTIVE, ABSENT, may_idle=True)
    with pytest.raises(ServingError, match="the servers on be publish no ODB counters"):
        check_odb(ODB, {**ACTIVE, "be": {}}, ABSENT, may_idle=True)


@pytest.mark.parametrize(("option", "role"), [("delivery", "fe"), ("capture", "fe"), ("capture", "is1")])
def test_odb_may_be_idle_where_an_option_leaves_it_nothing_to_do(option: str, role: str) -> None:
    check_odb(dataclasses.replace(ODB, options={option: "fetch"}), ACTIVE, {**ACTIVE, role: {}})


def test_an_intermediary_that_fetches_may_send_real_bytes() -> None:
    variant = dataclasses.replace(ODB, options={"delivery": "fetch"})
    check_odb(variant, ACTIVE, {**ACTIVE, "is1": {"spans_received": 3}, "fe": {}})


@pytest.mark.parametrize(("option", "role"), [("delivery", "is1"), ("delivery", "be"), ("hold", "fe")])
def test_odb_may_not_be_idle_elsewhere(option: str, role: str) -> None:
    with pytest.raises(ServingError, match=f"loaded on {role} but idle in variant odb"):
        check_odb(dataclasses.replace(ODB, options={option: "fetch"}), ACTIVE, {**ACTIVE, role: {}})


def test_a_library_in_vanilla_is_found() -> None:
    with pytest.raises(ServingError, match="is1 runs with the library in variant vanilla"):
        check_odb(VANILLA, {**ABSENT, "is1": {"streams_framed": 0}}, ABSENT)


def test_growth_leaves_out_what_did_not_change() -> None:
    before = {"fe": {"spans_received": 5, "faults": 1}}
    after = {"fe": {"spans_received": 8, "faults": 1, "resets": 2}}
    assert grown(before, after) == {"fe": {"spans_received": 3, "resets": 2}}
    assert grown({}, after) == {"fe": {"spans_received": 8, "faults": 1, "resets": 2}}
