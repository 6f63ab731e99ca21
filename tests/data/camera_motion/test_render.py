"""Rendered clips show the motion that their label and their maps say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dualformer_cli.data.camera_motion import render as render_module
from dualformer_cli.data.camera_motion.classes import CLASSES
from dualformer_cli.data.camera_motion.pictures import PictureSource
from dualformer_cli.data.camera_motion.render import render_clip

PICTURES = PictureSource(seed=9, num_drawn=24, side=128)


def warp(frame, motion):
    """Where the content of a frame is after a motion about its middle: (warped, 255 where it was in sight)."""
    height, width = frame.shape[:2]
    linear = np.linalg.inv(motion[:, :2].astype(np.float64))
    middle = np.array([width / 2, height / 2])
    shift = middle - linear @ (middle + motion[:, 2])
    affine = (linear[0, 0], linear[0, 1], shift[0], linear[1, 0], linear[1, 1], shift[1])
    images = Image.fromarray(frame), Image.new("L", (width, height), 255)
    return [
        np.asarray(image.transform((width, height), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR), float)
        for image in images
    ]


@pytest.mark.parametrize("label", range(len(CLASSES)), ids=CLASSES)
def test_the_maps_say_where_the_content_goes(label):
    for seed in range(3):
        clip = render_clip(seed, num_frames=8, size=(48, 64), pictures=PICTURES, label=label, difficulty=0.0)
        assert clip.label == label
        for before, after, motion in zip(clip.frames, clip.frames[1:], clip.motion, strict=False):
            warped, seen = warp(before, motion)
            error = np.abs(warped - after)[seen > 254].mean()
            still = np.abs(before.astype(float) - after).mean()
            assert error < max(5.0, 0.45 * still)


@pytest.mark.parametrize(
    ("name", "way"),
    [("pan right", (-1, 0)), ("pan left", (1, 0)), ("tilt up", (0, 1)), ("tilt down", (0, -1))],
)
def test_content_moves_against_the_camera(name, way):
    clip = render_clip(5, num_frames=6, size=(64, 64), pictures=PICTURES, label=CLASSES.index(name), difficulty=0.0)
    shifts = clip.motion[:, :, 2].sum(axis=0)
    assert np.sign(np.round(shifts, 3)).tolist() == list(way)


def test_content_grows_in_a_zoom_in_and_turns_against_the_camera():
    def linear(name):
        clip = render_clip(6, num_frames=6, size=(64, 64), pictures=PICTURES, label=CLASSES.index(name), difficulty=0.0)
        return clip.motion[:, :, :2]

    assert (np.linalg.det(linear("zoom in")) > 1).all()
    assert (np.linalg.det(linear("zoom out")) < 1).all()
    assert (linear("roll clockwise")[:, 1, 0] < 0).all()  # rightward content goes up: counter-clockwise
    assert (linear("roll counter-clockwise")[:, 1, 0] > 0).all()


@given(
    seed=st.integers(0, 2**40),
    num_frames=st.integers(2, 9),
    height=st.integers(16, 70),
    width=st.integers(16, 70),
    difficulty=st.floats(0, 1),
)
@settings(max_examples=80, deadline=None)
def test_every_clip_follows_from_its_seed(seed, num_frames, height, width, difficulty):
    clips = [
        render_clip(seed, num_frames=num_frames, size=(height, width), pictures=PICTURES, difficulty=difficulty)
        for _ in range(2)
    ]
    assert clips[0].frames.shape == (num_frames, height, width, 3)
    assert clips[0].frames.dtype == np.uint8
    assert clips[0].motion.shape == (num_frames - 1, 2, 3)
    assert np.isfinite(clips[0].motion).all()
    np.testing.assert_array_equal(clips[0].frames, clips[1].frames)
    np.testing.assert_array_equal(clips[0].motion, clips[1].motion)


def test_clips_have_detail_at_their_difficulty_and_labels_of_all_classes():
    clips = [render_clip(s, num_frames=2, size=(32, 32), pictures=PICTURES, difficulty=1.0) for s in range(80)]
    assert {clip.label for clip in clips} == set(range(len(CLASSES)))
    assert np.mean([clip.frames.std() > 8 for clip in clips]) > 0.95


def test_bars_are_black_and_the_scene_lies_between_them():
    found = 0
    for seed in range(60):
        clip = render_clip(seed, num_frames=3, size=(64, 64), pictures=PICTURES, difficulty=1.0)
        rows = clip.frames.max(axis=(0, 2, 3))
        if max(rows[0], rows[-1]) < 12 and rows[32] > 40:  # one dark edge may be the scene's
            found += 1
            np.testing.assert_array_equal(rows < 40, rows[::-1] < 40)  # compression rings at the scene's edge
    assert found


def test_a_static_camera_does_not_move_though_things_may():
    moved = 0.0
    for seed in range(40):
        clip = render_clip(seed, num_frames=8, size=(64, 64), pictures=PICTURES, label=0, difficulty=1.0)
        corner = np.array([32.0, 32.0, 1.0])
        assert np.abs(clip.motion @ corner - corner[:2]).max() < 1.2
        moved = max(moved, float(np.abs(clip.frames[-1].astype(int) - clip.frames[0]).max(axis=-1).mean()))
    assert moved > 15  # things, and light


def test_a_frame_that_is_shown_twice_does_not_move(monkeypatch):
    monkeypatch.setattr(render_module, "_shown_frames", lambda *arguments: np.array([0, 1, 1, 3]))
    label = CLASSES.index("pan right")
    clip = render_clip(3, num_frames=4, size=(48, 64), pictures=PICTURES, label=label, difficulty=0.0)
    np.testing.assert_array_equal(clip.frames[1], clip.frames[2])
    np.testing.assert_allclose(clip.motion[1], np.eye(2, 3), atol=1e-6)
    assert (clip.motion[[0, 2], 0, 2] < -1).all()


def test_what_hardly_moves_is_not_blurred():
    still, fast = np.tile(np.eye(2, 3), (3, 1, 1)), np.tile([[1.0, 0, 9], [0, 1, 0]], (3, 1, 1))
    shutters = [
        [render_module._shutter(np.random.default_rng(seed), steps, (48, 64), 1.0) for seed in range(40)]
        for steps in (still, fast)
    ]
    assert not any(shutters[0])
    assert 10 < np.count_nonzero(shutters[1]) < 30
    assert max(shutters[1]) <= 0.8


def test_light_drifts_over_a_clip_and_noise_has_the_strength_that_was_drawn():
    grey = np.full((8, 40, 40, 3), 128, np.uint8)
    changes = []
    for seed in range(20):
        means = render_module._develop(np.random.default_rng(seed), grey, 1.0).mean(axis=(1, 2, 3))
        changes.append(abs(means[-1] - means[0]))
    assert np.median(changes) > 3
    noisy = render_module._add_noise(np.random.default_rng(0), grey, 8.0).astype(float)
    assert noisy.std() == pytest.approx(8, rel=0.05)


def test_a_tall_clip_survives_jpeg_in_several_parts(monkeypatch):
    clip = np.random.default_rng(0).integers(100, 110, (9, 16, 16, 3), dtype=np.uint8)
    whole = render_module._compress(clip, 80)
    assert whole.shape == clip.shape
    assert np.abs(whole.astype(int) - clip).mean() < 4


@pytest.mark.parametrize(("num_frames", "size"), [(1, (32, 32)), (4, (8, 32))])
def test_clips_too_short_or_small_are_refused(num_frames, size):
    with pytest.raises(ValueError, match="2 frames of 16 pixels"):
        render_clip(0, num_frames=num_frames, size=size, pictures=PICTURES)
