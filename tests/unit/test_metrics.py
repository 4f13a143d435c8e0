"""Metrics follow from raw results by arithmetic alone, and what is missing stays missing with its reason."""

from dataclasses import replace

import pytest

from testbed.metrics import derive, remarks
from testbed.record import CoreUse, LoadResult, TierUse

pytestmark = pytest.mark.unit

LOAD = LoadResult(
    complete=True,
    requests=1000,
    errors=0,
    error_kinds={},
    bytes=1000 * 65536,
    users=10,
    started_at=100.0,
    ended_at=102.0,
    latency_us={"p50": 900.0, "p99": 4000.0, "p999": 9000.0},
    histogram="",
    cpu_seconds=1.0,
    wall_seconds=2.0,
    cpu_share=0.5,
    processes=1,
)


def tier(role: str, **changes: object) -> TierUse:
    base = TierUse(
        role=role,
        cores=(1,),
        seconds=2.1,
        samples=20,
        cpu_seconds=0.2,
        memory_mean_bytes=4e6,
        memory_peak_bytes=5e6,
        working_mean_bytes=1e6,
        working_peak_bytes=2e6,
        rx_bytes=66_000_000.0,
        tx_bytes=67_000_000.0,
        core_use={"1": CoreUse(0.1, 0.02, 0.0)},
        steal_share=0.0,
        agent_cpu_seconds=0.01,
        odb={},
        reasons={},
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def chain(*roles: str) -> list[TierUse]:
    return [tier(role) for role in roles]


def test_cpu_and_bytes_are_per_request_and_the_total_is_their_sum() -> None:
    made = derive(LOAD, chain("fe", "is1", "be"))
    assert made["fe.cpu_us"].value == pytest.approx(200)
    assert made["total.cpu_us"].value == pytest.approx(600)
    assert made["is.bytes"].value == pytest.approx(133_000)
    assert made["fe.mem_bytes"].value == 2e6
    assert made["throughput_rps"].value == pytest.approx(500)
    assert made["latency.p999_us"].value == 9000
    assert made["client.cpu_share"].value == 0.5


def test_the_client_is_no_tier() -> None:
    assert derive(LOAD, chain("client", "fe", "is1", "be")) == derive(LOAD, chain("fe", "is1", "be"))


def test_one_intermediary_is_called_is_and_several_stand_beside_their_sum() -> None:
    assert not {"is1.cpu_us", "is1.bytes"} & set(derive(LOAD, chain("fe", "is1", "be")))
    several = derive(LOAD, chain("fe", "is1", "is2", "be"))
    assert several["is.cpu_us"].value == pytest.approx(400)
    assert several["is2.cpu_us"].value == pytest.approx(200)
    assert several["is1.bytes"].value == pytest.approx(133_000)
    assert several["total.cpu_us"].value == pytest.approx(800)


def test_every_documented_name_is_there() -> None:
    assert set(derive(LOAD, chain("fe", "is1", "be"))) == {
        *(
            f"{name}.{what}"
            for name in ("fe", "is", "be")
            for what in ("cpu_us", "steady_us", "bytes", "mem_bytes")
        ),
        "total.cpu_us",
        "total.steady_us",
        "pace_ns",
        "latency.p50_us",
        "latency.p99_us",
        "latency.p999_us",
        "throughput_rps",
        "errors",
        "client.cpu_share",
    }


def test_the_pace_of_the_cores_is_taken_out_of_the_cpu_time() -> None:
    made = derive(LOAD, [tier("fe", pace_ns=250.0), tier("is1", pace_ns=200.0), tier("be", pace_ns=240.0)])
    assert made["fe.steady_us"].value == pytest.approx(160)
    assert made["is.steady_us"].value == pytest.approx(200)
    assert made["total.steady_us"].value == pytest.approx(160 + 200 + 200 * 200 / 240)
    assert made["pace_ns"].value == pytest.approx(230)
    assert made["fe.cpu_us"].value == pytest.approx(200)


def test_without_a_pace_only_what_needs_it_is_absent() -> None:
    made = derive(LOAD, [tier("fe", pace_ns=200.0), tier("be")])
    assert made["fe.steady_us"].value == pytest.approx(200)
    assert made["total.cpu_us"].value == pytest.approx(400)
    for name in ("be.steady_us", "total.steady_us", "pace_ns"):
        assert (made[name].value, made[name].reason) == (None, "be: pace_ns was not measured")


def test_an_unread_value_is_absent_with_its_reason_and_takes_the_sum_with_it() -> None:
    tiers = chain("fe", "be") + [tier("is1", cpu_seconds=None, reasons={"cpu_seconds": "no cgroup"})]
    made = derive(LOAD, tiers)
    assert made["fe.cpu_us"].value is not None
    for name in ("is.cpu_us", "total.cpu_us"):
        assert made[name].value is None
        assert made[name].reason == "is1: no cgroup"


def test_failed_requests_are_counted_and_not_averaged_over() -> None:
    load = replace(LOAD, errors=500, error_kinds={"status 502": 500})
    made = derive(load, chain("fe", "is1", "be"))
    assert made["errors"].value == 500
    assert made["fe.cpu_us"].value == pytest.approx(400)
    assert made["throughput_rps"].value == pytest.approx(250)
    valid, said = remarks(load, chain("fe"))
    assert valid
    assert "500 of 1000 requests failed (500 x status 502)" in said


def test_without_a_success_there_is_nothing_to_average() -> None:
    load = replace(LOAD, errors=1000, error_kinds={"timeout": 1000})
    made = derive(load, chain("fe", "is1", "be"))
    for name in ("fe.cpu_us", "is.bytes", "latency.p50_us"):
        assert made[name].value is None
        assert made[name].reason == "no request succeeded"


def test_a_saturated_generator_makes_latencies_unusable() -> None:
    assert remarks(LOAD, chain("fe")) == (True, ())
    valid, said = remarks(replace(LOAD, cpu_share=0.97), chain("fe"))
    assert not valid
    assert said == ("the load generator used more than 90% of a core: latencies are its own",)


def test_an_unfinished_load_is_unusable() -> None:
    valid, said = remarks(replace(LOAD, complete=False), chain("fe"))
    assert not valid
    assert "before every request was made" in said[0]


def test_what_odb_lost_under_load_is_said() -> None:
    valid, said = remarks(
        LOAD, [tier("fe", odb={"resets": 2, "spans_received": 9}), tier("be", odb={"serves": 3})]
    )
    assert valid
    assert said == ("ODB on fe counted resets under load",)


def test_stolen_time_flags_the_tier_but_keeps_the_cell() -> None:
    valid, said = remarks(LOAD, [tier("fe"), tier("be", steal_share=0.2)])
    assert valid
    assert said == ("disturbed: more than 5% of the time of a host's cores was stolen",)


def test_processes_that_share_the_clients_core_saturate_it_together() -> None:
    """Two processes of 0.5 each leave a core no time, though neither is busy by itself."""
    client = tier("client", cpu_seconds=2.0)
    assert derive(LOAD, [client, *chain("fe", "is1", "be")])["client.cpu_share"].value == pytest.approx(
        2 / 2.1
    )
    valid, said = remarks(LOAD, [client])
    assert not valid
    assert "load generator" in said[0]
    assert remarks(LOAD, [tier("client2", cores=(1, 2), cpu_seconds=2.0)])[0]


def test_other_programs_on_a_hosts_core_flag_the_cell() -> None:
    busy = {"1": CoreUse(0.9, 0.1, 0.0)}
    valid, said = remarks(LOAD, [tier("fe", core_use=busy)])
    assert valid
    assert any("other programs" in one for one in said)
    # What two hosts on one core did is neither's disturbance.
    shared = [tier(role, core_use=busy, cpu_seconds=0.8) for role in ("fe", "be")]
    assert remarks(LOAD, shared) == (True, ())


def test_a_clock_that_differs_is_said() -> None:
    assert "clock of is1" in remarks(LOAD, [tier("is1", clock_offset_seconds=2.0)])[1][0]
