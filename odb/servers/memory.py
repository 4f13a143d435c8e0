"""Buffers at a chosen place in their page, and the touching of what was received into them."""

from __future__ import annotations

import ctypes
import mmap
import random

from odb.servers.flags import PAGE, Flags


def buffer_at(size: int, offset: int, memory: str = "heap") -> memoryview:
    """A writable buffer of `size` bytes that begins `offset` bytes into a page; the view keeps its memory alive.

    memory: "heap" (a bytearray, that is malloc) or "mmap" (private and anonymous).
    """
    room: bytearray | mmap.mmap
    if memory == "mmap":
        room = mmap.mmap(-1, size + offset + 1, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:
        room = bytearray(size + offset + PAGE)
    start = (offset - address_of(room)) % PAGE
    return memoryview(room)[start : start + size]


def address_of(memory: bytearray | mmap.mmap | memoryview) -> int:
    """Where writable memory begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


class Toucher:
    """Looks at a random part of the pages of what is received: the fraction `--touch`, chosen by `--seed`.

    With `--overwrite` each touched byte is also written back, which must change nothing.
    """

    def __init__(self, flags: Flags) -> None:
        self._fraction = flags.touch
        self._overwrite = flags.overwrite
        self._random = random.Random(flags.seed)
        self.sum = 0

    def touch(self, view: memoryview) -> None:
        """Touches one byte in some of the page-sized steps of `view`."""
        if self._fraction <= 0:
            return
        for step in range(0, len(view), PAGE):
            if self._random.random() >= self._fraction:
                continue
            place = step + self._random.randrange(min(PAGE, len(view) - step))
            value = view[place]
            self.sum += value
            if self._overwrite:
                view[place] = value
