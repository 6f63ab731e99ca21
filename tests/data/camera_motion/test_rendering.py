"""Clips that are rendered while training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualformer_cli.data.camera_motion.paths import PAN_RIGHT, STATIC
from dualformer_cli.data.camera_motion.rendering import RenderPlan, render_training_clips
from dualformer_cli.data.camera_motion.scenes import CLASSES
from dualformer_cli.data.clips.augment import TrainPlan
from dualformer_cli.data.clips.loader import Batch, BatchPlan, epoch_order, training_steps
from dualformer_cli.data.lists.samples import Sample
from dualformer_cli.system.workers import Outcome, WorkerPool

PLAN = RenderPlan(num_clips=50, num_frames=6, size=32, difficulty=0.0, without_motion=0.2, pictures=(), stock=0)
TRAIN = TrainPlan(
    num_frames=6,
    frame_interval=1,
    sampling="interval",
    short_side=32,
    crop_size=32,
    area=(1.0, 1.0),
    aspect=(1.0, 1.0),
    flip=0.0,
    antialias=True,
    min_frames=2,
    decoder="pyav",
    frame_rate=None,
    rand_augment_ops=0,
    rand_augment_magnitude=0,
    repeats=2,
    flip_labels=(),
    render=PLAN,
)


@given(st.integers(1, 500), st.sampled_from((0.0, 0.04, 0.5)))
def test_classes_take_turns_and_the_last_clips_have_none(num_clips: int, without_motion: float) -> None:
    plan = replace(PLAN, num_clips=num_clips, without_motion=without_motion)
    labels = [plan.label(number) for number in range(num_clips)]
    count = num_clips - labels.count(None)
    assert count == round(num_clips * (1 - without_motion))
    assert labels[:count] == [number % len(CLASSES) for number in range(count)]


def test_a_clip_follows_from_its_seed_and_every_other_one_is_the_mirror_image() -> None:
    first = render_training_clips(PLAN, PAN_RIGHT, [(1, 2), (1, 3)])
    again = render_training_clips(PLAN, PAN_RIGHT, [(1, 2), (9, 9)])
    other = render_training_clips(PLAN, PAN_RIGHT, [(2, 2)])
    assert first.clips.shape == (2, 6, 32, 32, 3)
    assert np.array_equal(first.clips, again.clips)
    assert not np.array_equal(first.clips[:1], other.clips)
    assert np.array_equal(first.clips[1], first.clips[0, :, :, ::-1])
    assert first.flipped.tolist() == [False, True]
    assert (first.motion[0, :, 0, 2] < 0).all()  # a pan right moves the content left
    point = np.array([5.0, 3.0, 1.0])
    moved, mirrored = first.motion[0] @ point, first.motion[1] @ (point * (-1, 1, 1))
    np.testing.assert_allclose(mirrored, moved * (-1, 1), atol=1e-4)


def test_clips_without_a_motion_say_so() -> None:
    for seed in range(6):
        rendered = render_training_clips(PLAN, 49, [(seed,)])
        assert np.isnan(rendered.motion).all()
        assert rendered.clips[0].std() > 5


def test_some_static_clips_show_one_colour() -> None:
    rendered = [render_training_clips(PLAN, STATIC, [(seed,)]) for seed in range(80)]
    flat = [clips for clips in rendered if clips.clips.std(axis=(0, 1, 2, 3)).max() == 0]
    assert 0 < len(flat) < 20
    assert all((clips.motion == np.eye(2, 3)).all() for clips in flat)


class HerePool:
    """Does the workers' jobs in this process."""

    def imap(self, function: Callable[[Any], Any], items: Iterable[Any], *, ahead: int) -> Iterator[Outcome[Any, Any]]:
        return (Outcome(item, function(item)) for item in items)


def read_epoch(pool: Any, *, epoch: int = 0, first_step: int = 0) -> list[Batch]:
    names = [str(number) for number in range(PLAN.num_clips)]
    batches = BatchPlan(num_samples=len(names), batch_size=20, accumulation=1, rank=0, world_size=1, repeats=2)
    steps = training_steps(
        [Sample(name) for name in names],
        names,
        TRAIN,
        batches,
        pool,
        order=epoch_order(len(names), seed=5, epoch=epoch),
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


def test_a_motion_that_does_not_fit_the_plan_is_no_clip() -> None:
    with pytest.raises(ValueError, match="16 pixels"):
        render_training_clips(replace(PLAN, size=8), 0, [(1,)])
