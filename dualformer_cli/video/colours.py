"""Colour matrices that a video may name and FFmpeg cannot turn into RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_REPLACED = {
    3: ("reserved", 2),
    10: ("BT.2020 constant luminance", 9),
    12: ("chroma-derived", 2),
    13: ("chroma-derived constant luminance", 2),
}
"""Number in H.273: its name, and the number of the one that comes close; 2 is the usual one."""
_UNKNOWN = {
    8: "YCgCo",
    11: "Y'D'zD'x",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
"""Those that nothing comes close to: read by another, the colours would be wrong."""


def doubt_about_colours(frame: VideoFrame) -> str | None:
    """Return a warning where another colour matrix than the stated one has to be taken."""
    if (stated := _REPLACED.get(frame.colorspace)) is None:
        return None
    return f"its colour matrix is {stated[0]}; a usual one is taken, so colours may be a little off"


def with_known_matrix(frame: VideoFrame) -> VideoFrame:
    """Return the frame, made to state a colour matrix that comes close to its own if that cannot be turned into RGB."""
    if frame.colorspace in _REPLACED:
        frame.colorspace = _REPLACED[frame.colorspace][1]
    return frame


def why_not_rgb(frame: VideoFrame) -> str:
    """Say why a frame could not be turned into RGB."""
    if frame.colorspace in _UNKNOWN:
        return f"its colour matrix, {_UNKNOWN[frame.colorspace]}, cannot be turned into RGB"
    return f"pixel format {frame.format.name} cannot be turned into RGB"
