"""Scores of views become the result of a video, whichever way its parts come."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualformer_cli.data.clips.views import VideoViews
from dualformer_cli.documents.base import from_json, to_json
from dualformer_cli.documents.predict import Timing, VideoResult
from dualformer_cli.engine.scoring.video_scores import (
    LiveScores,
    VideoScores,
    failure,
    merge_segments,
    top,
)
from dualformer_cli.video.reader import VideoInfo

NAMES = ["a", "b", "c"]
INFO = VideoInfo(
    path="clip.mp4",
    num_frames=250,
    fps=25.0,
    width=64,
    height=48,
    duration_seconds=10.0,
    codec="h264",
    decoder="pyav",
    rotation=0,
    is_seekable=True,
)


def views(num_rows: int, *, num_views: int, times: Any = None, warnings: tuple[str, ...] = ()) -> VideoViews:
    """A part with the fields that scores are collected by."""
    starts, ends = (None, None) if times is None else (np.array(side, float) for side in zip(*times, strict=True))
    return VideoViews(
        info=INFO,
        clips=np.zeros((num_rows, 1, 1, 1, 3), np.uint8),
        indices=np.zeros((num_rows, 1), np.int64),
        num_views=num_views,
        starts_seconds=starts,
        ends_seconds=ends,
        num_segments=None if times is None else len(times),
        decode_seconds=1.0,
        preprocess_seconds=0.25,
        warnings=warnings,
    )


def scored(*rows: float) -> np.ndarray[Any, Any]:
    return np.array(rows, float)


def test_the_best_come_first_and_equals_in_their_own_order() -> None:
    best = top(np.array([0.25, 0.5, 0.25]), NAMES, 5)
    assert [(entry.label, entry.index, entry.score) for entry in best] == [
        ("b", 1, 0.5),
        ("a", 0, 0.25),
        ("c", 2, 0.25),
    ]
    assert [entry.label for entry in top(np.array([0.25, 0.5, 0.25]), NAMES, 1)] == ["b"]


def test_equal_neighbours_are_joined_with_their_mean_by_duration() -> None:
    scores = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    merged = merge_segments([0, 2, 4, 6], [2, 4, 6, 7.5], scores, ["x", "y"])
    assert [(m.start_seconds, m.end_seconds, m.label, m.index) for m in merged] == [
        (0.0, 4.0, "x", 0),
        (4.0, 6.0, "y", 1),
        (6.0, 7.5, "x", 0),
    ]
    assert [m.score for m in merged] == pytest.approx([0.75, 0.8, 0.7])


@given(
    rows=st.lists(
        st.tuples(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.floats(0.01, 100)), min_size=1, max_size=30
    )
)
def test_a_merged_timeline_covers_the_same_time_and_no_neighbours_are_equal(rows: Any) -> None:
    ends = np.cumsum([duration for _, duration in rows]).tolist()
    starts = [0.0, *ends[:-1]]
    scores = np.array([row for row, _ in rows])
    merged = merge_segments(starts, ends, scores, NAMES)
    assert merged[0].start_seconds == 0
    assert merged[-1].end_seconds == ends[-1]
    for before, after in itertools.pairwise(merged):
        assert before.end_seconds == after.start_seconds
        assert before.index != after.index
    area = sum((m.end_seconds - m.start_seconds) * m.score for m in merged)
    expected = sum((end - start) * row.max() for start, end, row in zip(starts, ends, scores, strict=True))
    assert area == pytest.approx(expected, abs=1e-9)


def test_what_is_sure_and_what_is_not_are_never_joined() -> None:
    scores = np.array([[0.9, 0.1], [0.5, 0.5], [0.55, 0.45], [0.4, 0.6]])
    merged = merge_segments([0, 2, 4, 6], [2, 4, 6, 8], scores, ["x", "y"], min_score=0.6)
    assert [(m.start_seconds, m.end_seconds, m.label) for m in merged] == [(0, 2, "x"), (2, 6, "x"), (6, 8, "y")]
    assert [m.score for m in merged] == pytest.approx([0.9, 0.525, 0.6])


def test_a_video_is_the_mean_of_its_views() -> None:
    video = VideoScores()
    scores = np.array([[0.5, 0.5, 0], [0.25, 0.75, 0], [0, 1, 0]])
    features = np.arange(6, dtype=np.float32).reshape(3, 2)
    video.add(views(3, num_views=3, warnings=("odd", "odd")), scores, features, forward_seconds=0.5)
    prediction = video.prediction("clip.mp4", NAMES, 2)
    assert to_json(prediction.result) == {
        "path": "clip.mp4",
        "status": "ok",
        "num_frames": 250,
        "fps": 25.0,
        "duration_seconds": 10.0,
        "views": 3,
        "predictions": [{"label": "b", "index": 1, "score": 0.75}, {"label": "a", "index": 0, "score": 0.25}],
        "warnings": ["odd"],
        "timing": {"decode_seconds": 1.0, "preprocess_seconds": 0.25, "forward_seconds": 0.5},
    }
    (row,) = prediction.features
    assert (row.path, row.start_seconds, row.end_seconds) == ("clip.mp4", None, None)
    assert row.features.tolist() == [2, 3]


def test_the_crops_of_a_segment_are_one_prediction_and_segments_weigh_by_their_time() -> None:
    video = VideoScores()
    scores = np.array([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1], [0, 0, 1]])
    features = np.array([[0], [2], [4], [4]], np.float32)
    video.add(views(4, num_views=2, times=[(0, 3), (3, 4)]), scores, features, forward_seconds=0)
    prediction = video.prediction("clip.mp4", NAMES, 3)
    assert prediction.result.views == 4
    assert [(entry.label, entry.score) for entry in prediction.result.predictions] == [
        ("a", 0.5625),
        ("c", 0.25),
        ("b", 0.1875),
    ]
    assert [(s.start_seconds, s.end_seconds, s.label, s.score) for s in prediction.result.segments] == [
        (0, 3, "a", 0.75),
        (3, 4, "c", 1.0),
    ]
    assert [(row.start_seconds, row.end_seconds, *row.features) for row in prediction.features] == [
        (0, 3, 1),
        (3, 4, 4),
    ]


@given(data=st.data())
def test_a_timeline_in_parts_is_the_timeline_at_once(data: st.DataObject) -> None:
    num_segments = data.draw(st.integers(1, 12))
    cuts = data.draw(st.lists(st.integers(1, num_segments), max_size=4))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    scores, features = rng.random((num_segments, 3)), rng.random((num_segments, 2)).astype(np.float32)
    times = [(float(n), n + 1.0) for n in range(num_segments)]

    def collect(edges: list[int]) -> Any:
        video = VideoScores()
        for low, high in zip([0, *edges], [*edges, num_segments], strict=True):
            if low < high:
                part = views(high - low, num_views=1, times=times[low:high], warnings=("odd",))
                video.add(part, scores[low:high], features[low:high], forward_seconds=0)
        prediction = video.prediction("clip.mp4", NAMES, 3)
        return replace(prediction.result, timing=None), [row.features.tolist() for row in prediction.features]

    assert collect(sorted(set(cuts))) == collect([])


def test_a_timeline_of_one_frame_that_lasts_for_nobody_knows_how_long_has_scores() -> None:
    video = VideoScores()
    part = views(1, num_views=1, times=[(0, 0)])
    video.add(part, np.array([[0.25, 0.75, 0]]), np.zeros((1, 2), np.float32), forward_seconds=0)
    assert video.prediction("clip.mp4", NAMES, 1).result.predictions[0].score == 0.75


def test_a_result_can_be_written_as_json() -> None:
    video = VideoScores()
    scores = np.array([[0.5, 0.5, 0]])
    video.add(views(1, num_views=1, times=[(0, 1)]), scores, np.zeros((1, 2), np.float32), forward_seconds=0)
    result = video.prediction("clip.mp4", NAMES, 3).result
    assert from_json(VideoResult, json.loads(json.dumps(to_json(result)))) == result


def test_a_failure_has_every_field_that_scripts_rely_on() -> None:
    prediction = failure("x.mp4", "no such file or folder")
    assert to_json(prediction.result) == {
        "path": "x.mp4",
        "status": "error",
        "error": "no such file or folder",
        "num_frames": None,
        "fps": None,
        "duration_seconds": None,
        "views": 0,
        "predictions": [],
    }
    assert prediction.features == ()


def test_overlapping_clips_of_a_live_input_share_its_time_without_gaps() -> None:
    seen = LiveScores()
    for start, end, scores in ((0, 2, scored(1, 0, 0)), (1, 3, scored(0.5, 0.5, 0)), (2, 4, scored(0, 1, 0))):
        seen.add(start, end, scores, np.zeros(2, np.float32))
    prediction = seen.prediction("camera:0", NAMES, 2)
    assert (prediction.result.status, prediction.result.duration_seconds) == ("ok", 4)
    assert [(s.start_seconds, s.end_seconds, s.label) for s in prediction.result.segments] == [
        (0, 3, "a"),
        (3, 4, "b"),
    ]
    assert prediction.result.views == 3
    assert [entry.label for entry in prediction.result.predictions] == ["a", "b"]
    assert prediction.result.interrupted is None
    assert len(prediction.features) == 3


def test_a_live_input_keeps_what_it_saw_before_it_broke_off() -> None:
    seen = LiveScores()
    seen.add(0, 2, scored(1, 0, 0), np.zeros(2, np.float32))
    seen.warning, seen.interrupted = "the stream broke off", True
    result = seen.prediction("camera:0", NAMES, 1).result
    assert (result.status, result.warnings, result.interrupted) == ("ok", ("the stream broke off",), True)


@pytest.mark.parametrize(
    ("interrupted", "reason"), [(False, "no frames"), (True, "interrupted before the first clip was complete")]
)
def test_a_live_input_without_a_clip_has_failed(interrupted: bool, reason: str) -> None:
    seen = LiveScores()
    seen.interrupted = interrupted
    result = seen.prediction("camera:0", NAMES, 1).result
    assert (result.status, result.error, bool(result.interrupted)) == ("error", reason, interrupted)


def test_the_parts_of_a_timeline_add_up_their_time_and_views() -> None:
    video = VideoScores()
    for start, seconds in ((0, 0.5), (2, 0.25)):
        part = views(2, num_views=1, times=[(start, start + 1), (start + 1, start + 2)])
        video.add(part, np.eye(3)[[0, 1]], np.zeros((2, 2), np.float32), forward_seconds=seconds)
    result = video.prediction("clip.mp4", NAMES, 1).result
    assert result.timing == Timing(decode_seconds=2.0, preprocess_seconds=0.5, forward_seconds=0.75)
    assert result.views == 4
