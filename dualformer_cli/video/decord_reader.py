"""Frames by decord, where decord gives the frames that PyAV gives."""

from __future__ import annotations

import importlib
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np

from dualformer_cli.errors import VideoError
from dualformer_cli.system.workers import heartbeat
from dualformer_cli.video import bitstream
from dualformer_cli.video.containers import load_av
from dualformer_cli.video.pyav_file import PyAVFile
from dualformer_cli.video.pyav_reader import PyAVReader
from dualformer_cli.video.reader import MAX_FRAMES, FileIndex, Frame, VideoInfo, VideoReader, check_pixels
from dualformer_cli.video.refusals import first_bytes
from dualformer_cli.video.scan import SEEKABLE_CONTAINERS
from dualformer_cli.video.tar_members import find_member


def load_decord() -> Any:
    """Import decord and silence it; None when it is not installed."""
    # Its default of 10,240 polls at the end of a file takes seconds; 128 gives up on good files with B-frames.
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "2048")
    os.environ.setdefault("DECORD_REWIND_RETRY_MAX", "4")
    try:
        decord = importlib.import_module("decord")
    except (ImportError, OSError, RuntimeError):  # the last two when its shared library does not load
        return None
    decord.logging.set_level(decord.logging.QUIET)
    decord.bridge.set_bridge("native")
    return decord


class _DecordError(Exception):
    """decord failed at something that PyAV may manage."""


_DECORD_CODECS = frozenset({"h264", "hevc", "vp8", "vp9"})
_DECORD_CONTAINERS = SEEKABLE_CONTAINERS | {"avi"}
_H264_IDR = 5
_SAME_SECONDS = 0.02
"""Difference of two times of a frame below which they are one: some containers count in milliseconds."""
_SAME_LEVELS = 12
"""Mean difference in grey levels below which two decoders made the same picture; another picture differs by more."""
_MP4_OR_MATROSKA = re.compile(rb"....ftyp|\x1a\x45\xdf\xa3", re.DOTALL)


def _obstacle(pyav: PyAVReader) -> str | None:
    """Return why decord's frames would be wrong even when it decodes from the start."""
    file, pixels = pyav.file, pyav.file.stream.codec_context.pix_fmt or ""
    if not file.containers & _DECORD_CONTAINERS:
        return f"decord misplaces frames of {sorted(file.containers)[0]} files"
    if pyav.frame_index.pts is None and "avi" not in file.containers:
        return "its packets do not say when frames are shown, and decord misplaces them"
    if pyav.frame_index.has_hidden:
        return "decord does not see the edit list, which hides frames"
    if file.outline is not None and file.outline.is_fragmented:
        return "decord misplaces frames of fragmented MP4 files"
    if file.codec == "h264" and "444" in pixels:
        return "decord garbles H.264 4:4:4"
    if pixels == "pal8":
        return "decord garbles pictures of a palette"
    return None


def _is_plain(pyav: PyAVReader) -> bool:
    """Return whether decord's way of seeking, by counting packets from a key packet, finds the right frames."""
    file = pyav.file
    is_known = file.containers & SEEKABLE_CONTAINERS and file.codec in _DECORD_CODECS
    is_420 = (file.stream.codec_context.pix_fmt or "").startswith(("yuv420p", "yuvj420p"))
    is_sought = pyav.info.is_seekable and not pyav.frame_index.has_false_keys
    return bool(is_known and is_420 and is_sought and _has_closed_groups(pyav.info.path))


def _has_closed_groups(path: str) -> bool:
    """Return whether after each key packet come only frames that are shown later and need nothing from before."""
    with closing(PyAVFile(path)) as file:
        extradata = file.stream.codec_context.extradata or b""
        key_pts = -math.inf
        for packet in file.packets():
            if packet.pts is None or packet.pts < key_pts:
                return False
            if packet.is_keyframe:
                key_pts = packet.pts
                units = bitstream.nal_units("h264", memoryview(packet), extradata) if file.codec == "h264" else ()
                if file.codec == "h264" and not any(unit[0] & 31 == _H264_IDR for unit in units):
                    return False  # a picture that is merely mended bit by bit
        return not file.num_failed


class DecordReader(VideoReader):
    """The frames that PyAV gives, by decord where decord can.

    decord finds frames by counting packets, which is wrong for open groups of pictures, recovery points, edit lists,
    H.264 in AVI and more, and it never says so. So PyAV reads the packets first. Where all is clean decord seeks;
    where it counts right only from the start it decodes from the start; the rest PyAV decodes, with a warning.
    Without PyAV, only MP4, MOV, Matroska and WebM are read, always from the start.

    Args:
        path: a regular, non-empty file.
        index: not used: what decord can be trusted with depends on more than it says.

    Raises:
        VideoError: if decord is not installed, or the file is not a video that it or PyAV can read.
    """

    def __init__(self, path: str, index: FileIndex | None = None) -> None:
        self._decord = load_decord()
        if self._decord is None:
            raise VideoError(path, "decord is not installed; pip install decord")
        self._path = path
        self._video: Any = None
        """decord's reader; None when PyAV decodes."""
        self._pyav = PyAVReader(path) if load_av() is not None else None
        if self._pyav is None:
            self._open_alone()
        else:
            self._open_beside(self._pyav)

    def close(self) -> None:
        self._video = None  # decord frees it with the last reference
        if self._pyav is not None:
            self._pyav.close()

    def _open_beside(self, pyav: PyAVReader) -> None:
        self.warnings = pyav.warnings
        self.times_seconds = pyav.times_seconds
        self._can_seek = False
        try:
            obstacle = _obstacle(pyav)
            if obstacle is None:
                self._video = self._open_decord()
                obstacle = self._difference(pyav)
        except _DecordError as error:
            obstacle = str(error)
        if obstacle is not None:
            self._video = None
            self._warn(f"decoded by PyAV: {obstacle}")
        else:
            self._can_seek = _is_plain(pyav)
        self.info = replace(
            pyav.info,
            decoder="pyav" if self._video is None else "decord",
            is_seekable=pyav.info.is_seekable if self._video is None else self._can_seek,
            warnings=tuple(self.warnings),
        )

    def _difference(self, pyav: PyAVReader) -> str | None:
        """Return how decord's table of frames, or its first picture, differs from PyAV's; None if they agree."""
        num_frames = len(self._video)
        if num_frames != pyav.info.num_frames:
            return f"decord counts {num_frames} frames, PyAV {pyav.info.num_frames}"
        spans = np.asarray(self._call(self._video.get_frame_timestamp, range(num_frames)), np.float64)
        times = spans[:, 0] - spans[0, 0]
        shown = pyav.times_seconds if pyav.file.containers & SEEKABLE_CONTAINERS else None  # others do not say
        if shown is not None and np.abs(times - shown).max() > _SAME_SECONDS:
            return "decord shows its frames at other times"
        ours, theirs = pyav.read([0])[0], self._next(self._open_decord())
        if ours.shape != theirs.shape or np.abs(ours.astype(np.int16) - theirs).mean() > _SAME_LEVELS:
            return "decord shows another first picture, or turns it otherwise"
        return None

    def _open_alone(self) -> None:
        self._can_seek = False
        self.warnings = ["PyAV is not installed: an edit list, if there is one, may add repeats of the last frame"]
        if not _MP4_OR_MATROSKA.match(first_bytes(self._path)):
            raise VideoError(self._path, "decord alone is right only for MP4, MOV, Matroska and WebM; pip install av")
        try:
            self._video = self._open_decord()
            num_frames = len(self._video)
            if num_frames > MAX_FRAMES:
                raise VideoError(self._path, f"it has more than {MAX_FRAMES:,} frames")
            spans = self._call(self._video.get_frame_timestamp, range(num_frames))
            height, width = self._next(self._video).shape[:2]
        except _DecordError as error:
            raise VideoError(self._path, str(error)) from None
        times = np.asarray(spans, np.float64)
        if times[0, 0] < 0 or (np.diff(times[:, 0]) <= 0).any():
            raise VideoError(self._path, "decord alone cannot tell its frames apart; pip install av")
        check_pixels(self._path, width, height)
        self.times_seconds = times[:, 0] - times[0, 0]
        duration = float(times[-1, 1] - times[0, 0])
        self.info = VideoInfo(
            path=self._path,
            num_frames=num_frames,
            fps=num_frames / duration if duration > 0 else None,
            width=width,
            height=height,
            duration_seconds=duration if duration > 0 else None,
            codec="unknown",
            decoder="decord",
            rotation=0,
            is_seekable=False,
            warnings=tuple(self.warnings),
        )

    def decode(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        if self._video is not None:
            try:
                yield from self._decode_with_decord(wanted)
                return
            except _DecordError as error:
                if self._pyav is None:
                    raise VideoError(self._path, str(error)) from None
                self._warn(f"decoded by PyAV: {error}")
        assert self._pyav is not None
        yield from self._pyav.decode(wanted)

    def _decode_with_decord(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        if self._can_seek:
            for index in wanted:
                self._call(self._video.seek_accurate, index)
                yield index, self._next(self._video)
            return
        needed = frozenset(wanted)
        video = self._open_decord()
        for index in range(wanted[-1] + 1):
            frame = self._next(video)
            if index in needed:
                yield index, frame

    def _open_decord(self) -> Any:
        # An absolute path, because FFmpeg takes "x:y" for an address.
        name = os.path.abspath(self._path) if (member := find_member(self._path)) is None else member.address
        return self._call(self._decord.VideoReader, name, ctx=self._decord.cpu(0), num_threads=1)

    def _next(self, video: Any) -> Frame:
        frame: Frame = self._call(video.next).asnumpy()
        if frame.shape[2:] != (3,):  # its rows' padding, as happens at widths of 2, 4, 6, 8, 12, 16, 24 and 48
            raise _DecordError(f"decord garbles frames that are {frame.shape[1]} pixels wide")
        if hasattr(self, "info") and frame.shape[:2] != (self.info.height, self.info.width):
            raise _DecordError(f"decord makes frames of {frame.shape[1]}x{frame.shape[0]} pixels")
        return frame

    def _call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        heartbeat()
        try:
            return function(*args, **options)
        except (self._decord.DECORDError, RuntimeError, AssertionError, StopIteration, UnicodeError):
            raise _DecordError("decord fails on it") from None


READER = DecordReader
