"""A video is cut into segments of equal time, and each gets a clip."""

from __future__ import annotations

import math

import numpy as np

from dualformer_cli.data.clips.sampling import Indices, Seconds, clips_at, part_edges, require_positive, span

MAX_SEGMENTS = 200_000
"""Segments of one timeline: beyond this the times in the file, or the segment length, are surely wrong."""


class TimelineError(ValueError):
    """A video that cannot be cut into segments; the caller knows which one it is."""


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
    require_positive(video_frames=len(times_seconds))
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
    require_positive(num_frames=num_frames, frame_interval=frame_interval)
    starts, ends = timeline(times_seconds, every_seconds=every_seconds, duration_seconds=duration_seconds)
    video_frames, clip_span = len(times_seconds), span(num_frames, frame_interval)
    middles = np.searchsorted(times_seconds, (starts + ends) / 2, side="right") - 1
    first = np.clip(middles - (clip_span - 1) // 2, 0, max(0, video_frames - clip_span))
    return starts, ends, clips_at(first, video_frames, num_frames=num_frames, frame_interval=frame_interval)


def timeline_segment_clips(
    times_seconds: Seconds, *, num_frames: int, every_seconds: float, duration_seconds: float | None = None
) -> tuple[Seconds, Seconds, Indices]:
    """Give each segment of a `timeline` one clip as `segment_clip` takes it, from the frames shown in that segment.

    Args, results and errors are those of `timeline_clips`.
    """
    require_positive(num_frames=num_frames)
    starts, ends = timeline(times_seconds, every_seconds=every_seconds, duration_seconds=duration_seconds)
    first = np.searchsorted(times_seconds, starts, side="right") - 1
    last = np.maximum(first, np.searchsorted(times_seconds, ends, side="left") - 1)
    low, high = part_edges(last - first + 1, num_frames)
    return starts, ends, first[:, None] + (low + high) // 2
