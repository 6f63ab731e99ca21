"""The labels of a training clip among the stored ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualformer_cli.data.tokens.lookup import _times, find_corners
from dualformer_cli.data.tokens.store import StoredVideo

RECORD = np.dtype([("values", "<f2", (2,)), ("classes", "<u2", (2,))])


def stored_ramp(starts: tuple[int, ...], offsets: tuple[float, ...], extent: float, grid: tuple[int, int, int]) -> Any:
    """Labels whose value is a plane over (frame number, y, x) of each token, for clips of 2 frames a token."""
    t, h, w = grid
    records = np.zeros((len(starts) * len(offsets), *grid), RECORD)
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


def test_a_token_after_the_last_of_one_stored_clip_is_the_first_of_the_next() -> None:
    """Tokens of 2 frames: the clip at 0 has those of 0, 2, 4 and 6, the one at 8 those from 8 on."""
    clip, time = _times(np.array([0, 8]), 2, 4, 2)
    assert clip.tolist() == [0, 0, 0, 1]
    assert time.tolist() == [1, 2, 3, 0]


def test_a_clip_that_was_stored_is_found_as_it_is() -> None:
    rng = np.random.default_rng(0)
    records = np.zeros((3, 4, 2, 2), RECORD)
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
    records = np.zeros((1, 4, 1, 1), RECORD)
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
