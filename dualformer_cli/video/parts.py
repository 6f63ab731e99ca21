"""Parts of videos: by frame numbers, or by times, which become frame numbers when the video is open.

As in the W3C's media fragments, `clip.mp4#t=3.5,7` is the part of clip.mp4 from 3.5 to 7 seconds.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dualformer_cli.errors import VideoError
from dualformer_cli.system.numbers import amount_in
from dualformer_cli.video.reader import VideoReader

_FRAGMENT = re.compile(r"(.+)#t=(?:npt:)?([0-9.:]*)(?:,([0-9.:]+))?", re.DOTALL)
_CLOCK = re.compile(r"(?:([0-9]+):(?=[0-9]{2}:))?([0-5]?[0-9]):([0-5][0-9](?:\.[0-9]*)?)")
_EVEN = 0.25
"""Of a frame's time: how far frames of an even rate may be from where the rate has them."""


class Part(NamedTuple):
    """The part of a video that counts; by its times if there are any."""

    start: int = 0
    """First frame."""
    num_frames: int | None = None
    """None is all from `start` on, and so are more than there are."""
    start_seconds: float | None = None
    end_seconds: float | None = None
    """None is the end of the video."""

    @property
    def is_timed(self) -> bool:
        """Whether times say which part it is."""
        return self.start_seconds is not None or self.end_seconds is not None

    @property
    def fragment(self) -> str:
        """Return what names the part after the name of its video: #t=3.5,7; empty without times."""
        if not self.is_timed:
            return ""
        end = "" if self.end_seconds is None else f",{_shortest(self.end_seconds)}"
        return f"#t={_shortest(self.start_seconds or 0.0)}{end}"

    def frames(self, reader: VideoReader) -> tuple[int, int]:
        """Return the first frame of the part, and how many there are.

        Raises:
            VideoError: if the part is given by times, and nothing says when frames are shown.
        """
        info = reader.info
        if not self.is_timed:
            rest = max(0, info.num_frames - self.start)
            return self.start, rest if self.num_frames is None else min(rest, self.num_frames)
        if info.fps is None:
            raise VideoError(
                info.path,
                f"has no frame rate, so the part {self.fragment} cannot be found in it; give the one it was recorded "
                "at, for example --set data.frame_rate=25",
            )
        start = frame_at(self.start_seconds or 0.0, reader.times_seconds, info.fps, info.num_frames)
        end = info.num_frames
        if self.end_seconds is not None:
            end = frame_at(self.end_seconds, reader.times_seconds, info.fps, info.num_frames)
        return start, max(0, end - start)


WHOLE = Part()


def frame_at(seconds: float, times: npt.NDArray[np.float64] | None, fps: float, num_frames: int) -> int:
    """Return the frame that begins the nearest to a time; `num_frames` for one beyond the last frame.

    Args:
        seconds: from the start of the first frame.
        times: when each frame is shown; None if only the rate is known.
        fps: frames per second.
        num_frames: of the video.
    """
    even = min(round(seconds * fps), num_frames)
    if times is None or np.abs(times - np.arange(len(times)) / fps).max() < _EVEN / fps:
        return even
    after = int(np.searchsorted(times, seconds))
    if after == len(times):  # the last frame is shown, or over
        return after if seconds - times[-1] >= 0.5 / fps else after - 1
    return after - 1 if after and seconds - times[after - 1] < times[after] - seconds else after


def split_part(name: str) -> tuple[str, Part]:
    """Return the video and the part that a name such as clip.mp4#t=3.5,7 means; a file of that name comes first."""
    match = _FRAGMENT.fullmatch(name)
    if match is None or os.path.lexists(name):
        return name, WHOLE
    try:
        start = seconds_of(match[2]) if match[2] else None
        end = None if match[3] is None else seconds_of(match[3])
    except ValueError:
        return name, WHOLE
    if (start is None and end is None) or (end is not None and end <= (start or 0.0)):
        return name, WHOLE
    return match[1], Part(start_seconds=start, end_seconds=end)


def seconds_of(text: str) -> float:
    """Return a time in seconds: 83.5, 1:23.5 or 0:01:23.5; minutes and seconds of a clock are below 60.

    Raises:
        ValueError: if the text is none.
    """
    if match := _CLOCK.fullmatch(text.strip()):
        hours, minutes, seconds = match.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)
    try:
        return amount_in(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a time in seconds, or such as 1:23.5 or 1:02:03") from None


def _shortest(seconds: float) -> str:
    """Return a time without an exponent, which reads back as it is."""
    return np.format_float_positional(seconds, trim="-")
