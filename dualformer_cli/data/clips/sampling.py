"""Which frames make a clip. Every function returns frame numbers of the source video, int64.

Clips that do not fit wrap around: frame numbers are taken modulo the number of frames.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Seconds = npt.NDArray[np.float64]


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
    require_positive(video_frames=video_frames, num_frames=num_frames, frame_interval=frame_interval)
    require_positive(num_clips=num_clips)
    room = max(0, video_frames - num_frames * frame_interval + 1)
    starts: Indices = (2 * np.arange(num_clips, dtype=np.int64) + 1) * room // (2 * num_clips)
    return clips_at(starts, video_frames, num_frames=num_frames, frame_interval=frame_interval)


def random_clip(video_frames: int, *, num_frames: int, frame_interval: int, rng: np.random.Generator) -> Indices:
    """Choose one training clip: any start from which num_frames * frame_interval frames follow, else frame 0.

    Returns:
        Frame numbers, shape (num_frames,).
    """
    require_positive(video_frames=video_frames, num_frames=num_frames, frame_interval=frame_interval)
    room = max(1, video_frames - num_frames * frame_interval + 1)
    start = rng.integers(room, size=1)
    (clip,) = clips_at(start, video_frames, num_frames=num_frames, frame_interval=frame_interval)
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
    require_positive(video_frames=video_frames, num_frames=num_frames)
    first, last = part_edges(np.array([video_frames]), num_frames)
    return np.asarray((first + last)[0] // 2 if rng is None else rng.integers(first[0], last[0], endpoint=True))


def part_edges(video_frames: Indices, num_frames: int) -> tuple[Indices, Indices]:
    """Return the first and last frame of num_frames equal parts of each video, both shape (videos, num_frames).

    The edges are multiples of (video_frames - 1) / num_frames, rounded half to even; neighbouring parts share one.
    """
    whole, rest = np.divmod(np.arange(num_frames + 1, dtype=np.int64) * (video_frames[:, None] - 1), num_frames)
    edges = whole + ((2 * rest > num_frames) | ((2 * rest == num_frames) & (whole % 2 == 1)))
    return edges[:, :-1], edges[:, 1:]


def clips_at(starts: Indices, video_frames: int, *, num_frames: int, frame_interval: int) -> Indices:
    """Return frame numbers, shape (starts, num_frames), modulo the number of frames."""
    steps = np.arange(num_frames, dtype=np.int64) * frame_interval
    clips: Indices = (starts[:, None] + steps) % video_frames
    return clips


def require_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
