"""Clips of videos for training: random frames, crops and flips.

`read_training_clips` runs in a worker process: it takes and returns plain picklable data. Every random choice comes
from the seed that is passed in, so a clip depends on neither order nor process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import NamedTuple

import numpy as np

from dualformer_cli.config.schema import DataConfig, TrainConfig
from dualformer_cli.data.clips import sampling
from dualformer_cli.data.clips.augment_clip import augment_clip
from dualformer_cli.data.clips.crops import Box, random_resized_crop
from dualformer_cli.data.clips.index_cache import IndexCache
from dualformer_cli.data.clips.sampling import Indices
from dualformer_cli.data.clips.source import ClipSource, Seeds, TrainingClips
from dualformer_cli.data.clips.transforms import Frames, resize_and_cut, resize_clip, resized_size
from dualformer_cli.data.clips.views import check_video
from dualformer_cli.data.lists.samples import LabelledList
from dualformer_cli.video.open import open_video
from dualformer_cli.video.parts import WHOLE, Part
from dualformer_cli.video.reader import FileIndex
from dualformer_cli.video.remote_videos import name_of


class VideoClips(ClipSource):
    """Clips of the videos of a list.

    Args:
        listed: the videos.
        data: how they are opened and cut.
        train: the recipe, for what it changes about a clip.
        indexes: of their files; kept from epoch to epoch they save time, and change nothing else.
    """

    def __init__(
        self, listed: LabelledList, data: DataConfig, train: TrainConfig, indexes: IndexCache | None = None
    ) -> None:
        self.listed, self.data, self.train = listed, data, train
        self.indexes = IndexCache() if indexes is None else indexes

    @property
    def labels(self) -> Sequence[tuple[int, ...]]:
        """Classes of each video."""
        return self.listed.labels

    def name(self, number: int) -> str:
        """Return where a video is."""
        return name_of(self.listed.files[number])

    def read(self, number: int, seeds: Seeds) -> Callable[[], TrainingClips]:
        """Return the call that reads clips of the part of a video that the list names."""
        sample, path = self.listed.samples[number], self.listed.files[number]
        return partial(
            read_training_clips,
            path,
            self.data,
            self.train,
            seeds,
            part=sample.part,
            index=self.indexes.get(path),
        )

    def keep(self, number: int, clips: TrainingClips) -> None:
        """Keep the index of a video's file."""
        if clips.index is not None:
            self.indexes.put(self.listed.files[number], clips.index)


def read_training_clips(
    path: str,
    data: DataConfig,
    train: TrainConfig,
    seeds: Seeds,
    *,
    part: Part = WHOLE,
    index: FileIndex | None = None,
) -> TrainingClips:
    """Read random clips of one video, opened once.

    Args:
        path: a video file or a folder of numbered frames.
        data: how the video is opened and cut.
        train: the recipe, for what it changes about a clip.
        seeds: one per clip.
        part: of the video that may be used.
        index: of the file, from an earlier result; it may be outdated.

    Raises:
        VideoError: if the video cannot be read, or is too long for its width.
        TooShortError: if it, or the part of it, has fewer frames than `data.min_frames`.
        ValueError: if there are no seeds.
    """
    started = perf_counter()
    with open_video(
        path, decoder=data.decoder, frame_rate=data.frame_rate, frame_name=data.frame_name, index=index
    ) as reader:
        info = reader.info
        start, available = part.frames(reader)
        check_video(info, available, min_frames=data.min_frames)
        size = resized_size(info.height, info.width, data.train.short_side)
        cuts = [_choose(available, size, data, np.random.default_rng(seed)) for seed in seeds]
        indices = start + np.stack([cut.indices for cut in cuts])
        kept = _around([cut.box for cut in cuts])
        resize = partial(resize_and_cut, size=size, box=kept, antialias=data.antialias)
        frames = reader.read(indices.ravel().tolist(), resize)
    stacks = frames.reshape(*indices.shape, *frames.shape[1:])
    finished = [_finish(stack, kept, cut, data, train) for stack, cut in zip(stacks, cuts, strict=True)]
    return TrainingClips(
        clips=np.stack(finished) if len(finished) > 1 else finished[0][None],
        flipped=np.array([cut.is_flipped for cut in cuts]),
        indices=indices,
        boxes=np.array([cut.box for cut in cuts]) / (size[1], size[0], size[1], size[0]),
        seconds=perf_counter() - started,
        index=None if reader.index is index else reader.index,
    )


class _Cut(NamedTuple):
    """What is random about one clip."""

    indices: Indices
    """Counted from the start of the usable part."""
    box: Box
    """The crop, in the frame resized to the short side."""
    is_flipped: bool
    rng: np.random.Generator
    """For what follows the cut."""


def _choose(video_frames: int, size: tuple[int, int], data: DataConfig, rng: np.random.Generator) -> _Cut:
    clip, train = data.clip, data.train
    if clip.sampling == "segments":
        indices = sampling.segment_clip(video_frames, num_frames=clip.num_frames, rng=rng)
    else:
        indices = sampling.random_clip(
            video_frames, num_frames=clip.num_frames, frame_interval=clip.frame_interval, rng=rng
        )
    box = random_resized_crop(*size, area=train.area, aspect=train.aspect, rng=rng)
    return _Cut(indices, box, bool(rng.random() < train.flip), rng)


def _around(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds all of these."""
    x, y = min(box.x for box in boxes), min(box.y for box in boxes)
    right, bottom = max(box.x + box.width for box in boxes), max(box.y + box.height for box in boxes)
    return Box(x, y, right - x, bottom - y)


def _finish(frames: Frames, kept: Box, cut: _Cut, data: DataConfig, train: TrainConfig) -> Frames:
    """Return the clip from frames cut to `kept`: crop, resize, flip, and what the recipe changes."""
    rows, columns = cut.box._replace(x=cut.box.x - kept.x, y=cut.box.y - kept.y).window
    clip = resize_clip(frames[:, rows, columns], data.crop_size, antialias=data.antialias, flip=cut.is_flipped)
    return augment_clip(clip, train, cut.rng)
