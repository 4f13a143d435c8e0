"""What odb-testbed refuses, in one sentence with a remedy and the documented exit code; nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testbed.machine import command, require_local_provider


def refused(done, code: int) -> str:
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("deploy", "--tiers", "0"), 2, "1 to 8"),
        (("deploy", "--tiers", "many"), 2, "--tiers"),
        (("deploy", "--buffer-size", "17"), 2, "4k to 16m"),
        (("deploy", "--buffer-size", "large"), 2, "large"),
        (("deploy", "--buffering", "perhaps"), 2, "perhaps"),
        (("deploy", "--payloads", "16k,16k"), 2, "payloads"),
        (("deploy", "--network", "10.77.0"), 2, "10.77.0"),
        (("deploy", "--network", "10.77.0.0/30"), 2, "/8 to /27"),
        (("deploy", "--variant", "unknown"), 2, "vanilla, odb"),
        (("deploy", "--no-such-option"), 2, "--help"),
        (("no-such-command",), 2, "no-such-command"),
        (("deploy", "--network", "127.0.0.0/24"), 4, "in use"),
    ],
)
def test_bad_input_is_refused(words: tuple[str, ...], code: int, said: str, tmp_path: Path) -> None:
    require_local_provider()
    state = tmp_path / "new" / "state.json"
    assert said in refused(command(*words, state=state if len(words) > 1 else None), code)
    assert not state.parent.exists()


@pytest.mark.parametrize("program", ["nginx", "sshd"])
def test_missing_program_is_named_with_its_package(program: str, tmp_path: Path) -> None:
    require_local_provider()
    programs = tmp_path / "bin"
    programs.mkdir()
    for other in {"nginx", "sshd", "ssh", "ssh-keygen"} - {program}:
        (programs / other).symlink_to(shutil.which(other))
    done = command("deploy", state=tmp_path / "new" / "state.json", PATH=str(programs))
    assert f"{program} is missing: apt-get install" in refused(done, 4)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not valid JSON"),
        ("[]", "no key 'schema'"),
        ('{"schema": 1}', "KeyError"),
        ('{"schema": 99}', "schema 99"),
    ],
)
@pytest.mark.parametrize("name", ["status", "destroy"])
def test_corrupt_state_is_named_and_left_alone(name: str, content: str, said: str, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text(content)
    text = refused(command(name, state=state), 1)
    assert said in text
    assert str(state) in text
    assert state.read_text() == content


def test_errors_are_json_where_json_was_asked_for(tmp_path: Path) -> None:
    done = command("deploy", "--tiers", "99", "--json", state=tmp_path / "state.json")
    error = json.loads(done.stderr)["error"]
    assert (done.returncode, error["kind"], error["exit_code"]) == (2, "usage", 2)


def test_without_root_the_reason_is_named(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("giving up root needs root and setpriv")
    unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    probe = command("--help", prefix=unprivileged)
    if probe.returncode != 0:
        pytest.skip(f"another user cannot run {sys.executable}")
    done = command("deploy", prefix=unprivileged, state=tmp_path / "state.json", HOME=str(tmp_path))
    assert "root" in refused(done, 4)
    doctor = command(
        "doctor", "--json", prefix=unprivileged, state=tmp_path / "state.json", HOME=str(tmp_path)
    )
    findings = {finding["name"]: finding for finding in json.loads(doctor.stdout)["findings"]}
    assert (doctor.returncode, findings["root"]["status"]) == (4, "fail")
    assert findings["root"]["hint"]


def test_nothing_deployed_is_fine_to_look_at_and_to_destroy(tmp_path: Path) -> None:
    state = tmp_path / "absent" / "state.json"
    assert json.loads(command("status", "--json", state=state).stdout) == {"deployed": False, "hosts": []}
    assert json.loads(command("destroy", "--json", state=state).stdout) == {"removed": []}
    assert not state.parent.exists()


def test_a_broken_command_does_not_break_the_others(tmp_path: Path) -> None:
    (tmp_path / "testbed.py").write_text("")
    code = (
        "import sys; sys.modules['testbed.commands.compare'] = None\n"
        "from testbed.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    run = [sys.executable, "-c", code]
    state = ["--state", str(tmp_path / "state.json")]
    fine = subprocess.run([*run, "status", *state], capture_output=True, text=True, timeout=60)
    broken = subprocess.run([*run, "compare", "a", "b"], capture_output=True, text=True, timeout=60)
    assert (fine.returncode, broken.returncode) == (0, 1)
    assert "compare cannot be loaded" in broken.stderr
