"""One video becomes its views; how many is in `ViewsConfig`, which frames in `sampling` and `timeline`.

`read_views` runs in a worker process: it takes and returns plain picklable data, and every error is a VideoError.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np
from einops import rearrange

from dualformer_cli.config.schema import DataConfig, ViewsConfig
from dualformer_cli.data.clips import sampling
from dualformer_cli.data.clips.sampling import Indices, Seconds
from dualformer_cli.data.clips.timeline import TimelineError, timeline_clips, timeline_segment_clips
from dualformer_cli.data.clips.transforms import Frames, FrameSizeError, FrameTransform
from dualformer_cli.errors import TooShortError, VideoError
from dualformer_cli.system.words import counted
from dualformer_cli.video.open import open_video
from dualformer_cli.video.parts import WHOLE, Part
from dualformer_cli.video.reader import FileIndex, VideoInfo, VideoReader


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoViews:
    """The views of one video, or of some segments of its timeline."""

    info: VideoInfo
    clips: Frames
    """uint8, shape (clips * num_crops, num_frames, crop_size, crop_size, 3); the crops of a clip are neighbours."""
    indices: Indices
    """Frame numbers of the clips, shape (clips, num_frames)."""
    num_views: int
    """Views that belong to one prediction: all of `clips`, or the crops of one segment."""
    starts_seconds: Seconds | None
    """Where the segments of `clips` start, shape (clips,); None without a timeline."""
    ends_seconds: Seconds | None
    """Where the segments of `clips` end, shape (clips,); None without a timeline."""
    num_segments: int | None
    """Segments of the whole timeline, whichever of them were read; None without a timeline."""
    decode_seconds: float
    """Time spent to open the video and decode its frames."""
    preprocess_seconds: float
    """Time spent to resize and crop the frames and to lay them out as views."""
    warnings: tuple[str, ...]
    """What was wrong with the video without making it unusable."""
    index: FileIndex | None = None
    """What the next reader of the file need not find out again; None if the one given was right, or there is none."""


def read_views(
    video: str | VideoReader,
    data: DataConfig,
    views: ViewsConfig,
    segments: slice | None = None,
    *,
    every_seconds: float | None = None,
    part: Part = WHOLE,
    index: FileIndex | None = None,
) -> VideoViews:
    """Read the views of one video, each needed frame once.

    Args:
        video: a video file or a folder of numbered frames, or what is open already; that is closed too.
        data: how the video is opened, and what a clip is.
        views: how the video is cut into views; num_clips counts only without a timeline.
        segments: which segments of the timeline to read, so that a long video's clips are never all in memory.
        every_seconds: cut the video into a timeline of segments of this length, with one clip each.
        part: of the video that counts.
        index: of the file, from an earlier result; it may be outdated.

    Raises:
        VideoError: if the video cannot be read, is too short, or cannot be cut so.
        ValueError: if segments are asked for that do not exist.
    """
    started = perf_counter()
    transform = _TimedTransform(data, views)
    with _opened(video, data, index) as reader:
        start, available = part.frames(reader)
        check_video(reader.info, available, min_frames=data.min_frames)
        starts, ends, indices = _choose_frames(reader, data, views, (start, available), every_seconds)
        num_segments = None if starts is None else len(starts)
        if segments is not None:
            if starts is None or ends is None or not len(starts[segments]):
                raise ValueError(f"{segments} selects nothing from {num_segments} segments")
            starts, ends, indices = starts[segments], ends[segments], indices[segments]
        needed, positions = np.unique(indices, return_inverse=True)
        try:
            frames = reader.read(needed.tolist(), transform)
        except FrameSizeError as error:  # frames may change size in the middle of a video
            raise VideoError(reader.info.path, str(error)) from error
    arranged = perf_counter()
    clips = rearrange(frames[positions.reshape(indices.shape)], "k t v h w c -> (k v) t h w c")
    return VideoViews(
        info=reader.info,
        clips=clips,
        indices=indices,
        num_views=len(clips) if starts is None else views.num_crops,
        starts_seconds=starts,
        ends_seconds=ends,
        num_segments=num_segments,
        decode_seconds=arranged - started - transform.seconds,
        preprocess_seconds=perf_counter() - arranged + transform.seconds,
        warnings=tuple(dict.fromkeys((*reader.info.warnings, *reader.warnings))),
        index=None if reader.index is index else reader.index,
    )


def _opened(video: str | VideoReader, data: DataConfig, index: FileIndex | None) -> VideoReader:
    if isinstance(video, VideoReader):
        return video
    return open_video(video, decoder=data.decoder, frame_rate=data.frame_rate, frame_name=data.frame_name, index=index)


class _TimedTransform:
    """A FrameTransform that adds up the time it takes."""

    def __init__(self, data: DataConfig, views: ViewsConfig) -> None:
        self.frame_transform = FrameTransform(
            short_side=views.short_side,
            crop_size=data.crop_size,
            num_crops=views.num_crops,
            antialias=data.antialias,
        )
        self.seconds = 0.0

    def __call__(self, frame: Frames) -> Frames:
        started = perf_counter()
        crops = self.frame_transform(frame)
        self.seconds += perf_counter() - started
        return crops


def check_video(info: VideoInfo, available: int, *, min_frames: int) -> None:
    """Refuse a video by what its header says, before any frame is decoded.

    Args:
        info: the video.
        available: frames of the part that counts.
        min_frames: fewer are too short.

    Raises:
        TooShortError: if there are fewer frames.
        VideoError: if the frames cannot be resized.
    """
    if available < min_frames:
        part = "" if available == info.num_frames else f" in the listed part (of {info.num_frames})"
        raise TooShortError(
            info.path,
            f"has {counted(available, 'frame')}{part}; at least {min_frames} are needed, or allow fewer with "
            "--set data.min_frames=1",
        )
    try:
        FrameTransform.check(info.height, info.width)
    except FrameSizeError as error:
        raise VideoError(info.path, str(error)) from error


def _choose_frames(
    reader: VideoReader,
    data: DataConfig,
    views: ViewsConfig,
    frames: tuple[int, int],
    every_seconds: float | None,
) -> tuple[Seconds | None, Seconds | None, Indices]:
    """Return the segments' starts and ends, if there is a timeline, and the frame numbers of the clips.

    Args:
        reader, data, views, every_seconds: as `read_views` has them.
        frames: first one of the part that counts, and how many it has.
    """
    clip, (start, available) = data.clip, frames
    if every_seconds is not None:
        try:
            return _timeline(reader, data, frames, every_seconds)
        except TimelineError as error:
            raise VideoError(reader.info.path, str(error)) from error
    if clip.sampling == "segments":
        return None, None, start + sampling.segment_clip(available, num_frames=clip.num_frames)[None]
    indices = sampling.test_clips(
        available, num_frames=clip.num_frames, frame_interval=clip.frame_interval, num_clips=views.num_clips
    )
    return None, None, start + indices


def _timeline(
    reader: VideoReader, data: DataConfig, frames: tuple[int, int], every_seconds: float
) -> tuple[Seconds, Seconds, Indices]:
    """Return the segments' starts and ends in the video, and the frame numbers of their clips."""
    clip, lasts = data.clip, reader.info.duration_seconds
    shown = _frame_times(reader, data.frame_rate, every_seconds)
    first, end = frames[0], sum(frames)
    offset = float(shown[first])
    if end < len(shown):
        lasts = float(shown[end])
    lasts = None if lasts is None else lasts - offset
    times = shown[first:end] - offset
    if clip.sampling == "segments":
        starts, ends, indices = timeline_segment_clips(
            times, num_frames=clip.num_frames, every_seconds=every_seconds, duration_seconds=lasts
        )
    else:
        starts, ends, indices = timeline_clips(
            times,
            num_frames=clip.num_frames,
            frame_interval=clip.frame_interval,
            every_seconds=every_seconds,
            duration_seconds=lasts,
        )
    return starts + offset, ends + offset, first + indices


def _frame_times(reader: VideoReader, frame_rate: float | None, every_seconds: float) -> Seconds:
    """Return when each frame is shown: what the file says, else even steps of its or the user's frame rate."""
    if reader.times_seconds is not None:
        return reader.times_seconds
    fps = reader.info.fps or frame_rate
    if fps is None:
        raise VideoError(
            reader.info.path,
            f"has no frame rate, so it cannot be cut every {every_seconds:g} seconds; "
            "give the one it was recorded at, for example --set data.frame_rate=25",
        )
    return np.arange(reader.info.num_frames) / fps
