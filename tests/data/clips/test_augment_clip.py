"""RandAugment: what each op does, and that all frames of a clip are changed alike."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dualformer_cli.config.schema import RENDERED, DataConfig, TrainConfig
from dualformer_cli.data.camera_motion.rendered_source import check_rendering
from dualformer_cli.data.clips.augment_clip import CLIP_CHANGES, augment_clip, rand_augment
from dualformer_cli.errors import ConfigError

OPS = ["identity", "autocontrast", "equalize", "posterize", "solarize", "color", "contrast", "brightness"]
OPS += ["sharpness", "rotate", "shear_x", "shear_y", "translate_x", "translate_y"]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class Chosen:
    """Draws one op, in one direction."""

    def __init__(self, op, sign=1):
        self.op, self.sign = OPS.index(op), sign

    def integers(self, high):
        assert high == len(OPS)
        return self.op

    def random(self):
        return 0.0 if self.sign > 0 else 0.9


def augmented(op, clip, magnitude=10.0, sign=1):
    return rand_augment(clip, 1, magnitude, Chosen(op, sign))


@pytest.mark.parametrize("op", [op for op in OPS if op not in ("autocontrast", "equalize")])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_op_of_no_magnitude_changes_nothing(op, sign):
    clip = noise(2, 21, 21, 3)
    np.testing.assert_array_equal(augmented(op, clip, magnitude=0, sign=sign), clip)


@pytest.mark.parametrize("op", OPS[1:])
def test_every_op_but_one_changes_the_clip(op):
    clip = noise(2, 20, 20, 3) // 2
    got = augmented(op, clip)
    assert got.shape == clip.shape
    assert got.dtype == np.uint8
    assert (got != clip).any()


def test_ops_of_full_magnitude_do_what_they_say():
    clip = noise(2, 20, 20, 3)
    np.testing.assert_array_equal(augmented("identity", clip), clip)
    np.testing.assert_array_equal(augmented("solarize", clip), 255 - clip)
    np.testing.assert_array_equal(augmented("posterize", clip), clip & 0xF0)
    np.testing.assert_array_equal(augmented("translate_x", clip)[:, :, :-9], clip[:, :, 9:])
    np.testing.assert_array_equal(augmented("translate_x", clip, sign=-1)[:, :, 9:], clip[:, :, :-9])
    np.testing.assert_array_equal(augmented("translate_y", clip)[:, :-9], clip[:, 9:])
    assert (augmented("translate_y", clip)[:, -9:] == (124, 116, 104)).all()
    darker = augmented("brightness", clip, sign=-1)
    assert np.abs(darker - 0.1 * clip).max() <= 1
    grey = augmented("color", clip, sign=-1)
    assert np.ptp(grey.astype(int), axis=-1).max() <= 0.1 * 255 + 1


def test_ops_are_done_one_after_the_other():
    clip = noise(2, 20, 20, 3)
    twice = rand_augment(clip, 2, 10.0, Chosen("translate_x"))
    np.testing.assert_array_equal(twice[:, :, :2], clip[:, :, 18:])  # 9 of 20 columns each time


def test_a_shear_moves_the_rows_apart_and_keeps_the_middle():
    clip = np.zeros((1, 21, 21, 3), np.uint8)
    clip[:, :, 10] = 255
    got = augmented("shear_x", clip)
    columns = got[0, :, :, 0].argmax(axis=1)
    np.testing.assert_allclose(columns, 10 - 0.3 * (np.arange(21) - 10), atol=0.51)


def test_a_rotation_turns_about_the_middle_by_thirty_degrees():
    clip = np.zeros((1, 101, 101, 3), np.uint8)
    clip[:, 50, 90] = clip[:, 50, 50] = 255
    for sign in (1, -1):
        lit = {(y, x) for y, x in zip(*np.nonzero(augmented("rotate", clip, sign=sign)[0, :, :, 0]), strict=True)}
        assert (50, 50) in lit
        end = (50 + sign * 40 * math.sin(math.radians(30)), 50 + 40 * math.cos(math.radians(30)))
        assert any(math.dist(end, place) < 1 for place in lit), (sign, lit)


def test_histograms_are_taken_over_the_clip_so_that_it_does_not_flicker():
    clip = np.full((2, 8, 8, 3), 100, np.uint8)
    clip[1] = 150
    np.testing.assert_array_equal(augmented("autocontrast", clip)[:, 0, 0, 0], [0, 255])
    np.testing.assert_array_equal(np.argsort(augmented("equalize", clip)[:, 0, 0, 0]), [0, 1])


def test_sharpness_does_not_blend_one_frame_into_the_next():
    clip = np.zeros((4, 8, 8, 3), np.uint8)
    clip[::2] = 255
    np.testing.assert_array_equal(augmented("sharpness", clip, sign=-1), clip)


def test_the_recipe_decides_how_often_and_how_strongly_a_clip_is_changed():
    clip = noise(2, 16, 16, 3)
    assert augment_clip(clip, TrainConfig(rand_augment_ops=0), np.random.default_rng(1)) is clip
    for ops, magnitude in ((1, 4), (3, 9)):
        train = TrainConfig(rand_augment_ops=ops, rand_augment_magnitude=magnitude)
        expected = rand_augment(clip, ops, magnitude, np.random.default_rng(1))
        np.testing.assert_array_equal(augment_clip(clip, train, np.random.default_rng(1)), expected)
        assert (expected != clip).any()


def test_a_change_of_the_table_is_made_where_its_setting_is_on_and_refused_of_rendered_clips(monkeypatch):
    monkeypatch.setitem(
        CLIP_CHANGES, "log_every_steps", lambda clip, train, rng: clip + np.uint8(train.log_every_steps)
    )
    monkeypatch.setitem(CLIP_CHANGES, "ema_decay", lambda clip, train, rng: clip * np.uint8(0))  # off
    clip, train = np.ones((2, 4, 4, 3), np.uint8), TrainConfig(log_every_steps=3)
    np.testing.assert_array_equal(augment_clip(clip, train, np.random.default_rng(1)), np.full_like(clip, 4))
    with pytest.raises(ConfigError, match=r"train.log_every_steps must be 0 where clips are rendered, got 3"):
        check_rendering(DataConfig(train_list=RENDERED), train)
