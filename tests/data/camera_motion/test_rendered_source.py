"""Clips that are rendered while training."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualformer_cli.config.load import load_config
from dualformer_cli.config.schema import ClipConfig, DataConfig, RenderConfig
from dualformer_cli.data.camera_motion import rendered_source
from dualformer_cli.data.camera_motion.classes import CLASSES, PAN_RIGHT, STATIC
from dualformer_cli.data.camera_motion.rendered_source import RenderedClips, check_rendering, rendered_list
from dualformer_cli.data.clips.epoch_plan import BatchPlan, epoch_order
from dualformer_cli.data.clips.loader import Batch, training_steps
from dualformer_cli.errors import ConfigError
from dualformer_cli.system.workers import Outcome, WorkerPool

DATA = DataConfig(
    clip=ClipConfig(num_frames=6),
    crop_size=32,
    render=RenderConfig(num_clips=50, difficulty=0.0, without_motion=0.2),
)
CLIPS = RenderedClips(data=DATA, pictures=(), epoch=0)


@given(st.integers(1, 500), st.sampled_from((0.0, 0.04, 0.5)))
def test_classes_take_turns_and_the_last_clips_have_none(num_clips: int, without_motion: float) -> None:
    render = RenderConfig(num_clips=num_clips, without_motion=without_motion)
    clips = replace(CLIPS, data=replace(DATA, render=render))
    labels = [clips.label(number) for number in range(num_clips)]
    count = num_clips - labels.count(None)
    assert count == round(num_clips * (1 - without_motion))
    assert labels[:count] == [number % len(CLASSES) for number in range(count)]
    assert clips.labels == [() if label is None else (label,) for label in labels]


def test_a_clip_follows_from_its_seed_and_every_other_one_is_the_mirror_image() -> None:
    first = CLIPS.render(PAN_RIGHT, [(1, 2), (1, 3)])
    again = CLIPS.render(PAN_RIGHT, [(1, 2), (9, 9)])
    other = CLIPS.render(PAN_RIGHT, [(2, 2)])
    assert first.clips.shape == (2, 6, 32, 32, 3)
    assert np.array_equal(first.clips, again.clips)
    assert not np.array_equal(first.clips[:1], other.clips)
    assert np.array_equal(first.clips[1], first.clips[0, :, :, ::-1])
    assert first.flipped.tolist() == [False, True]
    assert (first.motion[0, :, 0, 2] < 0).all()  # a pan right moves the content left
    point = np.array([5.0, 3.0, 1.0])
    moved, mirrored = first.motion[0] @ point, first.motion[1] @ (point * (-1, 1, 1))
    np.testing.assert_allclose(mirrored, moved * (-1, 1), atol=1e-4)


def test_a_mirrored_motion_has_x_the_other_way_round() -> None:
    motion = np.array([[[1, 2, 3], [4, 5, 6]]], np.float32)
    assert rendered_source._mirror(motion).tolist() == [[[1, -2, -3], [-4, 5, 6]]]


def test_clips_are_the_middle_of_wide_and_sometimes_of_tall_frames() -> None:
    rng = np.random.default_rng(0)
    sizes = [CLIPS._size(rng) for _ in range(300)]
    assert set(sizes) == {(32, 32), (32, 43), (32, 57), (57, 32)}
    assert 30 < sizes.count((57, 32)) < 70  # one in six
    rows, columns = np.mgrid[:57, :40].astype(np.uint8)
    middle = CLIPS._middle(np.stack([rows, columns, rows], axis=-1)[None])
    assert middle.shape == (1, 32, 32, 3)
    assert middle[0, 0, 0].tolist() == [12, 4, 12]


def test_the_difficulty_of_a_clip_is_three_tenths_of_the_most_at_least() -> None:
    data = replace(DATA, render=replace(DATA.render, difficulty=0.5))
    clips, rng = replace(CLIPS, data=data, epoch=1000), np.random.default_rng(0)
    drawn = [clips._drawn_difficulty(rng) / 0.5 for _ in range(500)]
    assert 0.3 <= min(drawn) < 0.35
    assert 0.99 < max(drawn) <= 1
    assert np.mean(drawn) == pytest.approx(1 - 0.7 / 3, abs=0.03)


def test_cuts_are_in_the_middle_half_of_a_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    colours = itertools.count()

    def one_colour(*_: Any) -> Any:
        return np.full((6, 32, 32, 3), next(colours) % 200, np.uint8), None

    monkeypatch.setattr(RenderedClips, "_with_motion", one_colour)
    cuts = Counter[int]()
    for seed in range(150):
        frames, motion = CLIPS._without_motion(np.random.default_rng(seed))
        of_frames = frames[:, 0, 0, 0]
        if (frames == of_frames[:, None, None, None]).all() and len(set(of_frames)) == 2:
            assert np.isnan(motion).all()
            cuts[int((of_frames == of_frames[0]).sum())] += 1
    assert set(cuts) == {1, 2, 3, 4}
    assert 30 < cuts.total() < 75  # of 52


def test_static_has_as_many_turns_as_are_asked_for() -> None:
    render = RenderConfig(num_clips=24, without_motion=0.0, static_turns=3)
    clips = replace(CLIPS, data=replace(DATA, render=render))
    labels = [clips.label(number) for number in range(24)]
    assert [labels.count(label) for label in range(len(CLASSES))] == [6, *9 * [2]]


def test_clips_whose_motion_has_no_name_are_noise_one_colour_cuts_and_mixtures() -> None:
    counts = dict.fromkeys(("one colour", "noise or cut", "mixed"), 0)
    for seed in range(80):
        rendered = CLIPS.render(49, [(seed,)])
        if np.isfinite(rendered.motion).all():
            counts["mixed"] += 1
            assert np.abs(rendered.motion - np.eye(2, 3)).max() > 0.001
        else:
            assert np.isnan(rendered.motion).all()
            counts["one colour" if rendered.clips.std(axis=(0, 1, 2, 3)).max() == 0 else "noise or cut"] += 1
    assert 2 <= counts["one colour"] <= 20
    assert 25 <= counts["noise or cut"] <= 55
    assert 18 <= counts["mixed"] <= 48


def test_no_clip_with_a_name_shows_one_colour() -> None:
    rendered = [CLIPS.render(STATIC, [(seed,)]) for seed in range(60)]
    assert min(clips.clips.std(axis=(0, 1, 2, 3)).max() for clips in rendered) > 2


def test_scenes_become_busy_as_the_difficulty_rises() -> None:
    """The share is that of the configuration once the clips are as difficult as they get."""
    render = RenderConfig(num_clips=50, difficulty=0.5, busy=1.0, easy_epochs=2)
    seeds = [[(seed,)] for seed in range(12)]

    def changed(epoch: int) -> list[bool]:
        clips = replace(CLIPS, data=replace(DATA, render=render), epoch=epoch)
        plain = replace(clips, data=replace(DATA, render=replace(render, busy=0.0)))
        return [not np.array_equal(clips.render(0, s).clips, plain.render(0, s).clips) for s in seeds]

    assert not any(changed(0))
    assert 2 <= sum(changed(1)) <= 10
    assert sum(changed(2)) == 12


class HerePool:
    """Does the workers' jobs in this process."""

    def imap(self, function: Callable[[Any], Any], items: Iterable[Any], *, ahead: int) -> Iterator[Outcome[Any, Any]]:
        return (Outcome(item, function(item)) for item in items)


def read_epoch(pool: Any, *, epoch: int = 0, first_step: int = 0) -> list[Batch]:
    num_clips = DATA.render.num_clips
    batches = BatchPlan(num_samples=num_clips, batch_size=20, accumulation=1, rank=0, world_size=1, repeats=2)
    steps = training_steps(
        CLIPS,
        batches,
        pool,
        order=epoch_order(num_clips, seed=5, epoch=epoch),
        seed=5,
        epoch=epoch,
        first_step=first_step,
    )
    return [batch for step in steps for batch in step]


def test_batches_are_the_same_in_other_processes_and_from_the_middle() -> None:
    with WorkerPool(2, 60.0) as pool:
        two = read_epoch(pool)
    one, later = read_epoch(HerePool()), read_epoch(HerePool(), first_step=3)
    assert [len(batch.clips) for batch in one] == 5 * [20]
    for first, second in ((one, two), (one[3:], later)):
        for a, b in zip(first, second, strict=True):
            assert a.samples == b.samples
            assert np.array_equal(a.clips, b.clips)
            assert a.motion is not None
            assert np.array_equal(a.motion, b.motion, equal_nan=True)  # type: ignore[arg-type]
    assert not np.array_equal(one[0].clips, read_epoch(HerePool(), epoch=1)[0].clips)


def test_a_motion_that_does_not_fit_the_frame_is_no_clip() -> None:
    with pytest.raises(ValueError, match="16 pixels"):
        replace(CLIPS, data=replace(DATA, crop_size=8)).render(0, [(1,)])


def test_difficulty_rises_over_the_easy_epochs() -> None:
    data = load_config("camera-motion", overrides=["data.render.easy_epochs=4"], environ={}).config.data
    found = [RenderedClips(data=data, pictures=(), epoch=epoch).difficulty for epoch in range(6)]
    assert found == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_every_epoch_has_other_pictures() -> None:
    first, second = (replace(CLIPS, epoch=epoch).render(PAN_RIGHT, [(1, 2)]) for epoch in (0, 1))
    assert np.array_equal(first.motion, second.motion)  # type: ignore[arg-type]
    assert not np.array_equal(first.clips, second.clips)


def test_the_list_of_rendered_clips_has_as_many_of_each_class_and_changes_its_fingerprint_with_the_recipe() -> None:
    data = load_config("camera-motion", environ={}).config.data
    listed = rendered_list(data, ())
    counts = np.bincount([labels[0] for labels in listed.labels if labels])
    assert len(listed) == data.render.num_clips
    static, *others = counts.tolist()
    assert static == pytest.approx(3 * others[0], abs=2)
    assert max(others) - min(others) <= 1
    assert sum(counts) == round(0.9 * len(listed))
    for change in ({"difficulty": 0.5}, {"busy": 0.1}, {"static_turns": 2}, {"without_motion": 0.2}):
        other = replace(data, render=replace(data.render, **change))
        assert rendered_list(other, ()).fingerprint != listed.fingerprint


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.mixup_alpha=0.2", r"train.mixup_alpha must be 0 where clips are rendered, got 0.2"),
        ("train.rand_augment_ops=2", r"train.rand_augment_ops must be 0 where clips are rendered, got 2"),
        ("data.multi_label=true", r"data.multi_label must be false where clips are rendered"),
    ],
)
def test_what_rendered_clips_cannot_be_used_with_is_refused(override: str, message: str) -> None:
    config = load_config("camera-motion", overrides=[override], environ={}).config
    with pytest.raises(ConfigError, match=message):
        check_rendering(config.data, config.train)
