"""The clips and tiles of a video that a teacher labels, and reading them.

A teacher takes square clips, a training clip may show any part of a video. So labels are stored for clips that
together cover the video, evenly spaced from its first frame to its last, and in each for square tiles that together
cover the frame, evenly spaced along its long side. A tile's side is `data.crop_size`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dualformer_cli.config.schema import ClipConfig, DataConfig
from dualformer_cli.data.clips import sampling
from dualformer_cli.data.clips.crops import Box
from dualformer_cli.data.clips.sampling import Indices
from dualformer_cli.data.clips.source import Fractions
from dualformer_cli.data.clips.transforms import Frames, resize_frame, resized_size
from dualformer_cli.data.clips.views import check_video
from dualformer_cli.video.open import open_video
from dualformer_cli.video.parts import Part
from dualformer_cli.video.reader import VideoInfo, VideoReader

CLIPS_PER_READ = 8
"""Clips of a video that are in memory at a time: 8 clips of 32 frames in two tiles of 224x224 are 77 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The clips and tiles of one video."""

    info: VideoInfo
    starts: tuple[int, ...]
    """First frame of each clip, in the video."""
    part: tuple[int, int]
    """First frame of the part that counts, and how many it has."""
    tiles: tuple[Box, ...]
    """In the frame resized to the tiles' side."""
    size: tuple[int, int]
    """(height, width) of that frame."""

    @property
    def shares(self) -> Fractions:
        """The tiles as shares of the frame, (x, y, width, height), shape (tiles, 4)."""
        height, width = self.size
        return np.array(self.tiles) / (width, height, width, height)


@dataclass(frozen=True, slots=True)
class LabelJob:
    """Some clips of one video, for `read_label_clips`."""

    index: int
    """The video's place in its list."""
    path: str
    part: Part
    first: int = 0
    """The first clip to read."""


def clip_starts(video_frames: int, *, num_frames: int, frame_interval: int) -> Indices:
    """Spread the fewest clips that cover a video evenly over it; one that is shorter than a clip has one, at 0.

    A clip takes num_frames * frame_interval frames, as for `sampling.random_clip`.
    """
    length = num_frames * frame_interval
    room, count = max(0, video_frames - length), max(1, -(-video_frames // length))
    starts: Indices = np.rint(np.linspace(0, room, count)).astype(np.int64)
    return starts


def tiles_of(height: int, width: int, side: int) -> tuple[Box, ...]:
    """Spread the fewest squares that cover a frame evenly along its long side; its short side is `side`."""
    long = max(height, width)
    offsets = np.rint(np.linspace(0, long - side, -(-long // side))).astype(int).tolist()
    return tuple(Box(x, 0, side, side) if width >= height else Box(0, x, side, side) for x in offsets)


def read_layout(data: DataConfig, job: LabelJob) -> Layout:
    """Find out the clips and tiles of a video without decoding it.

    Raises:
        VideoError: if the video cannot be used.
    """
    with _open(data, job) as reader:
        return _layout(data, job, reader)


def read_label_clips(data: DataConfig, job: LabelJob) -> Frames:
    """Read up to CLIPS_PER_READ clips of a video, all tiles of each.

    Returns:
        uint8, shape (clips, tiles, num_frames, crop_size, crop_size, 3).

    Raises:
        VideoError: if the video cannot be read.
    """
    with _open(data, job) as reader:
        layout = _layout(data, job, reader)
        indices = np.stack([_indices(data.clip, layout, start) for start in layout.starts])
        indices = indices[job.first : job.first + CLIPS_PER_READ]
        needed, positions = np.unique(indices, return_inverse=True)

        def cut(frame: Frames) -> Frames:
            resized = resize_frame(frame, layout.size, antialias=data.antialias)
            return np.stack([resized[tile.window] for tile in layout.tiles])

        frames = reader.read(needed.tolist(), cut)
    clips = frames[positions.reshape(indices.shape)]  # (clips, frames, tiles, S, S, 3)
    return np.ascontiguousarray(clips.swapaxes(1, 2))


def read_whole_frame(data: DataConfig, job: LabelJob) -> tuple[Frames, Indices]:
    """Read the middle frame of the clip `job.first`, resized and uncut, and the numbers of the clip's frames.

    Raises:
        VideoError: if the video cannot be read.
    """
    with _open(data, job) as reader:
        layout = _layout(data, job, reader)
        indices = _indices(data.clip, layout, layout.starts[job.first])
        middle = int(indices[len(indices) // 2])
        frames = reader.read([middle], lambda frame: resize_frame(frame, layout.size, antialias=data.antialias))
    return frames[0], indices


def _open(data: DataConfig, job: LabelJob) -> VideoReader:
    return open_video(job.path, decoder=data.decoder, frame_rate=data.frame_rate, frame_name=data.frame_name)


def _layout(data: DataConfig, job: LabelJob, reader: VideoReader) -> Layout:
    clip, info = data.clip, reader.info
    first, available = job.part.frames(reader)
    check_video(info, available, min_frames=data.min_frames)
    size = resized_size(info.height, info.width, data.crop_size)
    starts: Sequence[int] = [0]
    if clip.sampling == "interval":
        starts = clip_starts(available, num_frames=clip.num_frames, frame_interval=clip.frame_interval).tolist()
    return Layout(
        info=info,
        starts=tuple(first + start for start in starts),
        part=(first, available),
        tiles=tiles_of(*size, data.crop_size),
        size=size,
    )


def _indices(clip: ClipConfig, layout: Layout, start: int) -> Indices:
    """Return the frame numbers of one clip; they wrap around at the end of the part that counts."""
    first, num_frames = layout.part
    if clip.sampling == "segments":
        return first + sampling.segment_clip(num_frames, num_frames=clip.num_frames)
    steps = np.arange(clip.num_frames, dtype=np.int64) * clip.frame_interval
    indices: Indices = first + (start - first + steps) % num_frames
    return indices
