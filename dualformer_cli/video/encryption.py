"""Whether a video is encrypted: its packets look whole, and decode to grey."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Literal

from dualformer_cli.video.mp4_boxes import boxes

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

ENCRYPTED = "encrypted; it cannot be read"

Protection = Literal["none", "some packets", "all"]

_TO_ENTRIES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_TO_DEFAULTS = (b"sinf", b"schi", b"tenc")
_VIDEO_ENTRY_BYTES = 78
"""What an entry of a video track says before its boxes begin."""


def protection_of(path: str, container: InputContainer) -> Protection:
    """Return what the header of a file says of encrypted video; "some packets" if each packet has to be asked."""
    if any("enc_key_id" in stream.metadata for stream in container.streams.video):  # how FFmpeg tells it of Matroska
        return "all"
    return protection_of_mp4(path) if "mov" in container.format.name else "none"


def protection_of_mp4(path: str) -> Protection:
    """Return what the header of an MP4 says of encrypted video, be it one that FFmpeg can open or not."""
    found: Protection = "none"
    with suppress(OSError, struct.error), open(path, "rb") as file:
        for start, end in _find(file, 0, os.fstat(file.fileno()).st_size, _TO_ENTRIES):
            for kind, inside, stop in boxes(file, start + 8, end):
                if kind == b"drmi" or (kind == b"encv" and _hides_all(file, inside + _VIDEO_ENTRY_BYTES, stop)):
                    return "all"
                found = "some packets" if kind == b"encv" else found
    return found


def is_encrypted(packet: Packet[VideoStream]) -> bool:
    """Tell whether a packet comes with what is needed to decrypt it, but for the key."""
    return packet.has_sidedata("encryption_info")


def _hides_all(file: BinaryIO, start: int, end: int) -> bool:
    """Tell whether an entry's samples are encrypted where nothing else is said of them."""
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
