"""Frames become an MP4 or a GIF, one at a time; captions are drawn onto frames."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, lru_cache, partial
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter
from PIL import Image, ImageDraw

from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs.fonts import draw_label, font_of
from dualformer_cli.outputs.screen import log
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.words import os_reason
from dualformer_cli.video.reader import Frame
from dualformer_cli.video.sound import SoundCopy
from dualformer_cli.video.writer import PictureWriter, encoder_to_watch, open_gif, open_mp4

Captions = Sequence[tuple[str, float]]
"""Labels with their scores, 0 to 1."""

SUFFIXES = (".mp4", ".gif")
GIF_MAX_FPS = 12.5
GIF_MAX_SIDE = 480
_TICK = Fraction(1, 60000)
"""Seconds between two possible times of a frame, where frames have times of their own."""
_BT709 = 1  # FFmpeg's number for primaries, transfer and matrix of HD video

_BOX_COLOUR = (0, 0, 0, 150)
_BAR_COLOUR = (30, 110, 200, 220)
_TEXT_COLOUR = (255, 255, 255, 255)


def save_annotated(
    frames: Iterable[Frame],
    path: str | os.PathLike[str],
    *,
    fps: float,
    captions: Callable[[float], Captions],
    times: Sequence[float] | None = None,
    sound_of: str | None = None,
    max_side: int = 1280,
) -> str | None:
    """Write a video or GIF of `frames` with what `captions` says drawn onto each.

    Args:
        frames: frames in order, shape (H, W, 3), uint8; taken one at a time.
        path: the .mp4 or .gif to write; it appears only when complete.
        fps: frames per second of `frames`. A GIF keeps every n-th frame, so that it shows at most 12.5 a second.
        captions: labels and scores (0 to 1) at a time in seconds, best first.
        times: seconds at which each frame is shown; None: evenly, by `fps`. Those of a constant rate are made even.
        sound_of: video whose sound an .mp4 gets; a GIF has none.
        max_side: longer sides are shrunk to this, in pixels; a GIF's to at most 480.

    Returns:
        Why some or all of the sound is missing; None where it is not.

    Raises:
        DualFormerError: if the suffix is another one, there are no frames, or the file cannot be written.
    """
    is_variable = times is not None and any(abs(each - n / fps) > 0.5 / fps for n, each in enumerate(times))

    def captioned(frame: Frame, *, seconds: float) -> Frame:
        return draw_captions(frame, captions(seconds))

    with VideoWriter(path, fps=fps, max_side=max_side, is_variable=is_variable, sound_of=sound_of) as writer:
        for number, frame in enumerate(frames):
            seconds = number / fps if times is None else times[number]
            shown_at = seconds if is_variable else None
            writer.write(frame, seconds=shown_at, draw=partial(captioned, seconds=seconds))
    return writer.sound_problem


class VideoWriter:
    """Writes frames to an .mp4 (H.264) or a .gif as they come; leaves nothing behind when the body fails.

    Every frame gets the size of the first: shrunk to `max_side` and, in an .mp4, padded by a pixel to even sides.

    Args:
        path: the file to write; its suffix decides the format.
        fps: frames per second of what will be written.
        max_side: longest side of the result in pixels, None for no limit; a GIF's is 480 at most.
        is_variable: whether frames come with times of their own, and not evenly; `fps` is then their mean rate.
        sound_of: video whose sound an .mp4 gets.

    Attributes:
        sound_problem: why some or all of the sound is missing, once all is written; None where it is not.

    Raises:
        DualFormerError: if the suffix or the frame rate cannot be used, no frame came, or the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        fps: float,
        max_side: int | None = None,
        is_variable: bool = False,
        sound_of: str | None = None,
    ) -> None:
        self.path = Path(path)
        suffix = self.path.suffix.lower()
        if suffix not in SUFFIXES:
            raise DualFormerError(
                f"cannot write {str(self.path)!r}: {suffix!r} is not a format for video; use {' or '.join(SUFFIXES)}"
            )
        if not 0.01 <= fps <= 1000:
            raise DualFormerError(f"cannot write {str(self.path)!r} at {fps} frames per second; use 0.01 to 1000")
        self._is_gif = suffix == ".gif"
        self._fps = fps
        self._max_side = min(max_side or GIF_MAX_SIDE, GIF_MAX_SIDE) if self._is_gif else max_side
        # 1e-3 spares 25.002 fps, a usual reading of 25, from losing two frames of three
        self._keep_every = math.ceil(fps / GIF_MAX_FPS - 1e-3) if self._is_gif else 1
        self._num_frames = 0
        self._is_variable, self._sound_of = is_variable, sound_of
        self._last_tick = -1
        self._output: PictureWriter | None = None
        self._sound: SoundCopy | None = None
        self.sound_problem: str | None = None

    def __enter__(self) -> VideoWriter:
        with ExitStack() as exits:
            self._temporary = exits.enter_context(atomic_path(self.path))
            exits.push(self._finish)
            self._exits = exits.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.__exit__(kind, error, trace)

    def write(
        self, frame: Frame, *, draw: Callable[[Frame], Frame] | None = None, seconds: float | None = None
    ) -> None:
        """Add a frame.

        Args:
            frame: shape (H, W, 3), uint8.
            draw: paints on the frame once it has its final size, which it keeps; not called for frames that a GIF
                leaves out.
            seconds: when the frame is shown; None: evenly, by the frames per second.

        Raises:
            ValueError: if the frame has another shape or type.
        """
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise ValueError(f"a frame must be uint8 (H, W, 3), got {frame.dtype} {frame.shape}")
        number = self._num_frames
        self._num_frames += 1
        seconds = number / self._fps if seconds is None else seconds
        if self._is_left_out(number, seconds):
            return
        if self._output is None:
            self._output = self._open(width=frame.shape[1], height=frame.shape[0])
        fitted = _fit(frame, width=self._output.stream.width, height=self._output.stream.height)
        shown = fitted if draw is None else draw(fitted)
        with _naming(self.path):
            tick = max(self._last_tick + 1, round(seconds / self._output.tick))
            self._output.write_rgb(shown, tick)
            self._last_tick = tick
            if self._sound is not None:
                self._sound.write_until(seconds)

    def _is_left_out(self, number: int, seconds: float) -> bool:
        """Return whether a GIF would show more frames a second than it should with this one."""
        if not self._is_variable or self._output is None:
            return bool(number % self._keep_every)
        return self._is_gif and seconds < float(self._last_tick * self._output.tick) + 1 / GIF_MAX_FPS - 0.01

    def _open(self, *, width: int, height: int) -> PictureWriter:
        width, height = _target_size(width, height, max_side=self._max_side, even=not self._is_gif)
        with _naming(self.path):
            if self._is_gif:
                interval_seconds = self._keep_every / self._fps
                return open_gif(self._temporary, width=width, height=height, interval_seconds=interval_seconds)
            # MPEG-4 holds the numerator of its rate in 16 bits; 1001 is the denominator of NTSC rates
            rate = Fraction(self._fps).limit_denominator(min(1001, int(65535 / self._fps)))
            codec, options = encoder_to_watch()
            if codec == "mpeg4":
                _say_mpeg4()
            output = open_mp4(
                self._temporary,
                width=width,
                height=height,
                rate=rate,
                options=options,
                codec=codec,
                matrix=Colorspace.ITU709,
                num_threads=0,
                tick=_TICK if self._is_variable else None,
            )
            context = output.stream.codec_context
            context.color_primaries = context.color_trc = context.colorspace = _BT709
            if self._sound_of is not None:
                self._sound = SoundCopy(self._sound_of, output.container)
            return output

    def _finish(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._output is None:
            if kind is None:
                raise DualFormerError(f"cannot write {str(self.path)!r}: there are no frames to write")
        else:
            with _naming(self.path):
                if self._sound is not None:
                    if kind is None:
                        self._sound.write_until(math.inf)
                    self.sound_problem = self._sound.problem
                    self._sound.close()
                self._output.__exit__(kind, error, trace)


@cache
def _say_mpeg4() -> None:
    log("this PyAV has no H.264 encoder (libx264): writing MPEG-4 Part 2, which web browsers do not play")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn FFmpeg's complaints into one that names the file."""
    try:
        yield
    except av.error.FFmpegError as error:
        raise DualFormerError(f"cannot write {str(path)!r}: {os_reason(error)}") from error


def _target_size(width: int, height: int, *, max_side: int | None, even: bool) -> tuple[int, int]:
    """Return the (width, height) of the result: within `max_side`, and even sides if asked."""
    step = 2 if even else 1
    longest = max(width, height)
    if max_side is None or longest <= max_side:
        return width + width % step, height + height % step
    width, height = (max(step, int(side * max_side / longest + 0.5) // step * step) for side in (width, height))
    return width, height


def _fit(frame: Frame, *, width: int, height: int) -> Frame:
    right, below = width - frame.shape[1], height - frame.shape[0]
    if (right, below) == (0, 0):
        return frame
    if right in (0, 1) and below in (0, 1):
        return np.pad(frame, ((0, below), (0, right), (0, 0)), mode="edge")
    return resize(frame, width=width, height=height)


def resize(frame: Frame, *, width: int, height: int) -> Frame:
    """Return the frame at another size. Area averaging by swscale takes a third of the time of Pillow's box filter."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
    resized = VideoReformatter().reformat(picture, width, height, interpolation="AREA", threads=1)
    return np.asarray(resized.to_ndarray(), dtype=np.uint8)


def draw_captions(frame: Frame, captions: Captions) -> Frame:
    """Return a copy of the frame with labels, percents and bars in a dark, translucent box at its top left.

    Args:
        frame: shape (H, W, 3), uint8; a frame too small for text is returned as it is.
        captions: labels and scores (0 to 1), best first; those that do not fit in height are left out.
    """
    lines = tuple((label, round(100 * min(1.0, max(0.0, score)))) for label, score in captions)
    box = _caption_box(lines, frame.shape[0], frame.shape[1])
    if box is None:
        return frame
    shown = frame.copy()
    height, width = box.paint.shape[:2]
    place = shown[box.margin : box.margin + height, box.margin : box.margin + width]
    place[:] = (place * box.keep + box.paint) >> 8
    return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class _Box:
    """What to do to the pixels `margin` from the top and left: (pixel * keep + paint) / 256."""

    margin: int
    keep: np.ndarray[Any, np.dtype[np.uint16]]
    """Shape (h, w, 1), 0 to 256."""
    paint: np.ndarray[Any, np.dtype[np.uint16]]
    """Shape (h, w, 3), 0 to 65280."""


@lru_cache(maxsize=64)
def _caption_box(lines: tuple[tuple[str, int], ...], height: int, width: int) -> _Box | None:
    """Render (label, percent) lines for frames of this size; the same lines are asked for frame after frame."""
    size = round(min(40.0, max(10.0, math.sqrt(width * height) / 36)))
    margin, padding, row = size // 2, size // 3, round(size * 1.5)
    box_width = min(20 * size, width - 2 * margin)
    lines = lines[: max(1, (height * 3 // 5 - 2 * padding) // row)]
    box_height = len(lines) * row + 2 * padding
    if not lines or box_width < 6 * size or box_height + margin > height:
        return None
    image = Image.new("RGBA", (box_width, box_height), _BOX_COLOUR)
    for number, (label, percent) in enumerate(lines):
        _draw_line(image, label, percent, top=padding + number * row, padding=padding, size=size)
    return _blend(image, margin=margin)


def _draw_line(image: Image.Image, label: str, percent: int, *, top: int, padding: int, size: int) -> None:
    draw, font = ImageDraw.Draw(image), font_of(size)
    left, right = padding, image.width - padding
    bar_right = left + round((right - left) * percent / 100)
    row = round(size * 1.5)
    if bar_right > left:
        draw.rectangle((left, top + 1, bar_right - 1, top + row - 2), fill=_BAR_COLOUR)
    middle, inset = top + row // 2, max(2, size // 4)
    number = f"{percent}%"
    draw.text((right - inset, middle), number, fill=_TEXT_COLOUR, font=font, anchor="rm")
    room = right - left - 2 * inset - font.getlength("100%") - inset
    draw_label(draw, (left + inset, middle), label, size=size, room=room, fill=_TEXT_COLOUR, anchor="lm")


def _blend(image: Image.Image, *, margin: int) -> _Box:
    pixels = np.asarray(image).astype(np.uint16)
    share = pixels[..., 3:] + (pixels[..., 3:] >> 7)  # alpha 0 to 255 as 0 to 256
    return _Box(margin=margin, keep=(256 - share).astype(np.uint16), paint=pixels[..., :3] * share)
