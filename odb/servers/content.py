"""What payloads hold: pseudo-random bytes that depend on seed, size and tag, so that no mix-up goes unseen."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from pathlib import Path
from typing import IO


@functools.lru_cache(maxsize=64)
def content(seed: int, size: int, tag: str) -> bytes:
    """The payload of `size` bytes; both ends compute it by themselves."""
    return hashlib.shake_128(f"{seed}/{size}/{tag}".encode()).digest(size)


@functools.lru_cache(maxsize=32)
def file_of(seed: int, size: int, tag: str) -> IO[bytes]:
    """The same payload as an unnamed file, open for reading, for calls that send files. Its descriptor is good while you hold
    the object."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content(seed, size, tag))
        file.flush()
        return Path(file.name).open("rb")  # whoever finds it writable must expect it to change
