"""The picture that a camera moves over, and things in front of it: where they are in a frame."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dualformer_cli.data.camera_motion import render as render_module
from dualformer_cli.data.camera_motion.classes import CLASSES, STATIC
from dualformer_cli.data.camera_motion.layers import Thing, View, cut_out
from dualformer_cli.data.camera_motion.paths import random_path
from dualformer_cli.data.camera_motion.pictures import Picture, PictureSource
from dualformer_cli.data.camera_motion.render import render_clip

STILL = np.eye(2, 3)
WINDOW = (48, 64)
WHITE = Picture(Image.new("RGB", (256, 256), "white"))


def test_no_frame_looks_beyond_the_edge_of_the_picture():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        path = random_path(rng, seed % len(CLASSES), num_frames=8, size=WINDOW, difficulty=1.0)
        view = View.random(rng, WHITE, path.matrices(), WINDOW, 1.0)
        assert all(np.asarray(frame).min() == 255 for frame in view.render(path.matrices(), 0.0))


def test_pictures_are_mirrored_as_often_as_not_and_seldom_upside_down():
    views = [View.random(np.random.default_rng(seed), WHITE, STILL[None], WINDOW, 0.0) for seed in range(200)]
    assert 75 < sum(view.linear[0, 0] < 0 for view in views) < 125
    assert 20 < sum(view.linear[1, 1] < 0 for view in views) < 60  # one in five


def test_a_shutter_is_open_around_the_moment_of_its_frame(monkeypatch):
    seen: list[float] = []

    def frame(self, matrix):
        seen.append(matrix[0, 2])
        return Image.new("RGB", (64, 48), (30 * len(seen), 0, 0))

    monkeypatch.setattr(View, "frame", frame)
    pan = STILL + np.arange(3)[:, None, None] * np.array([[0, 0, 10.0], [0, 0, 0]])
    view = View(WHITE, np.eye(2), np.zeros(2), WINDOW, 0)
    first, *_ = view.render(pan, 0.5)
    assert seen == pytest.approx([-2.5, 0, 2.5, 7.5, 10, 12.5, 17.5, 20, 22.5])
    assert first.getpixel((0, 0)) == (60, 0, 0)  # the mean of 30, 60 and 90


def test_stripes_have_no_detail_and_a_chequerboard_has():
    columns = np.arange(256) // 16 % 2
    boards = {"stripes": np.tile(columns, (256, 1)), "squares": columns ^ columns[:, None]}
    views = {
        name: View(
            Picture(Image.fromarray(np.stack([255 * board] * 3, axis=-1).astype(np.uint8))),
            4 * np.eye(2),
            np.array([128.0, 128]),
            WINDOW,
            0,
        )
        for name, board in boards.items()
    }
    assert views["stripes"].detail(STILL) < 1
    assert views["squares"].detail(STILL) > 20


def test_views_without_detail_are_drawn_again(monkeypatch):
    details = iter([0.0, 5.9, 6.1])
    monkeypatch.setattr(View, "detail", lambda self, matrix: next(details))
    render_clip(0, num_frames=2, size=WINDOW, pictures=PictureSource(num_drawn=4, side=64), label=1, difficulty=0.0)
    assert list(details) == []


def painted(matrix, *, x=0.0, image=None):
    """Rows and columns of a frame, about its middle, that a white thing of 8 pixels covers."""
    frame = Image.new("RGB", (64, 48))
    image = Image.new("RGBA", (8, 8), "white") if image is None else image
    values = (np.array([value]) for value in (x, 0.0, 0.0, 1.0))
    Thing(image, *values, depth=1.5).paste([frame], np.array([matrix]), np.array([0]))
    rows, columns = np.nonzero(np.asarray(frame)[..., 0] > 128)
    return rows + 0.5 - 24, columns + 0.5 - 32


def test_a_thing_moves_grows_and_turns_as_the_scene_does():
    rows, columns = painted([[1.0, 0, 8], [0, 1, 0]])
    assert (rows.mean(), columns.mean()) == pytest.approx((0, -12), abs=0.3)  # it is nearer by half
    rows, columns = painted([[0.5, 0, 0], [0, 0.5, 0]], x=5.0)
    assert (rows.mean(), columns.mean()) == pytest.approx((0, 10), abs=0.3)
    assert len(rows) == pytest.approx(16 * 16, rel=0.15)
    half = Image.new("RGBA", (16, 16))
    half.paste("white", (8, 0, 16, 16))
    rows, columns = painted(STILL, image=half)
    assert (rows.mean(), columns.mean()) == pytest.approx((0, 4), abs=0.3)
    rows, columns = painted([[0.0, -1, 0], [1, 0, 0]], image=half)  # the camera turns clockwise
    assert (rows.mean(), columns.mean()) == pytest.approx((-4, 0), abs=0.3)


def test_a_round_thing_is_round():
    masks = {cut_out(np.random.default_rng(seed), WHITE, 20, shape=0).getchannel("A").tobytes() for seed in range(10)}
    assert len(masks) == 1
    alpha = np.frombuffer(masks.pop(), np.uint8).reshape(20, 20)
    assert (alpha > 128).sum() == pytest.approx(np.pi * 8**2, rel=0.1)  # it keeps 2 pixels from the edge


def test_easy_clips_have_nothing_in_front_and_hard_ones_mostly_something():
    pictures = PictureSource(num_drawn=4, side=64)
    counts = [
        [
            len(render_module._things(np.random.default_rng(seed), STATIC, 2, WINDOW, pictures, difficulty))
            for seed in range(40)
        ]
        for difficulty in (0.0, 1.0)
    ]
    assert not any(counts[0])
    assert 20 < np.count_nonzero(counts[1]) < 38  # of 29


def test_two_in_five_poorly_lit_clips_fade():
    grey = np.full((8, 16, 16, 3), 200, np.uint8)
    means = [render_module._darken(np.random.default_rng(s), grey).mean(axis=(1, 2, 3)) for s in range(60)]
    assert 12 < sum(abs(clip[-1] - clip[0]) > 25 for clip in means) < 36
    assert all(clip.mean() < 190 for clip in means)
