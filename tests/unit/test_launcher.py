"""The launcher: whatever would keep the library from working is said before the program starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from odb import launcher
from odb.config import load
from odb.errors import CommandError, LibraryError

Compile = Callable[..., Path]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path), "HOME": "/nowhere"}


@pytest.fixture
def config_here(tmp_path: Path) -> object:
    return load(assignments=[f"stats_dir={tmp_path}/stats"])


def test_library_that_loads_passes(harmless: Path) -> None:
    launcher.check_library(harmless)


def test_missing_library_is_told() -> None:
    with pytest.raises(LibraryError, match="no such file") as caught:
        launcher.find_library(Path("/nowhere/libodb.so"))
    assert caught.value.exit_code == 4


def test_text_file_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "libodb.so").write_text("hello")
    with pytest.raises(LibraryError, match="not a shared library"):
        launcher.check_library(tmp_path / "libodb.so")


def test_cut_off_library_is_told(tmp_path: Path, harmless: Path) -> None:
    cut = tmp_path / "libodb.so"
    cut.write_bytes(harmless.read_bytes()[:600])
    with pytest.raises(LibraryError, match=r"does not take it|ends with"):
        launcher.check_library(cut)


def test_library_of_another_machine_is_told(tmp_path: Path, harmless: Path) -> None:
    other = bytearray(harmless.read_bytes())
    other[18:20] = (8).to_bytes(2, "little")  # EM_MIPS
    (tmp_path / "libodb.so").write_bytes(other)
    with pytest.raises(LibraryError, match="another kind of machine"):
        launcher.check_library(tmp_path / "libodb.so")


def test_library_with_a_missing_symbol_is_told(compile_c: Compile) -> None:
    source = (
        "extern int nobody_has_this(void); __attribute__((constructor)) void f(void) { nobody_has_this(); }"
    )
    broken = compile_c("libbroken.so", source, "-shared", "-fPIC", "-Wl,-z,now")
    with pytest.raises(LibraryError, match="nobody_has_this"):
        launcher.check_library(broken)


def test_library_with_a_missing_dependency_is_told(compile_c: Compile, tmp_path: Path) -> None:
    gone = compile_c("libgone.so", "int gone(void) { return 1; }", "-shared", "-fPIC")
    source = "extern int gone(void); int f(void) { return gone(); }"
    needy = compile_c("libneedy.so", source, "-shared", "-fPIC", "-x", "none", str(gone))
    moved = gone.rename(tmp_path / "elsewhere.so")
    assert moved.exists()
    with pytest.raises(LibraryError, match="does not take it"):
        launcher.check_library(needy)


def test_library_that_crashes_is_told(compile_c: Compile) -> None:
    source = "#include <stdlib.h>\n__attribute__((constructor)) void f(void) { abort(); }"
    with pytest.raises(LibraryError, match="signal 6"):
        launcher.check_library(compile_c("libabort.so", source, "-shared", "-fPIC"))


def test_library_that_never_returns_is_told(compile_c: Compile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "PROBE_SECONDS", 0.2)
    source = "#include <unistd.h>\n__attribute__((constructor)) void f(void) { pause(); }"
    with pytest.raises(LibraryError, match="does not end"):
        launcher.check_library(compile_c("libpause.so", source, "-shared", "-fPIC"))


def test_path_that_ld_preload_cannot_hold_is_told(tmp_path: Path, harmless: Path) -> None:
    for name in ("with space.so", "with:colon.so"):
        shutil.copy(harmless, tmp_path / name)
        with pytest.raises(LibraryError, match="cannot hold"):
            launcher.check_library(tmp_path / name)


def test_program_is_found_on_path_or_by_its_path(environment: dict[str, str]) -> None:
    assert launcher.find_program("true", environment) == Path("/usr/bin/true")
    assert launcher.find_program("/bin/true", environment) == Path("/bin/true")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no-such-program-anywhere", "on PATH"),
        ("/no/such/program", "no such program"),
        ("/etc/passwd", "may be executed"),
        ("/usr/bin/", "may be executed"),
    ],
)
def test_program_that_cannot_run_is_told(environment: dict[str, str], name: str, says: str) -> None:
    with pytest.raises(CommandError, match=says) as caught:
        launcher.find_program(name, environment)
    assert caught.value.exit_code == 4


def test_static_program_runs_without_odb_and_that_is_said(compile_c: Compile, harmless: Path) -> None:
    program = compile_c("static-program", "int main(void) { return 0; }", "-static")
    obstacle = launcher.preload_obstacle(program, harmless)
    assert obstacle is not None
    assert "statically linked" in obstacle


def test_static_pie_program_counts_as_static(compile_c: Compile, harmless: Path) -> None:
    program = compile_c("static-pie-program", "int main(void) { return 0; }", "-static-pie", "-fPIE")
    assert "statically linked" in (launcher.preload_obstacle(program, harmless) or "")


def test_dynamic_program_has_no_obstacle(compile_c: Compile, harmless: Path) -> None:
    assert launcher.preload_obstacle(compile_c("dynamic", "int main(void) { return 0; }"), harmless) is None


def test_script_is_judged_by_its_interpreter(compile_c: Compile, harmless: Path, tmp_path: Path) -> None:
    static = compile_c("static-interpreter", "int main(void) { return 0; }", "-static")
    script = tmp_path / "script"
    script.write_text(f"#!{static} -x\n")
    assert "statically linked" in (launcher.preload_obstacle(script, harmless) or "")
    script.write_text("#!/bin/sh\n")
    assert launcher.preload_obstacle(script, harmless) is None


def test_program_that_changes_its_user_is_told(compile_c: Compile, harmless: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file to another user needs root")
    program = Path(
        shutil.copy(compile_c("setuid-program", "int main(void) { return 0; }"), tmp_path / "setuid")
    )
    os.chown(program, 65534, 65534)
    program.chmod(0o4755)
    assert "changes its user" in (launcher.preload_obstacle(program, harmless) or "")


def test_environment_holds_library_first_and_option_file(
    harmless: Path, environment: dict[str, str], config_here: object, tmp_path: Path
) -> None:
    environment["LD_PRELOAD"] = f"/lib/other.so:{harmless}"
    launch = launcher.prepare(config_here, ["true", "a"], library=harmless, environment=environment)  # type: ignore[arg-type]
    assert launch.environment["LD_PRELOAD"] == f"{harmless}:/lib/other.so"
    assert Path(launch.environment["ODB_OPTIONS"]).read_text() == config_here.flat()  # type: ignore[attr-defined]
    assert launch.environment["HOME"] == "/nowhere"
    assert launch.arguments == ("true", "a")
    assert launch.warnings == ()
    assert (tmp_path / "stats").stat().st_mode & 0o7777 == 0o1777


def test_directory_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    launcher.make_stats_directory(tmp_path)
    assert tmp_path.stat().st_mode & 0o7777 == 0o700


def test_python_of_the_launcher_stays_light() -> None:
    heavy = {
        "rich",
        "locust",
        "gevent",
        "fabric",
        "paramiko",
        "ansible_runner",
        "scipy",
        "numpy",
        "asyncio",
        "json.tool",
    }
    code = "import sys, odb.cli, odb.launcher; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert heavy & set(done.stdout.split()) == set()
