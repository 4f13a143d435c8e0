"""odb-testbed doctor: what this machine can do, each finding with a hint."""

from __future__ import annotations

import argparse
import json
from typing import Any

from testbed.doctor import as_json, examine, usable
from testbed.errors import EnvironmentFault
from testbed.output import print_table
from testbed.state import StateStore

_EXAMPLES = """\
examples:
  odb-testbed doctor
  odb-testbed doctor --json     {"usable": true, "findings": [{"name", "status", "detail", "hint"}, ...]}

Exit code 0: the local provider works here, perhaps with limits; 4: it does not, and the table says what to do.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="show what this machine can do, with hints",
        description="Look at namespaces, cgroups, programs, cores and meters of this machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Examine and report."""
    findings = examine(StateStore(arguments.state))
    if arguments.json:
        print(json.dumps(as_json(findings)))
    else:
        rows = [[finding.name, finding.status, finding.detail, finding.hint] for finding in findings]
        print_table(("what", "status", "found", "hint"), rows)
    return 0 if usable(findings) else EnvironmentFault.exit_code
