"""Range checks shared by everything that encodes."""

from typing import Final

from .errors import LocalProtocolError

UINT64_MAX: Final = 2**64 - 1


def require_uint(name: str, value: int, bits: int) -> None:
    """Raise LocalProtocolError unless `value` is an unsigned integer of `bits` bits."""
    if not 0 <= value < 1 << bits:
        raise LocalProtocolError(f"{name} is {value}; it has to fit in {bits} unsigned bits")


def require_size(name: str, value: bytes, size: int) -> None:
    """Raise LocalProtocolError unless `value` is `size` bytes long."""
    if len(value) != size:
        raise LocalProtocolError(f"{name} is {len(value)} bytes long instead of {size}")
