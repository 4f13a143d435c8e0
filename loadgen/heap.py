"""Keeps the load generator's heap: what is freed after one response serves the next.

glibc gives blocks above 128 KiB, and the free end of the heap, back to the kernel. A client that reads bodies of that size
then pays page faults with every read, or none, as its heap happens to lie: the median latency of a whole run
differed by half by that.
"""

from __future__ import annotations

import ctypes

# Names and numbers are those of <malloc.h>.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MMAP_BYTES = 32 << 20  # the most that glibc takes
_TRIM_BYTES = 1 << 30


def keep_heap() -> bool:
    """Ask the C library to keep what is freed; False where it has no such call."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)) and bool(mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES))
