"""The life of a deployment on this machine: made, made again, broken, repaired, removed. One deployment serves all tests."""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbed.deploy import ensure_deployed
from testbed.errors import RemoteError, ServingError, StateError, UsageError
from testbed.providers.cgroups import hierarchies
from testbed.session import Testbed
from testbed.spec import Variant, load_variants
from tests.testbed.machine import (
    command,
    end_at,
    eventually,
    free_network,
    loaded,
    processes_naming,
    require_local_provider,
    snapshot,
)


@dataclass
class Deployment:
    state: Path
    network: str
    identity: str
    first: dict[str, Any]
    decoy_nginx: int


@pytest.fixture(scope="module")
def decoy_nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """An nginx that is none of ours, running all the time; yields its master's process id."""
    require_local_provider()
    directory = tmp_path_factory.mktemp("decoy")
    (directory / "nginx.conf").write_text(
        f"daemon off; pid {directory}/nginx.pid; error_log {directory}/error.log; events {{}}\n"
        f"http {{ access_log off; server {{ listen unix:{directory}/socket; }} }}\n"
    )
    process = subprocess.Popen(
        ["nginx", "-c", str(directory / "nginx.conf"), "-p", str(directory)], stdin=subprocess.DEVNULL
    )
    assert eventually((directory / "nginx.pid").exists)
    yield process.pid
    assert process.poll() is None, "the decoy nginx did not survive"
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def deployment(decoy_nginx: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    state, network = tmp_path_factory.mktemp("testbed") / "one" / "state.json", free_network()
    done = command("deploy", "--json", "--network", network, state=state)
    assert done.returncode == 0, done.stderr
    yield Deployment(state, network, loaded(state)["identity"], json.loads(done.stdout), decoy_nginx)
    if state.exists():
        assert command("destroy", state=state).returncode == 0


def get(address: str, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, 80, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_first_deployment_makes_four_hosts(deployment: Deployment) -> None:
    assert deployment.first["changed"] > 0
    assert [host["roles"] for host in deployment.first["hosts"]] == [["client"], ["fe"], ["is1"], ["be"]]


def test_second_deployment_changes_nothing(deployment: Deployment) -> None:
    before = loaded(deployment.state)
    done = command("deploy", "--json", state=deployment.state)
    assert (done.returncode, json.loads(done.stdout)["changed"]) == (0, 0), done.stderr
    assert loaded(deployment.state) == before


def test_what_is_deployed_as_wanted_is_opened_without_deploying(deployment: Deployment) -> None:
    said: list[str] = []
    with ensure_deployed(progress=said.append, state_file=deployment.state) as testbed:
        assert testbed.front_url() == f"http://{testbed.host('fe').address}:80"
        assert [host.name for host in testbed.hosts] == list(testbed.topology.roles)
    assert said == []


def test_every_payload_arrives_whole_through_the_chain(deployment: Deployment) -> None:
    with Testbed.open(deployment.state) as testbed:
        front = testbed.host("fe").address
        sizes = testbed.topology.payloads
    manifest = json.loads(get(front, "/payload/manifest.json")[1])
    for size in sizes:
        status, body = get(front, f"/payload/{size}.bin")
        assert (status, len(body), hashlib.sha256(body).hexdigest()) == (200, size, manifest[str(size)])


def test_status_names_every_host_and_its_state(deployment: Deployment) -> None:
    report = json.loads(command("status", "--json", state=deployment.state).stdout)
    states = {host["name"]: host["state"] for host in report["hosts"]}
    assert states == {"client": "up", "fe": "serving", "is1": "serving", "be": "serving"}
    assert (report["variant"], report["network"]) == ("vanilla", deployment.network)
    assert all(host["cores"] and host["address"] for host in report["hosts"])


def test_processes_of_a_host_are_in_its_cgroup_namespace_and_cores(deployment: Deployment) -> None:
    with Testbed.open(deployment.state) as testbed:
        for role in testbed.topology.chain:
            host = testbed.host(role)
            servers = testbed.process_status(role, "nginx")["processes"]
            assert len(servers) == 2
            for pid in servers:
                assert host.cgroup is not None
                for tree in hierarchies():
                    inside = (tree.at(host.cgroup) / "cgroup.procs").read_text().split()
                    assert str(pid) in inside, tree
                assert sorted(os.sched_getaffinity(pid)) == sorted(host.cores)
                named = Path(f"/run/netns/odb{deployment.identity}-{role}").stat().st_ino
                assert Path(f"/proc/{pid}/ns/net").stat().st_ino == named


def test_hosts_have_no_way_out_and_keep_their_changes_to_themselves(deployment: Deployment) -> None:
    leave = (
        "import socket, sys\n"
        "s = socket.socket(); s.settimeout(5)\n"
        "sys.exit(s.connect_ex(('198.51.100.1', 80)))"
    )
    with Testbed.open(deployment.state) as testbed:
        host = testbed.host("is1")
        assert testbed.run("is1", [host.python, "-c", leave], timeout=20).exit_code == errno.ENETUNREACH
        assert testbed.run("is1", ["touch", "/etc/odb-mark", "/run/odb-mark"], timeout=20).exit_code == 0
        assert testbed.run("fe", ["test", "-e", "/etc/odb-mark"], timeout=20).exit_code == 1
    assert not Path("/etc/odb-mark").exists()
    assert not Path("/run/odb-mark").exists()


def test_background_process_is_started_and_ended_by_its_record(
    deployment: Deployment, tmp_path: Path
) -> None:
    with Testbed.open(deployment.state) as testbed:
        pid = testbed.start_process(
            "client", "sleeper", ["sh", "-c", "echo said; sleep 1000 & exec sleep 1000"]
        )
        assert Path(f"/proc/{pid}").exists()
        with pytest.raises(RemoteError, match="sleeper is running already"):
            testbed.start_process("client", "sleeper", ["true"])
        assert testbed.stop_process("client", "sleeper") is True
        assert testbed.stop_process("client", "sleeper") is False
        testbed.fetch("client", "/run/odb-testbed/sleeper.out", tmp_path / "said")
    assert (tmp_path / "said").read_text() == "said\n"


def test_command_that_takes_too_long_is_ended_on_the_host(deployment: Deployment) -> None:
    with Testbed.open(deployment.state) as testbed:
        with pytest.raises(RemoteError, match="took longer than 0.5 s"):
            testbed.run("client", ["sleep", "987"], timeout=0.5)
        group = testbed.host("client").cgroup
    assert group is not None
    assert not [
        pid for pid in processes_naming("sleep\x00987") if group in Path(f"/proc/{pid}/cgroup").read_text()
    ]


def test_unknown_names_are_refused_with_what_exists(deployment: Deployment) -> None:
    done = command("deploy", "--variant", "vanila", "--json", state=deployment.state)
    error = json.loads(done.stderr)["error"]
    assert (done.returncode, error["exit_code"]) == (2, 2)
    assert "vanila" in error["message"]
    assert "odb-classic" in error["remedy"]
    with Testbed.open(deployment.state) as testbed, pytest.raises(UsageError, match="is2"):
        testbed.host("is2")


def test_two_commands_at_once_are_refused(deployment: Deployment) -> None:
    with Testbed.open(deployment.state):
        done = command("deploy", state=deployment.state)
    assert done.returncode == 1
    assert f"another command (process {os.getpid()})" in done.stderr


def test_network_of_a_deployment_cannot_be_changed(deployment: Deployment) -> None:
    done = command("deploy", "--network", "10.99.0.0/24", state=deployment.state)
    assert done.returncode == 2
    assert deployment.network in done.stderr


def test_server_that_cannot_start_is_reported_and_leaves_nothing_running(deployment: Deployment) -> None:
    wrong = Variant("wrong", "", odb=True, profile="default", options={"no_such_option": "1"})
    with Testbed.open(deployment.state) as testbed:
        with pytest.raises(ServingError, match="does not start in the variant wrong"):
            testbed.start(wrong)
        assert testbed.serving is None
        testbed.start(load_variants()["vanilla"])
        assert testbed.is_serving(load_variants()["vanilla"])
        assert all(testbed.odb_stats(role) == {} for role in testbed.topology.chain)


def test_variant_with_the_library_has_it_in_every_process(deployment: Deployment) -> None:
    odb = Path(sys.executable).with_name("odb")
    if (
        not odb.exists()
        or subprocess.run([odb, "run", "--", "true"], capture_output=True, timeout=30).returncode != 0
    ):
        pytest.skip("libodb.so is not installed beside this Python")
    variants = load_variants()
    with Testbed.open(deployment.state) as testbed:
        testbed.start(variants["odb"])
        try:
            assert testbed.is_serving(variants["odb"])
            assert not testbed.is_serving(variants["vanilla"])
            for role in testbed.topology.chain:
                status = testbed.process_status(role, "nginx", "libodb.so")
                assert status["mapped"] == status["processes"]
                assert "payloads_captured" in testbed.odb_stats(role)
        finally:
            testbed.start(variants["vanilla"])


def test_host_that_cannot_be_reached_is_reported_and_repaired(deployment: Deployment) -> None:
    records = {record["name"]: record for record in loaded(deployment.state)["resources"]}
    os.kill(records["sshd-fe"]["details"]["pid"], signal.SIGKILL)
    report = json.loads(command("status", "--json", state=deployment.state).stdout)
    assert {host["name"]: host["state"] for host in report["hosts"]}["fe"] == "unreachable"
    with Testbed.open(deployment.state) as testbed:
        with pytest.raises(RemoteError, match=r"host fe .* cannot be reached .*deploy"):
            testbed.run("fe", ["true"], timeout=10)
        testbed.run("is1", ["true"], timeout=10)
    done = command("deploy", "--json", state=deployment.state)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["changed"] > 0
    with Testbed.open(deployment.state) as testbed:
        assert testbed.is_serving(load_variants()["vanilla"])


def test_interrupted_or_killed_deployment_is_continued(deployment: Deployment) -> None:
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        change = ("deploy", "--buffer-size", "32k")
        assert end_at("odb : Look for odb", number, *change, state=deployment.state) == code
        assert eventually(lambda: not processes_naming(f"{deployment.state.with_suffix('.d')}/ansible"))
        with pytest.raises(StateError, match="not complete.*odb-testbed deploy"):
            Testbed.open(deployment.state)
    done = command("deploy", "--json", state=deployment.state)
    assert done.returncode == 0, done.stderr
    with Testbed.open(deployment.state) as testbed:
        assert testbed.topology.buffer_size == "32k"
        written = testbed.run(
            "fe", ["grep", "proxy_buffer_size", "/etc/odb-testbed/nginx.conf"], timeout=10
        ).stdout
    assert written.split() == ["proxy_buffer_size", "32k;"]


def test_destroy_removes_what_was_made_and_nothing_else(deployment: Deployment) -> None:
    state, name = deployment.state, f"odb{deployment.identity}"
    beside = state.with_name("state.d.beside")
    beside.mkdir()
    decoy = f"{name}-decoy"
    subprocess.run(["ip", "netns", "add", decoy], check=True, timeout=10)
    try:
        recorded = [resource["name"] for resource in loaded(state)["resources"]]
        groups = [host["cgroup"] for host in loaded(state)["hosts"].values()]
        pids = [pid for role in groups for pid in members(role)]
        assert len(pids) >= len(groups)
        assert f"odb{deployment.identity}-fe" in recorded
        done = command("destroy", "--json", state=state)
        assert done.returncode == 0, done.stderr
        assert set(recorded) == {entry.split(" ", 1)[1] for entry in json.loads(done.stdout)["removed"]}
        left = snapshot(name)
        assert (left.namespaces, left.links, left.cgroups, left.run) == (
            frozenset({decoy}),
            frozenset(),
            frozenset(),
            frozenset(),
        )
        assert left.mounts <= {f"/run/netns/{decoy}"}
        assert not [pid for pid in pids if alive(pid)]
        assert [entry.name for entry in state.parent.iterdir()] == [beside.name]
    finally:
        subprocess.run(["ip", "netns", "del", decoy], check=True, timeout=10)
        shutil.rmtree(beside)
    assert alive(deployment.decoy_nginx)
    assert command("destroy", state=state).returncode == 0
    assert json.loads(command("status", "--json", state=state).stdout) == {"deployed": False, "hosts": []}


def test_deployment_killed_while_it_makes_hosts_is_removed(decoy_nginx: int, tmp_path: Path) -> None:
    state = tmp_path / "made" / "for" / "it" / "state.json"
    assert end_at("starting is1", signal.SIGKILL, "deploy", "--network", free_network(), state=state) == -9
    name = f"odb{loaded(state)['identity']}"
    assert snapshot(name).namespaces
    assert command("destroy", state=state).returncode == 0
    left = snapshot(name)
    assert not (left.namespaces | left.links | left.mounts | left.cgroups | left.run)
    assert eventually(lambda: not processes_naming(str(state)))
    assert not list(tmp_path.iterdir()), "directories that were made for the state file are left"


def members(group: str) -> list[int]:
    found: set[int] = set()
    for file in Path("/sys/fs/cgroup").glob(f"**{group}/cgroup.procs"):
        found.update(map(int, file.read_text().split()))
    return sorted(found)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False
