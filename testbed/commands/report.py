"""`odb-testbed report`: makes one offline page and the figures of a paper from stored records; measures nothing."""

import argparse
import contextlib
import json
import os
import secrets
from pathlib import Path

from testbed.errors import EnvironmentFault, RecordError, UsageError
from testbed.output import progress_printer
from testbed.runs import Run, find_run, load_run, merge

_EPILOG = """examples:
  odb-testbed report                        the newest run: RUN/report.html and RUN/report-figures/*.pdf, *.svg
  odb-testbed report --last --out paper.html
  odb-testbed report 20260101T000000Z-abcd --out paper.html
  odb-testbed report RUN RUN                several runs of one environment together
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "report",
        help="make a page and figures from stored records",
        description="Makes one HTML file that needs no network, and every figure as PDF and SVG, from stored records.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="runs (directory or id); the newest one without"
    )
    parser.add_argument("--last", action="store_true", help="the newest run (the default)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the page; its figures go to FILE without suffix + '-figures' (report.html in the run's directory)",
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="where runs lie (results)"
    )
    parser.add_argument("--json", action="store_true", help="print what was written as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    if args.runs and args.last:
        raise UsageError("--last has no meaning beside a RUN", "give one of them")
    runs = [load_run(find_run(args.results, name)) for name in args.runs or [None]]
    merged = merge(runs)
    if not merged.records:
        raise RecordError(
            f"run {merged.header.run} has no record yet",
            f"measure: odb-testbed compare --resume {merged.directory}",
        )
    page = _page(args.out, runs[0])
    figures = page.with_name(f"{page.stem}-figures")
    # Drawing takes a second to load; other commands and --help do not wait for it.
    from testbed.report.document import make
    from testbed.timelines import timelines

    say = progress_printer()
    say(f"reading and drawing {len(merged.records)} measurements")
    report = make(
        merged.header, merged.records, list(timelines(runs)), figures.name, lambda title: say(f"  {title}")
    )
    for drawing in report.drawings:
        _write(figures / f"{drawing.name}.svg", drawing.svg)
        _write(figures / f"{drawing.name}.pdf", drawing.pdf)
    _write(page, report.html.encode())
    if args.json:
        written = {
            "schema": 1,
            "run": merged.header.run,
            "report": str(page),
            "figures": [
                str(figures / f"{drawing.name}{suffix}")
                for drawing in report.drawings
                for suffix in (".pdf", ".svg")
            ],
            "findings": dict(report.verdicts),
            "warnings": list(report.warnings),
        }
        print(json.dumps(written))
    else:
        print(page)
    return 0


def _page(out: Path | None, first: Run) -> Path:
    """Where the page goes.  UsageError if that is no place for a file."""
    if out is None:
        return first.directory / "report.html"
    if out.is_dir():
        raise UsageError(f"--out {out} is a directory", "name a file in it")
    if not out.suffix:
        raise UsageError(f"--out {out} has no suffix", f"name it {out}.html")
    return out


def _write(path: Path, content: bytes) -> None:
    """Put a file in its place complete, or leave what was there.  EnvironmentFault names the file that cannot be written."""
    partial = path.with_name(f".partial-{secrets.token_hex(4)}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.rename(path)
    except OSError as error:
        raise EnvironmentFault(
            f"{path} cannot be written ({error.strerror})",
            "see to its directory, or name another place with --out",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
