"""What can go wrong in the protocol: the peer's mistakes and the caller's."""

import enum


class Violation(enum.IntEnum):
    """Why bytes of a peer were refused. Names and numbers are those of `enum odb_wire_result`."""

    BAD_MAGIC = 1
    BAD_VERSION = 2
    BAD_TYPE = 3
    BAD_CRC = 4
    BAD_LENGTH = 5
    BAD_COOKIE = 6
    BAD_FIELD = 7

    @property
    def text(self) -> str:
        """The name for messages: ``bad crc``."""
        return self.name.lower().replace("_", " ")


class ProtocolError(Exception):
    """Base of both."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol: its connection is reset, never resynchronised."""

    def __init__(self, violation: Violation, detail: str) -> None:
        super().__init__(f"{violation.text}: {detail}")
        self.violation = violation
        self.detail = detail


class LocalProtocolError(ProtocolError):
    """The caller asked for something that must not travel; nothing was encoded."""
