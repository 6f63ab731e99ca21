"""A video becomes an MP4 that is quick to read, or a folder of numbered images. Frame i stays frame i.

Both functions run in worker processes. What they write appears only when it is complete, and is the same bytes every
time: an encoder that runs on one thread makes no choices of its own.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
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
from dualformer_cli.video.orientation import Orientation
from dualformer_cli.video.pyav_reader import PyAVReader
from dualformer_cli.video.reader import Frame, VideoReader

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

H264_OPTIONS = {
    **{"preset": "veryfast", "tune": "fastdecode", "g": "16", "bf": "0", "sc_threshold": "0"},
    "x264-params": "cpu-independent=1",
}
"""Short groups of pictures without B-frames: a random frame needs 15 others at most, and each packet is one frame.
Some of x264's fast routines depend on the processor, and now and then on what lies in memory: these are left out."""
RECIPE = 2
"""Number of the way in which copies are made. It grows when older ones are not to be trusted: the first spoiled the
colours of frames whose height is not a multiple of 4, and did not turn mirrored videos upright."""
FRAME_NAME = "img_{:05d}.jpg"
"""Name of a frame by its number, from 1."""
SAMPLE_FRAMES = 64
"""Frames of a video that `estimate` encodes."""

_UNSPECIFIED, _BT601, _RGB = 2, 6, 0
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
class Estimate:
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
        encoder = _Encoder(reader, f"file:{temporary}", short_side=job.short_side, crf=job.quality)
        count = encoder.write(_pictures(reader))
        if count != job.num_frames:
            raise VideoError(job.source, f"{count} of its {job.num_frames} frames could be decoded")
        num_bytes = temporary.stat().st_size
    return Converted(width=encoder.width, height=encoder.height, num_bytes=num_bytes)


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


def estimate_transcode(job: Conversion) -> Estimate:
    """Encode the first frames of a video into memory."""
    started = perf_counter()
    with open_video(job.source) as reader:
        buffer = BytesIO()
        encoder = _Encoder(reader, buffer, short_side=job.short_side, crf=job.quality)
        count = encoder.write(islice(_pictures(reader), SAMPLE_FRAMES))
    return Estimate(num_frames=count, num_bytes=buffer.getbuffer().nbytes, seconds=perf_counter() - started)


def estimate_frames(job: Conversion) -> Estimate:
    """Compress the first frames of a video into memory."""
    started = perf_counter()
    with open_video(job.source) as reader:
        size = fitted_size(reader.info.width, reader.info.height, job.short_side, even=False)
        count, buffer = 0, BytesIO()
        for frame in islice(reader.frames(), SAMPLE_FRAMES):
            count += 1
            _write_jpeg(frame, size, buffer, job.quality)
    return Estimate(num_frames=count, num_bytes=buffer.getbuffer().nbytes, seconds=perf_counter() - started)


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


def _pictures(reader: VideoReader) -> Iterator[VideoFrame]:
    """Yield the frames as PyAV has them; images of a folder become such frames."""
    if isinstance(reader, PyAVReader):
        yield from reader.pictures()
        return
    import av

    for frame in reader.frames():
        yield av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")


class _Encoder:
    """Writes the frames of a reader to an MP4.

    Scaling goes from the source's YUV straight to the target's: by way of RGB every generation would come out darker.
    """

    def __init__(self, reader: VideoReader, target: Any, *, short_side: int, crf: int) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        try:
            av.codec.Codec("libx264", "w")
        except av.codec.codec.UnknownCodecError:
            raise DualFormerError("this PyAV has no H.264 encoder (libx264); pip install --upgrade av") from None
        self._av = av
        self._target = target
        self._reformatter = VideoReformatter()
        self._orientation = Orientation(reader.info.is_mirrored, reader.info.rotation)
        self.width, self.height = fitted_size(reader.info.width, reader.info.height, short_side, even=True)
        self._ticks, self._tick = _times(reader)
        self._rate = Fraction(reader.info.fps or 25).limit_denominator(1001)
        self._options = {**H264_OPTIONS, "crf": str(crf)}

    def write(self, pictures: Iterator[VideoFrame]) -> int:
        """Encode the pictures and return their number."""
        count = 0
        options = {"movflags": "+faststart"} if isinstance(self._target, str) else {}  # it reads the file again
        with self._av.open(self._target, "w", format="mp4", options=options) as container:
            stream = container.add_stream("libx264", rate=self._rate, options=self._options)
            stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
            context = stream.codec_context
            context.time_base, context.thread_count = self._tick, 1
            for count, picture in enumerate(pictures, start=1):
                heartbeat()
                ready = self._convert(picture)
                if count == 1:
                    context.colorspace, context.color_range = ready.colorspace, _LIMITED_RANGE
                    context.color_primaries, context.color_trc = picture.color_primaries, picture.color_trc
                ready.pts, ready.time_base = int(self._ticks[count - 1]), self._tick
                container.mux(stream.encode(ready))
            container.mux(stream.encode(None))
        return count

    def _convert(self, picture: VideoFrame) -> VideoFrame:
        """Scale, turn and bring into the target's pixel format."""
        from av.video.reformatter import Colorspace

        width, height = self._orientation.upright_size(self.width, self.height)
        matrix = _BT601 if picture.colorspace == _RGB else picture.colorspace
        scaled = self._reformatter.reformat(
            picture,
            width,
            height,
            "yuv420p",
            interpolation="BICUBIC",
            dst_colorspace=Colorspace.ITU601 if picture.colorspace == _RGB else None,
            src_color_range=picture.color_range or None,
            dst_color_range="MPEG",
            threads=1,
        )
        ready = self._upright(scaled)
        ready.colorspace = matrix
        return ready

    def _upright(self, picture: VideoFrame) -> VideoFrame:
        """Return a copy that is turned.

        A copy, because a decoded picture knows of what kind it was in the source, which the encoder would make it
        again. The encoder looks behind the ends of rows: they are zeros, so that the same video gives the same bytes.
        """
        turned = self._av.VideoFrame(self.width, self.height, "yuv420p")
        for source, target in zip(picture.planes, turned.planes, strict=True):
            stored = np.frombuffer(memoryview(source), np.uint8).reshape(source.height, source.line_size)
            rows = np.zeros((target.height, target.line_size), np.uint8)
            rows[:, : target.width] = self._orientation.apply(stored[:, : source.width])
            target.update(rows.tobytes())
        return turned


def _times(reader: VideoReader) -> tuple[np.ndarray[Any, Any], Fraction]:
    """Return when each frame is shown, in ticks, and the length of a tick in seconds."""
    count, rate = reader.info.num_frames, Fraction(reader.info.fps or 25).limit_denominator(1001)
    even = np.arange(count)
    times = reader.times_seconds
    if times is None or np.abs(times - even / float(rate)).max() < 0.002:  # as exact as containers that count in ms
        return even, 1 / rate
    ticks = np.rint(times * _TICKS_PER_SECOND).astype(np.int64)
    return np.maximum.accumulate(ticks - even) + even, Fraction(1, _TICKS_PER_SECOND)  # strictly rising
