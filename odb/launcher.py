"""Starts a program with libodb.so: checks the library and the program, sets the environment, execs.

Everything that can go wrong is said here, before exec; inside the program the library never complains.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import odb
from odb.config import Config, runtime_directory, write_flat
from odb.errors import CommandError, LibraryError, PlatformError

PROBE_SECONDS = 10.0

_ELF_SHARED = 3
_PT_INTERP = 3


@dataclass(frozen=True, slots=True)
class Elf:
    """What the loader looks at first: class (1: 32 bits, 2: 64 bits), byte order, machine, type, and whether an
    interpreter (ld.so) is named, that is, whether the file is dynamically linked as a program."""

    word: int
    order: int
    machine: int
    kind: int
    interpreted: bool


@dataclass(frozen=True, slots=True)
class Launch:
    """All that exec needs: the program's path, its arguments (the first is its name as typed) and its environment.

    `warnings` are sentences for standard error: reasons why the program will run without ODB.
    """

    program: Path
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    warnings: tuple[str, ...]


def find_library(named: Path | None = None) -> Path:
    """The absolute path of libodb.so: the one named, or the one installed with this package. Raises LibraryError."""
    if named is not None:
        if not named.is_file():
            raise LibraryError(
                f"--library {named}: there is no such file; build it, or leave the option out."
            )
        return named.resolve()
    for folder in odb.__path__:
        candidate = Path(folder) / "lib" / "libodb.so"
        if candidate.is_file():
            return candidate.resolve()
    raise LibraryError(
        "libodb.so is not installed beside this package: run `make setup`, or name one with --library FILE."
    )


def read_elf(path: Path) -> Elf | None:
    """The ELF facts of a file, or None if it is not an ELF file. Raises OSError."""
    with path.open("rb") as stream:
        head = stream.read(64)
        if len(head) < 52 or head[:4] != b"\x7fELF":
            return None
        word, order = head[4], head[5]
        endian = "big" if order == 2 else "little"

        def number(data: bytes, offset: int, size: int) -> int:
            return int.from_bytes(data[offset : offset + size], endian)  # type: ignore[arg-type]

        kind, machine = number(head, 16, 2), number(head, 18, 2)
        if word == 2:
            table, size, count = number(head, 32, 8), number(head, 54, 2), number(head, 56, 2)
        else:
            table, size, count = number(head, 28, 4), number(head, 42, 2), number(head, 44, 2)
        stream.seek(table)
        rows = stream.read(size * count)
    interpreted = any(number(rows, row * size, 4) == _PT_INTERP for row in range(count))
    return Elf(word, order, machine, kind, interpreted)


def check_library(library: Path, options: Path | None = None) -> None:
    """Make sure that the dynamic loader takes `library`: by its ELF header and by preloading it into /bin/true.

    options: the flat option file that the probe gets; without one the library stays inactive. Raises LibraryError.
    """
    if any(character in str(library) for character in " :"):
        raise LibraryError(
            f"{library}: LD_PRELOAD cannot hold a path with a space or a colon; move the library."
        )
    try:
        elf = read_elf(library)
        here = read_elf(Path(sys.executable).resolve())
    except OSError as error:
        raise LibraryError(f"{library}: the library cannot be read: {error.strerror}.") from error
    if elf is None or elf.kind != _ELF_SHARED:
        raise LibraryError(f"{library}: not a shared library; name libodb.so as `make setup` builds it.")
    if here is not None and (elf.word, elf.order, elf.machine) != (here.word, here.order, here.machine):
        raise LibraryError(
            f"{library}: built for another kind of machine; build it on this one with `make setup`."
        )
    _probe(library, options)
    if options is not None:
        _check_options(library, options)


def _check_options(library: Path, options: Path) -> None:
    """Ask the library itself whether it takes the option file: it may be older or newer than this package."""
    try:
        check = ctypes.CDLL(str(library)).odb_check_options
    except (OSError, AttributeError) as error:
        raise LibraryError(
            f"{library}: this is no libodb.so, or a very old one; build it with `make setup`."
        ) from error
    line: int = check(str(options).encode())
    if line == 0:
        return
    if line < 0:
        raise LibraryError(
            f"{options}: the library cannot read its option file; check the permissions on the way to it."
        )
    text = options.read_text().splitlines()[line - 1]
    raise LibraryError(
        f"{library}: this library does not take {text!r}: it was built from another version than this package; "
        "run `make setup`, or name the right one with --library FILE."
    )


def _probe(library: Path, options: Path | None) -> None:
    true = shutil.which("true", path="/bin:/usr/bin")
    if true is None:
        raise PlatformError("There is no `true` in /bin or /usr/bin to try the library with.")
    environment = {"LD_PRELOAD": str(library), "LC_ALL": "C"}
    if options is not None:
        environment["ODB_OPTIONS"] = str(options)
    try:
        probe = subprocess.run(
            [true],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LibraryError(f"{library}: {true} does not end when the library is preloaded.") from error
    complaint = " ".join(probe.stderr.decode(errors="replace").split())
    if complaint:
        raise LibraryError(f"{library}: the dynamic loader does not take it: {complaint}")
    if probe.returncode != 0:
        how = f"signal {-probe.returncode}" if probe.returncode < 0 else f"status {probe.returncode}"
        raise LibraryError(f"{library}: {true} ends with {how} when the library is preloaded.")


def find_program(name: str, environment: Mapping[str, str]) -> Path:
    """The file that exec would run for `name`, by PATH unless it holds a slash. Raises CommandError."""
    if "/" in name:
        path = Path(name)
        if not path.exists():
            raise CommandError(f"{name}: there is no such program.")
        if not path.is_file() or not os.access(path, os.X_OK):
            raise CommandError(f"{name}: this is no file that may be executed.")
        return path
    found = shutil.which(name, path=environment.get("PATH", os.defpath))
    if found is None:
        raise CommandError(f"{name}: no program of this name is on PATH; install it or give its path.")
    return Path(found)


def preload_obstacle(program: Path, library: Path) -> str | None:
    """Why the loader will not give `library` to `program`, as a sentence, or None. A script is judged by its interpreter."""
    try:
        with program.open("rb") as stream:
            first = stream.readline(512)
        if first.startswith(b"#!"):
            words = first[2:].split()
            interpreter = Path(os.fsdecode(words[0])) if words else program
            return (
                preload_obstacle(interpreter, library)
                if interpreter.is_file() and interpreter != program
                else None
            )
        elf, ours = read_elf(program), read_elf(library)
        mode = program.stat()
    except OSError:
        return None  # executable but not readable: the loader decides
    if elf is None:
        return None
    if not elf.interpreted:
        return f"{program} is statically linked, so nothing can be preloaded into it: it runs without ODB."
    if ours is not None and (elf.word, elf.order, elf.machine) != (ours.word, ours.order, ours.machine):
        return f"{program} is built for another kind of machine than the library: it runs without ODB."
    changes_user = mode.st_mode & stat.S_ISUID and mode.st_uid != os.getuid()
    changes_group = mode.st_mode & stat.S_ISGID and mode.st_gid != os.getgid()
    if changes_user or changes_group:
        return f"{program} changes its user or group when started, so the loader ignores LD_PRELOAD: it runs without ODB."
    return None


def prepare(
    config: Config,
    command: Sequence[str],
    *,
    library: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Launch:
    """Check everything and write the option file; nothing is started but the probe of the library.

    Raises LibraryError, CommandError or PlatformError.
    """
    base = dict(os.environ if environment is None else environment)
    program = find_program(command[0], base)
    found = find_library(library)
    options = write_flat(config, runtime_directory(base, os.geteuid()))
    make_stats_directory(Path(config["stats_dir"]))
    check_library(found, options)
    preloads = [item for item in base.get("LD_PRELOAD", "").replace(":", " ").split() if item != str(found)]
    base["LD_PRELOAD"] = ":".join([str(found), *preloads])
    base["ODB_OPTIONS"] = str(options)
    obstacle = preload_obstacle(program, found)
    return Launch(program, tuple(command), base, (obstacle,) if obstacle else ())


def make_stats_directory(directory: Path) -> None:
    """Make the directory of live statistics, writable by all users with the sticky bit, unless it is there already.

    It is no error if that fails: the runtime then counts in private.
    """
    try:
        directory.mkdir(parents=True)
        directory.chmod(0o1777)
    except OSError:
        return


def execute(launch: Launch) -> None:
    """Replace this process by the program; returns only by raising CommandError."""
    try:
        os.execve(launch.program, launch.arguments, dict(launch.environment))
    except OSError as error:
        raise CommandError(f"{launch.program}: cannot be started: {error.strerror}.") from error
