"""The errors of the testbed: one small tree, caught once in the command line.

Every error is one sentence for the user (`message`) and, where there is one, what to do about it (`remedy`).
`exit_code` is the process's exit status; the numbers are part of the documented interface.
"""

from __future__ import annotations

from typing import ClassVar


class TestbedError(Exception):
    """Something failed; the base of all errors that are meant for the user."""

    __test__: ClassVar[bool] = False  # the name starts with "Test": keep pytest from collecting it
    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "failure"

    def __init__(self, message: str, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}: {self.remedy}" if self.remedy else self.message

    def as_json(self) -> dict[str, object]:
        """Return the error as the object that `--json` commands write to standard error."""
        return {
            "error": {
                "kind": self.kind,
                "message": self.message,
                "remedy": self.remedy,
                "exit_code": self.exit_code,
            }
        }


class UsageError(TestbedError):
    """The user asked for something that does not exist or makes no sense."""

    exit_code = 2
    kind = "usage"


class ThresholdError(TestbedError):
    """A result is beyond the bound that was asked for."""

    exit_code = 3
    kind = "threshold"


class EnvironmentFault(TestbedError):
    """This machine lacks something that is needed (root, a program, a kernel feature, a free address range)."""

    exit_code = 4
    kind = "environment"


class StateError(TestbedError):
    """The state file cannot be used: unreadable, from another version, or locked by another command."""

    kind = "state"


class ProviderError(TestbedError):
    """A host could not be created, repaired or removed."""

    kind = "provider"


class DeployError(TestbedError):
    """The playbooks failed on a host."""

    kind = "deploy"


class RemoteError(TestbedError):
    """A host could not be reached, or a command on it failed or took too long."""

    kind = "remote"


class ServingError(TestbedError):
    """A server did not start, does not answer, or is not the variant it should be."""

    kind = "serving"


class RecordError(TestbedError):
    """A stored record cannot be read, or records must not be compared with each other."""

    kind = "record"
