"""A decode from start to end that forgives nothing, to say what of a video is damaged.

How much is too much: `MAX_BAD_SHARE` in `reader.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from dualformer_cli.video import bitstream
from dualformer_cli.video.file_index import Index
from dualformer_cli.video.pyav_file import PyAVFile
from dualformer_cli.video.reader import Frame, StrictDecode

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


class _Damage:
    """How far the failure of one packet reaches: to the next key packet, unless nothing refers to it."""

    def __init__(self) -> None:
        self.spreads = False
        self._key_pts: int | None = None

    def begin(self, packet: Packet[VideoStream]) -> None:
        if packet.is_keyframe:
            self.spreads, self._key_pts = False, packet.pts

    def end(self, packet: Packet[VideoStream] | None, *, has_failed: bool) -> None:
        # Pictures that are shown before the key packet they follow end an open group: those after it need none of them.
        pts = None if packet is None else packet.pts
        is_leading = pts is not None and self._key_pts is not None and pts < self._key_pts
        self.spreads = self.spreads or (has_failed and not is_leading)


def decode_strictly(
    path: str, index: Index, wanted: Container[int], to_rgb: Callable[[VideoFrame], Frame]
) -> StrictDecode:
    """Decode a file from start to end, taking all for damaged that decoders usually paint over.

    Args:
        path: of the file.
        index: when its frames are shown.
        wanted: numbers of the frames to return.
        to_rgb: makes what is returned of a frame.
    """
    frames: dict[int, Frame] = {}
    position, num_clean, num_hidden, damage = 0, 0, 0, _Damage()
    with closing(PyAVFile(path, strict=True)) as file:
        for packet in chain(file.packets(), [None]):
            if packet is not None:
                num_hidden += packet.is_discard
                damage.begin(packet)
            num_failed = file.num_failed
            for frame in file.decode(packet):
                number = index.place(frame.pts, position)
                if number is None:
                    continue
                if number in wanted:
                    frames[number] = np.ascontiguousarray(to_rgb(frame))
                num_clean += not (damage.spreads or frame.is_corrupt)
                position = number + 1
            damage.end(packet, has_failed=file.num_failed > num_failed)
        stated = file.stated_duration
        promised = len(file.stream.index_entries) - num_hidden if "mov" in file.containers else 0
        if file.codec == "h264" and not bitstream.codes_whole_frames(file.stream.codec_context.extradata or b""):
            promised = 0  # a packet can be half a frame
    if not num_clean and not _is_damaged(path):
        num_clean = promised = index.num_frames  # it is the decoder that is too strict with this codec
    num_expected = max(promised, index.num_frames)
    return StrictDecode(
        frames=frames,
        num_expected=num_expected,
        num_damaged=max(0, num_expected - num_clean),
        has_edit_list=index.has_hidden,
        stated_seconds=stated,
    )


def _is_damaged(path: str) -> bool:
    """Return whether a decode as usual fails anywhere."""
    with closing(PyAVFile(path)) as file:
        return any(frame.is_corrupt for frame in file.frames()) or file.num_failed > 0
