"""Decoded frames become upright RGB of one size, whatever colour matrix they state."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from dualformer_cli.errors import VideoError
from dualformer_cli.video.orientation import Orientation
from dualformer_cli.video.reader import Frame, check_pixels

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_REPLACED = {
    3: ("reserved", 2),
    10: ("BT.2020 constant luminance", 9),
    12: ("chroma-derived", 2),
    13: ("chroma-derived constant luminance", 2),
}
"""Colour matrices that a video may name and FFmpeg cannot turn into RGB. Number in H.273: its name, and the number of
the one that comes close; 2 is the usual one."""
_UNKNOWN = {
    8: "YCgCo",
    11: "Y'D'zD'x",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
"""Those that nothing comes close to: read by another, the colours would be wrong."""


class RgbConverter:
    """Makes upright RGB of the frames of one video, all of one size.

    Args:
        path: of the video.
        size: width and height of the frames as they are stored; those of another size are scaled to it.
        orientation: by which they are turned.
    """

    def __init__(self, path: str, size: tuple[int, int], orientation: Orientation) -> None:
        self._path, self._size, self._orientation = path, size, orientation
        self._av = importlib.import_module("av")
        # One reformatter for all frames, and one thread: otherwise each frame sets up a scaler and a thread pool.
        self._reformatter = self._av.video.reformatter.VideoReformatter()
        self.doubt: str | None = None
        """What makes the colours of the frames so far doubtful."""

    def to_rgb(self, frame: VideoFrame) -> Frame:
        """Convert a frame; the result may be a view of memory with gaps between its rows.

        Raises:
            VideoError: if it is too large, or its colours cannot be converted.
        """
        check_pixels(self._path, frame.width, frame.height)
        if (replaced := _REPLACED.get(frame.colorspace)) is not None:
            name, frame.colorspace = replaced
            doubt = f"its colour matrix is {name}; a usual one is taken, so colours may be a little off"
            self.doubt = self.doubt or doubt
        try:
            rgb: Frame = self._reformatter.reformat(frame, *self._size, "rgb24", threads=1).to_ndarray()
        except (self._av.FFmpegError, ValueError) as error:
            raise VideoError(self._path, _why_not_rgb(frame)) from error
        return self._orientation.apply(rgb)


def _why_not_rgb(frame: VideoFrame) -> str:
    if frame.colorspace in _UNKNOWN:
        return f"its colour matrix, {_UNKNOWN[frame.colorspace]}, cannot be turned into RGB"
    return f"pixel format {frame.format.name} cannot be turned into RGB"
