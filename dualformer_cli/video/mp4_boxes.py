"""The boxes that an MP4 is made of, ISO/IEC 14496-12, 4.2."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each box between two places of a file, and where its content starts and ends.

    The end of the last one lies beyond `end` where the file is cut off.

    Raises:
        struct.error: if a box of 64-bit size is cut off within its size.
    """
    while start + 8 <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        inside = start + 8
        if size == 1:
            (size,) = struct.unpack(">Q", file.read(8))
            inside += 8
        stop = end if size == 0 else start + size
        if stop < inside:
            return
        yield kind, inside, stop
        start = stop
