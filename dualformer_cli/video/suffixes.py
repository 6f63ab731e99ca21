"""Suffixes by which videos and images are known, and names without them."""

from __future__ import annotations

import os

VIDEO_SUFFIXES = frozenset(
    (
        *(".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".f4v", ".mkv", ".webm", ".avi", ".divx"),
        *(".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".wmv", ".asf", ".flv"),
        *(".ogv", ".rm", ".rmvb", ".mxf", ".dv", ".y4m", ".gif"),
    )
)
"""Suffixes, in lower case, of the files that a folder or a pattern contributes; a file named itself may have any."""
IMAGE_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
}
"""Suffix of an image to Pillow's name of its format."""


def is_video_name(name: str) -> bool:
    """Return whether a file has the suffix of a video, in any case."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def stem_of(path: str) -> str:
    """Return the name of a video without its suffix, or that of a folder of frames, which has none."""
    name = os.path.basename(path)
    return os.path.splitext(name)[0] if is_video_name(name) else name
