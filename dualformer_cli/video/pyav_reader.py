"""Frames by PyAV: exact in every file that it reads, by seeking where the container's times can be believed."""

from __future__ import annotations

from collections.abc import Container, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dualformer_cli.errors import VideoError
from dualformer_cli.video.file_index import Findings, stamp_of
from dualformer_cli.video.frame_times import seconds_after_first
from dualformer_cli.video.pyav_file import PyAVFile
from dualformer_cli.video.reader import MAX_BAD_SHARE, FileIndex, Frame, StrictDecode, VideoInfo, VideoReader
from dualformer_cli.video.rgb import RgbConverter
from dualformer_cli.video.scan import scan_file
from dualformer_cli.video.strict_decode import decode_strictly

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_BEFORE_FIRST = 10
"""Seconds: more than frames are ever moved between decoding and showing."""


class PyAVReader(VideoReader):
    """Frames by PyAV. Opening reads all packets once and decodes the first frame, unless an index says what they say.

    Args:
        path: a regular, non-empty file.
        index: of an earlier reader of this path.

    Attributes:
        file: the opened file.
        frame_index: when its frames are shown and where decoding can start.

    Raises:
        VideoError: if PyAV is not installed, or the file is not a readable video.
    """

    def __init__(self, path: str, index: FileIndex | None = None) -> None:
        self._path = path
        stamp = stamp_of(path)
        known = None if index is None else Findings.unpack(index, stamp)
        self._is_unread = known is not None
        """Whether no packet was read yet."""
        with ExitStack() as on_failure:
            self.file = PyAVFile(path, known_stream=None if known is None else known.known_stream)
            on_failure.callback(self.file.close)
            findings = known or scan_file(self.file)
            self.index = index if known is not None else findings.pack(stamp)
            self.frame_index, self.orientation = findings.index, findings.orientation
            self.warnings = list(findings.warnings)
            self._rgb = RgbConverter(path, findings.size, findings.orientation)
            self.times_seconds = _times(findings, self.file)
            width, height = findings.orientation.upright_size(*findings.size)
            self.info = VideoInfo(
                path=path,
                num_frames=findings.index.num_frames,
                fps=findings.fps,
                width=width,
                height=height,
                duration_seconds=findings.duration_seconds,
                codec=findings.codec,
                decoder="pyav",
                rotation=findings.orientation.rotation,
                is_mirrored=findings.orientation.is_mirrored,
                is_seekable=findings.index.keys is not None,
                warnings=findings.warnings,
            )
            on_failure.pop_all()

    def close(self) -> None:
        self.file.close()

    def pictures(self) -> Iterator[VideoFrame]:
        with closing(PyAVFile(self._path)) as file:
            for _, frame in self._without_gaps(file.frames(), self.info.num_frames - 1):
                yield frame

    def decode_strictly(self, wanted: Container[int]) -> StrictDecode:
        return decode_strictly(self._path, self.frame_index, wanted, self._to_rgb)

    def decode(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        # All frames are decoded from the start: nothing to skip, and nothing to check.
        if self.frame_index.keys is not None and len(wanted) < self.frame_index.num_frames:
            is_complete = yield from self._decode_by_seeking(wanted)
            if is_complete:
                return
        yield from self._decode_from_start(wanted)

    def _decode_by_seeking(self, wanted: Sequence[int]) -> Generator[tuple[int, Frame], None, bool]:
        """Yield the wanted frames, seeking to the key packets before them.

        Returns:
            Whether all went well; if not, what was yielded is doubtful.
        """
        assert self.frame_index.pts is not None
        assert self.frame_index.keys is not None
        times = self.frame_index.pts[wanted]
        starts = np.searchsorted(self.frame_index.keys, times, side="right") - 1
        if starts[0] < 0:
            return False
        keys, queue = self.frame_index.keys[starts].tolist(), times.tolist()
        num_failed, done = self.file.num_failed, 0
        while done < len(queue):
            if not self._go_to(keys[done]):
                return False
            before = done
            for newest, frame in self.file.frames_for(frozenset(queue[done:])):
                if frame.pts is None or frame.pts > queue[done] or self.file.num_failed > num_failed:
                    return False
                if frame.is_corrupt:
                    return False
                if frame.pts < queue[done]:
                    continue
                yield wanted[done], self._to_rgb(frame)
                done += 1
                if done == len(queue):
                    return True
                if keys[done] > newest and wanted[done] - wanted[done - 1] > 1:
                    break  # the next key packet has not been read yet: go there, and skip what lies between
            if done == before:
                return False
        return True

    def _go_to(self, key: int) -> bool:
        """Go to a key packet, from the one before or the start where the container misses it; False when it cannot."""
        assert self.frame_index.keys is not None
        if self._is_unread:
            self._is_unread = False
            if key == self.frame_index.keys[0] and self.file.find(key):
                return True  # the file's start, where it is already
            # Old x264's 4:4:4 decodes right only by a decoder that has seen the file's first packet.
            if self.file.codec == "h264" and (first := next(self.file.packets(), None)) is not None:
                self.file.learn_encoder(first)
        place, earliest = int(np.searchsorted(self.frame_index.keys, key)), int(self.frame_index.keys[0])
        before = int(self.frame_index.keys[place - 1]) if place else earliest
        # Decoding comes before showing: what is looked for by the time of decoding may lie before every key's own.
        starts = dict.fromkeys([key, before, earliest - round(_BEFORE_FIRST / (self.file.stream.time_base or 1))])
        return any(self.file.seek(start) and self.file.find(key) for start in starts)

    def _to_rgb(self, frame: VideoFrame) -> Frame:
        rgb = self._rgb.to_rgb(frame)
        if self._rgb.doubt is not None:
            self._warn(self._rgb.doubt)
        return rgb

    def _decode_from_start(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        last = wanted[-1]
        needed: Container[int] = wanted if isinstance(wanted, range) else frozenset(wanted)
        with closing(PyAVFile(self._path)) as file:
            for index, frame in self._without_gaps(file.frames(), last):
                if index in needed:
                    yield index, self._to_rgb(frame)

    def _without_gaps(self, frames: Iterator[VideoFrame], last: int) -> Iterator[tuple[int, VideoFrame]]:
        """Number frames decoded from the start, up to `last`; a missing one is the nearest earlier, else the next."""
        position, previous, missing = 0, None, []
        for frame in frames:
            index = self.frame_index.place(frame.pts, position)
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
        if len(missing) > MAX_BAD_SHARE * self.info.num_frames or previous is None:
            raise VideoError(self._path, f"{len(missing)} of its {self.info.num_frames} frames cannot be decoded")
        if missing:
            self._warn(
                # without their number, which depends on how far was read: each part of a timeline would say another
                f"some frames cannot be decoded, the first is {missing[0]}; each shows the nearest earlier frame"
            )


def _times(findings: Findings, file: PyAVFile) -> npt.NDArray[np.float64] | None:
    """Return when each frame is shown: as its packet says, else in even steps."""
    index, tick = findings.index, file.stream.time_base
    if index.pts is not None and tick is not None:
        return seconds_after_first(index.pts, float(tick), may_jump=file.may_jump)
    return np.arange(index.num_frames) / findings.fps if findings.fps else None


READER = PyAVReader
