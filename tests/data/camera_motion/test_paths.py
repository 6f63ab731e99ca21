"""What a camera does in each class, told from its path alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualformer_cli.data.camera_motion.classes import CLASSES
from dualformer_cli.data.camera_motion.paths import (
    MOVING_JITTER,
    PAN_SHARE,
    ROLL_RADIANS,
    SHAKE_SHARE,
    STATIC_JITTER,
    ZOOM_LOG,
    random_path,
)
from dualformer_cli.data.lists.class_lists import load_class_names

SIZE = (64, 80)

paths = given(
    seed=st.integers(0, 2**31),
    num_frames=st.sampled_from([8, 16, 32, 61]),
    difficulty=st.floats(0, 1),
)


def draw(seed, name, num_frames, difficulty):
    rng = np.random.default_rng(seed)
    return random_path(rng, CLASSES.index(name), num_frames=num_frames, size=SIZE, difficulty=difficulty)


def rms(values):
    return float(np.sqrt(np.mean((values - values.mean()) ** 2)))


def test_the_shipped_class_list_has_the_classes_in_their_order():
    assert load_class_names("camera_motion") == list(CLASSES)


@paths
@settings(max_examples=60, deadline=None)
def test_a_pan_or_tilt_goes_its_way_and_hardly_another(seed, num_frames, difficulty):
    for name, axis, sign in (
        ("pan left", "x", -1),
        ("pan right", "x", 1),
        ("tilt up", "y", -1),
        ("tilt down", "y", 1),
    ):
        path = draw(seed, name, num_frames, difficulty)
        along, across = (path.x, path.y) if axis == "x" else (path.y, path.x)
        length = SIZE[1] if axis == "x" else SIZE[0]
        gone = sign * along[-1] / length
        trembling = 8 * MOVING_JITTER * min(SIZE) / length
        assert PAN_SHARE[1][0] - trembling < gone < PAN_SHARE[1][1] + trembling
        assert abs(across[-1]) < 0.35 * abs(along[-1]) + 1
        assert abs(path.zoom[-1]) < 0.1
        assert abs(path.angle[-1]) < 0.12


@paths
@settings(max_examples=60, deadline=None)
def test_a_zoom_or_roll_goes_its_way_without_a_step_back(seed, num_frames, difficulty):
    for name, sign in (("zoom in", 1), ("zoom out", -1)):
        zoom = sign * draw(seed, name, num_frames, difficulty).zoom
        assert ZOOM_LOG[1][0] - 1e-9 <= zoom[-1] <= ZOOM_LOG[1][1] + 1e-9
        assert (np.diff(zoom) >= -1e-9).all()
    for name, sign in (("roll clockwise", 1), ("roll counter-clockwise", -1)):
        angle = sign * draw(seed, name, num_frames, difficulty).angle
        assert ROLL_RADIANS[1][0] - 0.05 <= angle[-1] <= ROLL_RADIANS[1][1] + 0.05


@paths
@settings(max_examples=60, deadline=None)
def test_a_shake_swings_and_a_static_camera_hardly_trembles(seed, num_frames, difficulty):
    side = min(SIZE)
    shake, still = draw(seed, "shake", num_frames, difficulty), draw(seed, "static", num_frames, difficulty)
    swing = np.hypot(rms(shake.x), rms(shake.y)) / side
    assert 0.9 * SHAKE_SHARE[1][0] < swing < 1.6 * SHAKE_SHARE[1][1]
    assert np.hypot(rms(still.x), rms(still.y)) / side <= 1.5 * STATIC_JITTER
    assert not still.zoom.any()
    turns = np.diff(np.sign(np.diff(shake.x * np.cos(1) + shake.y * np.sin(1))))
    assert np.count_nonzero(turns) >= 2


def test_matrices_take_a_point_of_the_frame_to_where_the_camera_looks():
    path = draw(3, "roll clockwise", 16, 0.0)
    last = path.matrices()[-1]
    right = last @ np.array([1.0, 0, 1]) - last @ np.array([0.0, 0, 1])
    # the camera's right hand side has turned clockwise, so it points down in the scene
    assert right[1] > 0.4
    grown = draw(3, "zoom in", 16, 0.0).matrices()[-1]
    assert np.linalg.det(grown[:, :2]) < 0.5


@pytest.mark.parametrize(("label", "difficulty"), [(10, 0.5), (-1, 0.5), (0, 1.5), (0, -0.1)])
def test_values_out_of_range_are_named(label, difficulty):
    with pytest.raises(ValueError, match=r"must be 0 to \d+, got"):
        random_path(np.random.default_rng(0), label, num_frames=4, size=SIZE, difficulty=difficulty)
