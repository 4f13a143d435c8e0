"""odb-testbed destroy: removes exactly what the state file names."""

from __future__ import annotations

import argparse
import json
from typing import Any

from testbed.deploy import destroy
from testbed.output import progress_printer

_EXAMPLES = """\
examples:
  odb-testbed destroy
  odb-testbed destroy --state /tmp/other.json --json

Only what a deployment recorded is removed; nothing is looked for by name. An interrupted deployment is removed as well.
"""


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "destroy",
        help="remove exactly what was created",
        description="Remove the hosts and everything else that was created for them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print what was removed as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Destroy and say what is gone."""
    removed = destroy(state_file=arguments.state, progress=progress_printer())
    if arguments.json:
        print(json.dumps({"removed": removed}))
    else:
        print(f"removed {len(removed)} things" if removed else "nothing is deployed: nothing to remove")
    return 0
