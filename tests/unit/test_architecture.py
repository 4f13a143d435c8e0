"""The rules of the house: who may import, include, call and export what, and what no file may name."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "odb" / "runtime"
FREESTANDING = {
    "float.h",
    "limits.h",
    "stdalign.h",
    "stdarg.h",
    "stdbool.h",
    "stddef.h",
    "stdint.h",
    "stdnoreturn.h",
}

# What each layer of C may include of the others. hooks.def lists names only, so os/real may expand it.
MAY_INCLUDE = {
    "wire": {"wire"},
    "os": {"os", "hooks/hooks.def"},
    "core": {"core", "os", "wire", "include", "hooks/hooks.def", "options.def", "stats.def"},
    "hooks": {"hooks", "core", "os", "wire", "include"},
    "include": set(),
}


def c_files(layer: str) -> list[Path]:
    return sorted([*(RUNTIME / layer).rglob("*.c"), *(RUNTIME / layer).rglob("*.h")])


def code_of(file: Path) -> str:
    """C source without comments and strings, so that prose may name what code may not."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", file.read_text(), flags=re.DOTALL)
    return re.sub(r'"(?:[^"\\\n]|\\.)*"', '""', text)


def hook_names() -> set[str]:
    text = (RUNTIME / "hooks" / "hooks.def").read_text()
    return set(re.findall(r"^ODB_HOOK[A-Z_]*\([^,]*,\s*(\w+)", text, re.MULTILINE))


def api_names() -> set[str]:
    header = RUNTIME / "include" / "odb.h"
    return (
        set(re.findall(r"^ODB_API\s[^;]*?\b(odb_\w+)\(", header.read_text(), re.MULTILINE))
        if header.exists()
        else set()
    )


def modules(package: str) -> Iterator[tuple[str, Path]]:
    for file in sorted((ROOT / package).rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def imports(module: str, file: Path) -> set[str]:
    """Every module that `file` imports, wherever in it; a name taken from a package counts as the submodule it may be."""
    found: set[str] = set()
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            found.add(base)
            found.update(
                f"{base}.{alias.name}"
                for alias in node.names
                if (ROOT / base.replace(".", "/") / f"{alias.name}.py").is_file()
                or (ROOT / base.replace(".", "/") / alias.name).is_dir()
            )
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def own_imports(module: str, file: Path) -> set[str]:
    """The imports from the project's own packages, without the bare packages themselves."""
    return {
        name
        for name in imports(module, file)
        if name.split(".")[0] in {"odb", "testbed", "loadgen"} and "." in name
    }


@pytest.mark.parametrize("layer", MAY_INCLUDE)
def test_layers_of_c_include_only_what_lies_below(layer: str) -> None:
    for file in c_files(layer):
        for included in re.findall(r'^\s*#\s*include\s*"([^"]+)"', file.read_text(), re.MULTILINE):
            allowed = included in MAY_INCLUDE[layer] or included.split("/")[0] in MAY_INCLUDE[layer] - {
                included
            }
            assert allowed, f"{file.relative_to(ROOT)} includes {included}"


def test_wire_needs_no_system() -> None:
    assert c_files("wire")
    for file in c_files("wire"):
        included = set(re.findall(r"^\s*#\s*include\s*<([^>]+)>", file.read_text(), re.MULTILINE))
        assert included <= FREESTANDING | {"string.h"}, file


@pytest.mark.parametrize("function", ["dlsym", "getenv"])
def test_function_is_called_in_one_file_only(function: str) -> None:
    callers = [
        file
        for layer in MAY_INCLUDE
        for file in c_files(layer)
        if re.search(rf"\b(?:secure_)?{function}\s*\(", code_of(file))
    ]
    assert len(callers) == 1, callers


@pytest.mark.parametrize("archive", ["libodbcore.a", "libodbwire.a"])
def test_core_and_wire_call_no_interposed_name(archive: str, build_dev: Path) -> None:
    listing = subprocess.run(
        ["nm", "-A", "-u", build_dev / archive], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    hooks = hook_names()
    assert len(hooks) > 50
    wrong = [line for line in listing.splitlines() if line.split()[-1].split("@")[0] in hooks]
    assert wrong == []


def test_library_exports_hooks_and_api_and_nothing_else(library: Path) -> None:
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    exported = {line.split()[-1].split("@")[0] for line in listing.splitlines()}
    assert exported == hook_names() | api_names()


def test_library_needs_libc_alone_and_binds_at_once(library: Path) -> None:
    dynamic = subprocess.run(
        ["readelf", "-d", library], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert set(re.findall(r"\(NEEDED\)[^\[]*\[([^\]]+)\]", dynamic)) <= {
        "libc.so.6",
        "ld-linux-x86-64.so.2",
        "ld-linux-aarch64.so.1",
    }
    assert "BIND_NOW" in dynamic


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("odb.errors", set()),
        ("odb.tables", set()),
        ("odb.config", {"odb.errors", "odb.tables"}),
        ("odb.stats", {"odb.errors"}),
        ("testbed.errors", set()),
        ("testbed.spec", {"testbed.errors"}),
        ("testbed.record", {"testbed.errors"}),
    ],
)
def test_leaves_import_only_leaves(module: str, allowed: set[str]) -> None:
    file = ROOT / (module.replace(".", "/") + ".py")
    assert own_imports(module, file) <= allowed


def test_protocol_is_sans_io() -> None:
    files = list(modules("odb/protocol"))
    assert files
    for module, file in files:
        found = imports(module, file)
        assert found & {"socket", "ctypes", "os", "asyncio", "selectors", "subprocess"} == set(), module
        assert all(within(name, "odb.protocol") for name in own_imports(module, file)), module


@pytest.mark.parametrize(
    ("package", "never"),
    [
        ("odb", ("testbed", "loadgen")),
        ("testbed", ("loadgen", "locust", "gevent")),
        ("loadgen", ("testbed", "odb")),
    ],
)
def test_packages_keep_apart(package: str, never: tuple[str, ...]) -> None:
    for module, file in modules(package):
        wrong = [name for name in imports(module, file) if any(within(name, other) for other in never)]
        assert wrong == [], module


def test_nothing_imports_a_command_line() -> None:
    for package in ("odb", "testbed", "loadgen"):
        for module, file in modules(package):
            assert imports(module, file) & {"odb.cli", "testbed.cli"} == set(), module


def test_analysis_and_report_read_records_only() -> None:
    reading = {"testbed.errors", "testbed.record", "testbed.analysis", "testbed.metrics"}
    for module, file in modules("testbed"):
        if within(module, "testbed.analysis") or within(module, "testbed.report"):
            wrong = {
                name
                for name in own_imports(module, file)
                if name not in reading and not within(name, "testbed.report")
            }
            assert wrong == set(), module


@pytest.mark.parametrize("library", ["fabric", "ansible_runner", "pyroute2"])
def test_library_is_imported_in_one_module(library: str) -> None:
    users = [
        module
        for package in ("odb", "testbed", "loadgen")
        for module, file in modules(package)
        if any(within(name, library) for name in imports(module, file))
    ]
    assert len(users) == 1, users


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name]


def test_no_file_names_this_checkout_or_a_package_index() -> None:
    foreign = re.compile(
        rf"{re.escape(str(ROOT))}\b|[.]pye[n]v\b|\b(?:pypi|pythonhosted|npmjs)\.(?:org|com)\b|--(?:extra-)?index-url|find[-]links"
    )
    for file in tracked():
        if file.is_symlink() or not file.is_file():
            continue
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        match = foreign.search(text)
        assert match is None, f"{file.relative_to(ROOT)} names {match[0]}"


def test_lock_pins_everything_and_names_no_place() -> None:
    rows = [
        line
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert len(rows) > 30
    for row in rows:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", row), row


def test_lock_holds_what_the_project_asks_for() -> None:
    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    rows = {normal(line) for line in (ROOT / "requirements.lock").read_text().splitlines()}
    asked = re.findall(
        r'^    "([A-Za-z0-9._-]+==[^"]+)",$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert len(asked) > 15
    assert {normal(each) for each in asked} <= rows
