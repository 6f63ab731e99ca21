"""Which frames make a clip. Every function returns frame numbers of the source video, int64.

Clips that do not fit wrap around: frame numbers are taken modulo the number of frames.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Seconds = npt.NDArray[np.float64]

MAX_SEGMENTS = 200_000
"""Segments of one timeline: beyond this the times in the file, or the segment length, are surely wrong."""


class TimelineError(ValueError):
    """A video that cannot be cut into segments; the caller knows which one it is."""


def span(num_frames: int, frame_interval: int) -> int:
    """Return how many source frames a clip covers, from its first to its last."""
    return (num_frames - 1) * frame_interval + 1


def test_clips(video_frames: int, *, num_frames: int, frame_interval: int, num_clips: int) -> Indices:
    """Spread clips evenly over a video, as the published test recipe does.

    With room = video_frames - num_frames * frame_interval + 1 start positions, clip k starts in the middle of
    the k-th of num_clips equal parts of them; without room, every clip starts at frame 0 and wraps around.

    Returns:
        Frame numbers, shape (num_clips, num_frames).
    """
    _require_positive(video_frames=video_frames, num_frames=num_frames, frame_interval=frame_interval)
    _require_positive(num_clips=num_clips)
    room = max(0, video_frames - num_frames * frame_interval + 1)
    starts: Indices = (2 * np.arange(num_clips, dtype=np.int64) + 1) * room // (2 * num_clips)
    return _clips_at(starts, video_frames, num_frames=num_frames, frame_interval=frame_interval)


def random_clip(video_frames: int, *, num_frames: int, frame_interval: int, rng: np.random.Generator) -> Indices:
    """Choose one training clip: any start from which num_frames * frame_interval frames follow, else frame 0.

    Returns:
        Frame numbers, shape (num_frames,).
    """
    _require_positive(video_frames=video_frames, num_frames=num_frames, frame_interval=frame_interval)
    room = max(1, video_frames - num_frames * frame_interval + 1)
    start = rng.integers(room, size=1)
    (clip,) = _clips_at(start, video_frames, num_frames=num_frames, frame_interval=frame_interval)
    return np.asarray(clip)


def segment_clip(video_frames: int, *, num_frames: int, rng: np.random.Generator | None = None) -> Indices:
    """Take one frame from each of num_frames equal parts of a video, as usual for Something-Something.

    Args:
        video_frames: frames in the video; fewer than num_frames are repeated.
        num_frames: frames in the clip.
        rng: chooses a frame of each part, for training; None takes the middle one, for testing.

    Returns:
        Frame numbers, shape (num_frames,), never decreasing.
    """
    _require_positive(video_frames=video_frames, num_frames=num_frames)
    first, last = _part_edges(np.array([video_frames]), num_frames)
    return np.asarray((first + last)[0] // 2 if rng is None else rng.integers(first[0], last[0], endpoint=True))


def timeline(
    times_seconds: Seconds, *, every_seconds: float, duration_seconds: float | None = None
) -> tuple[Seconds, Seconds]:
    """Cut a video into segments of equal time; a remainder below half a segment joins the one before.

    Args:
        times_seconds: when each frame is shown, from 0.0, never decreasing, shape (video_frames,).
        every_seconds: length of a segment.
        duration_seconds: when the last frame ends; None lets it last as long as frames of this video usually do.

    Returns:
        Starts and ends of the segments in seconds, shape (segments,). The last one ends where the last frame does.

    Raises:
        TimelineError: if there would be more than MAX_SEGMENTS segments.
    """
    _require_positive(video_frames=len(times_seconds))
    if not every_seconds > 0:
        raise ValueError(f"every_seconds must be positive, got {every_seconds}")
    if duration_seconds is None:
        last_frame_seconds = float(np.median(np.diff(times_seconds))) if len(times_seconds) > 1 else 0.0
        duration_seconds = float(times_seconds[-1]) + last_frame_seconds
    duration_seconds = max(duration_seconds, float(times_seconds[-1]))
    if not duration_seconds / every_seconds <= MAX_SEGMENTS:
        raise TimelineError(
            f"lasts {duration_seconds:g} seconds, more than {MAX_SEGMENTS} segments of {every_seconds:g} seconds; "
            "take longer segments"
        )
    num_segments = max(1, math.floor(duration_seconds / every_seconds + 0.5))
    starts = np.arange(num_segments, dtype=np.float64) * every_seconds
    return starts, np.append(starts[1:], duration_seconds)


def timeline_clips(
    times_seconds: Seconds,
    *,
    num_frames: int,
    frame_interval: int,
    every_seconds: float,
    duration_seconds: float | None = None,
) -> tuple[Seconds, Seconds, Indices]:
    """Give each segment of a `timeline` one clip, centred on the frame shown at its middle.

    A clip near either end is shifted to stay inside the video; only a video shorter than a clip wraps around.

    Args:
        times_seconds: when each frame is shown, from 0.0, never decreasing, shape (video_frames,).
        num_frames: frames in one clip.
        frame_interval: step between a clip's frames, in source frames.
        every_seconds: length of a segment.
        duration_seconds: when the last frame ends; None as for `timeline`.

    Returns:
        Starts and ends of the segments in seconds, shape (segments,), and frame numbers, shape (segments, num_frames).

    Raises:
        TimelineError: if there would be more than MAX_SEGMENTS segments.
    """
    _require_positive(num_frames=num_frames, frame_interval=frame_interval)
    starts, ends = timeline(times_seconds, every_seconds=every_seconds, duration_seconds=duration_seconds)
    video_frames, clip_span = len(times_seconds), span(num_frames, frame_interval)
    middles = np.searchsorted(times_seconds, (starts + ends) / 2, side="right") - 1
    first = np.clip(middles - (clip_span - 1) // 2, 0, max(0, video_frames - clip_span))
    return starts, ends, _clips_at(first, video_frames, num_frames=num_frames, frame_interval=frame_interval)


def timeline_segment_clips(
    times_seconds: Seconds, *, num_frames: int, every_seconds: float, duration_seconds: float | None = None
) -> tuple[Seconds, Seconds, Indices]:
    """Give each segment of a `timeline` one clip as `segment_clip` takes it, from the frames shown in that segment.

    Args, results and errors are those of `timeline_clips`.
    """
    _require_positive(num_frames=num_frames)
    starts, ends = timeline(times_seconds, every_seconds=every_seconds, duration_seconds=duration_seconds)
    first = np.searchsorted(times_seconds, starts, side="right") - 1
    last = np.maximum(first, np.searchsorted(times_seconds, ends, side="left") - 1)
    low, high = _part_edges(last - first + 1, num_frames)
    return starts, ends, first[:, None] + (low + high) // 2


def _part_edges(video_frames: Indices, num_frames: int) -> tuple[Indices, Indices]:
    """Return the first and last frame of num_frames equal parts of each video, both shape (videos, num_frames).

    The edges are multiples of (video_frames - 1) / num_frames, rounded half to even; neighbouring parts share one.
    """
    whole, rest = np.divmod(np.arange(num_frames + 1, dtype=np.int64) * (video_frames[:, None] - 1), num_frames)
    edges = whole + ((2 * rest > num_frames) | ((2 * rest == num_frames) & (whole % 2 == 1)))
    return edges[:, :-1], edges[:, 1:]


def _clips_at(starts: Indices, video_frames: int, *, num_frames: int, frame_interval: int) -> Indices:
    """Return frame numbers, shape (starts, num_frames), modulo the number of frames."""
    steps = np.arange(num_frames, dtype=np.int64) * frame_interval
    clips: Indices = (starts[:, None] + steps) % video_frames
    return clips


def _require_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
