"""Stored token labels: the clips and tiles of a video, and finding the labels of a training clip among them."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualformer_cli.data.clips.transforms import Box
from dualformer_cli.data.tokens.store import (
    Header,
    LabelFolder,
    LabelJob,
    LabelPlan,
    Layout,
    StoredVideo,
    clip_starts,
    find_corners,
    read_label_clips,
    read_layout,
    read_whole_frame,
    tiles_of,
)
from dualformer_cli.errors import DualFormerError, TooShortError, VideoError

PLAN = LabelPlan(
    num_frames=4,
    frame_interval=2,
    sampling="interval",
    crop_size=64,
    antialias=False,
    min_frames=2,
    decoder="auto",
    frame_rate=None,
)
HEADER = Header(
    teacher={"source": "a.pt", "weights_sha256": "0", "precision": "fp32"},
    source="list.csv",
    list_fingerprint="f",
    num_videos=3,
    clip={"num_frames": 4},
    grid=(2, 3, 3),
    top_k=2,
    class_names=("a", "b", "c"),
    videos_per_shard=2,
    versions={"torch": "1"},
)


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


def stored_ramp(starts: tuple[int, ...], offsets: tuple[float, ...], extent: float, grid: tuple[int, int, int]) -> Any:
    """Labels whose value is a plane over (frame number, y, x) of each token, for clips of 2 frames a token."""
    t, h, w = grid
    records = np.zeros((len(starts) * len(offsets), *grid), HEADER.record)
    for place, (start, left) in enumerate((s, o) for s in starts for o in offsets):
        time = start + 2 * np.arange(t)[:, None, None]
        y = ((np.arange(h) + 0.5) / h)[:, None]
        x = left + extent * (np.arange(w) + 0.5) / w
        records["values"][place, ..., 0] = time / 8 + 4 * y + 2 * x
    return records


@settings(deadline=None)
@given(st.data())
def test_labels_are_cut_flipped_and_placed_in_time_as_the_clip_is(data: st.DataObject) -> None:
    starts, offsets, extent, (t, h, w) = (0, 7, 14), (0.0, 0.4), 0.6, (4, 5, 6)
    records = stored_ramp(starts, offsets, extent, (t, h, w))
    tiles = tuple((offset, 0.0, extent, 1.0) for offset in offsets)
    video = StoredVideo(0, "a", None, 0, starts, tiles)
    start = data.draw(st.integers(0, 14))
    width, height = data.draw(st.floats(0.2, 0.9)), data.draw(st.floats(0.2, 0.9))
    x, y = data.draw(st.floats(0, 1 - width)), data.draw(st.floats(0, 1 - height))
    is_flipped = data.draw(st.booleans())
    corners = find_corners(
        video,
        records,
        indices=start + np.arange(8),
        box=np.array([x, y, width, height]),
        flipped=is_flipped,
        frame_interval=1,
    )
    assert corners.weights.sum(axis=0) == pytest.approx(1, abs=1e-6)
    found = (corners.weights * corners.values[..., 0]).sum(axis=0)
    columns = x + width * (np.arange(w) + 0.5) / w
    columns = columns[::-1] if is_flipped else columns
    rows = y + height * (np.arange(h) + 0.5) / h
    # beyond the outermost tokens their value holds; between two clips lies half a token at most
    columns = columns.clip(0.5 * extent / w, 1 - 0.5 * extent / w)
    rows = rows.clip(0.5 / h, 1 - 0.5 / h)
    times = start + 2 * np.arange(t)
    expected = (times / 8)[:, None, None] + (4 * rows)[:, None] + 2 * columns
    assert found == pytest.approx(expected, abs=2 / 8 + 0.01)
    inside = times[0] in starts
    if inside:
        assert found == pytest.approx(expected, abs=0.01)


def test_a_clip_that_was_stored_is_found_as_it_is() -> None:
    rng = np.random.default_rng(0)
    records = np.zeros((3, 4, 2, 2), HEADER.record)
    records["values"] = rng.normal(size=records["values"].shape)
    video = StoredVideo(0, "a", None, 0, (0, 5, 10), ((0.0, 0.0, 1.0, 1.0),))
    whole = np.array([0.0, 0.0, 1.0, 1.0])
    for place, start in enumerate(video.starts):
        indices = start + np.arange(8)
        corners = find_corners(video, records, indices=indices, box=whole, flipped=False, frame_interval=1)
        assert np.array_equal(corners.values[0], records["values"][place].astype(np.float32))
        assert np.array_equal(corners.weights, np.ones((1, 4, 2, 2)))
        mirrored = find_corners(video, records, indices=indices, box=whole, flipped=True, frame_interval=1)
        assert np.array_equal(mirrored.values[0], records["values"][place, :, :, ::-1].astype(np.float32))


def test_frames_of_segments_take_the_one_clip_that_is_stored() -> None:
    records = np.zeros((1, 4, 1, 1), HEADER.record)
    records["values"][0, :, 0, 0, 0] = [1, 2, 3, 4]
    video = StoredVideo(0, "a", None, 0, (0,), ((0.0, 0.0, 1.0, 1.0),))
    corners = find_corners(
        video,
        records,
        indices=np.array([3, 9, 40, 41]),
        box=np.array([0.0, 0.0, 1.0, 1.0]),
        flipped=False,
        frame_interval=None,
    )
    assert corners.values[0, :, 0, 0, 0].tolist() == [1, 2, 3, 4]


def test_clips_and_tiles_of_a_video_are_read(clips: Any) -> None:
    job = LabelJob(0, str(clips.path("h264.mp4")), 0, None)
    layout = read_layout(PLAN, job)
    assert layout.starts == (0, 8, 16, 24, 32)
    assert layout.tiles == (Box(0, 0, 64, 64), Box(21, 0, 64, 64))
    assert layout.shares.round(3).tolist() == [[0, 0, 0.753, 1], [0.247, 0, 0.753, 1]]
    read = read_label_clips(PLAN, job)
    assert read.shape == (5, 2, 4, 64, 64, 3)
    frame, indices = read_whole_frame(PLAN, replace(job, first=1))
    assert indices.tolist() == [8, 10, 12, 14]
    assert frame.shape == (64, 85, 3)
    assert np.array_equal(frame[:, :64], read[1, 0, 2])
    assert np.array_equal(frame[:, 21:], read[1, 1, 2])
    part = read_label_clips(PLAN, replace(job, start=3, num_frames=5, first=0))
    assert part.shape == (1, 2, 4, 64, 64, 3)  # frames 3, 5, 7 and, around the end of the part, 4
    with pytest.raises(TooShortError, match="has 1 frame in the listed part"):
        read_layout(PLAN, replace(job, start=39))


def write_shard(folder: LabelFolder, shard: int, *, fails_at: int | None = None) -> None:
    info: Any = None
    layout = Layout(info=info, starts=(0, 8), num_frames=16, tiles=(Box(0, 0, 64, 64),), size=(64, 64))

    def records(index: int) -> Any:
        for clip in range(2):
            if index == fails_at and clip == 1:
                raise VideoError("x", "breaks in the middle")
            yield np.full((1, *HEADER.grid), 10 * index + clip, HEADER.record)

    with folder.shard_writer(shard) as writer:
        for index in HEADER.videos_of(shard):
            writer.add(LabelJob(index, "x", 0, None), f"{index}.mp4", layout, records(index))


def test_a_video_that_breaks_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = LabelFolder(tmp_path / "labels")
    folder.write_header(HEADER)
    write_shard(folder, 0, fails_at=0)
    videos, records = folder.read_shard(0, HEADER)
    assert [(video.path, video.reason, video.num_records) for video in videos] == [
        ("0.mp4", "breaks in the middle", 0),
        ("1.mp4", None, 2),
    ]
    assert records["values"].astype(int).reshape(2, -1)[:, 0].tolist() == [10, 11]
    assert folder.read_header() == HEADER


def test_what_is_left_half_written_goes_and_what_is_damaged_is_named(tmp_path: Path) -> None:
    folder = LabelFolder(tmp_path)
    (tmp_path / ".shard-00000.1234abcd.part.bin").write_bytes(b"x")
    folder.write_header(HEADER)
    write_shard(folder, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["header.json", "shard-00000.bin", "shard-00000.json"]
    assert [folder.has_shard(shard) for shard in range(HEADER.num_shards)] == [True, False]
    with pytest.raises(DualFormerError, match=r"shard-00001.json': No such file.*; run tokenlabel write again"):
        folder.read_shard(1, HEADER)
    (tmp_path / "shard-00000.bin").write_bytes(b"x" * 10)
    with pytest.raises(
        DualFormerError, match=r"shard-00000.bin' are damaged \(10 bytes, not 576\); delete shard-00000"
    ):
        folder.read_shard(0, HEADER)
    (tmp_path / "shard-00000.bin").unlink()
    with pytest.raises(DualFormerError, match=r"shard-00000.bin': No such file .*; delete shard-00000.json"):
        folder.read_shard(0, HEADER)
    (tmp_path / "shard-00000.json").write_text('{"videos": [1]}')
    with pytest.raises(DualFormerError, match=r"shard-00000.json' are damaged; delete the file and run"):
        folder.read_shard(0, HEADER)
    (tmp_path / "header.json").write_text("[]")
    with pytest.raises(DualFormerError, match="is not the header of token labels, or damaged; write them again"):
        folder.read_header()
    (tmp_path / "header.json").write_text('{"format": 99}')
    with pytest.raises(DualFormerError, match="are of another version; write them again"):
        folder.read_header()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"top_k": 3}, "top k is another: 2, now 3"),
        ({"class_names": ("a",)}, "class names are another"),
        ({"videos_per_shard": 9}, "videos per shard is another: 2, now 9"),
        ({"teacher": {**HEADER.teacher, "weights_sha256": "1"}}, "teacher is another: .*'0'.*, now .*'1'"),
    ],
)
def test_other_labels_are_told_apart(change: dict[str, Any], said: str) -> None:
    difference = HEADER.difference(replace(HEADER, **change))
    assert difference is not None
    assert re.match(said, difference)


def test_another_name_or_version_makes_no_other_labels() -> None:
    moved = replace(HEADER, source="x.csv", versions={}, teacher={**HEADER.teacher, "source": "b.pt"})
    assert HEADER.difference(moved) is None
