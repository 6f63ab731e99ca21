"""The clips and tiles of a video."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualformer_cli.config.schema import ClipConfig, DataConfig
from dualformer_cli.data.clips.crops import Box
from dualformer_cli.data.tokens import tiles
from dualformer_cli.data.tokens.tiles import (
    LabelJob,
    clip_starts,
    read_label_clips,
    read_layout,
    read_whole_frame,
    tiles_of,
)
from dualformer_cli.errors import TooShortError, VideoError
from dualformer_cli.video.parts import WHOLE, Part

DATA = DataConfig(clip=ClipConfig(num_frames=4), crop_size=64, antialias=False)


@given(st.integers(1, 2000), st.integers(1, 32), st.integers(1, 4))
def test_clips_cover_a_video_evenly_and_stay_inside(video_frames: int, num_frames: int, interval: int) -> None:
    starts = clip_starts(video_frames, num_frames=num_frames, frame_interval=interval)
    length = num_frames * interval
    assert starts[0] == 0
    assert starts[-1] == max(0, video_frames - length)
    steps = np.diff(starts)
    assert (steps >= 0).all()
    assert (steps <= length).all()
    assert len(steps) == 0 or steps.max() - steps.min() <= 1
    assert len(starts) == max(1, -(-video_frames // length))


@given(st.integers(8, 64), st.integers(0, 500), st.booleans())
def test_tiles_cover_a_frame_evenly_and_stay_inside(side: int, more: int, is_upright: bool) -> None:
    height, width = (side + more, side) if is_upright else (side, side + more)
    tiles = tiles_of(height, width, side)
    offsets = [tile.y if is_upright else tile.x for tile in tiles]
    assert all((tile.width, tile.height) == (side, side) for tile in tiles)
    assert (offsets[0], offsets[-1] + side) == (0, side + more)
    assert all(0 <= b - a <= side for a, b in pairwise(offsets))


def test_clips_and_tiles_of_a_video_are_read(clips: Any) -> None:
    job = LabelJob(0, str(clips.path("h264.mp4")), WHOLE)
    layout = read_layout(DATA, job)
    assert layout.starts == (0, 8, 16, 24, 32)
    assert layout.tiles == (Box(0, 0, 64, 64), Box(21, 0, 64, 64))
    assert layout.shares.round(3).tolist() == [[0, 0, 0.753, 1], [0.247, 0, 0.753, 1]]
    read = read_label_clips(DATA, job)
    assert read.shape == (5, 2, 4, 64, 64, 3)
    frame, indices = read_whole_frame(DATA, replace(job, first=1))
    assert indices.tolist() == [8, 10, 12, 14]
    assert frame.shape == (64, 85, 3)
    assert np.array_equal(frame[:, :64], read[1, 0, 2])
    assert np.array_equal(frame[:, 21:], read[1, 1, 2])
    part = read_label_clips(DATA, replace(job, part=Part(3, 5), first=0))
    assert part.shape == (1, 2, 4, 64, 64, 3)  # frames 3, 5, 7 and, around the end of the part, 4
    _, indices = read_whole_frame(DATA, replace(job, part=Part(3, 5)))
    assert indices.tolist() == [3, 5, 7, 4]
    smooth = read_label_clips(replace(DATA, crop_size=32, antialias=True), job)
    assert not np.array_equal(smooth, read_label_clips(replace(DATA, crop_size=32), job))
    with pytest.raises(TooShortError, match="has 1 frame in the listed part"):
        read_layout(DATA, replace(job, part=Part(39)))


@pytest.mark.parametrize("read", [read_layout, read_label_clips, read_whole_frame])
def test_videos_are_opened_as_the_configuration_says(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []

    def open_video(path: str, **options: Any) -> Any:
        opened.append((path, options))
        raise VideoError(path, "asked for")

    monkeypatch.setattr(tiles, "open_video", open_video)
    data = replace(DATA, decoder="pyav", frame_rate=12.5, frame_name="img_{:05}.jpg")
    with pytest.raises(VideoError, match="asked for"):
        read(data, LabelJob(0, "frames", WHOLE))
    assert opened == [("frames", {"decoder": "pyav", "frame_rate": 12.5, "frame_name": "img_{:05}.jpg"})]
