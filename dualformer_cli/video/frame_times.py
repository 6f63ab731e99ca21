"""When frames are shown and how many there are in a second, from the times in a file, which may jump or mislead."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.int64]

_JUMP_SECONDS = 10.0
"""A longer step in a stream that can be joined or interrupted is a new clock, not a picture that stands still."""
_LAST_FRAME = (0.5, 2.0)
"""The stated duration of the last frame is believed between these multiples of the usual step."""
_NEARLY = 1e-3
"""Relative difference of rates below which the container's is the exact one: some count in milliseconds."""


def seconds_after_first(pts: Times, tick: float, *, may_jump: bool) -> npt.NDArray[np.float64]:
    """Return when each frame is shown, in seconds after the first.

    Args:
        pts: of the frames, rising.
        tick: seconds of one unit of them.
        may_jump: whether the container is one of streams, whose clock may start anew.
    """
    times = (pts - pts[0]) * tick
    if not may_jump or len(pts) < 3 or np.diff(times).max() <= _JUMP_SECONDS:
        return times
    steps = np.diff(times)
    steps[steps > _JUMP_SECONDS] = np.median(steps)
    return np.concatenate([[0.0], np.cumsum(steps)])


def rate_and_duration(
    times: npt.NDArray[np.float64], stated_last: float, stated_rate: float | None
) -> tuple[float | None, float | None]:
    """Return the mean frames per second and the seconds from the first frame's start to the last one's end.

    Args:
        times: of the frames, in seconds after the first.
        stated_last: seconds of the last frame, as its packet says; 0 when it does not.
        stated_rate: frames per second, as the container says; None when it does not.
    """
    count, shown = len(times), float(times[-1])
    usual = float(np.median(np.diff(times))) if count > 1 else 1 / stated_rate if stated_rate else stated_last
    low, high = (share * usual for share in _LAST_FRAME)
    last = stated_last if low <= stated_last <= high else usual
    duration = shown + last
    if not duration:
        return stated_rate, None
    is_exact = stated_rate is not None and abs(stated_rate * duration / count - 1) < _NEARLY
    return stated_rate if is_exact else count / duration, duration


def rate_of_packets(dts: Times, tick: float, num_frames: int, stated_rate: float | None) -> float | None:
    """Return the frames per second of a video whose frames have no times, by those of all its packets.

    A container's own rate counts ticks that need not be frames. The usual step between packets counts, not the mean:
    such files begin with gaps, and their clocks start anew.

    Args:
        dts: of the packets, in the order of the file.
        tick: seconds of one unit of them.
        num_frames: that came out of the packets.
        stated_rate: frames per second, as the container says.
    """
    steps = np.diff(dts) * tick
    if not (steps > 0).any():
        return stated_rate
    is_fields = num_frames < 0.6 * len(dts)  # two packets a frame
    rate = float(1 / np.median(steps[steps > 0])) / (2 if is_fields else 1)
    is_alike = stated_rate is not None and abs(rate / stated_rate - 1) < 0.05
    return stated_rate if is_alike else rate
