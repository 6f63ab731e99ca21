"""The boxes that an MP4 is made of, ISO/IEC 14496-12, 4.2, and what they say of the file as a whole."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, Literal

from dualformer_cli.video.tar_members import opened

_MAX_BOXES = 100_000
_TO_ENTRIES = (b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_TO_DEFAULTS = (b"sinf", b"schi", b"tenc")
_VIDEO_ENTRY_BYTES = 78
"""What an entry of a video track says before its boxes begin."""


@dataclass(frozen=True, slots=True)
class Outline:
    """What one walk over the boxes of an MP4 says."""

    kinds: frozenset[bytes]
    """Of the outermost boxes that are whole, as far as they can be followed."""
    protection: Literal["none", "some packets", "all"]
    """What is encrypted of its videos; "some packets": each has to be asked."""

    @property
    def is_fragmented(self) -> bool:
        """Whether it comes in fragments, each with an index of its own."""
        return b"moof" in self.kinds

    @property
    def is_header_alone(self) -> bool:
        return self.kinds.isdisjoint({b"moof", b"mdat"})


def read_outline(path: str) -> Outline:
    """Return the outline of an MP4, be it one that FFmpeg can open or not."""
    kinds, found = set[bytes](), set[str]()
    with suppress(OSError, struct.error), opened(path) as (file, start, end):
        for kind, inside, stop in islice(boxes(file, start, end), _MAX_BOXES):
            if stop <= end:
                kinds.add(kind)
            if kind == b"moov":
                with suppress(struct.error):
                    found.update(_protected_entries(file, inside, stop))
    return Outline(frozenset(kinds), "all" if "all" in found else "some packets" if found else "none")


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


def _protected_entries(file: BinaryIO, start: int, end: int) -> Iterator[Literal["some packets", "all"]]:
    """Yield what is encrypted of each video track in a movie header that has anything encrypted."""
    for entries, stop in _find(file, start, end, _TO_ENTRIES):
        for kind, inside, entry_end in boxes(file, entries + 8, stop):
            if kind == b"drmi" or (kind == b"encv" and _hides_all(file, inside + _VIDEO_ENTRY_BYTES, entry_end)):
                yield "all"
            elif kind == b"encv":
                yield "some packets"


def _hides_all(file: BinaryIO, start: int, end: int) -> bool:
    """Return whether an entry's samples are encrypted where nothing else is said of them."""
    for defaults, _ in _find(file, start, end, _TO_DEFAULTS):
        file.seek(defaults + 6)  # after version, flags and the pattern
        return file.read(1) != b"\0"
    return True


def _find(file: BinaryIO, start: int, end: int, path: tuple[bytes, ...]) -> Iterator[tuple[int, int]]:
    """Yield the content of each box at the end of a path of boxes, as the places of its start and its end."""
    for kind, inside, stop in boxes(file, start, end):
        if kind == path[0]:
            if path[1:]:
                yield from _find(file, inside, stop, path[1:])
            else:
                yield inside, stop
