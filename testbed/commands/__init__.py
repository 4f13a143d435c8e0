"""One module per command of odb-testbed: `add_parser(subparsers)` declares it, `run(arguments)` returns the exit status."""
