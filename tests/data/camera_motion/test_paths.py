"""What a camera does in each class, told from its path alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualformer_cli.data.camera_motion import paths as paths_module
from dualformer_cli.data.camera_motion.classes import CLASSES
from dualformer_cli.data.camera_motion.paths import (
    MOVING_JITTER,
    PAN_SHARE,
    ROLL_RADIANS,
    SHAKE_SHARE,
    STATIC_JITTER,
    ZOOM_LOG,
    mixed_path,
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


def test_easy_pans_are_wide_and_clean_and_hard_ones_slow_to_fast_with_drift():
    easy = [draw(seed, "pan right", 16, 0.0) for seed in range(60)]
    assert all(0.45 <= path.x[-1] / 80 <= 0.9 for path in easy)
    assert not any(path.y.any() or path.zoom.any() or path.angle.any() for path in easy)
    hard = [draw(seed, "pan right", 16, 1.0) for seed in range(200)]
    gone = [path.x[-1] / 80 for path in hard]
    assert min(gone) < 0.15
    assert max(gone) > 1.2
    assert max(abs(np.polyfit(np.linspace(0, 1, 16), path.angle, 1)[0]) for path in hard) > 0.03


def test_a_hand_trembles_before_a_still_scene_and_by_a_tenth_of_a_slow_motion_at_most():
    still = [draw(seed, "static", 16, 1.0) for seed in range(60)]
    assert 0.0015 < max(rms(path.x) for path in still) / 64 < 0.0031
    u = np.linspace(0, 1, 16)
    for path in (draw(seed, "zoom in", 16, 1.0) for seed in range(200)):
        trembling = rms(path.angle - np.polyval(np.polyfit(u, path.angle, 1), u))
        assert trembling <= path.zoom[-1] / 2 / 10 + 1e-9


@pytest.mark.parametrize("name", ["zoom in", "zoom out", "roll clockwise", "roll counter-clockwise"])
def test_a_zoom_or_roll_keeps_a_point_near_the_middle_in_its_place(name, monkeypatch):
    monkeypatch.setattr(paths_module, "_tremble", lambda rng, num_frames, **options: np.zeros(num_frames))
    points = []
    for seed in range(20):
        late = draw(seed, name, 16, 1.0).matrices()[8:]
        fixed = np.linalg.solve(np.eye(2) - late[:, :, :2], late[:, :, 2:])[..., 0]
        np.testing.assert_allclose(fixed, fixed[:1].repeat(8, axis=0), atol=1e-6)
        points.append(fixed[0])
    far = np.abs(points).max(axis=0) / (80, 64)
    assert (far > 0.1).all()
    assert (far <= 0.2 + 1e-9).all()


def test_trembling_goes_nowhere_and_no_faster_than_frames_can_show():
    for seed in range(20):
        swing = paths_module._tremble(np.random.default_rng(seed), 8)
        assert rms(swing) == pytest.approx(1)
        assert np.polyfit(np.arange(8), swing, 1) == pytest.approx([0, 0], abs=1e-9)

    class Recorded:
        ranges: list[tuple[float, float]] = []  # noqa: RUF012

        def uniform(self, low, high, size):
            self.ranges.append((low, high))
            return np.full(size, (low + high) / 2)

    paths_module._tremble(Recorded(), 8, lowest=2.0)
    assert Recorded.ranges[0] == pytest.approx((2.0, 0.35 * 8))  # cycles a clip


def test_a_mixture_is_two_motions_at_once_or_one_after_the_other_or_one_and_back():
    late = back = 0
    for seed in range(100):
        path = mixed_path(np.random.default_rng(seed), num_frames=17, size=SIZE, difficulty=0.0)
        motions = [values for values in (path.x / 80, path.y / 64, path.zoom, path.angle) if np.ptp(values) > 1e-6]
        if len(motions) == 1:
            back += 1
            assert abs(motions[0][-1]) < 1e-9
            assert abs(motions[0][8]) == pytest.approx(np.abs(motions[0]).max())
            continue
        assert len(motions) == 2
        starts = sorted(np.flatnonzero(np.abs(values) > 1e-9)[0] for values in motions)
        assert starts[0] == 1
        assert starts[1] in (1, 9)
        late += starts[1] == 9
    assert 18 <= back <= 42  # of 30
    assert 16 <= late <= 40  # of 28


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
