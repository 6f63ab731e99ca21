"""A video becomes an MP4 that is quick to read, or a folder of numbered images. Frame i stays frame i.

Both functions run in worker processes. What they write appears only when it is complete, and is the same bytes every
time: an encoder that runs on one thread makes no choices of its own.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from dualformer_cli.errors import CannotWriteError, DualFormerError, VideoError
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.words import os_reason
from dualformer_cli.system.workers import heartbeat
from dualformer_cli.video.open import open_video
from dualformer_cli.video.reader import USUAL_FPS, Frame, VideoReader

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

RECIPE = 2
"""Number of the way in which copies are made. It grows when older ones are not to be trusted: the first spoiled the
colours of frames whose height is not a multiple of 4, and did not turn mirrored videos upright."""
FRAME_NAME = "img_{:05d}.jpg"
"""Name of a frame by its number, from 1."""
SAMPLE_FRAMES = 64
"""Frames of a video that a trial converts."""

_BT601, _RGB = 6, 0
_LIMITED_RANGE = 1
_TICKS_PER_SECOND = 90_000
"""Of files whose frames are not evenly spaced; the MPEG clock, which holds the usual frame rates exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """One video to convert."""

    source: str
    target: str
    """A file for `transcode`, a folder for `extract_frames`; its parent exists."""
    short_side: int
    """Larger frames are shrunk to this short side, smaller ones stay."""
    quality: int
    """Constant rate factor of H.264, less is better; or quality of JPEG, more is better."""
    num_frames: int
    """Frames of the source, as an earlier look at it found."""
    width: int
    height: int
    """Its size in pixels, upright."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What became of one video."""

    width: int
    height: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a few frames of one video need once converted."""

    num_frames: int
    """How many were tried."""
    num_bytes: int
    seconds: float
    """Time of one process."""


def fitted_size(width: int, height: int, short_side: int, *, even: bool) -> tuple[int, int]:
    """Return (width, height) with a short side of at most `short_side`, never larger; even sides where H.264 asks."""
    scale = min(1.0, short_side / min(width, height))
    sides = (max(1, int(side * scale + 0.5)) for side in (width, height))
    if not even:
        width, height = sides
        return width, height
    width, height = (max(2, side - side % 2) for side in sides)
    return width, height


def transcode(job: Conversion) -> Converted:
    """Write an H.264 MP4: upright, 8 bits 4:2:0, no sound, no tags, and each frame at its time in the source.

    Raises:
        VideoError: if the source cannot be decoded, or has other frames than it had.
        DualFormerError: if the target cannot be written.
    """
    with open_video(job.source) as reader, _disk_errors(job.target), atomic_path(job.target) as temporary:
        _require(job, reader)
        count = _encode(job, reader, temporary, reader.pictures())
        if count != job.num_frames:
            raise VideoError(job.source, f"{count} of its {job.num_frames} frames could be decoded")
        num_bytes = temporary.stat().st_size
        width, height = fitted_size(reader.info.width, reader.info.height, job.short_side, even=True)
    return Converted(width=width, height=height, num_bytes=num_bytes)


def extract_frames(job: Conversion) -> Converted:
    """Write a folder of JPEG images, img_00001.jpg and so on: upright, one for each frame.

    Raises:
        VideoError: if the source cannot be decoded, or has other frames than it had.
        DualFormerError: if the folder cannot be written.
    """
    with open_video(job.source) as reader, _disk_errors(job.target), _atomic_folder(Path(job.target)) as temporary:
        _require(job, reader)
        size = fitted_size(reader.info.width, reader.info.height, job.short_side, even=False)
        count, num_bytes = 0, 0
        for count, frame in enumerate(reader.frames(), start=1):
            path = temporary / FRAME_NAME.format(count)
            _write_jpeg(frame, size, path, job.quality)
            num_bytes += path.stat().st_size
        if count != job.num_frames:
            raise VideoError(job.source, f"{count} of its {job.num_frames} frames could be decoded")
    return Converted(width=size[0], height=size[1], num_bytes=num_bytes)


def try_transcode(job: Conversion) -> Trial:
    """Encode the first frames of a video into memory."""
    started = perf_counter()
    with open_video(job.source) as reader:
        buffer = BytesIO()
        count = _encode(job, reader, buffer, islice(reader.pictures(), SAMPLE_FRAMES))
    return Trial(num_frames=count, num_bytes=buffer.getbuffer().nbytes, seconds=perf_counter() - started)


def try_frames(job: Conversion) -> Trial:
    """Compress the first frames of a video into memory."""
    started = perf_counter()
    with open_video(job.source) as reader:
        size = fitted_size(reader.info.width, reader.info.height, job.short_side, even=False)
        count, buffer = 0, BytesIO()
        for frame in islice(reader.frames(), SAMPLE_FRAMES):
            count += 1
            _write_jpeg(frame, size, buffer, job.quality)
    return Trial(num_frames=count, num_bytes=buffer.getbuffer().nbytes, seconds=perf_counter() - started)


def _require(job: Conversion, reader: VideoReader) -> None:
    if reader.info.num_frames != job.num_frames:
        raise VideoError(job.source, f"it has {reader.info.num_frames} frames and had {job.num_frames}; prepare again")


@contextmanager
def _disk_errors(target: str) -> Iterator[None]:
    """Name the target when the disk is full or the name too long for it."""
    try:
        yield
    except OSError as error:
        reason = os_reason(error)
        raise CannotWriteError(f"cannot write {target!r}: {reason}") from error


@contextmanager
def _atomic_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside `target` and rename it on success. An older target is replaced."""
    temporary = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.part")
    temporary.mkdir()
    try:
        yield temporary
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_jpeg(frame: Frame, size: tuple[int, int], target: Path | BytesIO, quality: int) -> None:
    heartbeat()
    image = PIL.Image.fromarray(frame)
    if image.size != size:
        image = image.resize(size, PIL.Image.Resampling.BILINEAR, reducing_gap=3.0)  # antialiased, as Pillow always is
    image.save(target, "JPEG", quality=quality)


def _encode(job: Conversion, reader: VideoReader, target: Path | BytesIO, pictures: Iterable[VideoFrame]) -> int:
    """Write pictures of a reader, as they are stored, to an MP4, and return their number."""
    from av.video.reformatter import VideoReformatter

    from dualformer_cli.video.writer import QUICK_TO_READ, has_h264_encoder, open_mp4  # not needed for images

    if not has_h264_encoder():
        raise DualFormerError("this PyAV has no H.264 encoder (libx264); pip install --upgrade av")
    ticks, tick = _times(reader)
    rate = Fraction(reader.info.fps or USUAL_FPS).limit_denominator(1001)
    options = {**QUICK_TO_READ, "crf": str(job.quality)}
    width, height = fitted_size(reader.info.width, reader.info.height, job.short_side, even=True)
    reformatter, count = VideoReformatter(), 0
    with open_mp4(target, width=width, height=height, rate=rate, options=options, tick=tick) as writer:
        context = writer.stream.codec_context
        for count, picture in enumerate(pictures, start=1):
            heartbeat()
            ready = _upright(_scaled(picture, reader.orientation.upright_size(width, height), reformatter), reader)
            if count == 1:
                context.colorspace, context.color_range = ready.colorspace, _LIMITED_RANGE
                context.color_primaries, context.color_trc = picture.color_primaries, picture.color_trc
            writer.write(ready, int(ticks[count - 1]))
    return count


def _scaled(picture: VideoFrame, size: tuple[int, int], reformatter: VideoReformatter) -> VideoFrame:
    """Return a picture of another (width, height) in the target's pixel format.

    Scaling goes from the source's YUV straight to the target's: by way of RGB every generation would come out darker.
    """
    from av.video.reformatter import Colorspace

    is_rgb = picture.colorspace == _RGB
    scaled = reformatter.reformat(
        picture,
        *size,
        "yuv420p",
        interpolation="BICUBIC",
        dst_colorspace=Colorspace.ITU601 if is_rgb else None,
        src_color_range=picture.color_range or None,
        dst_color_range="MPEG",
        threads=1,
    )
    scaled.colorspace = _BT601 if is_rgb else picture.colorspace
    return scaled


def _upright(picture: VideoFrame, reader: VideoReader) -> VideoFrame:
    """Return a copy that is turned.

    A copy, because a decoded picture knows of what kind it was in the source, which the encoder would make it again.
    The encoder looks behind the ends of rows: they are zeros, so that the same video gives the same bytes.
    """
    import av

    turned = av.VideoFrame(*reader.orientation.upright_size(picture.width, picture.height), "yuv420p")
    for source, target in zip(picture.planes, turned.planes, strict=True):
        stored = np.frombuffer(memoryview(source), np.uint8).reshape(source.height, source.line_size)
        rows = np.zeros((target.height, target.line_size), np.uint8)
        rows[:, : target.width] = reader.orientation.apply(stored[:, : source.width])
        target.update(rows.tobytes())
    turned.colorspace = picture.colorspace
    return turned


def _times(reader: VideoReader) -> tuple[np.ndarray[Any, Any], Fraction]:
    """Return when each frame is shown, in ticks, and the length of a tick in seconds."""
    count, rate = reader.info.num_frames, Fraction(reader.info.fps or USUAL_FPS).limit_denominator(1001)
    even = np.arange(count)
    times = reader.times_seconds
    if times is None or np.abs(times - even / float(rate)).max() < 0.002:  # as exact as containers that count in ms
        return even, 1 / rate
    ticks = np.rint(times * _TICKS_PER_SECOND).astype(np.int64)
    return np.maximum.accumulate(ticks - even) + even, Fraction(1, _TICKS_PER_SECOND)  # strictly rising
