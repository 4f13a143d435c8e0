"""The command `odb` as a user meets it: output, exit codes, and one sentence for whatever is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.unit.test_stats import mine

Odb = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "NO_COLOR": "1", "COLUMNS": "200"}


@pytest.fixture
def odb(environment: Mapping[str, str]) -> Odb:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "odb.cli", *map(str, arguments)]
        return subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )

    return run


def refused(done: subprocess.CompletedProcess[str], code: int, says: str) -> None:
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("odb: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [[], ["run"], ["stat"], ["doctor"], ["options"]])
def test_help_explains_with_examples(odb: Odb, command: list[str]) -> None:
    done = odb(*command, "--help")
    assert done.returncode == 0
    assert not command or "examples:" in done.stdout


def test_version_is_that_of_the_project(odb: Odb, root_directory: Path) -> None:
    version = odb("--version").stdout.split()[1]
    assert f'version = "{version}"' in (root_directory / "pyproject.toml").read_text()
    assert f"VERSION {version} " in (root_directory / "CMakeLists.txt").read_text()


@pytest.mark.parametrize(
    "arguments", [[], ["runn"], ["stat", "--watch", "0"], ["stat", "--pid", "x"], ["doctor", "--x"]]
)
def test_wrong_command_line_is_a_usage_error(odb: Odb, arguments: list[str]) -> None:
    done = odb(*arguments)
    assert done.returncode == 2
    assert "usage:" in done.stderr
    assert "Traceback" not in done.stderr


def test_run_gives_the_program_everything_and_its_exit_code(odb: Odb, harmless: Path, tmp_path: Path) -> None:
    script = 'echo "$LD_PRELOAD|$1|$2"; cat "$ODB_OPTIONS"; exit 7'
    done = odb(
        "run", "--library", harmless, "--set", "listen=:81", "--set", f"stats_dir={tmp_path}/s", "--",
        "sh", "-c", script, "name", "--set", "-- x",
    )  # fmt: skip
    assert done.returncode == 7
    assert done.stdout.splitlines()[0] == f"{harmless}|--set|-- x"
    assert "listen = :81" in done.stdout.splitlines()
    assert done.stderr == ""


def test_run_without_separator_takes_the_first_word_as_the_program(
    odb: Odb, harmless: Path, tmp_path: Path
) -> None:
    done = odb("run", "--library", harmless, "--set", f"stats_dir={tmp_path}", "echo", "-n", "--json")
    assert (done.returncode, done.stdout) == (0, "--json")


def test_run_says_that_a_static_program_runs_without_odb(
    odb: Odb, harmless: Path, tmp_path: Path, compile_c: Callable[..., Path]
) -> None:
    program = compile_c("static-for-cli", "int main(void) { return 3; }", "-static")
    done = odb("run", "--library", harmless, "--set", f"stats_dir={tmp_path}", "--", program)
    assert done.returncode == 3
    assert "statically linked" in done.stderr


def test_run_refuses_bad_settings_before_the_program_starts(odb: Odb, harmless: Path, tmp_path: Path) -> None:
    marker = tmp_path / "started"
    refused(
        odb("run", "--library", harmless, "--set", "algin=on", "--", "touch", marker),
        2,
        "did you mean 'align'?",
    )
    assert not marker.exists()


def test_run_refuses_what_cannot_be_started(odb: Odb, harmless: Path, tmp_path: Path) -> None:
    refused(odb("run", "--library", harmless), 2, "no command to run")
    refused(odb("run", "--library", harmless, "--"), 2, "no command to run")
    refused(odb("run", "--library", harmless, "--", "no-such-program-x"), 4, "on PATH")
    refused(odb("run", "--library", "/nowhere/l.so", "--", "true"), 4, "no such file")
    refused(odb("run", "--library", "/etc/passwd", "--", "true"), 4, "not a shared library")
    refused(odb("run", "--profile", "fast", "--", "true"), 2, "there is no profile 'fast'")
    refused(odb("run", "--config", tmp_path / "no.toml", "--", "true"), 2, "cannot be read")
    bad = tmp_path / "bad-format"
    bad.write_bytes(b"\x00\x01\x02")
    bad.chmod(0o755)
    refused(
        odb("run", "--library", harmless, "--set", f"stats_dir={tmp_path}", "--", bad), 4, "cannot be started"
    )


def test_stat_shows_processes_and_their_fallbacks(odb: Odb, tmp_path: Path) -> None:
    mine(
        tmp_path, {"span_bytes_sent": 3 << 20, "spans_sent": 5, "spans_received": 5, "fallback_store_full": 9}
    )
    done = odb("stat", "--dir", tmp_path)
    assert done.returncode == 0
    for text in (str(os.getpid()), "3.0 MiB", "store_full", "the payload store was full"):
        assert text in done.stdout
    assert "\033" not in done.stdout


def test_stat_of_one_process_shows_every_counter_with_its_meaning(odb: Odb, tmp_path: Path) -> None:
    mine(tmp_path, {"faults": 41, "unheard_of": 42})
    done = odb("stat", "--dir", tmp_path, "--pid", os.getpid())
    assert "touches of guarded memory by the program" in done.stdout
    assert "unheard_of" in done.stdout
    refused(odb("stat", "--dir", tmp_path, "--pid", 1), 2, "--pid 1: no living process")


def test_stat_as_json_is_one_object(odb: Odb, tmp_path: Path) -> None:
    mine(tmp_path, {"faults": 41})
    assert json.loads(odb("stat", "--dir", tmp_path, "--json").stdout)["totals"]["counters"]["faults"] == 41
    empty = json.loads(odb("stat", "--dir", tmp_path / "absent", "--json").stdout)
    assert empty["processes"] == []
    assert empty["totals"]["bytes_avoided"] == 0


def test_stat_tells_broken_pages_on_standard_error(odb: Odb, tmp_path: Path) -> None:
    mine(tmp_path, {}).write_bytes(b"garbage" * 100)
    done = odb("stat", "--dir", tmp_path)
    assert done.returncode == 0
    assert "not a page of statistics" in done.stderr
    assert "No living process" in done.stdout


def test_stat_of_what_is_no_directory_is_refused(odb: Odb) -> None:
    refused(odb("stat", "--dir", "/etc/passwd"), 4, "cannot be listed")


def test_watch_goes_on_until_interrupted(environment: Mapping[str, str], tmp_path: Path) -> None:
    mine(tmp_path, {"faults": 1})
    command = [sys.executable, "-m", "odb.cli", "stat", "--json", "--watch", "0.05", "--dir", str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        readings = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(20) == 130
    assert [reading["totals"]["counters"]["faults"] for reading in readings] == [1, 1, 1]


def test_reader_that_goes_away_is_no_error(environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-u", "-m", "odb.cli", "options", "--markdown"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 0


def test_options_say_what_holds_and_why(odb: Odb, tmp_path: Path) -> None:
    file = tmp_path / "odb.toml"
    file.write_text("align = false\n")
    done = odb("options", "--config", file, "--set", "virtual_min=16K")
    assert done.returncode == 0
    assert "--set" in done.stdout
    found = json.loads(odb("options", "--config", file, "--set", "virtual_min=16K", "--json").stdout)
    values = {option["name"]: (option["value"], option["source"]) for option in found["options"]}
    assert values["align"] == ("off", str(file))
    assert values["virtual_min"] == ("16384", "--set")
    assert "align = off" in odb("options", "--config", file, "--flat").stdout.splitlines()


def test_document_of_options_and_counters_is_current(odb: Odb, root_directory: Path) -> None:
    document = (root_directory / "docs/CONFIG.md").read_text()
    assert odb("options", "--markdown").stdout == document, "run `make docs`"


def test_doctor_finds_a_usable_library(odb: Odb, harmless: Path, tmp_path: Path) -> None:
    found = json.loads(odb("doctor", "--library", harmless, "--dir", tmp_path, "--json").stdout)
    states = {finding["name"]: finding["status"] for finding in found["findings"]}
    assert states["library"] == states["statistics"] == states["platform"] == "ok"
    assert found["usable"] is True


def test_doctor_fails_with_a_hint_when_the_library_is_missing(odb: Odb, tmp_path: Path) -> None:
    done = odb("doctor", "--library", "/nowhere/libodb.so", "--dir", tmp_path)
    assert done.returncode == 4
    assert "make setup" in done.stdout
    assert (
        json.loads(odb("doctor", "--library", "/nowhere/l.so", "--dir", tmp_path, "--json").stdout)["usable"]
        is False
    )


def test_doctor_says_when_statistics_cannot_be_seen(odb: Odb, harmless: Path) -> None:
    found = json.loads(odb("doctor", "--library", harmless, "--dir", "/proc/1", "--json").stdout)
    finding = next(finding for finding in found["findings"] if finding["name"] == "statistics")
    assert finding["status"] == "warn"
    assert "stats_dir" in finding["hint"]
