"""Topologies and variants are checked where they are made; every error names the value and the remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed.errors import UsageError
from testbed.providers.cores import share
from testbed.providers.local import parse_network
from testbed.spec import Host, Topology, load_variants, parse_size, pick_variant


def test_default_chain_is_client_fe_is_be() -> None:
    assert Topology().roles == ("client", "fe", "is1", "be")


def test_each_tier_is_one_more_intermediary() -> None:
    assert Topology(tiers=3).chain == ("fe", "is1", "is2", "is3", "be")


@pytest.mark.parametrize(
    "values",
    [
        {"tiers": 0},
        {"tiers": 9},
        {"tiers": True},
        {"buffer_size": "5k"},
        {"buffer_size": "2k"},
        {"buffer_size": "32m"},
        {"buffer_size": "16 k"},
        {"buffering": 1},
        {"payloads": ()},
        {"payloads": (0,)},
        {"payloads": (16384, 16384)},
        {"seed": -1},
        {"clients": 0},
        {"touch": "gzipped"},
    ],
)
def test_bad_topology_is_refused_with_name_and_remedy(values: dict) -> None:
    with pytest.raises(UsageError) as caught:
        Topology(**values)
    assert caught.value.remedy or "size" in caught.value.message
    assert caught.value.exit_code == 2


def test_topology_and_host_survive_json() -> None:
    topology = Topology(tiers=2, payloads=(1, 2), buffering=True, touch="tls")
    assert Topology.from_json(json.loads(json.dumps(topology.as_json()))) == topology
    host = Host(
        "fe",
        ("fe",),
        "10.0.0.1",
        22,
        "root",
        Path("/k"),
        (1, 2),
        "/g/fe",
        "eth0",
        "/v/bin/python",
        Path("/h"),
    )
    assert Host.from_json(json.loads(json.dumps(host.as_json()))) == host


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("16k", 16384), ("16K", 16384), ("1m", 1 << 20)])
def test_sizes_are_powers_of_1024(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "0", "-1", "1.5k", "16kb", "1g"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


def test_variants_that_come_with_the_testbed() -> None:
    variants = load_variants()
    assert list(variants)[:3] == ["vanilla", "odb", "odb-classic"]
    assert not variants["vanilla"].odb
    assert variants["odb-classic"].profile == "classic"
    with pytest.raises(UsageError, match="choose one of vanilla, odb, odb-classic"):
        pick_variant(variants, "nginx")


def test_options_of_a_variant_become_texts(tmp_path: Path) -> None:
    file = tmp_path / "variants.toml"
    file.write_text(
        "[x]\nodb = true\noptions = { coalesce = false, virtual_min = '32K', payload_max = 64 }\n"
    )
    assert dict(load_variants(file)["x"].options) == {
        "coalesce": "off",
        "virtual_min": "32K",
        "payload_max": "64",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[x", "not valid TOML"),
        ("x = 1", "not a table"),
        ("[x]", "key 'odb'"),
        ("[x]\nodb = 1", "key 'odb'"),
        ("[x]\nodb = true\nprofil = 'a'", "unknown key 'profil'"),
        ("[x]\nodb = false\nprofile = 'classic'", "without the library"),
        ("[x]\nodb = true\nprofile = 3", "a text in quotes"),
        ("[x]\nodb = true\noptions = { 'a b' = 1 }", "'a b'"),
        ("[x]\nodb = true\noptions = { a = [] }", "option 'a'"),
        ("[X]\nodb = true", "bad name"),
    ],
)
def test_bad_variants_file_is_refused(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "variants.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_variants(file)
    assert said in str(caught.value)
    assert str(file) in str(caught.value)


def test_missing_variants_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load_variants(tmp_path / "absent.toml")


@pytest.mark.parametrize("text", ["10.0.0.1/24", "10.0.0.0/28", "0.0.0.0/0", "fd00::/64", "ten"])
def test_networks_that_cannot_hold_a_testbed_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="network"):
        parse_network(text)


ROLES = ("client", "fe", "is1", "be")


def test_four_cores_are_one_for_each_host() -> None:
    shares, rule = share(ROLES, [0, 1, 2, 3])
    assert shares == {"client": (0,), "fe": (1,), "is1": (2,), "be": (3,)}
    assert rule.startswith("4 cores for 4 hosts: one core for each server")


def test_more_cores_go_to_the_client_and_one_to_the_rest() -> None:
    shares, _ = share(ROLES, list(range(6)))
    assert shares["client"] == (0, 4)
    shares, rule = share(ROLES, list(range(64)))
    assert shares["client"] == (0, 4, 5, 6)
    assert "57 for the rest" in rule


@pytest.mark.parametrize(
    ("cores", "client", "servers"), [([7], (7,), {7}), ([0, 1], (0,), {1}), ([0, 1, 2], (0,), {1, 2})]
)
def test_few_cores_are_shared_by_the_servers(
    cores: list[int], client: tuple[int, ...], servers: set[int]
) -> None:
    shares, rule = share(ROLES, cores)
    assert shares["client"] == client
    assert {shares[role][0] for role in ROLES[1:]} == servers
    assert "share" in rule
