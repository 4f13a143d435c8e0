"""The command `odb`: run | serve | stat | doctor | options. The one place where errors become sentences and exit codes.

`odb run` imports nothing that it does not need; what draws tables is imported by the commands that draw.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from odb import __version__
from odb.config import Config, load
from odb.errors import EXIT_ENVIRONMENT, EXIT_FINE, EXIT_INTERRUPTED, OdbError, UsageError
from odb.servers import arguments as serve_arguments

_RUN = """\
examples:
  odb run --set connect=10.0.0.3:80 -- curl -s http://10.0.0.3/
  odb run --config odb.toml -- nginx -g 'daemon off;'
  odb run --profile classic --set listen=:8080 --set virtual_min=32K -- python3 -m http.server 8080

The exit code is that of CMD. Before CMD starts: 2 for a wrong setting, 4 when the library or CMD cannot be loaded.
"""
_STAT = """\
examples:
  odb stat                    one line per process, their sum, the reasons of fallbacks
  odb stat --pid 4711         every counter of one process, with its meaning
  odb stat --json             the same numbers for programs
  odb stat --watch 1          again every second, until interrupted
"""
_DOCTOR = """\
examples:
  odb doctor
  odb doctor --json --library build/dev/libodb.so

Exit code 0: ODB can run here; 4: it cannot, and the table says what to do.
"""
_OPTIONS = """\
examples:
  odb options                                  every option, its default, what may be written
  odb options --config odb.toml --set align=off   what would hold, and where it comes from
  odb options --json
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        parsed = _parser().parse_args(arguments)
        code: int = parsed.function(parsed)
        sys.stdout.flush()
        return code
    except OdbError as error:
        print(f"odb: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (odb stat | head): nothing is wrong, but the interpreter must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FINE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="odb", description="On-Demand Buffer: run programs with libodb.so and see what it does for them."
    )
    parser.add_argument("--version", action="version", version=f"odb {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = _command(commands, "run", "run a program with the library", _RUN, _run)
    _add_settings(run)
    _add_library(run)
    run.add_argument(
        "cmd", nargs=argparse.REMAINDER, metavar="-- CMD ...", help="the program and its arguments"
    )

    serve = _command(
        commands, "serve", "be a test server: FE, IS or BE of a chain", serve_arguments.SERVE, _serve
    )
    serve_arguments.add_roles(serve)

    stat = _command(commands, "stat", "show live statistics of running processes", _STAT, _stat)
    stat.add_argument("--json", action="store_true", help="print one JSON object")
    stat.add_argument("--watch", type=_seconds, metavar="SECONDS", help="show again every SECONDS")
    stat.add_argument("--pid", type=int, metavar="N", help="only this process, with every counter")
    stat.add_argument("--dir", type=Path, metavar="DIR", help="the directory that the option stats_dir names")

    doctor = _command(commands, "doctor", "check whether ODB can run here", _DOCTOR, _doctor)
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    doctor.add_argument(
        "--dir", type=Path, metavar="DIR", help="the directory that the option stats_dir names"
    )
    _add_library(doctor)

    options = _command(commands, "options", "show every option and the value that holds", _OPTIONS, _options)
    _add_settings(options)
    form = options.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object")
    form.add_argument("--flat", action="store_true", help="print the option file that the library would read")
    form.add_argument("--markdown", action="store_true", help="print docs/CONFIG.md")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    examples: str,
    function: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(function=function)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile", metavar="P", help="a named set of options; `odb options --json` lists them"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file of options")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="assignments",
        help="one option; repeatable",
    )


def _add_library(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--library", type=Path, metavar="FILE", help="another libodb.so than the installed one"
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.05 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not possible: use seconds from 0.05 to 86400")
    return value


def _settings(parsed: argparse.Namespace) -> Config:
    return load(profile=parsed.profile, file=parsed.config, assignments=parsed.assignments)


def _run(parsed: argparse.Namespace) -> int:
    from odb import launcher

    command = parsed.cmd[1:] if parsed.cmd[:1] == ["--"] else parsed.cmd
    if not command:
        raise UsageError("There is no command to run: odb run [OPTIONS] -- CMD [ARGUMENT ...]")
    launch = launcher.prepare(_settings(parsed), command, library=parsed.library)
    for warning in launch.warnings:
        print(f"odb: {warning}", file=sys.stderr)
    sys.stdout.flush()
    launcher.execute(launch)
    return EXIT_ENVIRONMENT


def _serve(parsed: argparse.Namespace) -> int:
    from odb.servers import command

    return command.run(parsed)


def _stat(parsed: argparse.Namespace) -> int:
    directory = parsed.dir or Path(load()["stats_dir"])
    if parsed.watch is None:
        _show_stat(directory, parsed.pid, as_json=parsed.json)
        return EXIT_FINE
    # Nothing sets this event: it is a wait that an interrupt ends.
    never = threading.Event()
    while True:
        if not parsed.json and sys.stdout.isatty():
            print("\033[H\033[2J", end="")
        _show_stat(directory, parsed.pid, as_json=parsed.json)
        sys.stdout.flush()
        never.wait(parsed.watch)


def _show_stat(directory: Path, pid: int | None, *, as_json: bool) -> None:
    from odb import stats

    reading = stats.read(directory, pid)
    if pid is not None and not reading.pages:
        raise UsageError(
            f"--pid {pid}: no living process of this number has the library (looked in {directory})."
        )
    if as_json:
        print(json.dumps(stats.as_json(reading)))
        return
    from odb import render

    for problem in reading.problems:
        print(f"odb: {problem}", file=sys.stderr)
    render.console().print(render.statistics(reading, full=pid is not None))


def _doctor(parsed: argparse.Namespace) -> int:
    from odb import doctor

    found = doctor.examine(parsed.library, parsed.dir or Path(load()["stats_dir"]))
    if parsed.json:
        print(json.dumps(doctor.as_json(found)))
    else:
        from odb import render

        render.console().print(render.findings(found))
    return EXIT_FINE if doctor.usable(found) else EXIT_ENVIRONMENT


def _options(parsed: argparse.Namespace) -> int:
    config = _settings(parsed)
    if parsed.markdown:
        from odb.reference import markdown

        print(markdown(), end="")
    elif parsed.flat:
        print(config.flat(), end="")
    elif parsed.json:
        from odb.reference import as_json

        print(json.dumps(as_json(config)))
    else:
        from odb import render

        render.console().print(render.options(config))
    return EXIT_FINE


if __name__ == "__main__":
    sys.exit(main())
