"""The command `odb-testbed`: finds the command's module, runs it, and turns errors into one sentence and an exit code."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import NoReturn

from testbed.errors import TestbedError, UsageError

COMMANDS = ("doctor", "deploy", "run", "compare", "report", "profile", "status", "destroy")
EXIT_INTERRUPTED = 130

_EXAMPLES = """\
examples:
  odb-testbed doctor                what this machine can do
  odb-testbed deploy                make the hosts and start the servers
  odb-testbed compare vanilla odb   measure both and print the comparison
  odb-testbed run smoke             measure the matrix of a spec, resumable
  odb-testbed report                make a page and figures of the newest run
  odb-testbed profile odb           draw where every tier spends its time
  odb-testbed destroy               remove everything again

Results go to standard output, progress to standard error. Exit codes: 0 fine, 1 failure, 2 usage, 3 threshold, 4 environment,
130 interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _make_interruptible()
        parsed = _parser(words).parse_args(words)
        code = int(parsed.module.run(parsed))
        sys.stdout.flush()
        return code
    except TestbedError as error:
        _report(error, as_json="--json" in words)
        return error.exit_code
    except BrokenPipeError:
        # The reader has gone (odb-testbed status | head): nothing is wrong, but nothing must be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        _report(TestbedError(what), as_json="--json" in words)
        return TestbedError.exit_code
    except (Interrupted, KeyboardInterrupt):
        print("interrupted; the same command continues where this one stopped", file=sys.stderr)
        return EXIT_INTERRUPTED


class Interrupted(BaseException):
    """The user or the system asked to end. Not a KeyboardInterrupt: Fabric would pass that on to the host and go on."""


def _make_interruptible() -> None:
    """Turn SIGINT and SIGTERM into Interrupted; a second one does not disturb the cleaning up after the first."""
    signals = (signal.SIGINT, signal.SIGTERM)

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        for one in signals:
            signal.signal(one, signal.SIG_IGN)
        raise Interrupted

    if threading.current_thread() is threading.main_thread():
        for one in signals:
            signal.signal(one, interrupt)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are errors like all others."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"see '{self.prog} --help'")


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="odb-testbed",
        description="Deploys hosts and servers, runs them under load and compares variants.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # Only the module of the command that was asked for is imported: a broken one does not break the others.
    asked = next((word for word in words if word in COMMANDS), None)
    for name in [asked] if asked else COMMANDS:
        try:
            module = importlib.import_module(f"testbed.commands.{name}")
        except ImportError as error:
            if asked:
                raise TestbedError(
                    f"the command {name} cannot be loaded ({error})", "run 'make setup'"
                ) from error
            continue
        _add(module, name, commands)
    return parser


def _add(module: ModuleType, name: str, commands: argparse._SubParsersAction[_Parser]) -> None:
    module.add_parser(commands)
    parser = commands.choices[name]
    if "--state" not in parser._option_string_actions:
        parser.add_argument(
            "--state",
            type=_state_file,
            metavar="FILE",
            help="state file (default: $ODB_TESTBED_STATE or ~/.local/state/odb-testbed/state.json)",
        )
    parser.set_defaults(module=module)


def _state_file(text: str) -> Path:
    path = Path(text).absolute()
    if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises where a directory may not be searched)
        raise UsageError(f"--state {text} is a directory", "name a file in it")
    return path


def _report(error: TestbedError, *, as_json: bool) -> None:
    text = json.dumps(error.as_json()) if as_json else f"odb-testbed: {error}"
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
