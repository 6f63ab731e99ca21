"""A path becomes a reader: one table of decoders, one place that chooses."""

from __future__ import annotations

import math
import os
from os import PathLike
from typing import Literal

from dualformer_cli.errors import VideoError
from dualformer_cli.video.decord_reader import DecordReader, load_decord
from dualformer_cli.video.frame_folders import FrameFolderReader
from dualformer_cli.video.pyav_file import load_av
from dualformer_cli.video.pyav_reader import PyAVReader
from dualformer_cli.video.reader import FileIndex, VideoReader
from dualformer_cli.video.refusals import is_folder


def open_video(
    path: str | PathLike[str],
    *,
    decoder: Literal["auto", "pyav", "decord"] = "auto",
    frame_rate: float | None = None,
    frame_name: str | None = None,
    index: FileIndex | None = None,
) -> VideoReader:
    """Open a video file, or a folder of numbered frames.

    Args:
        path: a regular file of any name, or a folder of images.
        decoder: the library that decodes files; auto is PyAV, or decord where PyAV is not installed.
        frame_rate: frames per second of a folder of frames, which does not say.
        frame_name: how its frames are called, such as img_{:05}.jpg; None finds the one series of images.
        index: of an earlier reader of this path, in this process or another. It saves PyAV from reading the whole file
            first; one of a file that has changed since is ignored.

    Raises:
        VideoError: if it is not a readable video, with the reason.
        ValueError: if `decoder` is none of the three, or `frame_rate` is not positive.
    """
    if decoder not in ("auto", "pyav", "decord"):
        raise ValueError(f"decoder must be auto, pyav or decord, got {decoder!r}")
    if frame_rate is not None and not 0 < frame_rate < math.inf:
        raise ValueError(f"frame_rate must be positive, got {frame_rate}")
    name = os.fspath(path)
    if is_folder(name):
        return FrameFolderReader(name, frame_rate=frame_rate, frame_name=frame_name)
    if decoder == "pyav" or (decoder == "auto" and load_av() is not None):
        return PyAVReader(name, index)
    if decoder == "auto" and load_decord() is None:
        raise VideoError(name, "neither PyAV nor decord is installed; pip install av")
    return DecordReader(name)
