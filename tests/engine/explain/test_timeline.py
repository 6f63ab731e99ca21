"""Maps of views on the frames of a video: merged on the source timeline, or one view after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualformer_cli.data.clips.sampling import test_clips as clips_of
from dualformer_cli.data.clips.views import VideoViews
from dualformer_cli.engine.explain.gradcam import Explanation
from dualformer_cli.engine.explain.heat_over_time import concatenate_views, merge_views
from dualformer_cli.video.reader import VideoInfo

SIDE = 16


def parts(grid: Any, indices: Any, *, crops: int = 1, size: tuple[int, int] = (96, 64)) -> tuple[Any, Any, Any]:
    """An explanation with these maps on a grid (v, t, h, w), and views of a video of this size with these frames."""
    indices = np.array(indices)
    maps = np.array(grid, np.float32)
    found = Explanation(
        class_index=0,
        label="x",
        score=0.5,
        logit=0.0,
        view_scores=np.full(len(maps), 0.5),
        grid=maps,
        clip_size=(indices.shape[1], SIDE, SIDE),
        warnings=(),
    )
    info: Any = VideoInfo(
        path="a.mp4",
        num_frames=100,
        fps=25.0,
        width=size[0],
        height=size[1],
        duration_seconds=4.0,
        codec="h264",
        decoder="pyav",
        rotation=0,
        is_seekable=True,
    )
    views = VideoViews(
        info=info,
        clips=np.zeros((len(maps), indices.shape[1], SIDE, SIDE, 3), np.uint8),
        indices=indices,
        num_views=len(maps),
        starts_seconds=None,
        ends_seconds=None,
        num_segments=None,
        decode_seconds=0.0,
        preprocess_seconds=0.0,
        warnings=(),
    )
    return found, views, SIDE


def in_time(values: list[list[float]]) -> Any:
    """Maps (v, t, 2, 2) of these values in time, the same all over the frame."""
    return np.tile(np.array(values)[:, :, None, None], (1, 1, 2, 2))


def test_a_single_view_is_its_heatmap_at_its_frames() -> None:
    found, views, short_side = parts(np.random.default_rng(0).random((1, 4, 2, 2)), [[10, 12, 14, 16]])
    merged = merge_views(found, views, short_side)
    assert merged.frames.tolist() == [10, 12, 14, 16]
    np.testing.assert_allclose(merged.heatmaps, found.heatmaps()[0], atol=1e-6)
    np.testing.assert_allclose(merged.boxes[0], [1 / 6, 0, 5 / 6, 1])  # 24x16, cropped to 16x16
    np.testing.assert_allclose(merged.curve, found.heatmaps()[0].mean(axis=(1, 2)), rtol=1e-5)


def test_where_views_overlap_the_mean_is_shown_and_between_frames_an_interpolation() -> None:
    found, views, short_side = parts(in_time([[0, 2, 4, 6], [4, 4, 4, 8]]), [[0, 2, 4, 6], [3, 5, 7, 9]])
    merged = merge_views(found, views, short_side)
    assert merged.frames.tolist() == [0, 2, 4, 6, 8]
    heat = merged.heatmaps[:, 0, 0]
    expected = np.array([0, 2, (4 + 4) / 2, (6 + 4) / 2, 6])
    np.testing.assert_allclose(heat, expected / 6, atol=1e-6)


def test_frames_that_no_view_reaches_are_left_out() -> None:
    found, views, short_side = parts(in_time([[1, 2], [3, 4]]), [[0, 2], [20, 22]])
    assert merge_views(found, views, short_side).frames.tolist() == [0, 2, 20, 22]


def test_frames_that_a_short_video_repeats_are_shown_once_with_their_mean() -> None:
    found, views, short_side = parts(in_time([[1, 3, 5, 2]]), [[0, 2, 0, 2]])
    merged = merge_views(found, views, short_side)
    assert merged.frames.tolist() == [0, 2]
    assert merged.heatmaps[:, 0, 0].tolist() == [1, 0]  # means 3 and 2.5


def test_three_crops_cover_the_frame_together() -> None:
    grid = in_time([[1], [3], [2]])
    merged = merge_views(*parts(grid, [[5]], crops=3))  # 24x16: crops at 0, 8 and 4
    assert merged.heatmaps.shape == (1, 16, 24)
    assert merged.boxes.tolist() == [[0, 0, 1, 1]]
    row = merged.heatmaps[0, 0]
    assert (row[:4] == 0).all()  # the left crop alone
    assert (row[-4:] == 1).all()  # the right one alone
    np.testing.assert_allclose(row[8:16], 0.5)  # all three


def test_views_one_after_the_other_keep_their_own_scale_and_place() -> None:
    found, views, short_side = parts(in_time([[0, 1], [0, 9], [5, 0]]), [[5, 7]], crops=3)
    joined = concatenate_views(found, views, short_side)
    assert joined.frames.tolist() == [5, 7] * 3
    assert joined.heatmaps[:, 0, 0].tolist() == [0, 1, 0, 1, 1, 0]
    np.testing.assert_allclose(joined.boxes[::2, 0], [0, 8 / 24, 4 / 24])
    assert joined.breaks == (2, 4)


@settings(max_examples=40, deadline=None)
@given(
    num_frames=st.integers(1, 60), clips=st.integers(1, 4), interval=st.integers(1, 4), crops=st.sampled_from([1, 3])
)
def test_merged_frames_are_frames_of_the_video_in_order_and_heat_is_0_to_1(
    num_frames: int, clips: int, interval: int, crops: int
) -> None:
    indices = clips_of(num_frames, num_frames=8, frame_interval=interval, num_clips=clips)
    grid = np.random.default_rng(num_frames).random((clips * crops, 4, 2, 2))
    merged = merge_views(*parts(grid, indices, crops=crops))
    assert (np.diff(merged.frames) > 0).all()
    assert indices.min() == merged.frames[0] <= merged.frames[-1] <= indices.max()
    assert merged.heatmaps.min() == 0
    assert merged.heatmaps.max() == pytest.approx(1)
    assert ((merged.boxes >= 0) & (merged.boxes <= 1)).all()
    assert len(merged.curve) == len(merged.frames) == len(merged.heatmaps)


def test_between_two_frames_the_nearer_one_counts_more() -> None:
    """The second view has a frame every 4; frame 13 is a quarter of the way from 12 (0) to 16 (8)."""
    found, views, short_side = parts(in_time([[1, 1, 1], [0, 0, 8]]), [[10, 11, 13], [8, 12, 16]])
    merged = merge_views(found, views, short_side)
    assert merged.frames.tolist() == list(range(8, 17))
    expected = [0, 0, 1 / 2, 1 / 2, 1 / 2, (1 + 2) / 2, 4, 6, 8]
    assert merged.heatmaps[:, 0, 0].tolist() == pytest.approx([value / 8 for value in expected], abs=1e-6)


def test_a_frame_that_is_repeated_has_the_mean_and_not_the_sum() -> None:
    found, views, short_side = parts(in_time([[1, 4, 5]]), [[0, 2, 0]])
    merged = merge_views(found, views, short_side)
    assert merged.heatmaps[:, 0, 0].tolist() == [0, 1]  # 3 and 4; their sums are 6 and 4


def test_the_curve_is_the_mean_over_what_was_seen_of_the_frame() -> None:
    """Three crops of 16 pixels leave a quarter of 64 unseen."""
    found, views, short_side = parts(in_time([[1, 0], [1, 0], [1, 0]]), [[0, 2]], crops=3, size=(256, 64))
    merged = merge_views(found, views, short_side)
    assert merged.heatmaps[0].mean() == 0.75
    assert merged.curve.tolist() == [1, 0]
