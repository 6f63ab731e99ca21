"""Pictures become a file, H.264 in an MP4 or a GIF: saved videos, converted copies and rendered clips."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from types import TracebackType
from typing import BinaryIO

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from dualformer_cli.video.reader import Frame

Target = str | os.PathLike[str] | BinaryIO
Convert = Callable[[av.VideoFrame | None], Iterable[av.VideoFrame]]
"""Takes a picture, or None at the end; gives the pictures that are ready in the encoder's format."""

QUICK_TO_READ = {"preset": "veryfast", "tune": "fastdecode", "g": "16", "bf": "0", "sc_threshold": "0"}
"""Options of H.264: short groups of pictures without B-frames. A random frame needs 15 others at most, and each packet
is one frame."""
GOOD_TO_WATCH = {"crf": "20", "preset": "veryfast"}
"""Options of H.264: hardly a visible loss, in little time."""
H264_OPTIONS = {"x264-params": "cpu-independent=1"}
"""Of every H.264: some of x264's fast routines depend on the processor, and now and then on what lies in memory; these
are left out, so that a picture is the same bytes in every process."""
GIF_TICK = Fraction(1, 100)
"""A GIF counts its delays in hundredths of a second."""


def has_h264_encoder() -> bool:
    try:
        av.codec.Codec("libx264", "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def encoder_to_watch() -> tuple[str, dict[str, str]]:
    """Return the encoder of a saved video and its options; MPEG-4 Part 2 where PyAV has no H.264."""
    if has_h264_encoder():
        return "libx264", GOOD_TO_WATCH
    return "mpeg4", {"flags": "+qscale", "global_quality": "472"}  # quantiser 4 of 31, times FF_QP2LAMBDA, 118


class PictureWriter:
    """A file that is being written, and its encoder. In a `with`, the file is complete when the body ends well.

    Args:
        container: the file, opened.
        stream: its video stream, with size and pixel format.
        tick: seconds between two possible times of a picture.
        convert: what pictures go through before they are encoded; None: they come in the encoder's format.
    """

    def __init__(
        self,
        container: av.container.OutputContainer,
        stream: av.VideoStream,
        *,
        tick: Fraction,
        convert: Convert | None = None,
    ) -> None:
        self.container, self.stream, self.tick = container, stream, tick
        self._convert: Convert = convert or (lambda picture: () if picture is None else (picture,))

    def __enter__(self) -> PictureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            with self.container:
                self._encode(None)
                self.container.mux(self.stream.encode(None))
        else:
            with suppress(av.error.FFmpegError):  # the body's error is the one to hear of
                self.container.close()

    def write(self, picture: av.VideoFrame, pts: int) -> None:
        """Add a picture that is shown from `pts` ticks on."""
        picture.pts, picture.time_base = pts, self.tick
        self._encode(picture)

    def write_rgb(self, frame: Frame, pts: int) -> None:
        """Add a frame of shape (H, W, 3) that is shown from `pts` ticks on."""
        self.write(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24"), pts)

    def _encode(self, picture: av.VideoFrame | None) -> None:
        for ready in self._convert(picture):
            self.container.mux(self.stream.encode(ready))


def open_mp4(
    target: Target,
    *,
    width: int,
    height: int,
    rate: Fraction,
    options: Mapping[str, str],
    codec: str = "libx264",
    tick: Fraction | None = None,
    matrix: Colorspace | None = None,
    num_threads: int = 1,
) -> PictureWriter:
    """Open an MP4 for writing, yuv420p.

    Args:
        target: path of the file, or a file that is open.
        width: of its pictures in pixels, even.
        height: as `width`.
        rate: pictures per second, as the file states them.
        options: of the encoder.
        codec: name of the encoder.
        tick: seconds between two possible times of a picture; None: 1 / rate.
        matrix: by which RGB becomes YUV; None: the pictures come as yuv420p.
        num_threads: of the encoder; 0 leaves it to the encoder, whose bytes then depend on the machine.
    """
    is_path = not hasattr(target, "write")
    container = av.open(
        f"file:{target}" if is_path else target,  # without "file:", FFmpeg takes "a:b" for an address
        "w",
        format="mp4",
        options={"movflags": "+faststart"} if is_path else {},  # it reads the file again
    )
    stream = _add_stream(container, codec, "yuv420p", width=width, height=height, rate=rate, options=options)
    tick = tick or 1 / rate
    stream.codec_context.time_base, stream.codec_context.thread_count = tick, num_threads
    return PictureWriter(container, stream, tick=tick, convert=None if matrix is None else _to_yuv(matrix))


def open_gif(target: Target, *, width: int, height: int, interval_seconds: float) -> PictureWriter:
    """Open a GIF for writing, of RGB pictures; it is shown again and again.

    Args:
        target: path of the file.
        width: of its pictures in pixels.
        height: as `width`.
        interval_seconds: from picture to picture.
    """
    # a delay follows from the next picture's time, so that the last one's has to be stated
    options = {"loop": "0", "final_delay": str(round(interval_seconds / GIF_TICK))}
    container = av.open(f"file:{target}", "w", format="gif", options=options)
    stream = _add_stream(container, "gif", "pal8", width=width, height=height, rate=1 / GIF_TICK, options={})
    return PictureWriter(container, stream, tick=GIF_TICK, convert=_to_palettes(width, height))


def _add_stream(
    container: av.container.OutputContainer,
    codec: str,
    pixel_format: str,
    *,
    width: int,
    height: int,
    rate: Fraction,
    options: Mapping[str, str],
) -> av.VideoStream:
    own = H264_OPTIONS if codec == "libx264" else {}
    stream = container.add_stream(codec, rate=rate, options={**own, **options})
    assert isinstance(stream, av.VideoStream)
    stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
    return stream


def _to_yuv(matrix: Colorspace) -> Convert:
    reformatter = VideoReformatter()

    def convert(picture: av.VideoFrame | None) -> Iterable[av.VideoFrame]:
        if picture is None:
            return ()
        return (reformatter.reformat(picture, format="yuv420p", dst_colorspace=matrix, threads=1),)

    return convert


def _to_palettes(width: int, height: int) -> Convert:
    """Give each picture a palette of its own: one for all would need every picture before the first is written."""
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=GIF_TICK)
    split, sink = graph.add("split"), graph.add("buffersink")
    palette = graph.add("palettegen", "stats_mode=single")
    painter = graph.add("paletteuse", "new=1:dither=sierra2_4a")
    source.link_to(split)
    split.link_to(painter, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(painter, 0, 1)
    painter.link_to(sink)
    graph.configure()

    def convert(picture: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
        graph.vpush(picture)
        while True:
            try:
                yield graph.vpull()
            except (BlockingIOError, EOFError):
                return

    return convert
