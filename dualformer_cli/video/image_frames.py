"""Frames of a folder of numbered images, read by Pillow. `frame_folders` decides which folder is one."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import PIL.Image

from dualformer_cli.errors import VideoError
from dualformer_cli.system.words import counted
from dualformer_cli.system.workers import heartbeat
from dualformer_cli.video.frame_folders import find_frames
from dualformer_cli.video.reader import MAX_FRAMES, MAX_PIXELS, Frame, VideoInfo, VideoReader, check_pixels
from dualformer_cli.video.refusals import plain_reason
from dualformer_cli.video.suffixes import IMAGE_FORMATS, is_video_name


class FrameFolderReader(VideoReader):
    """A folder of numbered images, such as img_00001.jpg or frame0.png, is a video; PyAV and decord are not needed.

    The numbers give the order, from whatever the first is. A gap in them is a warning: the images that exist are
    consecutive frames. `frame_folders` says which images are the frames; two series that could both be are an error.
    Images must have one size. An orientation that an image states is ignored, as extracted frames are already upright.

    Args:
        path: a folder.
        frame_rate: frames per second; None leaves times unknown.
        frame_name: template of the frames' names, such as img_{:05}.jpg; None finds them.

    Raises:
        VideoError: if it holds no numbered images, or more than one series, or the first is unreadable.
    """

    def __init__(self, path: str, *, frame_rate: float | None = None, frame_name: str | None = None) -> None:
        self._path = path
        self._names, gap = numbered_images(path, frame_name)
        self.warnings = [gap] if gap else []
        height, width = self._load(0).shape[:2]
        num_frames = len(self._names)
        self.times_seconds = np.arange(num_frames) / frame_rate if frame_rate else None
        self.info = VideoInfo(
            path=path,
            num_frames=num_frames,
            fps=frame_rate,
            width=width,
            height=height,
            duration_seconds=num_frames / frame_rate if frame_rate else None,
            codec=_format_of(self._names[0]).lower(),
            decoder="frames",
            rotation=0,
            is_seekable=True,
            warnings=tuple(self.warnings),
        )

    def decode(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        for index in wanted:
            heartbeat()
            frame = self._load(index)
            height, width = frame.shape[:2]
            if (width, height) != (self.info.width, self.info.height):
                raise VideoError(
                    self._path,
                    f"{self._names[index]!r} is {width}x{height} pixels, the first image "
                    f"{self.info.width}x{self.info.height}; make them one size",
                )
            yield index, frame

    def _load(self, index: int) -> Frame:
        name = self._names[index]
        path = os.path.join(self._path, name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about odd tags, and about sizes that are checked here
                with PIL.Image.open(path, formats=[_format_of(name)]) as image:
                    check_pixels(path, *image.size)
                    return np.asarray(image.convert("RGB"))
        except PermissionError:
            raise VideoError(self._path, f"no permission to read {name!r}") from None
        # Pillow's decoders raise these on damage; a decompression bomb is an Exception of its own.
        except (OSError, SyntaxError, ValueError, IndexError, TypeError, struct.error, MemoryError) as error:
            raise VideoError(self._path, f"{name!r} is not a readable image") from error
        except PIL.Image.DecompressionBombError:
            raise VideoError(path, f"more than the {MAX_PIXELS:,} pixels allowed") from None


def _format_of(name: str) -> str:
    return IMAGE_FORMATS[os.path.splitext(name)[1].lower()]


def numbered_images(path: str, template: str | None) -> tuple[list[str], str | None]:
    """List the images of a folder in the order of their numbers, and a warning if numbers are missing.

    Raises:
        VideoError: if it holds none, or more than one series; saying what it holds.
    """
    try:
        with os.scandir(path) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
    except OSError as error:
        raise VideoError(path, plain_reason(error)) from None
    frames = find_frames(names, template)
    if frames is None:
        called = "such as img_00001.jpg" if template is None else f"as data.frame_name {template!r} has them"
        if videos := sorted(name for name in names if is_video_name(name)):
            held = f"the folder holds {counted(len(videos), 'video')} and no numbered images"
            raise VideoError(path, f"{held}; name one video, such as {os.path.join(path, videos[0])}")
        raise VideoError(path, f"the folder holds no numbered images, {called}")
    if frames.others:
        found = ", ".join(repr(name) for name in [frames.names[0][1], *frames.others][:3])
        raise VideoError(
            path,
            f"the folder holds {1 + len(frames.others)} series of images ({found}); keep one, or name it, as "
            "--set data.frame_name=img_{:05}.jpg does",
        )
    return _in_order(path, frames.names)


def _in_order(path: str, frames: list[tuple[int, str]]) -> tuple[list[str], str | None]:
    if len(frames) > MAX_FRAMES:
        raise VideoError(path, f"it has more than {MAX_FRAMES:,} frames")
    for (number, name), (following, other) in pairwise(frames):
        if number == following:
            raise VideoError(path, f"{name!r} and {other!r} have the same number; keep one")
    first, last = frames[0][0], frames[-1][0]
    missing = last - first + 1 - len(frames)
    warning = f"{missing} of the numbers {first} to {last} have no image; the others are taken as consecutive frames"
    return [name for _, name in frames], warning if missing else None
