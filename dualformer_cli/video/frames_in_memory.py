"""Frames that are in memory already, as a video."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dualformer_cli.video.reader import Frame, Transform, VideoInfo, VideoReader


class FramesReader(VideoReader):
    """Frames in memory. Those of an array are transformed when they are read, those of an iterator as they come.

    Args:
        frames: uint8 of shape (T, H, W, 3), or an iterable of frames (H, W, 3).
        name: what messages call the video.
        fps: frames per second; None when nobody knows.
        transform: what `read` will be asked for, so that the frames of an iterator need not be kept.

    Raises:
        ValueError: if a frame is no uint8 array of shape (H, W, 3), there is none, or fps is not positive.
    """

    def __init__(self, frames: Iterable[Frame], *, name: str, fps: float | None, transform: Transform) -> None:
        if fps is not None and not 0 < fps < math.inf:
            raise ValueError(f"fps must be positive, got {fps!r}")
        self.times_seconds, self.warnings = None, []
        self._frames: Sequence[Frame] | npt.NDArray[np.uint8] = ()
        self._transformed: npt.NDArray[Any] | None = None
        if isinstance(frames, np.ndarray):
            first = _checked(frames[0], name) if len(frames) else None
            self._frames, count = frames, len(frames)
        else:
            first, parts = None, []
            for frame in frames:
                frame = _checked(np.asarray(frame), name)
                first = frame if first is None else first
                parts.append(transform(frame))
            count, self._transformed = len(parts), np.stack(parts) if parts else None
        if first is None:
            raise ValueError(f"{name} has no frames")
        self.info = VideoInfo(
            path=name,
            num_frames=count,
            fps=fps,
            width=first.shape[1],
            height=first.shape[0],
            duration_seconds=None if fps is None else count / fps,
            codec="rawvideo",
            decoder="memory",
            rotation=0,
            is_seekable=True,
        )

    def decode(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        yield from ((number, self._frames[number]) for number in wanted)

    def read(self, indices: Sequence[int], transform: Transform | None = None) -> npt.NDArray[Any]:
        if self._transformed is None:
            return super().read(indices, transform)
        return np.asarray(self._transformed[list(indices)])

    def close(self) -> None:
        """Nothing is open."""


def _checked(frame: npt.NDArray[Any], name: str) -> Frame:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"{name}: frames must be uint8 of shape (H, W, 3), got {frame.dtype} {frame.shape}")
    return frame
