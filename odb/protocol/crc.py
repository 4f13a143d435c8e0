"""The two checksums: CRC-8 for the frame header, CRC-32C for the descriptor."""

from typing import Final


def _table8() -> tuple[int, ...]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = ((crc << 1) ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
        table.append(crc)
    return tuple(table)


def _table32() -> tuple[int, ...]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = (crc >> 1) ^ 0x82F63B78 if crc & 1 else crc >> 1
        table.append(crc)
    return tuple(table)


_TABLE8: Final = _table8()
_TABLE32: Final = _table32()


def crc8(data: bytes, crc: int = 0) -> int:
    """CRC-8, polynomial 0x07, not reflected, no final inversion; continues `crc`."""
    for byte in data:
        crc = _TABLE8[crc ^ byte]
    return crc


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli): polynomial 0x1EDC6F41, reflected, initial and final inversion."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE32[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
