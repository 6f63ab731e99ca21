"""Frames by torchcodec, where torchcodec gives the frames that PyAV gives."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from dualformer_cli.errors import VideoError
from dualformer_cli.system.workers import heartbeat
from dualformer_cli.video.pyav_reader import PyAVReader
from dualformer_cli.video.reader import FileIndex, Frame, VideoReader
from dualformer_cli.video.tar_members import find_member

_SAME_LEVELS = 1.0
"""Mean difference in grey levels below which two decoders made the same picture. Those of 8 bits that are not
interlaced are the same to the bit; others differ by up to 0.6, and wrong ones by more."""
_FAILURES = (RuntimeError, ValueError, IndexError)
_SAME_SECONDS = 0.001
"""Difference of two times of a frame below which they are one: both come from the same packet, as fractions."""


def load_torchcodec() -> Any:
    """Import torchcodec's decoders; None when it or FFmpeg's libraries are not installed."""
    try:
        return importlib.import_module("torchcodec.decoders")
    except (ImportError, OSError, RuntimeError):  # the last two when its shared libraries do not load
        return None


def _source(path: str) -> str | BinaryIO:
    """Return what torchcodec takes for a file: an absolute path, because FFmpeg takes "x:y" for an address."""
    if (member := find_member(path)) is not None:
        return member.address
    try:
        path.encode()
    except UnicodeEncodeError:  # torchcodec takes no other names; through Python reading is slower
        return open(path, "rb")
    return os.path.abspath(path)


def _obstacle(pyav: PyAVReader) -> str | None:
    """Return why torchcodec's frames would be wrong, as far as PyAV's reading of the packets says."""
    index, container = pyav.frame_index, pyav.file.container.format.name.split(",")[0]
    if index.keys is None:
        return f"misplaces frames that the times of packets do not lead to, as in {container} with {pyav.info.codec}"
    if index.has_false_keys:
        return "starts at packets that the file calls key frames and that are none"
    if pyav.info.is_mirrored:
        return "does not mirror pictures"
    return None


class TorchcodecReader(VideoReader):
    """The frames that PyAV gives, by torchcodec; a video that torchcodec gets wrong is refused.

    torchcodec goes by the times of packets, and by what the container calls key frames. PyAV reads the packets first
    and says whether both can be believed. Then the number of frames and the first picture have to agree, and each frame
    has to come with its own time and size.

    Args:
        path: a regular, non-empty file.
        index: of an earlier reader of this path.

    Raises:
        VideoError: if torchcodec or PyAV is not installed, or the file is not a video that torchcodec reads right.
    """

    name = "torchcodec"
    device = "cpu"
    most_levels = _SAME_LEVELS

    def __init__(self, path: str, index: FileIndex | None = None) -> None:
        torchcodec = load_torchcodec()
        if torchcodec is None:
            raise VideoError(path, "torchcodec or FFmpeg, which it needs, is not installed; pip install torchcodec")
        with ExitStack() as on_failure:
            self._pyav = PyAVReader(path, index)
            on_failure.callback(self._pyav.close)
            self.index, self.warnings = self._pyav.index, self._pyav.warnings
            self.times_seconds = self._pyav.times_seconds
            self.info = replace(self._pyav.info, decoder=self.name)
            if (obstacle := _obstacle(self._pyav)) is not None:
                raise self._refusal(obstacle)
            try:
                self._decoder = torchcodec.VideoDecoder(
                    _source(path),
                    stream_index=self._pyav.file.stream.index,
                    dimension_order="NHWC",
                    num_ffmpeg_threads=1,
                    device=self.device,
                )
            except _FAILURES:
                raise self._refusal("fails on it") from None
            self._compare()
            on_failure.pop_all()

    def close(self) -> None:
        self._decoder = None  # torchcodec closes the file with the last reference
        self._pyav.close()

    def decode(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        for index in wanted:
            yield index, self._frame(index)

    def _compare(self) -> None:
        """Refuse a video of which torchcodec has other frames or another first picture than PyAV."""
        num_frames = len(self._decoder)
        if num_frames != self.info.num_frames:
            raise self._refusal(f"counts {num_frames} frames, PyAV {self.info.num_frames}")
        # The first frame also comes first because old x264's 4:4:4 decodes right only after the file's first packet.
        self._first_seconds = self._get(0).pts_seconds
        if np.abs(self._pyav.read([0])[0].astype(np.int16) - self._frame(0)).mean() > self.most_levels:
            raise self._refusal("shows another first picture, or turns it otherwise")

    def _frame(self, index: int) -> Frame:
        frame = self._get(index)
        pts, tick = self._pyav.frame_index.pts, self._pyav.file.stream.time_base
        assert pts is not None
        assert tick is not None
        if abs(frame.pts_seconds - self._first_seconds - float((pts[index] - pts[0]) * tick)) > _SAME_SECONDS:
            raise self._refusal(f"shows frame {index} at another time")
        pixels: Frame = frame.data.cpu().numpy()
        if pixels.shape != (self.info.height, self.info.width, 3):
            raise self._refusal(
                f"makes frame {index} {pixels.shape[1]}x{pixels.shape[0]} pixels, not of the first's size"
            )
        return pixels

    def _get(self, index: int) -> Any:
        heartbeat()
        try:
            return self._decoder.get_frame_at(index)
        except _FAILURES:
            raise self._refusal(f"fails on frame {index}") from None

    def _refusal(self, obstacle: str) -> VideoError:
        return VideoError(self.info.path, f"{self.name} {obstacle}; use --set data.decoder=auto")


READER = TorchcodecReader
