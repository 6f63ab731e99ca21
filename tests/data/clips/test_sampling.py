"""Frame numbers: the published ones exactly, and what must hold for any video."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dualformer_cli.data.clips import sampling, timeline

lengths = st.integers(1, 2000)
clip_lengths = st.integers(1, 64)
intervals = st.integers(1, 8)


def assert_clip(clip, *, video_frames, num_frames, frame_interval):
    """A clip steps by frame_interval, modulo the number of frames."""
    assert clip.shape == (num_frames,)
    assert clip.dtype == np.int64
    assert clip.min() >= 0
    assert clip.max() < video_frames
    assert set(np.diff(clip) % video_frames) <= {frame_interval % video_frames}


def test_span_counts_from_the_first_to_the_last_frame():
    assert sampling.span(32, 2) == 63
    assert sampling.span(1, 9) == 1


def test_test_clips_equal_the_published_ones(golden):
    for case in golden("golden_recipe")["test_frame_indices"]:
        indices = sampling.test_clips(
            case["num_frames"],
            num_frames=case["clip_len"],
            frame_interval=case["frame_interval"],
            num_clips=case["num_clips"],
        )
        assert indices.dtype == np.int64
        assert indices.tolist() == case["indices"]


def test_segment_clips_equal_the_published_ones(golden):
    for case in golden("golden_recipe")["uniform_frame_indices_sthv2"]:
        assert sampling.segment_clip(case["num_frames"], num_frames=case["clip_len"]).tolist() == case["indices"]


@given(lengths, clip_lengths, intervals, st.integers(1, 12))
def test_test_clips_are_ordered_and_wrap_only_without_room(video_frames, num_frames, frame_interval, num_clips):
    clips = sampling.test_clips(video_frames, num_frames=num_frames, frame_interval=frame_interval, num_clips=num_clips)
    assert clips.shape == (num_clips, num_frames)
    for clip in clips:
        assert_clip(clip, video_frames=video_frames, num_frames=num_frames, frame_interval=frame_interval)
    assert (np.diff(clips[:, 0]) >= 0).all()
    if video_frames >= num_frames * frame_interval:
        assert (np.diff(clips, axis=1) == frame_interval).all()
    else:
        assert (clips[:, 0] == 0).all()


@given(lengths, clip_lengths, intervals, st.integers(0, 2**32))
def test_random_clips_never_wrap_when_the_video_is_long_enough(video_frames, num_frames, frame_interval, seed):
    clip = sampling.random_clip(
        video_frames, num_frames=num_frames, frame_interval=frame_interval, rng=np.random.default_rng(seed)
    )
    assert_clip(clip, video_frames=video_frames, num_frames=num_frames, frame_interval=frame_interval)
    if video_frames >= num_frames * frame_interval:
        assert (np.diff(clip) == frame_interval).all()
    else:
        assert clip[0] == 0


def test_random_clips_reach_every_start_that_leaves_room():
    rng = np.random.default_rng(0)
    starts = {int(sampling.random_clip(12, num_frames=4, frame_interval=2, rng=rng)[0]) for _ in range(200)}
    assert starts == {0, 1, 2, 3, 4}


@given(lengths, clip_lengths, st.one_of(st.none(), st.integers(0, 2**32)))
@example(1210, 60, 1)  # whose tenth part ends at 201.5, which a product of floats has below
def test_segment_clips_take_one_frame_of_each_part_in_order(video_frames, num_frames, seed):
    rng = None if seed is None else np.random.default_rng(seed)
    clip = sampling.segment_clip(video_frames, num_frames=num_frames, rng=rng)
    assert clip.shape == (num_frames,)
    assert clip.dtype == np.int64
    assert clip.min() >= 0
    assert clip.max() < video_frames
    assert (np.diff(clip) >= 0).all()
    edges = [Fraction(part * (video_frames - 1), num_frames) for part in range(num_frames + 1)]
    half = Fraction(1, 2)
    assert all(a - half <= frame <= b + half for a, frame, b in zip(edges, clip.tolist(), edges[1:], strict=False))


@given(
    st.lists(st.floats(0, 2), max_size=300),
    clip_lengths,
    intervals,
    st.floats(0.2, 50),
)
def test_timeline_clips_cover_the_video_and_stay_inside_it(gaps, num_frames, frame_interval, every_seconds):
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    starts, ends, clips = timeline.timeline_clips(
        times, num_frames=num_frames, frame_interval=frame_interval, every_seconds=every_seconds
    )
    assert starts[0] == 0
    assert ends[-1] >= times[-1]
    assert (starts[1:] == ends[:-1]).all()
    assert clips.shape == (len(starts), num_frames)
    lengths = ends - starts
    assert (lengths[:-1] <= every_seconds * (1 + 1e-9)).all()
    assert lengths[-1] < 1.5 * every_seconds * (1 + 1e-9)
    if len(lengths) > 1:
        assert lengths[-1] >= 0.5 * every_seconds * (1 - 1e-9)
    for clip in clips:
        assert_clip(clip, video_frames=len(times), num_frames=num_frames, frame_interval=frame_interval)
        if len(times) >= sampling.span(num_frames, frame_interval):
            assert (np.diff(clip) == frame_interval).all()
        else:
            assert clip[0] == 0


def test_timeline_clips_are_centred_on_the_middle_of_their_segment():
    times = np.arange(100) / 10  # 10 seconds at 10 frames per second
    starts, ends, clips = timeline.timeline_clips(times, num_frames=5, frame_interval=2, every_seconds=4.0)
    np.testing.assert_allclose(starts, [0, 4, 8])
    np.testing.assert_allclose(ends, [4, 8, 10])
    assert clips.tolist() == [[16, 18, 20, 22, 24], [56, 58, 60, 62, 64], [86, 88, 90, 92, 94]]


def test_a_timeline_merges_a_remainder_below_half_a_segment():
    times = np.arange(95) / 10
    starts, ends, _ = timeline.timeline_clips(times, num_frames=2, frame_interval=1, every_seconds=4.0)
    np.testing.assert_allclose(starts, [0, 4])
    np.testing.assert_allclose(ends, [4, 9.5])


def test_timeline_clips_follow_the_clock_of_a_variable_frame_rate():
    times = np.concatenate([np.arange(40) * 0.1, [4.0, 5.0, 6.0, 7.0]])  # ten frames a second, then one
    _, _, clips = timeline.timeline_clips(times, num_frames=1, frame_interval=1, every_seconds=2.0)
    assert clips[:, 0].tolist() == [10, 30, 41, 42]


def test_timeline_clips_shift_instead_of_wrapping_at_the_ends():
    times = np.arange(20) / 10
    _, _, clips = timeline.timeline_clips(times, num_frames=10, frame_interval=2, every_seconds=0.5)
    assert clips[0].tolist() == list(range(0, 19, 2))
    assert clips[-1].tolist() == list(range(1, 20, 2))


def test_a_timeline_ends_where_the_video_is_known_to_end_but_not_before_its_last_frame():
    times = np.arange(50) / 10
    assert timeline.timeline(times, every_seconds=2.0, duration_seconds=5.5)[1].tolist() == [2, 4, 5.5]
    assert timeline.timeline(times, every_seconds=2.0, duration_seconds=1.0)[1].tolist() == [2, 4.9]


def test_the_last_frame_of_a_timeline_lasts_as_long_as_most_do():
    times = np.array([0.0, 1, 2, 3, 10])  # one long pause
    assert timeline.timeline(times, every_seconds=4.0)[1].tolist() == [4, 8, 11]


def test_segment_clips_of_a_timeline_spread_over_their_own_segment():
    times = np.arange(100) / 10
    starts, ends, clips = timeline.timeline_segment_clips(times, num_frames=4, every_seconds=4.0)
    np.testing.assert_allclose(starts, [0, 4, 8])
    np.testing.assert_allclose(ends, [4, 8, 10])
    assert clips[0].tolist() == sampling.segment_clip(40, num_frames=4).tolist()
    assert clips[1].tolist() == (40 + sampling.segment_clip(40, num_frames=4)).tolist()
    assert clips[2].tolist() == (80 + sampling.segment_clip(20, num_frames=4)).tolist()


def test_a_training_clip_of_segments_may_take_any_of_their_frames():
    clips = [sampling.segment_clip(9, num_frames=2, rng=np.random.default_rng(seed)) for seed in range(100)]
    first, second = np.transpose(clips)
    assert set(first.tolist()) == {0, 1, 2, 3, 4}
    assert set(second.tolist()) == {4, 5, 6, 7, 8}


def test_segment_clips_of_a_timeline_repeat_the_frame_on_screen():
    _, _, clips = timeline.timeline_segment_clips(np.array([0.0, 10.0]), num_frames=2, every_seconds=4.0)
    assert clips.tolist() == [[0, 0], [0, 0], [0, 0], [1, 1], [1, 1]]


def test_a_timeline_of_absurd_length_is_refused():
    times = np.array([0.0, 0.04, 1e9])
    with pytest.raises(timeline.TimelineError, match=r"lasts 1.5e\+09 seconds, more than 200000 segments of 2 seconds"):
        timeline.timeline_clips(times, num_frames=4, frame_interval=1, every_seconds=2.0)


@pytest.mark.parametrize("name", ["video_frames", "num_frames", "frame_interval", "num_clips"])
def test_counts_below_one_are_named(name):
    counts = {"video_frames": 9, "num_frames": 2, "frame_interval": 1, "num_clips": 1} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        sampling.test_clips(counts.pop("video_frames"), **counts)


@pytest.mark.parametrize("every_seconds", [0.0, -1.0, float("nan")])
def test_a_segment_length_that_is_not_positive_is_named(every_seconds):
    with pytest.raises(ValueError, match=f"every_seconds must be positive, got {every_seconds}"):
        timeline.timeline(np.array([0.0, 1.0]), every_seconds=every_seconds)
