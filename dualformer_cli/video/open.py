"""A path becomes a reader: the one place that chooses what decodes it."""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from os import PathLike
from typing import get_args

from dualformer_cli.config.schema import Decoder
from dualformer_cli.errors import VideoError
from dualformer_cli.video.containers import load_av
from dualformer_cli.video.decord_reader import load_decord
from dualformer_cli.video.image_frames import FrameFolderReader
from dualformer_cli.video.reader import FileIndex, VideoReader
from dualformer_cli.video.refusals import is_folder
from dualformer_cli.video.remote_videos import fetch_copy, is_placed, name_of


def open_video(
    path: str | PathLike[str],
    *,
    decoder: Decoder = "auto",
    frame_rate: float | None = None,
    frame_name: str | None = None,
    index: FileIndex | None = None,
) -> VideoReader:
    """Open a video file, or a folder of numbered frames.

    Args:
        path: a regular file of any name, a folder of images, or the address of a video in an archive on another
            machine, with its place there, which is fetched.
        decoder: the library that decodes files; auto is PyAV, or decord where PyAV is not installed.
        frame_rate: frames per second of a folder of frames, which does not say.
        frame_name: how its frames are called, such as img_{:05}.jpg; None finds the one series of images.
        index: of an earlier reader of this path, in this process or another. It saves PyAV from reading the whole file
            first; one of a file that has changed since is ignored.

    Raises:
        VideoError: if it is not a readable video, with the reason.
        ValueError: if `decoder` is none of those, or `frame_rate` is not positive.
    """
    if decoder not in get_args(Decoder):
        raise ValueError(f"decoder must be one of {', '.join(get_args(Decoder))}, got {decoder!r}")
    if frame_rate is not None and not 0 < frame_rate < math.inf:
        raise ValueError(f"frame_rate must be positive, got {frame_rate}")
    name = os.fspath(path)
    if is_placed(name):
        return _open_copy(name, partial(open_video, decoder=decoder, frame_rate=frame_rate, frame_name=frame_name))
    if is_folder(name):
        return FrameFolderReader(name, frame_rate=frame_rate, frame_name=frame_name)
    return _reader_of(_installed(name) if decoder == "auto" else decoder)(name, index)


def _open_copy(address: str, open_file: Callable[[str], VideoReader]) -> VideoReader:
    held, path = fetch_copy(address)
    try:
        reader = open_file(path)
    except VideoError as error:
        held.close()
        raise type(error)(name_of(address), error.reason) from None
    reader.held, reader.index = held, None  # the next copy is another file
    reader.info = replace(reader.info, path=name_of(address))
    return reader


def _installed(path: str) -> Decoder:
    if load_av() is not None:
        return "pyav"
    if load_decord() is None:
        raise VideoError(path, "neither PyAV nor decord is installed; pip install av")
    return "decord"


@cache
def _reader_of(decoder: Decoder) -> Callable[[str, FileIndex | None], VideoReader]:
    """Return the READER of `video/NAME_reader.py`: a decoder is that file, and its name in `Decoder`."""
    return importlib.import_module(f"dualformer_cli.video.{decoder.replace('-', '_')}_reader").READER
