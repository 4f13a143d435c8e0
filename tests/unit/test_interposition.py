"""The tables of intercepted and passed calls are complete for the programs that matter, and their document is current."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

import pytest

from odb import interposition
from odb.tables import TableError

PROGRAMS = ("nginx", "haproxy", "curl", "python3", "redis-server")


@cache
def libc() -> Path:
    """The C library that this interpreter runs on."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split()[-1]
        if re.fullmatch(r"libc[.-][^/]*so[^/]*", Path(path).name):
            return Path(path)
    raise AssertionError("no libc in this process")


def symbols(file: Path, *options: str) -> list[tuple[str, str]]:
    """(address or "", name with version) of the dynamic symbols of a file."""
    done = subprocess.run(
        ["nm", "-D", *options, file], capture_output=True, text=True, check=True, timeout=60
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    return [(row[0] if len(row) == 3 else "", row[-1]) for row in rows]


@cache
def public() -> dict[str, set[str]]:
    """What libc offers to programs: name -> addresses."""
    found: dict[str, set[str]] = {}
    for address, name in symbols(libc(), "--defined-only"):
        if not name.endswith("GLIBC_PRIVATE"):
            found.setdefault(name.split("@")[0], set()).add(address)
    assert len(found) > 1000
    return found


def files_of(program: str) -> list[Path]:
    """The files whose imports count for a program: itself, and for Python also its library."""
    if program == "python3":
        library = Path(sysconfig.get_config_var("LIBDIR")) / str(sysconfig.get_config_var("LDLIBRARY"))
        files = [Path(sys.executable), Path("/usr/bin/python3"), library]
        return [file.resolve() for file in files if file.exists() and file.suffix != ".a"]
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return [Path(found).resolve()]


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_import_of_a_program_is_intercepted_or_known_to_need_nothing(program: str) -> None:
    hooked = {hook.name for hook in interposition.hooks()}
    groups = interposition.passed()
    imported = {
        name.split("@")[0] for file in files_of(program) for _, name in symbols(file, "--undefined-only")
    } & set(public())
    assert len(imported) > 20
    unknown = sorted(name for name in imported - hooked if not any(group.covers(name) for group in groups))
    assert not unknown, (
        f"{program} imports {', '.join(unknown)}: intercept it (hooks.def) or say in passed.def why it needs nothing"
    )


def test_gate_fails_for_a_call_that_nobody_has_thought_about() -> None:
    hooked = {hook.name for hook in interposition.hooks()}
    groups = interposition.passed()
    strangers = {"process_vm_readv", "vwarnx", "fanotify_mark"} & set(public())
    assert strangers
    assert not strangers & hooked
    assert not any(group.covers(name) for group in groups for name in strangers)


def test_other_names_of_intercepted_calls_are_intercepted() -> None:
    offered = public()
    hooked = {hook.name for hook in interposition.hooks()}
    reached = {address for name in hooked for address in offered.get(name, ())}
    ways_around = {name for name, addresses in offered.items() if addresses & reached} - hooked
    assert ways_around == set()


def test_fortified_names_of_intercepted_calls_are_classified() -> None:
    hooked = {hook.name for hook in interposition.hooks()}
    groups = interposition.passed()
    fortified = {f"__{name}_chk" for name in hooked} & set(public())
    assert "__read_chk" in fortified
    left = {name for name in fortified - hooked if not any(group.covers(name) for group in groups)}
    assert left == set()


def test_call_is_either_intercepted_or_passed_by_name() -> None:
    names = [hook.name for hook in interposition.hooks()]
    assert len(names) == len(set(names)) > 150
    passed = [name for group in interposition.passed() for name in group.names]
    assert set(passed).isdisjoint(names)


def test_tests_that_a_policy_names_exist(root_directory: Path) -> None:
    for hook in interposition.hooks():
        assert "rows" in hook.policy.tests
        for name in hook.policy.tests:
            assert (root_directory / "tests/preload" / f"test_{name}.py").is_file(), hook.name


def test_document_of_interposition_is_current(root_directory: Path) -> None:
    document = (root_directory / "docs/INTERPOSITION.md").read_text()
    assert interposition.markdown() == document, "run `make docs`"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("ODB_HOOK(int, f, (int a), (a), none)\n", "f has the policy none"),
        ('ODB_POLICY(p, "a", "b")\n', "cannot be read"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, row: str, message: str) -> None:
    table = tmp_path / "hooks.def"
    table.write_text(row)
    with pytest.raises(TableError, match=message):
        interposition.hooks(table)
