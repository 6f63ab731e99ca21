"""Busy scenes: much moves, the background alone shows the camera, and scenes that are not busy stay as they were."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dualformer_cli.data.camera_motion import busy
from dualformer_cli.data.camera_motion import render as render_module
from dualformer_cli.data.camera_motion.classes import CLASSES, PAN_RIGHT, STATIC
from dualformer_cli.data.camera_motion.layers import View
from dualformer_cli.data.camera_motion.paths import PAN_SHARE, ROLL_RADIANS, ZOOM_LOG, mixed_path
from dualformer_cli.data.camera_motion.pictures import Picture, PictureSource
from dualformer_cli.data.camera_motion.render import RenderedClip, render_clip

PICTURES = PictureSource(seed=9, num_drawn=24, side=128)


def render(seed: int, *, label: int, busy: float, difficulty: float = 0.0) -> RenderedClip:
    return render_clip(
        seed, num_frames=8, size=(48, 64), pictures=PICTURES, label=label, difficulty=difficulty, busy=busy
    )


@pytest.mark.parametrize("difficulty", [0.0, 1.0])
def test_clips_that_are_not_busy_are_the_same_for_any_share(difficulty):
    num_same = 0
    for seed in range(20):
        plain, mixed = (render(seed, label=seed % len(CLASSES), busy=busy, difficulty=difficulty) for busy in (0, 0.5))
        assert np.array_equal(plain.motion, mixed.motion)
        num_same += np.array_equal(plain.frames, mixed.frames)
    assert 4 <= num_same <= 16


def test_before_a_camera_that_stands_still_things_move_and_much_of_the_background_stays(monkeypatch):
    monkeypatch.setattr(render_module, "_ROLLING", 0.0)
    moving, still = [], []
    for seed in range(40):
        frames = render(seed, label=STATIC, busy=1.0).frames.astype(int)
        changes = np.abs(np.diff(frames, axis=0)).max(axis=3) > 2
        moving.append(changes.any(axis=0).mean())
        still.append(1 - changes.mean())  # of one step
    assert np.mean(np.array(moving) > 0.01) > 0.9
    assert min(still) > 0.2
    assert max(moving) > 0.3


def test_behind_what_moves_the_background_goes_where_the_camera_says():
    """Of a pan without zoom, most points of the background lie one step further in the next frame."""
    agreed = []
    for seed in range(12):
        plain, busy = (render(seed, label=PAN_RIGHT, busy=busy) for busy in (0, 1))
        same = np.abs(plain.frames.astype(int) - busy.frames).max(axis=3) < 3
        agreed.append(same.mean())
        assert np.array_equal(plain.motion, busy.motion)
    assert min(agreed) > 0.4
    assert np.median(agreed) < 0.98


def test_the_picture_of_a_rolling_card_moves_and_the_camera_does_not(monkeypatch):
    monkeypatch.setattr(render_module, "_CARDS", 1.0)
    moved = {}
    for rolling in (0.0, 1.0):
        monkeypatch.setattr(render_module, "_ROLLING", rolling)
        clips = [render(seed, label=STATIC, busy=1.0) for seed in range(20)]
        for clip in clips:
            np.testing.assert_allclose(clip.motion, np.tile(np.eye(2, 3), (7, 1, 1)), atol=1e-6)
        moved[rolling] = np.mean([(clip.frames[0] != clip.frames[-1]).any(axis=-1).mean() for clip in clips])
    assert moved[1.0] > 2 * moved[0.0]


def test_maps_one_after_the_other_do_the_first_one_first():
    turn, grow = np.array([[0.0, -1, 5], [1, 0, 0]]), np.array([[2.0, 0, 0], [0, 1, 3]])
    point = np.array([1.0, 10])  # turned and moved it is at (-5, 1)
    assert (busy._after(grow, turn) @ [*point, 1]).tolist() == [-10, 4]


def test_waves_leave_the_border_where_it_is_and_reach_their_share():
    offsets = busy._random_waves(np.random.default_rng(0), 8, (48, 64), most=0.1).offsets
    inner = offsets[:, 1:-1, 1:-1]
    assert inner.any(axis=-1).all()
    assert (np.abs(inner) <= [6.4, 4.8]).all()
    offsets[:, 1:-1, 1:-1] = 0
    assert not offsets.any()


@pytest.mark.parametrize(("is_body", "column"), [(True, 22), (False, 32)])
def test_the_outline_of_a_body_goes_with_it_and_that_of_a_river_stays(is_body, column):
    """The content is 10 pixels left of where it was, as seen from the frame: what is there came from the right."""
    white = Picture(Image.new("RGB", (300, 300), "white"))
    view = View(white, np.eye(2), np.array([150.0, 150]), (48, 64), 0)
    mask = Image.new("L", (192, 192))
    mask.paste(255, (90, 86, 102, 106))
    inside, place = np.array([[[1.0, 0, 10], [0, 1, 0]]]), np.eye(2, 3)[None]
    frame = Image.new("RGB", (64, 48))
    busy.Region(view, inside, place, mask, is_body, None).paste([frame], place, np.array([0]))
    painted = np.nonzero(np.asarray(frame)[..., 0] > 128)
    assert painted[1].mean() + 0.5 == pytest.approx(column, abs=0.6)
    assert painted[0].mean() + 0.5 == pytest.approx(24, abs=0.6)


def test_a_swarm_stands_in_the_scene_that_the_camera_passes():
    at_middle = np.zeros((1, 1))
    colours = [(255, 255, 255)] * 2
    swarm = busy.Swarm(at_middle, at_middle, at_middle + 4, np.zeros((1, 2)), 1.0, colours, 1.5)
    frame = Image.new("RGB", (64, 48))
    swarm.paste([frame], np.array([[[1.0, 0, 8], [0, 1, 0]]]), np.array([0]))
    assert np.nonzero(np.asarray(frame)[..., 0])[1].mean() == pytest.approx(32 - 1.5 * 8, abs=0.6)


def test_the_same_seed_gives_the_same_busy_clip():
    first, again, other = (render(seed, label=STATIC, busy=1.0, difficulty=1.0) for seed in (3, 3, 4))
    assert np.array_equal(first.frames, again.frames)
    assert not np.array_equal(first.frames, other.frames)


def test_a_mixed_path_has_two_motions_of_like_strength_or_comes_back():
    kinds = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        path = mixed_path(rng, num_frames=33, size=(90, 160), difficulty=0.0)
        moves = (path.x / 160, path.y / 90, path.zoom, path.angle)
        least = (PAN_SHARE[1][0], PAN_SHARE[1][0], ZOOM_LOG[1][0], ROLL_RADIANS[1][0])
        peaks = sorted(float(np.abs(move).max()) / small for move, small in zip(moves, least, strict=True))
        net = max(abs(float(move[-1])) / small for move, small in zip(moves, least, strict=True))
        assert peaks[0] == peaks[1] == 0
        assert peaks[3] > 0.75
        if peaks[2]:
            kinds.add("two")
            assert peaks[2] > 0.6 * peaks[3]
        else:
            kinds.add("and back")
            assert net < 0.05 * peaks[3]
    assert kinds == {"two", "and back"}
