"""The errors that a user of ODB can cause; `odb.cli` catches them once and turns them into one sentence and an exit code."""

from __future__ import annotations

EXIT_FINE = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_ENVIRONMENT = 4
EXIT_INTERRUPTED = 130


class OdbError(Exception):
    """Base of the tree. The text is one sentence for the user; `exit_code` is what the command ends with."""

    exit_code: int = EXIT_FAILURE


class UsageError(OdbError):
    """The command line or a file that the user wrote is wrong."""

    exit_code = EXIT_USAGE


class ConfigError(UsageError):
    """A setting is unknown or has a value that is not possible; the text names source, key, value and remedy."""


class PlatformError(OdbError):
    """This machine or process cannot do what was asked: something is missing, unreadable or not permitted."""

    exit_code = EXIT_ENVIRONMENT


class LibraryError(PlatformError):
    """libodb.so is missing, is not for this machine or does not load."""


class CommandError(PlatformError):
    """The program that `odb run` should start cannot be started."""


class StatsError(OdbError):
    """A page of live statistics does not have the form that it must have."""
