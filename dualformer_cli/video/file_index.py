"""When each frame of a file is shown and where decoding can start, found once and kept small."""

from __future__ import annotations

import os
import pickle
import zlib
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dualformer_cli.video import bitstream
from dualformer_cli.video.orientation import Orientation
from dualformer_cli.video.reader import FileIndex
from dualformer_cli.video.tar_members import find_member

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream


@dataclass(slots=True)
class PacketTable:
    """What reading all packets of a stream says about its frames."""

    codec: str
    extradata: bytes
    """Of the stream."""
    is_intra_only: bool
    """Whether every packet of this codec is a key frame."""
    pts: array[int] = field(default_factory=lambda: array("q"))
    """Of packets whose frame is shown."""
    dts: array[int] = field(default_factory=lambda: array("q"))
    """Of all packets, in the order of the file."""
    keys: array[int] = field(default_factory=lambda: array("q"))
    """Of packets where decoding can start; an edit list may hide their frames."""
    newest: int | None = None
    """The latest pts, and how long its frame is shown."""
    last_duration: int = 0
    is_regular: bool = True
    """Whether every packet has a time and is whole."""
    starts_with_key: bool = False
    num_packets: int = 0
    num_false_keys: int = 0
    """Packets that the container calls key frames and that are none."""
    is_reordered: bool = False
    """Whether frames are shown in another order than that of their packets."""
    has_unmoved_b_slices: bool = False
    """Whether an H.264 packet refers to a frame shown later, but has a later time than all packets before it."""
    newest_read: int | None = None
    """The latest pts, of hidden frames too."""
    has_hidden: bool = False
    """Whether an edit list hides frames."""

    def add(self, packet: Packet[VideoStream]) -> None:
        self.num_packets += 1
        if packet.dts is not None:
            self.dts.append(packet.dts)
        if packet.pts is None or packet.is_corrupt:
            self.is_regular = False
        if packet.pts is None:
            return
        if self._is_key(packet):
            self.starts_with_key = self.starts_with_key or self.num_packets == 1
            self.keys.append(packet.pts)
        if self.newest_read is None or packet.pts > self.newest_read:
            self.newest_read = packet.pts
            if self.codec == "h264" and not self.has_unmoved_b_slices:
                self.has_unmoved_b_slices = bitstream.holds_b_slice(memoryview(packet), self.extradata)
        if packet.is_discard:
            self.has_hidden = True
            return
        if not bitstream.is_shown(self.codec, memoryview(packet)):
            return
        self.pts.append(packet.pts)
        if self.newest is None or packet.pts > self.newest:
            self.newest, self.last_duration = packet.pts, packet.duration or 0
        else:
            self.is_reordered = True

    def _is_key(self, packet: Packet[VideoStream]) -> bool:
        if self.is_intra_only:
            return True
        is_key = packet.is_keyframe and bitstream.is_start(self.codec, memoryview(packet), self.extradata)
        self.num_false_keys += packet.is_keyframe and not is_key
        return is_key

    def frame_times(self, *, reorders: bool) -> npt.NDArray[np.int64] | None:
        """Return when each frame is shown, in order; None when the packets do not say.

        Args:
            reorders: whether the stream's header says that frames are shown in another order than that of packets.
        """
        times = np.sort(np.frombuffer(self.pts, np.int64)) if self.pts else np.empty(0, np.int64)
        if not (self.is_regular and self.starts_with_key and times.size and rises(times)):
            return None
        if self.has_unmoved_b_slices or (self.codec == "hevc" and reorders and not self.is_reordered):
            return None  # the times are those of decoding, as when packets without times were copied into an MP4
        # Frames shown before the first key packet may lack what they refer to; only decoding finds out.
        return times if times[0] >= self.keys[0] else None


@dataclass(frozen=True, slots=True)
class Index:
    """When each frame of a file is shown."""

    num_frames: int
    pts: npt.NDArray[np.int64] | None
    """Of each frame in order of display, strictly rising, in units of the stream's time base; None when unknown."""
    last_duration: int
    """Of the last frame, in the same units; 0 when unknown."""
    keys: npt.NDArray[np.int64] | None
    """Where decoding can start, rising; None: only at the start of the file."""
    has_hidden: bool = False
    """Whether an edit list hides frames."""
    has_false_keys: bool = False
    """Whether the container calls packets key frames that are none."""

    def place(self, pts: int | None, position: int) -> int | None:
        """Return the number of a frame, None if it has none, where `position` is the lowest that is free."""
        if self.pts is None:
            return position
        if pts is None:
            return None
        number = int(np.searchsorted(self.pts, pts))
        is_known = number < self.num_frames and self.pts[number] == pts
        return number if is_known and number >= position else None


@dataclass(frozen=True, slots=True)
class Findings:
    """What reading all packets and decoding the first frame of a file says."""

    index: Index
    size: tuple[int, int]
    """Width and height of its first frame, as stored."""
    orientation: Orientation
    fps: float | None
    duration_seconds: float | None
    codec: str
    known_stream: int | None
    """Of a container whose header is enough to open it again, as `PyAVFile` takes it."""
    warnings: tuple[str, ...]

    def pack(self, stamp: Stamp) -> FileIndex | None:
        """Return it small, as a training set holds hundreds of thousands; None for one that stays large."""
        index = self.index
        steps = [None if times is None else np.diff(times, prepend=0).tobytes() for times in (index.pts, index.keys)]
        facts = (
            self.size,
            (self.orientation.is_mirrored, self.orientation.rotation),
            self.fps,
            self.duration_seconds,
            self.codec,
            self.known_stream,
            self.warnings,
        )
        rest = (index.num_frames, index.last_duration, index.has_hidden, index.has_false_keys, facts)
        packed = zlib.compress(pickle.dumps((stamp, steps, rest)), level=1)
        return FileIndex(packed) if len(packed) <= _MAX_PACKED_BYTES else None

    @staticmethod
    def unpack(file_index: FileIndex, stamp: Stamp) -> Findings | None:
        """Return what was packed, None if the file has changed since."""
        packed_stamp, steps, rest = pickle.loads(zlib.decompress(file_index.packed))
        if packed_stamp != stamp:
            return None
        pts, keys = (None if data is None else np.cumsum(np.frombuffer(data, np.int64)) for data in steps)
        num_frames, last_duration, has_hidden, has_false_keys, (size, orientation, *facts) = rest
        index = Index(num_frames, pts, last_duration, keys, has_hidden, has_false_keys)
        return Findings(index, size, Orientation(*orientation), *facts)


Stamp = tuple[int, int, int]
_MAX_PACKED_BYTES = 64 * 1024


def stamp_of(path: str) -> Stamp:
    """Return what changes when a file does: its size, and when its content and its inode were last written."""
    member = find_member(path)
    status = os.stat(path if member is None else member.archive)
    return status.st_size if member is None else member.size, status.st_mtime_ns, status.st_ctime_ns


def rises(times: npt.NDArray[np.int64]) -> bool:
    return bool((np.diff(times) > 0).all())


def sorted_keys(keys: array[int]) -> npt.NDArray[np.int64]:
    return np.sort(np.array(keys, np.int64))
