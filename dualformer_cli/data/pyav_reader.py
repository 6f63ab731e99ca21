"""Frames by PyAV: exact in every file that it reads, by seeking where the container's times can be believed."""

from __future__ import annotations

from array import array
from collections.abc import Container, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dualformer_cli.data.file_index import Findings, Index, PacketTable, rises, sorted_keys, stamp_of
from dualformer_cli.data.pyav_file import PyAVFile, opened
from dualformer_cli.data.reader import MAX_BAD_SHARE, MAX_FRAMES, FileIndex, Frame, VideoInfo, VideoReader
from dualformer_cli.errors import VideoError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

SEEKABLE_CONTAINERS = frozenset({"mov", "mp4", "matroska", "webm"})
"""Containers that state when each frame is shown and find a timestamp again; others are decoded from the start."""
_FRAME_PER_PACKET = frozenset({"h264", "hevc", "vp9", "av1", "mjpeg", "prores"})
"""Codecs of which, in those containers, each packet is one frame; others may hold hidden or uncoded frames."""
_STATING_DURATION = frozenset({"matroska", "webm", "flv"})
"""Containers whose header says how long the file is and whose frames can be read up to where it was cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrictDecode:
    """What a decode from start to end finds that forgives nothing."""

    frames: dict[int, Frame]
    """The frames that were asked for, by number; without those that could not be decoded."""
    num_expected: int
    """Frames there should be; more than the video has when it was cut short."""
    num_damaged: int
    """Those that are missing, or decoded from damaged data or from damaged frames."""
    has_edit_list: bool
    """Whether frames are hidden by an edit list."""
    stated_seconds: float | None
    """Duration that the container's header states, sound included."""


class PyAVReader(VideoReader):
    """Frames by PyAV. Opening reads all packets once and decodes the first frame, unless an index says what they say.

    Args:
        path: a regular, non-empty file.
        index: of an earlier reader of this path.

    Raises:
        VideoError: if PyAV is not installed, or the file is not a readable video.
    """

    def __init__(self, path: str, index: FileIndex | None = None) -> None:
        self._path = path
        stamp = stamp_of(path)
        known = None if index is None else Findings.unpack(index, stamp)
        self.warnings = [] if known is None else list(known.warnings)
        self._is_unread = known is not None
        """Whether no packet was read yet."""
        with ExitStack() as on_failure:
            self._file = PyAVFile(path, known_stream=None if known is None else known.known_stream)
            on_failure.callback(self._file.close)
            findings = known or self._find_out()
            self.index = index if known is not None else findings.pack(stamp)
            self._index, self._file.size, self._rotation = findings.index, findings.size, findings.rotation
            self.times_seconds = self._times(findings.fps)
            width, height = findings.size if self._rotation % 180 == 0 else findings.size[::-1]
            self.info = VideoInfo(
                path=path,
                num_frames=self._index.num_frames,
                fps=findings.fps,
                width=width,
                height=height,
                duration_seconds=findings.duration_seconds,
                codec=findings.codec,
                decoder="pyav",
                rotation=self._rotation,
                is_seekable=self._index.keys is not None,
                warnings=tuple(self.warnings),
            )
            on_failure.pop_all()

    def close(self) -> None:
        self._file.close()

    def _find_out(self) -> Findings:
        table, first = self._scan()
        index = self._make_index(table)
        if first is None:
            raise VideoError(self._path, "no frame of it can be decoded")
        fps, duration = self._rate_and_duration(index)
        self._compare_with_header(duration)
        return Findings(
            index=index,
            size=(first.width, first.height),
            rotation=round(first.rotation / 90) % 4 * 90,
            fps=fps,
            duration_seconds=duration,
            codec=self._file.codec,
            known_stream=self._file.stream.index if self._file.has_full_header else None,
            warnings=tuple(self.warnings),
        )

    def pictures(self) -> Iterator[VideoFrame]:
        """Yield all frames in order as they are stored: in their own pixel format, and not turned by `info.rotation`.

        Raises:
            VideoError: if more than a tenth cannot be decoded.
        """
        with opened(self._path) as file:
            for _, frame in self._without_gaps(file.frames(), self.info.num_frames - 1):
                yield frame

    def decode_strictly(self, wanted: Container[int]) -> StrictDecode:
        """Decode all from the start, taking all for damaged that decoders usually paint over."""
        frames: dict[int, Frame] = {}
        position, num_clean, num_hidden, is_dirty = 0, 0, 0, False
        with opened(self._path, strict=True) as file:
            file.size = self._file.size
            for packet in chain(file.packets(), [None]):
                if packet is not None:
                    num_hidden += packet.is_discard
                    is_dirty = is_dirty and not packet.is_keyframe
                num_failed = file.num_failed
                for frame in file.decode(packet):
                    index = self._place(frame, position)
                    if index is None:
                        continue
                    if index in wanted:
                        frames[index] = np.ascontiguousarray(file.to_rgb(frame, self._rotation))
                    num_clean += not (is_dirty or frame.is_corrupt)
                    position = index + 1
                is_dirty = is_dirty or file.num_failed > num_failed
            stated = file.container.duration
            promised = len(file.stream.index_entries) - num_hidden if "mov" in file.containers else 0
        return StrictDecode(
            frames=frames,
            num_expected=max(promised, self.info.num_frames),
            num_damaged=max(0, max(promised, self.info.num_frames) - num_clean),
            has_edit_list=self._index.has_hidden,
            stated_seconds=None if stated is None else stated / 1e6,
        )

    def _scan(self) -> tuple[PacketTable, VideoFrame | None]:
        """Read all packets, decoding only until the first frame comes out."""
        table = PacketTable()
        first: VideoFrame | None = None
        for packet in self._file.packets():
            table.add(packet)
            if table.num_packets > MAX_FRAMES:
                raise VideoError(self._path, f"it has more than {MAX_FRAMES:,} frames")
            if first is None:
                first = next(iter(self._file.decode(packet)), None)
            if first is None and table.num_packets == 1 and not packet.is_discard:
                first = self._bring_out()
        return table, first or self._bring_out()

    def _bring_out(self) -> VideoFrame | None:
        """Make the decoder give a frame that it holds back, and ready for packets again."""
        frame = next(iter(self._file.decode(None)), None)
        self._file.stream.codec_context.flush_buffers()
        return frame

    def _make_index(self, table: PacketTable) -> Index:
        file = self._file
        is_seekable = bool(file.containers & SEEKABLE_CONTAINERS)
        times = table.frame_times() if is_seekable and file.codec in _FRAME_PER_PACKET else None
        num_promised = len(file.stream.index_entries) if "mov" in file.containers else 0
        if file.ended_early or num_promised > table.num_packets:
            self._warn("the file is damaged or cut short: not all of it can be read")
        if times is not None:
            return Index(len(times), times, table.last_duration, sorted_keys(table), table.has_hidden)
        return self._count_frames(table, keys=sorted_keys(table) if is_seekable and table.keys else None)

    def _count_frames(self, table: PacketTable, keys: npt.NDArray[np.int64] | None) -> Index:
        """Find the frames by decoding them all."""
        times = array("q")
        count, duration = 0, 0
        with opened(self._path) as file:
            for frame in file.frames():
                count += 1
                if count > MAX_FRAMES:
                    raise VideoError(self._path, f"it has more than {MAX_FRAMES:,} frames")
                if frame.pts is not None:
                    times.append(frame.pts)
                    duration = frame.duration or 0
            failed = file.num_failed
        if failed > max(1, MAX_BAD_SHARE * table.num_packets):  # one may be the last packet of a file cut short
            raise VideoError(self._path, f"{failed} of its {table.num_packets} packets cannot be decoded")
        if failed:
            self._warn(f"{failed} of its {table.num_packets} packets cannot be decoded; their frames are left out")
        pts = np.frombuffer(times, np.int64) if times else np.empty(0, np.int64)
        if len(pts) != count or not count or not rises(pts):
            return Index(count, None, 0, None, table.has_hidden)
        return Index(count, pts, duration, keys, table.has_hidden)

    def _rate_and_duration(self, index: Index) -> tuple[float | None, float | None]:
        """Return the mean frame rate and the duration."""
        stream, count = self._file.stream, index.num_frames
        rate = float(stream.average_rate) if stream.average_rate else None
        if index.pts is None or stream.time_base is None:
            return rate, count / rate if rate else None
        tick = float(stream.time_base)
        shown, last = float((index.pts[-1] - index.pts[0]) * tick), index.last_duration * tick
        if not last:
            last = shown / (count - 1) if count > 1 else 1 / rate if rate else 0.0
        duration = shown + last
        if not duration:
            return rate, None
        # Containers that count in milliseconds miss the true rate by their rounding.
        exact = rate is not None and abs(rate * duration / count - 1) < 1e-3
        return rate if exact else count / duration, duration

    def _times(self, fps: float | None) -> npt.NDArray[np.float64] | None:
        """Return when each frame is shown: as its packet says, else in even steps."""
        index, tick = self._index, self._file.stream.time_base
        if index.pts is not None and tick is not None:
            return (index.pts - index.pts[0]) * float(tick)
        return np.arange(index.num_frames) / fps if fps else None

    def _compare_with_header(self, duration_seconds: float | None) -> None:
        """Warn when the header promises much more than there is, as after an unfinished download."""
        stated = self._file.container.duration
        if stated is None or duration_seconds is None or not self._file.containers & _STATING_DURATION:
            return
        if stated / 1e6 > 1.05 * duration_seconds + 1:
            self._warn(f"its header says {stated / 1e6:.1f} s, its pictures end after {duration_seconds:.1f} s")

    def _decode(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        # All frames are decoded from the start: nothing to skip, and nothing to check.
        if self._index.keys is not None and len(wanted) < self._index.num_frames:
            is_complete = yield from self._decode_by_seeking(wanted)
            if is_complete:
                return
        yield from self._decode_from_start(wanted)

    def _decode_by_seeking(self, wanted: Sequence[int]) -> Generator[tuple[int, Frame], None, bool]:
        """Yield the wanted frames, seeking to the key packets before them.

        Returns:
            Whether all went well; if not, what was yielded is doubtful.
        """
        assert self._index.pts is not None
        assert self._index.keys is not None
        times = self._index.pts[wanted]
        starts = np.searchsorted(self._index.keys, times, side="right") - 1
        if starts[0] < 0:
            return False
        keys, queue = self._index.keys[starts].tolist(), times.tolist()
        num_failed, done = self._file.num_failed, 0
        while done < len(queue):
            if not self._go_to(keys[done]):
                return False
            before = done
            for newest, frame in self._file.frames_for(frozenset(queue[done:])):
                if frame.pts is None or frame.pts > queue[done] or self._file.num_failed > num_failed:
                    return False
                if frame.is_corrupt:
                    return False
                if frame.pts < queue[done]:
                    continue
                yield wanted[done], self._file.to_rgb(frame, self._rotation)
                done += 1
                if done == len(queue):
                    return True
                if keys[done] > newest and wanted[done] - wanted[done - 1] > 1:
                    break  # the next key packet has not been read yet: go there, and skip what lies between
            if done == before:
                return False
        return True

    def _go_to(self, key: int) -> bool:
        """Go to a key packet; False when the container cannot."""
        assert self._index.keys is not None
        if self._is_unread:
            self._is_unread = False
            if key == self._index.keys[0]:
                return True  # the file's start, where it is already
            # Old x264's 4:4:4 decodes right only by a decoder that has seen the file's first packet.
            if self._file.codec == "h264" and (first := next(self._file.packets(), None)) is not None:
                self._file.learn_encoder(first)
        return self._file.seek(key)

    def _decode_from_start(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        last = wanted[-1]
        needed: Container[int] = wanted if isinstance(wanted, range) else frozenset(wanted)
        with opened(self._path) as file:
            file.size = self._file.size
            for index, frame in self._without_gaps(file.frames(), last):
                if index in needed:
                    yield index, file.to_rgb(frame, self._rotation)

    def _without_gaps(self, frames: Iterator[VideoFrame], last: int) -> Iterator[tuple[int, VideoFrame]]:
        """Number frames decoded from the start, up to `last`; a missing one is the nearest earlier, else the next."""
        position, previous, missing = 0, None, []
        for frame in frames:
            index = self._place(frame, position)
            if index is None:
                continue
            if frame.is_corrupt:
                self._warn("some frames are damaged")
            for gap in range(position, min(index, last + 1)):
                missing.append(gap)
                yield gap, frame if previous is None else previous
            if index <= last:
                yield index, frame
            position, previous = index + 1, frame
            if position > last:
                break
        for gap in range(position, last + 1):
            missing.append(gap)
            if previous is not None:
                yield gap, previous
        if len(missing) > MAX_BAD_SHARE * self._index.num_frames or previous is None:
            raise VideoError(self._path, f"{len(missing)} of its {self._index.num_frames} frames cannot be decoded")
        if missing:
            self._warn(
                f"{len(missing)} of {self._index.num_frames} frames cannot be decoded, the first is {missing[0]}; "
                "each shows the nearest earlier frame"
            )

    def _place(self, frame: VideoFrame, position: int) -> int | None:
        """Return the number of a frame, None if it has none, where `position` is the lowest that is free."""
        if self._index.pts is None:
            return position
        if frame.pts is None:
            return None
        index = int(np.searchsorted(self._index.pts, frame.pts))
        is_known = index < self._index.num_frames and self._index.pts[index] == frame.pts
        return index if is_known and index >= position else None
